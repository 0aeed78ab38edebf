//! Half and double resolution by learned filters.

use super::Source;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::resize::{Coordinates, Interpolation};

/// A 3×3 convolution of stride two. `padding` 0 means, as in diffusers, a line of
/// zeros below and to the right alone. `x` is `[n, h, w, c]`.
pub fn downsample(g: &mut Graph, w: Source, name: &str, x: ValueId, padding: usize) -> Result<ValueId> {
    let c = g.shape(x).last();
    let padding = match padding {
        0 => [0, 0, 1, 1],
        p => [p; 4],
    };
    let options = Conv2dOptions { padding, ..Conv2dOptions::default().stride(2) };
    w.conv(g, &format!("{name}.conv"), x, c, 3, options)
}

/// Each pixel twice in both directions, then a 3×3 convolution. `x` is `[n, h, w, c]`.
pub fn upsample(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let [_, h, width, _] = g.shape(x)[..] else { unreachable!("the blocks before give feature maps") };
    upsample_to(g, w, name, x, [2 * h, 2 * width])
}

/// The same to a height and width that need not be twice as large, as where an odd one was halved.
pub fn upsample_to(g: &mut Graph, w: Source, name: &str, x: ValueId, size: [usize; 2]) -> Result<ValueId> {
    let [_, h, width, c] = g.shape(x)[..] else { unreachable!("the blocks before give feature maps") };
    let x = g.scoped(name, |g| match size == [2 * h, 2 * width] {
        true => g.upsample_nearest(x, 2),
        false => g.resize(x, size, Interpolation::Nearest, Coordinates::Asymmetric),
    })?;
    w.conv(g, &format!("{name}.conv"), x, c, 3, Conv2dOptions::padded(1))
}

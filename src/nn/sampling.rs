//! Half and double resolution by learned filters.

use super::Source;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::conv2d::Conv2dOptions;

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
    let c = g.shape(x).last();
    let x = g.scoped(name, |g| g.upsample_nearest(x, 2))?;
    w.conv(g, &format!("{name}.conv"), x, c, 3, Conv2dOptions::padded(1))
}

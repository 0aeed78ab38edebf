//! U-Net (Ronneberger et al. 2015) for segmentation, in the naming of milesial's Pytorch-UNet.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::conv_transpose2d::ConvTranspose2dOptions;
use crate::ops::expr::Unary;
use crate::ops::pool::PoolOptions;
use crate::ops::resize::{Coordinates, Interpolation};

/// Scores `[n, h, w, classes]` for `x` `[n, h, w, c]`; both sides must be a multiple of 16.
pub fn unet(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let mut skips = vec![double_conv(g, w, "inc", x)?];
    let mut level = 1;
    while w.has(&format!("down{level}.maxpool_conv.1.double_conv.0.weight")) {
        let name = format!("down{level}.maxpool_conv");
        let last = skips[level - 1];
        let h = g.scoped(&format!("{name}.0"), |g| g.max_pool(last, PoolOptions::square(2)))?;
        skips.push(double_conv(g, w, &format!("{name}.1"), h)?);
        level += 1;
    }
    let mut x = skips.pop().expect("the first is there");
    for (i, skip) in skips.into_iter().rev().enumerate() {
        let name = format!("up{}", i + 1);
        let h = enlarged(g, w, &format!("{name}.up"), x)?;
        let h = g.scoped(&name, |g| g.concat(&[skip, h], 3))?;
        x = double_conv(g, w, &format!("{name}.conv"), h)?;
    }
    w.stored_conv(g, "outc.conv", x, 1)
}

/// Twice as large: a transposed convolution if the file has one, else bilinear.
fn enlarged(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let [_, height, width, _] = g.shape(x)[..] else { unreachable!("convolutions keep feature maps") };
    if !w.has(&format!("{name}.weight")) {
        let size = [2 * height, 2 * width];
        return g.scoped(name, |g| g.resize(x, size, Interpolation::Bilinear, Coordinates::AlignCorners));
    }
    let shape: [usize; 4] = w.stored(name)?;
    let weight = w.get(g, &format!("{name}.weight"), &shape)?;
    let bias = w.stored_vector(g, &format!("{name}.bias"), shape[1])?;
    let options = ConvTranspose2dOptions { stride: [2; 2], ..Default::default() };
    g.scoped(name, |g| g.conv_transpose2d(x, weight, bias, options))
}

fn double_conv(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let at = |i: usize| format!("{name}.double_conv.{i}");
    let h = w.conv_norm(g, [&at(0), &at(1)], x, 1, 1e-5, Some(Unary::Relu))?;
    w.conv_norm(g, [&at(3), &at(4)], h, 1, 1e-5, Some(Unary::Relu))
}

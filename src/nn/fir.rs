//! Half and double resolution by a fixed filter of four taps, 1 3 3 1 in both directions, so that nothing is aliased
//! (Karras et al. 2020, arXiv:1912.04958; NCSN++ of Song et al. 2021, arXiv:2011.13456). Beyond the edges are zeros.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::conv_transpose2d::ConvTranspose2dOptions;
use crate::ops::conv2d::Conv2dOptions;
use crate::tensor::Tensor;

const TAPS: [f32; 4] = [1.0, 3.0, 3.0, 1.0];

/// The filter for each channel of `x`, with a sum of `gain`: `[c, 1, 4, 4]`, which a transposed convolution reads alike.
fn filter(g: &mut Graph, x: ValueId, gain: f32) -> Result<ValueId> {
    let (c, dtype) = (g.shape(x).last(), g.desc(x).dtype);
    let sum: f32 = TAPS.iter().sum();
    let taps = TAPS.iter().flat_map(|a| TAPS.map(|b| gain * a * b / (sum * sum)));
    let taps: Vec<f32> = taps.cycle().take(c * TAPS.len() * TAPS.len()).collect();
    let weight = g.weight("fir", Tensor::from_f32([c, 1, TAPS.len(), TAPS.len()], &taps));
    g.cast(weight, dtype)
}

/// `[n, h, w, c]` → `[n, h / 2, w / 2, c]`: diffusers' `FirDownsample2D` without a convolution.
pub fn fir_downsample(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let weight = filter(g, x, 1.0)?;
    let options = Conv2dOptions::padded(1).stride(2).groups(g.shape(x).last());
    g.conv2d(x, weight, None, options)
}

/// `[n, h, w, c]` → `[n, 2 h, 2 w, c]`: diffusers' `FirUpsample2D` without a convolution.
pub fn fir_upsample(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    // A quarter of the pixels that the filter meets are not zeros.
    let weight = filter(g, x, 4.0)?;
    let (stride, padding) = ([2; 2], [1; 4]);
    let groups = g.shape(x).last();
    let options = ConvTranspose2dOptions { stride, padding, groups, ..ConvTranspose2dOptions::default() };
    g.conv_transpose2d(x, weight, None, options)
}

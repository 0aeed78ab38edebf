//! The residual block of diffusion UNets.

use super::{Source, fir_downsample, fir_upsample};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::{Binary, Expr};
use crate::ops::pool::PoolOptions;
use crate::ops::strided::Range;

/// What the blocks of a network have in common.
#[derive(Clone, Copy, Debug)]
pub struct ResnetOptions {
    pub groups: usize,
    pub eps: f32,
}

/// norm → SiLU → 3×3 → + time → norm → SiLU → 3×3, then + `x` (through a 1×1
/// convolution where the channels change): diffusers' `ResnetBlock2D`.
/// `x` is `[n, h, w, c]`, `time` `[n or 1, t]`, already activated.
pub fn resnet_block(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    time: Option<ValueId>,
    c_out: usize,
    options: ResnetOptions,
) -> Result<ValueId> {
    let at = |part: &str| format!("{name}.{part}");
    let h = w.group_norm(g, &at("norm1"), x, options.groups, options.eps)?;
    let h = g.silu(h)?;
    let mut h = w.conv(g, &at("conv1"), h, c_out, 3, Conv2dOptions::padded(1))?;
    if let Some(time) = time {
        let shift = w.linear(g, &at("time_emb_proj"), time, c_out)?;
        let shift = g.reshape(shift, [g.shape(shift)[0], 1, 1, c_out])?;
        h = g.add(h, shift)?;
    }
    let h = w.group_norm(g, &at("norm2"), h, options.groups, options.eps)?;
    let h = g.silu(h)?;
    let h = w.conv(g, &at("conv2"), h, c_out, 3, Conv2dOptions::padded(1))?;
    let x = match g.shape(x).last() == c_out {
        true => x,
        false => w.conv(g, &at("conv_shortcut"), x, c_out, 1, Conv2dOptions::default())?,
    };
    g.add(h, x)
}

/// What a residual block does to the size of its maps, without a filter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    None,
    /// The mean of each four pixels.
    Half,
    /// Each pixel four times.
    Double,
    /// [`fir_downsample`].
    FirHalf,
    /// [`fir_upsample`].
    FirDouble,
}

/// What such blocks have in common.
#[derive(Clone, Copy, Debug)]
pub struct ResamplingOptions {
    pub norms: ResnetOptions,
    /// Groups of the second norm.
    pub groups_out: usize,
    pub resample: Resample,
    /// The time scales and shifts what the second norm gives, rather than shifting what it is given.
    pub scale_shift: bool,
}

/// A residual block that may change the size (Brock et al. 2019, arXiv:1809.11096; Dhariwal & Nichol 2021,
/// arXiv:2105.05233): as [`resnet_block`], both paths resampled before their first convolution. Where they are
/// filtered, the short path has a convolution even if the channels stay.
pub fn resampling_resnet_block(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    time: ValueId,
    c_out: usize,
    options: ResamplingOptions,
) -> Result<ValueId> {
    let ResamplingOptions { norms: ResnetOptions { groups, eps }, groups_out, resample, scale_shift } =
        options;
    let at = |part: &str| format!("{name}.{part}");
    let resampled = |g: &mut Graph, x: ValueId| {
        g.scoped(name, |g| match resample {
            Resample::None => Ok(x),
            Resample::Half => g.average_pool(x, PoolOptions::square(2), false),
            Resample::Double => g.upsample_nearest(x, 2),
            Resample::FirHalf => fir_downsample(g, x),
            Resample::FirDouble => fir_upsample(g, x),
        })
    };
    let h = w.group_norm(g, &at("norm1"), x, groups, eps)?;
    let h = g.silu(h)?;
    let (h, x) = (resampled(g, h)?, resampled(g, x)?);
    let mut h = w.conv(g, &at("conv1"), h, c_out, 3, Conv2dOptions::padded(1))?;
    let width = if scale_shift { 2 * c_out } else { c_out };
    let of_time = w.linear(g, &at("time_emb_proj"), time, width)?;
    let part = |g: &mut Graph, first: usize| {
        let channels = Range { start: first, stop: Some(first + c_out), step: 1 };
        let part = g.slice(of_time, &[Range::all(), channels])?;
        g.reshape(part, [g.shape(part)[0], 1, 1, c_out])
    };
    if !scale_shift {
        let shift = part(g, 0)?;
        h = g.add(h, shift)?;
    }
    let mut h = w.group_norm(g, &at("norm2"), h, groups_out, eps)?;
    if scale_shift {
        let [scale, shift] = [part(g, 0)?, part(g, c_out)?];
        let scale_of = Expr::binary(Binary::Add, Expr::Const(1.0), Expr::input(1));
        let scaled = Expr::binary(Binary::Mul, Expr::input(0), scale_of);
        h = g.elementwise(Expr::binary(Binary::Add, scaled, Expr::input(2)), &[h, scale, shift])?;
    }
    let h = g.silu(h)?;
    let h = w.conv(g, &at("conv2"), h, c_out, 3, Conv2dOptions::padded(1))?;
    let filtered = matches!(resample, Resample::FirHalf | Resample::FirDouble);
    let x = match g.shape(x).last() == c_out && !filtered {
        true => x,
        false => w.conv(g, &at("conv_shortcut"), x, c_out, 1, Conv2dOptions::default())?,
    };
    g.add(h, x)
}

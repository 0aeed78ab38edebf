//! The residual block of diffusion UNets.

use super::Source;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::conv2d::Conv2dOptions;

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

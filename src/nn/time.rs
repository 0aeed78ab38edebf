//! The time embedding of diffusion networks.

use super::Source;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::TimestepEmbedding;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::strided::Range;
use crate::tensor::DType;

/// Sines and cosines of `timesteps` `[rows, k]` (the first column), then two fully
/// connected layers with SiLU between them: `[rows, width]`.
pub fn time_embedding(
    g: &mut Graph,
    w: Source,
    name: &str,
    timesteps: ValueId,
    sinusoids: TimestepEmbedding,
    width: usize,
) -> Result<ValueId> {
    let h = g.scoped(name, |g| g.timestep_embedding(timesteps, sinusoids))?;
    let h = w.linear(g, &format!("{name}.linear_1"), h, width)?;
    let h = g.silu(h)?;
    w.linear(g, &format!("{name}.linear_2"), h, width)
}

/// Sines and cosines of random frequencies of the logarithm of noise levels `[rows, k]` (the first column), then two
/// fully connected layers with SiLU between them: `[rows, width]` (Song et al. 2021, arXiv:2011.13456; diffusers'
/// `GaussianFourierProjection`).
pub fn fourier_embedding(
    g: &mut Graph,
    w: Source,
    levels: ValueId,
    frequencies: usize,
    width: usize,
) -> Result<ValueId> {
    // Some hundred turns: f16 could not tell where in one they are.
    let exact = Source { dtype: DType::F32, ..w };
    let weight = exact.get(g, "time_proj.weight", &[frequencies])?;
    let waves = g.scoped("time_proj", |g| {
        let first = Range { start: 0, stop: Some(1), step: 1 };
        let level = g.slice(levels, &[Range::all(), first])?;
        let turns = Expr::binary(Binary::Mul, Expr::unary(Unary::Log, Expr::input(0)), Expr::input(1));
        let turns = g.elementwise(turns, &[level, weight])?;
        // Devices take the sine of small angles only to the last digits.
        let part = Expr::binary(Binary::Sub, Expr::input(0), Expr::unary(Unary::Round, Expr::input(0)));
        let angle =
            g.elementwise(Expr::binary(Binary::Mul, Expr::Const(std::f32::consts::TAU), part), &[turns])?;
        let (sines, cosines) = (g.unary(Unary::Sin, angle)?, g.unary(Unary::Cos, angle)?);
        let waves = g.concat(&[sines, cosines], 1)?;
        g.cast(waves, w.dtype)
    })?;
    let h = w.linear(g, "time_embedding.linear_1", waves, width)?;
    let h = g.silu(h)?;
    w.linear(g, "time_embedding.linear_2", h, width)
}

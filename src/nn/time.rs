//! The time embedding of diffusion networks.

use super::Source;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::TimestepEmbedding;

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

//! The same computed again and again: how many different answers come out.

use std::collections::HashSet;

use ring::digest;

use crate::engine::Network;
use crate::error::Result;
use crate::plan::Role;
use crate::tensor::{DType, Tensor};

/// What runs on the same input gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replays {
    pub runs: u32,
    /// Different answers, bit for bit: 1 where a device is deterministic.
    pub distinct: u32,
    /// In all outputs and new states of the worst run.
    pub nans: u64,
    pub infinities: u64,
}

/// Runs `network` `runs` times on the same inputs, each from the states that its graph begins with, and counts the
/// different answers: outputs and new states together, by their SHA-256.
///
/// # Errors
/// Those of [`Network::run`].
pub fn count(network: &Network, inputs: &[(&str, &Tensor)], runs: u32) -> Result<Replays> {
    let plan = network.plan();
    let mut seen = HashSet::new();
    let (mut nans, mut infinities) = (0, 0);
    for _ in 0..runs {
        for port in &plan.states {
            if let Role::State(first) = &plan.buffers[port.buffer].role {
                network.write(&port.name, first)?;
            }
        }
        let mut found = network.run(inputs)?;
        for port in &plan.states {
            found.push(network.read(&port.name)?);
        }
        let mut hash = digest::Context::new(&digest::SHA256);
        found.iter().for_each(|tensor| hash.update(&tensor.bytes));
        seen.insert(hash.finish().as_ref().to_vec());
        let [n, i] = not_finite(&found);
        (nans, infinities) = (n.max(nans), i.max(infinities));
    }
    Ok(Replays { runs, distinct: seen.len() as u32, nans, infinities })
}

/// NaNs and infinities in tensors of floats.
pub fn not_finite(tensors: &[Tensor]) -> [u64; 2] {
    let floats = tensors.iter().filter(|t| matches!(t.desc.dtype, DType::F32 | DType::F16 | DType::BF16));
    floats.flat_map(Tensor::to_f32).fold([0, 0], |[nans, infinities], x| {
        [nans + u64::from(x.is_nan()), infinities + u64::from(x.is_infinite())]
    })
}

//! Tensors that are bound to the same buffer: what wgpu and the order of the launches allow.

use crate::error::{Error, Result};
use crate::plan::{BufferId, Plan};
use crate::shader::Access;

/// A tensor that is bound where it is.
pub(super) struct Placed {
    pub name: String,
    pub id: BufferId,
    pub buffer: wgpu::Buffer,
    pub offset: u64,
    pub bytes: u64,
    /// Whether it is an output.
    pub written: bool,
}

/// Whether an output takes the place of an input.
///
/// # Errors
/// [`Error::Invalid`] for two tensors that cannot be in one buffer: wgpu does not let a kernel read one part of a buffer and
/// write another, and nothing may be written where it is read later.
pub(super) fn check(plan: &Plan, placed: &[Placed]) -> Result<bool> {
    let mut in_place = false;
    for (i, b) in placed.iter().enumerate() {
        for a in placed[..i].iter().filter(|a| a.buffer == b.buffer && a.id != b.id) {
            let fail = |expected: &str| {
                Err(Error::Invalid {
                    what: format!("the buffer of \"{}\" and \"{}\"", a.name, b.name),
                    expected: expected.to_owned(),
                    found: "one".to_owned(),
                })
            };
            let conflict = |launch| match (uses(launch, a.id), uses(launch, b.id)) {
                (Some(a), Some(b)) => a == Access::ReadWrite || b == Access::ReadWrite,
                _ => false,
            };
            if plan.run.iter().any(conflict) {
                return fail("two buffers, as a kernel reads one of them and writes the other");
            }
            if a.offset >= b.offset + b.bytes || b.offset >= a.offset + a.bytes {
                continue;
            }
            let (read, written) = match (a.written, b.written) {
                (false, false) => continue,
                (true, true) => return fail("two buffers, or parts of one that do not overlap"),
                (false, true) => (a, b),
                (true, false) => (b, a),
            };
            let touches = |id: BufferId| {
                let run = plan.run.iter().enumerate();
                run.filter(move |(_, launch)| {
                    uses(launch, id).is_some() || launch.fills.iter().any(|fill| fill.buffer == id)
                })
            };
            let last = touches(read.id).next_back().map(|(at, _)| at);
            let first = touches(written.id).next().map(|(at, _)| at);
            if last.zip(first).is_some_and(|(last, first)| last >= first) {
                return fail("two buffers, as the input is still read when the output is written");
            }
            in_place = true;
        }
    }
    Ok(in_place)
}

fn uses(launch: &crate::plan::Dispatch, id: BufferId) -> Option<Access> {
    let bound = launch.shader.bindings.iter().zip(&launch.buffers).filter(|(_, bound)| **bound == id);
    let accesses: Vec<Access> = bound.map(|(binding, _)| binding.access).collect();
    accesses.iter().find(|access| **access == Access::ReadWrite).or(accesses.first()).copied()
}

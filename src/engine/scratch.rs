//! Memory of intermediate results: one network's own, or of several that run in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::load::STORAGE;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::plan::{BufferId, Plan};

/// Buffers for the intermediate results of networks that run one after the other, made by this crate or by the caller.
/// Cheap to clone.
///
/// They are several, as wgpu does not let a kernel read one part of a buffer and write another.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// Largest first.
    buffers: Arc<[wgpu::Buffer]>,
    turn: Turn,
}

impl Scratch {
    /// Bytes of the buffers that are enough for each of these plans, largest first.
    pub fn sizes(plans: &[&Plan]) -> Vec<u64> {
        let mut sizes: Vec<u64> = Vec::new();
        for plan in plans {
            for (i, (_, bytes)) in largest_first(plan).into_iter().enumerate() {
                match sizes.get_mut(i) {
                    Some(size) => *size = bytes.max(*size),
                    None => sizes.push(bytes),
                }
            }
        }
        sizes
    }

    /// Makes buffers that are enough for each of these plans.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(gpu: &Gpu, plans: &[&Plan]) -> Result<Scratch> {
        let sizes = Self::sizes(plans).into_iter().enumerate();
        let buffers = sizes.map(|(i, bytes)| gpu.buffer(&format!("scratch {i}"), bytes, STORAGE));
        Self::from_buffers(buffers.collect::<Result<_>>()?)
    }

    /// Buffers of the caller's, of [these sizes](Scratch::sizes) or larger, in any order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a buffer without the usages `STORAGE`, `COPY_SRC` and `COPY_DST`, or given twice.
    pub fn from_buffers(mut buffers: Vec<wgpu::Buffer>) -> Result<Scratch> {
        let invalid = |expected: &str, found: String| {
            Err(Error::Invalid {
                what: "a buffer of scratch memory".to_owned(),
                expected: expected.to_owned(),
                found,
            })
        };
        for (i, buffer) in buffers.iter().enumerate() {
            if !buffer.usage().contains(STORAGE) {
                return invalid("usages STORAGE, COPY_SRC and COPY_DST", format!("{:?}", buffer.usage()));
            }
            if buffers[..i].contains(buffer) {
                return invalid("each buffer once", "one twice".to_owned());
            }
        }
        buffers.sort_by_key(|buffer| std::cmp::Reverse(buffer.size()));
        Ok(Scratch { buffers: buffers.into(), turn: Turn::default() })
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(wgpu::Buffer::size).sum()
    }

    pub(super) fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Which buffer each of a plan's pool is.
    pub(super) fn assign(&self, plan: &Plan) -> Result<Vec<(BufferId, wgpu::Buffer)>> {
        let needed = largest_first(plan);
        let enough = needed.len() <= self.buffers.len()
            && needed.iter().zip(&*self.buffers).all(|((_, bytes), buffer)| *bytes <= buffer.size());
        if !enough {
            let found: Vec<u64> = self.buffers.iter().map(wgpu::Buffer::size).collect();
            return Err(Error::Invalid {
                what: "scratch memory".to_owned(),
                expected: format!("buffers of at least {:?} bytes", Self::sizes(&[plan])),
                found: format!("{found:?}"),
            });
        }
        Ok(needed.into_iter().zip(&*self.buffers).map(|((id, _), buffer)| (id, buffer.clone())).collect())
    }
}

fn largest_first(plan: &Plan) -> Vec<(BufferId, u64)> {
    let mut pool: Vec<(BufferId, u64)> = plan.pool().collect();
    pool.sort_by_key(|&(id, bytes)| (std::cmp::Reverse(bytes), id));
    pool
}

/// Whether intermediate results of a run that is not done are in a network's memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// # Errors
    /// [`Error::Busy`] while a run is under way.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(busy()),
        }
    }

    /// Begins a run that others must not meet before [`Turn::give_back`].
    pub fn take(&self) -> Result<()> {
        match self.0.swap(true, Ordering::AcqRel) {
            false => Ok(()),
            true => Err(busy()),
        }
    }

    pub fn give_back(&self) {
        self.0.store(false, Ordering::Release);
    }
}

fn busy() -> Error {
    Error::Busy { what: "the memory of intermediate results".to_owned() }
}

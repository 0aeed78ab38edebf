//! A load and a run that stop before and after each operation, for those who want to see what it does.

use std::ops::Range;

use super::load::{Given, Loaded, Place};
use super::{Network, Step, record};
use crate::error::Result;
use crate::plan::{BufferId, Operation, Role};

/// Where a walk has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// What can be seen where a walk has stopped.
pub(crate) struct Walked<'a, 'b> {
    network: &'a Network,
    place: &'a Place<'b>,
}

impl Walked<'_, '_> {
    /// The first bytes of a buffer, if it is there at this time.
    pub fn read(&self, id: BufferId, bytes: u64) -> Result<Option<Vec<u8>>> {
        let Some(wgpu::BufferBinding { buffer, offset, .. }) = (self.place)(id) else { return Ok(None) };
        Ok(Some(self.network.gpu.download_from(&[(buffer, offset, bytes)])?.remove(0)))
    }
}

/// Looks at an operation before and after it.
pub(crate) type Visit<'a> = dyn FnMut(&Walked, &Operation, Moment) -> Result<()> + 'a;

impl Network {
    /// Loads the network anew and runs it once, launch by launch as it always does, and shows each operation to `visit`.
    /// What the run writes is poisoned before it.
    pub(crate) fn walk(&self, visit: &mut Visit) -> Result<()> {
        let loading = |range: &Range<usize>| {
            let of = |at: usize| self.plan.operations.iter().find(|o| o.loading && o.launches.contains(&at));
            range
                .clone()
                .map(|at| (at, of(at).cloned().expect("each launch is an operation's")))
                .collect::<Vec<_>>()
        };
        let given = Given::buffers(&self.plan, &self.ports);
        let loaded = Loaded::with(&self.gpu, &self.plan, given, &mut |_, place, steps, range, after| {
            for ((at, operation), step) in loading(&range).into_iter().zip(steps) {
                self.step(place, &operation, at, step, visit)?;
            }
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            after(&mut encoder);
            self.gpu.checked(|| "load".to_owned(), || self.gpu.queue().submit([encoder.finish()]))
        })?;
        for (id, buffer) in self.plan.buffers.iter().enumerate() {
            if matches!(buffer.role, Role::Pool | Role::Output) {
                let bytes = vec![0xff; buffer.bytes as usize];
                let write = || self.gpu.queue().write_buffer(loaded.made(id), 0, &bytes);
                self.gpu.checked(|| "poisoning".to_owned(), write)?;
            }
        }
        let place = |id: BufferId| {
            let own = |buffer| wgpu::BufferBinding { buffer, offset: 0, size: None };
            loaded.buffers[id].as_ref().map(own)
        };
        for operation in self.plan.operations.iter().filter(|o| !o.loading) {
            for at in operation.launches.clone() {
                self.step(&place, operation, at, &loaded.steps[at], visit)?;
            }
        }
        Ok(())
    }

    /// One launch, waited for.
    fn step(
        &self,
        place: &Place,
        operation: &Operation,
        at: usize,
        step: &Step,
        visit: &mut Visit,
    ) -> Result<()> {
        let walked = Walked { network: self, place };
        if at == operation.launches.start {
            visit(&walked, operation, Moment::Before)?;
        }
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        record(std::slice::from_ref(step), &mut encoder, None, None);
        let what = || format!("launch {at}");
        let submission = self.gpu.checked(what, || self.gpu.queue().submit([encoder.finish()]))?;
        self.gpu.wait(submission)?;
        if at + 1 == operation.launches.end {
            visit(&walked, operation, Moment::After)?;
        }
        Ok(())
    }
}

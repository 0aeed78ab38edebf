//! Runs that are spread over frames.

use std::ops::Range;
use std::time::Duration;

use super::{Bindings, Costs};
use crate::engine::record_steps;
use crate::error::{Error, Result};

/// Runs of a network that are recorded a slice at a time, as much as fits into a frame; the last slice leaves what whole runs
/// leave, to the last bit.
///
/// A slice holds whole launches, and at least one. Textures are read in the first slice and written in the last; buffers that
/// are bound must stay as they are in between. Each slice must be submitted, in order, before the next. Until the last, the
/// memory of intermediate results is taken: recording the same network, or another with the same
/// [`Scratch`](crate::Scratch), is [`Error::Busy`]. Dropping this gives it back.
#[derive(Debug)]
pub struct Slices {
    bindings: Bindings,
    /// Of each step.
    seconds: Vec<f64>,
    runs: usize,
    shown: bool,
    /// Steps that are recorded.
    at: usize,
    /// Whether the memory is ours.
    taken: bool,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Launches that are recorded, and all.
    pub launches: usize,
    pub of: usize,
    /// Whole runs that are recorded.
    pub runs: usize,
}

impl Progress {
    pub fn is_done(&self) -> bool {
        self.launches == self.of
    }
}

impl Slices {
    /// So many runs, one after the other, as the steps of a sampler are; at least one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for costs of another network, and for several runs where an output takes the place of an input.
    pub fn new(bindings: &Bindings, costs: &Costs, runs: usize) -> Result<Slices> {
        if runs > 1 && bindings.0.in_place {
            return Err(Error::Invalid {
                what: "a network that writes where it read".to_owned(),
                expected: "one run".to_owned(),
                found: runs.to_string(),
            });
        }
        let (seconds, bindings) = (costs.of(bindings)?, bindings.clone());
        Ok(Slices { bindings, seconds, runs: runs.max(1), shown: false, at: 0, taken: false })
    }

    /// Outputs go to their textures and buffers after each run, not after the last alone: pictures as they develop.
    pub fn shown_each_run(mut self) -> Slices {
        self.shown = true;
        self
    }

    /// Records launches until the next would take longer than what is left of `budget`. Nothing, once all is done.
    ///
    /// # Errors
    /// Those of [`Bindings::record`]. Then nothing was recorded.
    pub fn record(&mut self, encoder: &mut wgpu::CommandEncoder, budget: Duration) -> Result<Progress> {
        let inner = self.bindings.0.clone();
        inner.gpu.check_lost()?;
        if self.is_done() {
            return Ok(self.progress());
        }
        if !self.taken {
            inner.turn.take()?;
            self.taken = true;
        }
        let mut left = budget.as_secs_f64();
        let begin = self.at;
        while self.at < self.total() {
            let range = self.stretch(&mut left, self.at == begin);
            if range.is_empty() {
                break;
            }
            record_steps(&inner.steps[range], encoder);
        }
        if self.is_done() {
            self.give_back();
        }
        Ok(self.progress())
    }

    /// Steps that lie side by side and fit, from where we are.
    fn stretch(&mut self, left: &mut f64, mut first: bool) -> Range<usize> {
        let start = self.step(self.at);
        let mut end = start;
        while self.at < self.total() && self.step(self.at) == end {
            // A run and what it leaves for the next belong together: none is cancelled in between.
            let joined = self.bindings.0.updates.contains(&end);
            if !first && !joined && self.seconds[end] > *left {
                break;
            }
            *left -= self.seconds[end];
            first = false;
            (end, self.at) = (end + 1, self.at + 1);
        }
        start..end
    }

    /// Steps before the first run, of each run, and after the last.
    fn parts(&self) -> [usize; 3] {
        let inner = &self.bindings.0;
        let (before, all) = (inner.run.start, inner.steps.len());
        match self.shown {
            true => [before, all - before, 0],
            false => [before, inner.updates.end - before, all - inner.updates.end],
        }
    }

    fn total(&self) -> usize {
        let [before, run, after] = self.parts();
        before + self.runs * run + after
    }

    /// Which step comes after so many.
    fn step(&self, at: usize) -> usize {
        let [before, run, _] = self.parts();
        match at.checked_sub(before) {
            None => at,
            Some(at) if at < self.runs * run => before + at % run,
            Some(at) => before + run + (at - self.runs * run),
        }
    }

    pub fn progress(&self) -> Progress {
        let [before, run, _] = self.parts();
        let runs = self.at.saturating_sub(before).checked_div(run).unwrap_or(0).min(self.runs);
        Progress { launches: self.at, of: self.total(), runs }
    }

    pub fn is_done(&self) -> bool {
        self.at == self.total()
    }

    /// What the rest takes by the costs.
    pub fn remaining(&self) -> Duration {
        let seconds: f64 = (self.at..self.total()).map(|at| self.seconds[self.step(at)]).sum();
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Leaves off what is under way: the next slice begins anew. States are what the last whole run left.
    pub fn cancel(&mut self) {
        self.at = 0;
        self.give_back();
    }

    fn give_back(&mut self) {
        if std::mem::take(&mut self.taken) {
            self.bindings.0.turn.give_back();
        }
    }
}

impl Drop for Slices {
    fn drop(&mut self) {
        self.give_back();
    }
}

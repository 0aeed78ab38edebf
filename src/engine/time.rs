//! The time of whole runs, by three clocks.

use std::time::Instant;

use super::{Marks, Network};
use crate::error::Result;

/// Time of some runs, submitted together, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunTime {
    /// CPU time of recording and submitting.
    pub encode: f64,
    /// From before the recording until the end of the last run is known.
    pub wall: f64,
    /// By the device's own clock, from the first launch to the end of the last; none without timestamps.
    pub device: Option<f64>,
}

impl Network {
    /// Runs `runs` times and waits, with a timestamp before the first launch and one after the last.
    ///
    /// # Errors
    /// Those of [`Network::submit`].
    pub fn time(&self, runs: usize) -> Result<RunTime> {
        let loaded = self.loaded()?;
        let marks = match self.gpu.has_timestamps() {
            true => Some(Marks::new(&self.gpu)?),
            false => None,
        };
        let start = Instant::now();
        let submission = self.submit_marked(&loaded, runs, marks.as_ref())?;
        let encode = start.elapsed().as_secs_f64();
        self.gpu.wait(submission)?;
        let wall = start.elapsed().as_secs_f64();
        let device = marks.map(|marks| marks.seconds(&self.gpu)).transpose()?;
        Ok(RunTime { encode, wall, device })
    }
}

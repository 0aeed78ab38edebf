//! What the runner knows of a thing that is measured.

use super::record::{Check, Group, KernelTime, Memory, PartTime, Start};
use crate::engine::RunTime;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::target::Target;
use crate::tensor::DType;

/// What a case is called.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    pub group: Group,
    /// Short, without blanks; the first part of the row's id.
    pub name: String,
    /// For people.
    pub title: String,
    /// Storage of weights and activations.
    pub dtype: DType,
    pub batch: u32,
}

impl Label {
    /// The row's key, the same on every device.
    pub fn id(&self) -> String {
        let group = match self.group {
            Group::Kernel => "kernel",
            Group::Network => "network",
            Group::Diffusion => "diffusion",
        };
        format!("{group}/{}/{}/{}", self.name, self.dtype, self.batch)
    }
}

/// What a case takes, known before anything is made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Floating-point operations of a run.
    pub flops: u64,
    /// Bytes that a run's kernels read or write.
    pub bytes: u64,
    /// Bytes of weights that are made on the host and uploaded.
    pub weights: u64,
    /// Bytes on the device at most.
    pub peak: u64,
    /// Launches of a run.
    pub launches: u64,
    /// Runs that a row takes at the least: the first, those of the check, those that are timed and looked into.
    pub least_runs: u32,
}

/// Something to measure.
pub trait Case: Send + Sync {
    fn label(&self) -> &Label;

    /// # Errors
    /// Those of building and planning: what this device cannot do.
    fn estimate(&self, target: &Target) -> Result<Estimate>;

    /// Makes all that runs need.
    ///
    /// # Errors
    /// Those of the device.
    fn prepare(&self, gpu: &Gpu) -> Result<Box<dyn Subject>>;
}

/// A case on a device.
pub trait Subject {
    fn start(&self) -> Option<Start>;

    fn memory(&self) -> Option<Memory>;

    /// Computes with the inputs that are known and holds the answer against the reference: what was found, and what is
    /// wrong, if something is.
    ///
    /// # Errors
    /// Those of the device.
    fn check(&mut self) -> Result<(Check, Option<String>)>;

    /// Runs so often and waits.
    ///
    /// # Errors
    /// Those of the device.
    fn time(&mut self, runs: u32) -> Result<RunTime>;

    /// Where the time of a run goes; empty without timestamps.
    ///
    /// # Errors
    /// Those of the device.
    fn kernels(&mut self) -> Result<Vec<KernelTime>>;

    /// The same by parts of a pipeline; empty for what has none.
    fn parts(&self) -> Vec<PartTime> {
        Vec::new()
    }
}

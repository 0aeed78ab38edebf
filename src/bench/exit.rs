//! How a benchmark ends, for scripts.

use crate::Error;

/// What the program tells its caller by its exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitReason {
    #[default]
    Fine,
    /// Something is slower, or no longer works.
    Regression,
    /// Something computed a wrong answer.
    Wrong,
    /// There is nothing to measure on.
    NoAdapter,
    /// The device was lost, refused or did not answer in time.
    Device,
    /// Arguments or files that make no sense.
    Usage,
}

impl ExitReason {
    pub fn code(self) -> u8 {
        match self {
            ExitReason::Fine => 0,
            ExitReason::Regression => 1,
            ExitReason::Wrong => 2,
            ExitReason::NoAdapter => 3,
            ExitReason::Device => 4,
            ExitReason::Usage => 5,
        }
    }

    /// Of an error that ended the whole run.
    pub fn of(error: &Error) -> ExitReason {
        match error {
            Error::NoAdapter { .. } => ExitReason::NoAdapter,
            Error::DeviceLost { .. }
            | Error::Gpu { .. }
            | Error::OutOfMemory { .. }
            | Error::Shader { .. }
            | Error::NotFinite { .. } => ExitReason::Device,
            _ => ExitReason::Usage,
        }
    }
}

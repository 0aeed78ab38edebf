//! Goes through a network operation by operation on a device and holds each result to the [reference](crate::reference).
//!
//! The plan is the one that the network always has, with its fusions and shared buffers. Each operation is evaluated from what
//! lies in the device's memory before it, so that errors do not add up and the first that is wrong is the one at fault.

mod capture;
mod examine;
mod judge;
mod replay;
mod suite;
mod variants;

pub use capture::Capture;
pub use examine::{Examination, Finding, Launched, Options, examine};
pub(crate) use judge::random;
pub use judge::{Judgement, Wrong};
pub use replay::{Replay, replay};
pub use suite::{Case, cases, errors, random_inputs};
pub use variants::{Variant, Verdict};

//! What people ask for: picture in, answer out.

mod classify;
pub mod compare;
mod generate;
mod sampling_state;

pub use classify::{Answer, Classifier, ClassifierModel};
pub use generate::{DiffusionModel, GenerateOptions, Generator, NoiseSource, Sampling};
pub use sampling_state::SamplingState;

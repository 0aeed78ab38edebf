//! Noise schedules, samplers and noise: everything about diffusion that is
//! known before the first kernel runs. Pure arithmetic in f64, no GPU, no IO.
//!
//! A sampler is a [`Table`]: one [`Row`] of numbers a model call, which the one
//! step kernel applies to the latent.

mod flow;
mod form;
mod levels;
mod noise;
mod sampler;
mod samplers;
mod schedule;
mod score;
mod sigmas;
mod table;

pub use flow::{Flow, FlowConfig, Shift};
pub use noise::{CpuGenerator, cuda_normal, philox_block};
pub use sampler::Sampler;
pub use schedule::{
    BetaSchedule, FinalSigma, Multistep, NoiseSchedule, Prediction, ScheduleConfig, Spacing, Variance,
};
pub use score::{Score, ScoreConfig, Sde};
pub use sigmas::SigmaSchedule;
pub use table::{MAX_HISTORY, ROW_FLOATS, Row, Start, Table};

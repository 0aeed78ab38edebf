//! What is measured: kernels, networks, parts of diffusion models and whole pictures.

pub mod kernels;
pub mod pictures;
pub mod published;
mod suite;

pub use suite::{Suite, cases};

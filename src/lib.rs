//! Convolutional networks and diffusion models in hand-written WGSL compute
//! shaders on [`wgpu`].

mod arena;
pub mod diffusion;
mod engine;
mod error;
pub mod formats;
pub mod gpu;
mod graph;
pub mod ops;
pub mod passes;
pub mod plan;
pub mod profile;
pub mod report;
pub mod shader;
mod target;
mod tensor;
pub mod units;
mod unroll;
mod weights;

pub use engine::Network;
pub use error::{Error, Result};
pub use gpu::{AdapterOptions, Gpu};
pub use graph::{Graph, Source, Value, ValueId};
pub use plan::Plan;
pub use target::{DeviceClass, Target};
pub use tensor::{Bytes, DType, Shape, Tensor, TensorDesc};
pub use weights::Weights;

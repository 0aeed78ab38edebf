//! Convolutional networks and diffusion models in hand-written WGSL compute
//! shaders on [`wgpu`].

mod arena;
pub mod diffusion;
mod error;
mod graph;
pub mod ops;
mod plan;
mod shader;
mod target;
mod tensor;

pub use error::{Error, Result};
pub use graph::{Graph, Source, Value, ValueId};
pub use plan::Plan;
pub use target::{DeviceClass, Target};
pub use tensor::{Bytes, DType, Shape, Tensor, TensorDesc};

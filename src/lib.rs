//! Convolutional networks and diffusion models, run entirely on the GPU by
//! hand-written WGSL compute shaders on [`wgpu`].
//!
//! A [`Graph`] is built from operations ([`ops`]), layers ([`nn`]) or whole networks
//! ([`models`]); a [`Network`] is that graph optimised, planned and loaded on a [`Gpu`].
//! It is run, or recorded into a command encoder of yours. [`tasks`] are what people
//! ask for: pictures out of noise ([`diffusion`]), names out of pictures.
//!
//! ```
//! use aquatint::ops::conv2d::Conv2dOptions;
//! use aquatint::{DType, Gpu, Graph, Network, Tensor};
//!
//! fn main() -> aquatint::Result<()> {
//!     // Edges of a picture: a Laplacian filter, then ReLU. Feature maps are [n, height, width, channels].
//!     let mut graph = Graph::new();
//!     let picture = graph.input("picture", [1, 20, 40, 1], DType::F32);
//!     let laplacian = Tensor::from_f32([1, 1, 3, 3], &[-1., -1., -1., -1., 8., -1., -1., -1., -1.]);
//!     let laplacian = graph.weight("laplacian", laplacian);
//!     let edges = graph.conv2d(picture, laplacian, None, Conv2dOptions::padded(1))?;
//!     let edges = graph.relu(edges)?;
//!     graph.output("edges", edges);
//!
//!     // Kernels are chosen for the device and compiled once; then the network runs any number of times.
//!     let network = Network::new(&Gpu::headless()?, &graph)?;
//!     let grey = Tensor::from_f32([1, 20, 40, 1], &[0.5; 800]);
//!     let edges = network.run(&[("picture", &grey)])?;
//!     println!("{:?}", edges[0]);
//!     Ok(())
//! }
//! ```

// What needs it says so, and why: see SECURITY.md.
#![deny(unsafe_code, clippy::undocumented_unsafe_blocks)]

mod arena;
pub mod as_if;
#[cfg(feature = "bench")]
pub mod bench;
pub mod cache;
mod delta;
pub mod diffusion;
#[cfg(feature = "bench")]
pub mod doctor;
mod engine;
mod error;
mod files;
pub mod formats;
pub mod frame;
pub mod gpu;
mod graph;
mod invert;
pub mod limits;
pub mod lower;
pub mod models;
pub mod nn;
pub mod ops;
mod parallel;
pub mod passes;
mod place;
pub mod plan;
pub mod profile;
#[cfg(feature = "bench")]
pub mod reference;
// What weights are multiplied by while the host packs them is evaluated by it, and little else of it is used then.
#[cfg(not(feature = "bench"))]
#[expect(dead_code)]
mod reference;
pub mod report;
pub mod shader;
mod spirv;
mod target;
pub mod tasks;
mod tensor;
pub mod text;
mod tiles;
#[cfg(feature = "bench")]
pub mod tune;
pub mod tuning;
pub mod units;
mod unroll;
mod weights;

pub use delta::{Change, Delta, Factors};
pub use engine::{Held, Network, NotFinite, Reloaded, RunTime, Scratch, Shares};
pub use error::{Error, HubError, Lack, Part, Result};
pub use gpu::{AdapterOptions, Gpu};
pub use graph::{Graph, Source, Value, ValueId};
pub use limits::Limits;
pub use plan::Plan;
pub use target::{DeviceClass, Matrices, Target};
pub use tensor::{Bytes, DType, Shape, Tensor, TensorDesc};
pub use tuning::Tuning;
pub use weights::Weights;
/// The version of wgpu whose devices, buffers and textures this crate takes.
pub use wgpu;

/// The snippets of the guide to embedding, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;

//! Files: weights in, pictures in and out.

mod draw;
pub mod onnx;
pub mod picture;
pub mod safetensors;
pub mod sheet;
pub mod table;

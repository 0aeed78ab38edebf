//! Files: weights in, pictures in and out.

pub mod arrow;
pub mod diffusers;
pub mod draw;
pub mod hub;
pub mod ldm;
pub mod lora;
pub mod mmdit;
pub mod npy;
pub mod onnx;
pub mod picture;
pub mod safetensors;
pub mod sheet;
pub mod table;
pub mod textual_inversion;

//! Files: weights in, pictures in and out.

pub mod safetensors;

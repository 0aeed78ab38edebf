//! Files of adapters for latent diffusion models, as diffusers and PEFT, kohya's scripts and LyCORIS write them.

mod file;
mod key;
mod layer;
mod modules;
mod peft;

pub use file::{Applied, Lora, Strength};

//! Networks, one file each: a plain function from weights to graph.

pub mod autoencoder_kl;
pub(crate) mod boxes;
pub mod bundled;
pub mod clip_text;
mod config;
pub mod convnext;
pub mod denoise;
pub mod densenet;
pub mod efficientnet;
pub mod iresnet;
pub mod latent_checkpoint;
pub mod latent_conditions;
pub mod latent_diffusion;
pub mod letters;
pub mod letters_detector;
pub mod letters_segmenter;
pub mod mobilenet;
mod open;
mod prepare;
pub mod resnet;
pub mod rrdb;
pub mod ssdlite;
pub mod style;
pub mod super_resolution;
pub mod timm_mobile;
pub mod unet;
pub mod unet2d;
pub mod unet2d_condition;
pub mod upscale;
pub mod vgg;
pub mod vision;
pub mod vq_model;
pub mod yolo;

pub use open::{open, open_with, read_labels};

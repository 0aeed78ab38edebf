//! Networks, one file each: a plain function from weights to graph.

pub mod bundled;
pub mod denoise;
pub mod letters;
pub mod letters_detector;
pub mod letters_segmenter;
mod prepare;
pub mod style;
pub mod unet2d;
pub mod upscale;
pub mod vision;

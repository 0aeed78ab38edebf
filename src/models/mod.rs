//! Networks, one file each: a plain function from weights to graph.

pub mod letters;
pub mod unet2d;
pub mod vision;

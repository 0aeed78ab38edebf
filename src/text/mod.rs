//! Text for networks: from what somebody writes to what a diffusion model is told.

mod charsmap;
mod checkpoint;
mod encoder;
mod inversion;
mod prompt;
mod sd3;
mod t5;
mod tokenizer;

pub use encoder::{TextEmbedding, TextEncoder, TextEncoders};
pub use prompt::{Piece, pieces};
pub use sd3::T5Part;
pub use t5::{T5TextEncoder, T5Tokenizer};
pub use tokenizer::Tokenizer;

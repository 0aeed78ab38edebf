//! Text for networks: from what somebody writes to what a diffusion model is told.

mod checkpoint;
mod encoder;
mod inversion;
mod prompt;
mod tokenizer;

pub use encoder::{TextEmbedding, TextEncoder, TextEncoders};
pub use prompt::{Piece, pieces};
pub use tokenizer::Tokenizer;

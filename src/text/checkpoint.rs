//! The encoders of text in a single-file checkpoint, which has neither their configurations nor a tokenizer.

use super::encoder::{TextEncoder, TextEncoders};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::formats::ldm::{Checkpoint, TextEncoderNames};
use crate::models::clip_text::ClipTextConfig;

impl TextEncoders {
    /// The encoders in a checkpoint, with CLIP's own vocabulary.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a checkpoint without any, and those of the tensors.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let found = checkpoint.text_encoders();
        let xl = checkpoint.unet().contains("add_embedding.linear_1.weight");
        let mut encoders = Vec::new();
        for (names, weights) in found {
            let open_clip = names == TextEncoderNames::OpenClip;
            let mut config = ClipTextConfig::of_weights(&weights, open_clip)?;
            if open_clip && !xl {
                // Stable Diffusion 2 reads the states before the last layer, through the last norm.
                config.num_hidden_layers = config.num_hidden_layers.saturating_sub(1);
            }
            // OpenCLIP fills up with the token of number 0.
            let tokenizer = Tokenizer::clip(open_clip.then_some("!"))?;
            encoders.push(TextEncoder { config, weights, tokenizer });
        }
        if encoders.is_empty() {
            return Err(Error::Unsupported {
                path: checkpoint.file().into(),
                nodes: vec![
                    "a checkpoint without an encoder of text (was it saved as UNet alone?)".to_owned(),
                ],
            });
        }
        Ok(TextEncoders { encoders, xl, clip_skip: 0, zeros_for_none: true, t5: None })
    }
}

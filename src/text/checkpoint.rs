//! The encoders of text in a single-file checkpoint, which has neither their configurations nor tokenizers.

use std::path::Path;

use super::encoder::{TextEncoder, TextEncoders};
use super::sd3::T5Part;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::formats::ldm::{Checkpoint, TextEncoderNames};
use crate::formats::mmdit::Sd3Checkpoint;
use crate::models::clip_text::ClipTextConfig;
use crate::tensor::Tensor;

/// Of an encoder for which an identity is made; CLIP's largest has 1280.
const WIDEST: usize = 1 << 12;

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

    /// The encoders in a single file of Stable Diffusion 3: both of CLIP's and T5, if it is there. T5's tokenizer is in no
    /// such file: it is in the folder `t5_tokenizer`, or in one called `tokenizer_3` beside the file; without it T5 is
    /// [left out](T5Part::left_out).
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a file without both of CLIP's, [`Error::Invalid`] for a tokenizer where there is no T5,
    /// and those of the files.
    pub fn from_sd3_checkpoint(checkpoint: &Sd3Checkpoint, t5_tokenizer: Option<&Path>) -> Result<Self> {
        let mut encoders = Vec::new();
        for (found, (name, open_clip)) in
            checkpoint.text_encoders().into_iter().zip([("clip_l", false), ("clip_g", true)])
        {
            let Some(mut weights) = found else {
                return Err(Error::Unsupported {
                    path: checkpoint.file().into(),
                    nodes: vec![format!(
                        "a checkpoint without text_encoders.{name} (there are files with all encoders, and folders)"
                    )],
                });
            };
            let mut config = ClipTextConfig::of_weights(&weights, open_clip)?;
            if !open_clip {
                // What stands for the whole text is not projected here, which no file says.
                let width = config.hidden_size;
                if width > WIDEST {
                    return Err(Error::Invalid {
                        what: format!("width of {name} in {}", checkpoint.file()),
                        expected: format!("at most {WIDEST}"),
                        found: width.to_string(),
                    });
                }
                let mut identity = vec![0.0; width * width];
                identity.iter_mut().step_by(width + 1).for_each(|one| *one = 1.0);
                weights.insert("text_projection.weight", Tensor::from_f32([width, width], &identity));
                config.projection_dim = width;
            }
            let tokenizer = Tokenizer::clip(open_clip.then_some("!"))?;
            encoders.push(TextEncoder { config, weights, tokenizer });
        }
        let t5 = T5Part::of_checkpoint(checkpoint, t5_tokenizer)?;
        Ok(TextEncoders { encoders, xl: false, clip_skip: 0, zeros_for_none: true, t5: Some(t5) })
    }
}

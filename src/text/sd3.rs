//! Text as Stable Diffusion 3 is told it: two encoders of CLIP's side by side, filled up to the width of T5, then T5's
//! tokens (Esser et al. 2024, arXiv:2403.03206, figure 2).

use std::path::Path;

use super::encoder::{TextEmbedding, TextEncoders};
use super::t5::{T5TextEncoder, T5Tokenizer};
use crate::error::{Error, Result};
use crate::formats::diffusers::Folder;
use crate::formats::mmdit::Sd3Checkpoint;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::models::sd3_transformer::Sd3TransformerConfig;
use crate::models::t5_encoder::T5EncoderConfig;
use crate::tensor::{DType, Shape, Tensor};
use crate::weights::Weights;

/// Tokens of T5 that nobody chose.
const TOKENS: usize = 256;

/// What stands after CLIP's tokens.
#[derive(Clone, Debug)]
pub struct T5Part {
    /// The encoder, which takes more memory than all the rest; without it there are zeros.
    pub encoder: Option<T5TextEncoder>,
    /// Tokens, whatever the text; 256 unless chosen otherwise.
    pub tokens: usize,
    /// Numbers in each token of the text that the transformer reads.
    pub width: usize,
    /// Why an encoder is not used whose weights are there.
    pub left_out: Option<String>,
}

/// Where a tokenizer is looked for beside a single file: as in the folders of diffusers.
const TOKENIZER: &str = "tokenizer_3";

impl T5Part {
    /// Of a pipeline's folder, `None` if its transformer is not that of Stable Diffusion 3.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an encoder of another class, and those of the files.
    pub(super) fn open(folder: &Folder) -> Result<Option<Self>> {
        if folder.part("transformer") != Some("SD3Transformer2DModel") {
            return Ok(None);
        }
        let transformer = Sd3TransformerConfig::from_json(&folder.text("transformer", "config.json")?)?;
        let encoder = match folder.part("text_encoder_3") {
            None => None,
            Some("T5EncoderModel") => Some(T5TextEncoder {
                config: T5EncoderConfig::from_json(&folder.text("text_encoder_3", "config.json")?)?,
                weights: folder.weights("text_encoder_3")?,
                tokenizer: T5Tokenizer::open(folder.path().join("tokenizer_3"))?,
            }),
            Some(class) => {
                let found = format!("text_encoder_3 of class {class} (this crate has T5EncoderModel)");
                return Err(Error::Unsupported { path: folder.path().to_owned(), nodes: vec![found] });
            }
        };
        let width = transformer.joint_attention_dim;
        Ok(Some(T5Part { encoder, tokens: TOKENS, width, left_out: None }))
    }

    /// Of a single file, which may have the weights but never the tokenizer: that is in the folder `tokenizer`, or in
    /// `tokenizer_3` beside the file. Without one, and if what lies beside the file was not asked for and cannot be used,
    /// the encoder is left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a tokenizer where there is no T5, and those of the files.
    pub(super) fn of_checkpoint(checkpoint: &Sd3Checkpoint, tokenizer: Option<&Path>) -> Result<Self> {
        let width = checkpoint.transformer().shape("context_embedder.weight").map_or(0, Shape::last);
        let part = |encoder, left_out| T5Part { encoder, tokens: TOKENS, width, left_out };
        let open = |weights: Weights, tokenizer: &Path| {
            let config = T5EncoderConfig::of_weights(&weights)?;
            config.check_weights(&weights)?;
            Ok::<_, Error>(T5TextEncoder { config, weights, tokenizer: T5Tokenizer::open(tokenizer)? })
        };
        let beside = Path::new(checkpoint.file()).with_file_name(TOKENIZER);
        match (checkpoint.t5(), tokenizer) {
            (Some(weights), Some(tokenizer)) => Ok(part(Some(open(weights, tokenizer)?), None)),
            (Some(weights), None) if beside.is_dir() => Ok(match open(weights, &beside) {
                Ok(encoder) => part(Some(encoder), None),
                Err(error) => part(None, Some(error.to_string())),
            }),
            (Some(_), None) => {
                let why =
                    format!("no single file has its tokenizer, and there is no folder {}", beside.display());
                Ok(part(None, Some(why)))
            }
            (None, Some(tokenizer)) => Err(Error::Invalid {
                what: format!("tokenizer {} for T5", tokenizer.display()),
                expected: format!("none, as {} has no T5 (text_encoders.t5xxl)", checkpoint.file()),
                found: "one".to_owned(),
            }),
            (None, None) => Ok(part(None, None)),
        }
    }

    /// The network for so many texts, if there is an encoder.
    pub(super) fn graph(&self, texts: usize, dtype: DType) -> Option<Result<Graph>> {
        self.encoder.as_ref().map(|encoder| encoder.graph([texts, self.tokens], dtype))
    }

    /// States of each text, `[tokens, width]`.
    fn run(&self, gpu: &Gpu, texts: &[&str], dtype: DType) -> Result<Vec<Vec<f32>>> {
        let Some(encoder) = &self.encoder else {
            return Ok(vec![vec![0.0; self.tokens * self.width]; texts.len()]);
        };
        if self.tokens == 0 || encoder.config.d_model != self.width {
            return Err(Error::Invalid {
                what: format!("encoder of text in {}", encoder.weights.file()),
                expected: format!("1 token or more of {} numbers, as the transformer reads", self.width),
                found: format!("{} of {}", self.tokens, encoder.config.d_model),
            });
        }
        encoder.run(gpu, texts, self.tokens, dtype)
    }
}

impl TextEncoders {
    /// As [`TextEncoders::encode`], of texts and what is not wanted beside each.
    pub(super) fn encode_for_sd3(
        &self,
        gpu: &Gpu,
        texts: &[&str],
        t5: &T5Part,
        dtype: DType,
    ) -> Result<Vec<[TextEmbedding; 2]>> {
        let mut states = Vec::new();
        let mut pooled = vec![Vec::new(); texts.len()];
        for (i, (encoder, chunks)) in self.encoders.iter().zip(&self.chunks(texts)?).enumerate() {
            let (found, whole) = encoder.run(gpu, chunks, self.options(i), dtype)?;
            states.push((encoder.config.hidden_size, found));
            pooled.iter_mut().zip(whole).for_each(|(pooled, whole)| pooled.extend(whole.to_f32()));
        }
        let clip_width: usize = states.iter().map(|(width, _)| width).sum();
        if clip_width > t5.width {
            return Err(Error::Invalid {
                what: "width of the encoders of text".to_owned(),
                expected: format!("at most {}, as the transformer reads", t5.width),
                found: clip_width.to_string(),
            });
        }
        let long = t5.run(gpu, texts, dtype)?;
        let embedding = |text: usize| {
            let clip_tokens = states[0].1[text].len() / states[0].0;
            let tokens = clip_tokens + t5.tokens;
            let mut values = Vec::with_capacity(tokens * t5.width);
            for token in 0..clip_tokens {
                for (width, found) in &states {
                    values.extend_from_slice(&found[text][token * width..][..*width]);
                }
                values.resize((token + 1) * t5.width, 0.0);
            }
            values.extend_from_slice(&long[text]);
            TextEmbedding {
                states: Tensor::from_f32([tokens, t5.width], &values),
                pooled: Some(Tensor::from_f32([pooled[text].len()], &pooled[text])),
            }
        };
        Ok((0..texts.len() / 2).map(|i| [embedding(2 * i), embedding(2 * i + 1)]).collect())
    }
}

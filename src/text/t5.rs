//! The large encoder of text of Stable Diffusion 3, with its tokenizer: pieces of words, whole texts at a time.

use std::path::Path;

use serde_json::Value;

use super::encoder::{finite, weigh};
use super::prompt::{Piece, pieces};
use super::tokenizer::plain;
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::models::t5_encoder::{T5EncoderConfig, t5_encoder_graph};
use crate::nn::Source;
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// T5's tokenizer (Kudo 2018, arXiv:1804.10959), which ends a text but does not begin it.
#[derive(Clone, Debug)]
pub struct T5Tokenizer {
    inner: tokenizers::Tokenizer,
    /// After a text, and in the room that is left.
    pub end: u32,
    pub pad: u32,
}

impl T5Tokenizer {
    /// Reads `tokenizer.json` in a folder of transformers'.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Format`] for a file that is not that of a T5 tokenizer and for a folder with
    /// SentencePiece's `spiece.model` alone.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join("tokenizer.json");
        let fail = |message: String| Error::Format { path: path.clone(), message };
        if !path.is_file() && folder.join("spiece.model").is_file() {
            return Err(Error::Format {
                path: folder.join("spiece.model"),
                message: "is SentencePiece's own form; save the tokenizer with transformers' T5TokenizerFast, which \
                          writes the tokenizer.json that is read here"
                    .to_owned(),
            });
        }
        let bytes = files::bytes(&path)?;
        let inner = plain(&bytes).map_err(fail)?;
        let settings: Value = files::text(&folder.join("tokenizer_config.json"))
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let special = |setting: &str, default: &str| {
            let named = settings[setting].as_str().or(settings[setting]["content"].as_str());
            let token = named.unwrap_or(default);
            inner.token_to_id(token).ok_or_else(|| fail(format!("has no token \"{token}\", its {setting}")))
        };
        Ok(T5Tokenizer { end: special("eos_token", "</s>")?, pad: special("pad_token", "<pad>")?, inner })
    }

    /// The tokens of a text, without the end, and at which of its bytes each begins.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what the tokenizer cannot read.
    pub fn tokens(&self, text: &str) -> Result<Vec<(u32, usize)>> {
        let encoding = self.inner.encode(text, false).map_err(|e| Error::Invalid {
            what: "text".to_owned(),
            expected: "one that the tokenizer reads".to_owned(),
            found: e.to_string(),
        })?;
        let starts = encoding.get_offsets().iter().map(|(start, _)| *start);
        Ok(encoding.get_ids().iter().copied().zip(starts).collect())
    }
}

/// T5 with its tokenizer.
#[derive(Clone, Debug)]
pub struct T5TextEncoder {
    pub config: T5EncoderConfig,
    pub weights: Weights,
    pub tokenizer: T5Tokenizer,
}

impl T5TextEncoder {
    /// A prompt's tokens with their weights, cut to `room` less the end. The text is read as a whole: where brackets
    /// stand in it does not change its tokens.
    fn tokens(&self, prompt: &str, room: usize) -> Result<Vec<(u32, f32)>> {
        let mut text = String::new();
        // From which byte on words have which weight.
        let mut weights = vec![(0, 1.0)];
        for piece in pieces(prompt) {
            match piece {
                Piece::Break => text.push(' '),
                Piece::Text { text: piece, weight } => {
                    weights.push((text.len(), weight));
                    text.push_str(&piece);
                }
            }
        }
        let weight_at = |byte: usize| weights[weights.partition_point(|(from, _)| *from <= byte) - 1].1;
        let tokens = self.tokenizer.tokens(&text)?;
        Ok(tokens.into_iter().take(room - 1).map(|(token, start)| (token, weight_at(start))).collect())
    }

    pub(super) fn graph(&self, shape: [usize; 2], dtype: DType) -> Result<Graph> {
        t5_encoder_graph(&self.config, Source { weights: &self.weights, dtype }, shape)
    }

    /// States of each text, `[room, d_model]`.
    pub(super) fn run(&self, gpu: &Gpu, texts: &[&str], room: usize, dtype: DType) -> Result<Vec<Vec<f32>>> {
        let (config, n) = (&self.config, texts.len());
        let texts = texts.iter().map(|text| self.tokens(text, room)).collect::<Result<Vec<_>>>()?;
        let mut rows = Vec::with_capacity(n * room * config.d_model);
        for text in &texts {
            let mut tokens: Vec<u32> = text.iter().map(|(token, _)| *token).collect();
            tokens.push(self.tokenizer.end);
            tokens.resize(room, self.tokenizer.pad);
            rows.extend(config.embed(&self.weights, &tokens)?.to_f32());
        }
        let network = Network::new(gpu, &self.graph([n, room], dtype)?)?;
        network.write("embeddings", &Tensor::from_f32([n, room, config.d_model], &rows))?;
        network.submit(1)?;
        let mut states = finite(network.read("states")?.to_f32(), &self.weights, dtype)?;
        let size = room * config.d_model;
        for (states, text) in states.chunks_exact_mut(size).zip(&texts) {
            weigh(states, 0, text, config.d_model);
        }
        Ok(states.chunks_exact(size).map(<[f32]>::to_vec).collect())
    }
}

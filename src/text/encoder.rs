//! Prompts to embeddings: tokens in chunks through one encoder or two, weighed as the prompt says.

use super::prompt::{Piece, pieces};
use super::sd3::T5Part;
use super::tokenizer::Tokenizer;
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::formats::diffusers::Folder;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::models::clip_text::{ClipTextConfig, ClipTextOptions, clip_text_graph};
use crate::nn::Source;
use crate::plan::{NetworkMemory, Plan};
use crate::target::Target;
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// What a picture is told by: text as its encoders give it.
#[derive(Clone, Debug)]
pub struct TextEmbedding {
    /// `[tokens, width]`.
    pub states: Tensor,
    /// `[width]`, of models that want the text as a whole too (SDXL).
    pub pooled: Option<Tensor>,
}

/// An encoder with its tokenizer.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    pub config: ClipTextConfig,
    pub weights: Weights,
    pub tokenizer: Tokenizer,
}

/// The encoders of a model. Stable Diffusion 1 and 2 have one, whose last states go through its last norm; SDXL has
/// two, side by side, whose last layers are not used, and the second's text as a whole. Stable Diffusion 3 has those and
/// T5, and each one's text as a whole.
#[derive(Clone, Debug)]
pub struct TextEncoders {
    pub encoders: Vec<TextEncoder>,
    pub xl: bool,
    /// Layers that are left out at the end beyond those that the model leaves out itself.
    pub clip_skip: usize,
    /// An absent negative text is zeros, not the empty text (SDXL's `force_zeros_for_empty_prompt`).
    pub zeros_for_none: bool,
    /// Of Stable Diffusion 3.
    pub t5: Option<T5Part>,
}

/// Tokens of a chunk and what each weighs.
pub(super) type Chunk = Vec<(u32, f32)>;

impl TextEncoders {
    /// The encoders in a pipeline's folder.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for encoders of another class, and those of the files.
    pub fn open(folder: &Folder) -> Result<Self> {
        let mut encoders = Vec::new();
        let mut wrong = Vec::new();
        for (part, tokenizer) in [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")] {
            match folder.part(part) {
                None => {}
                Some("CLIPTextModel" | "CLIPTextModelWithProjection") => encoders.push(TextEncoder {
                    config: ClipTextConfig::from_json(&folder.text(part, "config.json")?)?,
                    weights: folder.weights(part)?,
                    tokenizer: Tokenizer::open(folder.path().join(tokenizer))?,
                }),
                Some(class) => wrong.push(format!("{part} of class {class} (this crate has CLIPTextModel)")),
            }
        }
        if encoders.is_empty() && wrong.is_empty() {
            wrong.push("a pipeline without a text_encoder".to_owned());
        }
        if !wrong.is_empty() {
            return Err(Error::Unsupported { path: folder.path().to_owned(), nodes: wrong });
        }
        Ok(TextEncoders {
            encoders,
            xl: folder.class().starts_with("StableDiffusionXL"),
            clip_skip: 0,
            zeros_for_none: folder
                .setting("force_zeros_for_empty_prompt")
                .and_then(|v| v.as_bool())
                .unwrap_or(true),
            t5: T5Part::open(folder)?,
        })
    }

    /// What each encoder takes of a device's memory for so many prompts, each with what is not wanted, of `tokens`
    /// tokens together with what begins and ends a chunk; only one is there at a time.
    ///
    /// # Errors
    /// Those of the weights, and [`Error::Limit`] for what the device cannot bind.
    pub fn predict(
        &self,
        target: &Target,
        prompts: usize,
        tokens: usize,
        dtype: DType,
    ) -> Result<Vec<NetworkMemory>> {
        let tokens = tokens.saturating_sub(self.t5.as_ref().map_or(0, |t5| t5.tokens));
        let memory = |(i, encoder): (usize, &TextEncoder)| {
            let chunks = 2 * prompts * tokens.div_ceil(encoder.length()).max(1);
            let graph = encoder.graph(chunks, self.options(i), dtype)?;
            Ok(Plan::compile(&graph, target)?.memory())
        };
        let mut all = self.encoders.iter().enumerate().map(memory).collect::<Result<Vec<_>>>()?;
        if let Some(graph) = self.t5.as_ref().and_then(|t5| t5.graph(2 * prompts, dtype)) {
            all.push(Plan::compile(&graph?, target)?.memory());
        }
        Ok(all)
    }

    /// What is asked of an encoder.
    pub(super) fn options(&self, encoder: usize) -> ClipTextOptions {
        let before_last = self.xl || self.t5.is_some();
        ClipTextOptions {
            skip: self.clip_skip + usize::from(before_last),
            normalise: !before_last,
            pooled: self.t5.is_some() || self.xl && encoder + 1 == self.encoders.len(),
        }
    }

    /// Tokens of an embedding of one chunk, with those of T5 where there is one.
    pub fn tokens(&self) -> usize {
        self.encoders.iter().map(TextEncoder::length).max().unwrap_or(0)
            + self.t5.as_ref().map_or(0, |t5| t5.tokens)
    }

    /// Their weights, for adapters; T5's last.
    pub fn weights_mut(&mut self) -> Vec<&mut Weights> {
        let clip = self.encoders.iter_mut().map(|encoder| &mut encoder.weights);
        let t5 = self.t5.iter_mut().filter_map(|t5| t5.encoder.as_mut());
        clip.chain(t5.map(|encoder| &mut encoder.weights)).collect()
    }

    /// Embeddings of prompts and, beside each, of what is not wanted; all of as many tokens. The encoders are on the
    /// device one after the other and only while this runs.
    ///
    /// # Errors
    /// [`Error::Invalid`] for text that the tokenizer cannot read, and those of the device.
    pub fn encode(
        &self,
        gpu: &Gpu,
        prompts: &[(&str, Option<&str>)],
        dtype: DType,
    ) -> Result<Vec<[TextEmbedding; 2]>> {
        let texts: Vec<&str> =
            prompts.iter().flat_map(|(text, negative)| [text, negative.unwrap_or("")]).collect();
        if let Some(t5) = &self.t5 {
            return self.encode_for_sd3(gpu, &texts, t5, dtype);
        }
        let chunked = self.chunks(&texts)?;
        let mut states: Vec<Vec<Vec<f32>>> = Vec::new();
        let mut pooled: Vec<Tensor> = Vec::new();
        let mut width = 0;
        for (i, (encoder, chunks)) in self.encoders.iter().zip(&chunked).enumerate() {
            let (found, whole) = encoder.run(gpu, chunks, self.options(i), dtype)?;
            width += encoder.config.hidden_size;
            states.push(found);
            pooled = whole;
        }
        let tokens = states[0][0].len() / self.encoders[0].config.hidden_size;
        // Token by token the encoders' results side by side.
        let joined = |text: usize| {
            let mut values = Vec::with_capacity(tokens * width);
            for token in 0..tokens {
                for (encoder, found) in self.encoders.iter().zip(&states) {
                    let c = encoder.config.hidden_size;
                    values.extend_from_slice(&found[text][token * c..][..c]);
                }
            }
            let embedding = TextEmbedding {
                states: Tensor::from_f32([tokens, width], &values),
                pooled: pooled.get(text).cloned(),
            };
            let absent = text % 2 == 1 && prompts[text / 2].1.is_none();
            if absent && self.xl && self.zeros_for_none { zeros(&embedding) } else { embedding }
        };
        Ok((0..prompts.len()).map(|i| [joined(2 * i), joined(2 * i + 1)]).collect())
    }

    /// For each encoder the chunks of each text, of all texts as many.
    pub(super) fn chunks(&self, texts: &[&str]) -> Result<Vec<Vec<Vec<Chunk>>>> {
        let mut chunked = Vec::new();
        let mut most = 1;
        for encoder in &self.encoders {
            let chunks = texts.iter().map(|text| encoder.chunks(text)).collect::<Result<Vec<_>>>()?;
            most = chunks.iter().map(Vec::len).fold(most, usize::max);
            chunked.push(chunks);
        }
        chunked.iter_mut().flatten().for_each(|chunks| chunks.resize(most, Chunk::new()));
        Ok(chunked)
    }
}

fn zeros(like: &TextEmbedding) -> TextEmbedding {
    let zero = |t: &Tensor| Tensor::from_f32(t.desc.shape.clone(), &vec![0.0; t.desc.shape.elements()]);
    TextEmbedding { states: zero(&like.states), pooled: like.pooled.as_ref().map(zero) }
}

impl TextEncoder {
    /// A prompt's tokens in chunks that the encoder takes, with their weights; at least one chunk.
    fn chunks(&self, prompt: &str) -> Result<Vec<Chunk>> {
        let room = self.tokenizer.room();
        let mut chunks = vec![Chunk::new()];
        for piece in pieces(prompt) {
            match piece {
                Piece::Break => chunks.push(Chunk::new()),
                Piece::Text { text, weight } => {
                    for token in self.tokenizer.tokens(&text)? {
                        let together = self.tokenizer.together(token);
                        if chunks.last().is_none_or(|chunk| chunk.len() + together > room) {
                            chunks.push(Chunk::new());
                        }
                        chunks.last_mut().expect("just pushed").push((token, weight));
                    }
                }
            }
        }
        Ok(chunks)
    }

    /// Tokens of a chunk, with those that begin and end it.
    fn length(&self) -> usize {
        self.tokenizer.length.min(self.config.max_position_embeddings)
    }

    fn graph(&self, chunks: usize, options: ClipTextOptions, dtype: DType) -> Result<Graph> {
        let source = Source { weights: &self.weights, dtype };
        clip_text_graph(&self.config, source, [chunks, self.length()], options)
    }

    /// States of each text, its chunks one after the other, and the texts as a whole (of their first chunks).
    pub(super) fn run(
        &self,
        gpu: &Gpu,
        texts: &[Vec<Chunk>],
        options: ClipTextOptions,
        dtype: DType,
    ) -> Result<(Vec<Vec<f32>>, Vec<Tensor>)> {
        let (config, length) = (&self.config, self.length());
        let all: Vec<&Chunk> = texts.iter().flatten().collect();
        let mut rows = Vec::with_capacity(all.len() * length * config.hidden_size);
        let mut ends = Vec::new();
        for (i, chunk) in all.iter().enumerate() {
            let tokens: Vec<u32> = chunk.iter().map(|(token, _)| *token).collect();
            let tokens = self.tokenizer.chunk(&tokens);
            rows.extend(config.embed(&self.weights, &tokens[..length])?.to_f32());
            ends.push((i * length + config.end(&tokens)) as u32);
        }
        let network = Network::new(gpu, &self.graph(all.len(), options, dtype)?)?;
        network.write("embeddings", &Tensor::from_f32([all.len(), length, config.hidden_size], &rows))?;
        if options.pooled {
            network.write("ends", &Tensor::from_u32([all.len()], &ends))?;
        }
        network.submit(1)?;
        let mut states = finite(network.read("states")?.to_f32(), &self.weights, dtype)?;
        let size = length * config.hidden_size;
        for (states, chunk) in states.chunks_exact_mut(size).zip(&all) {
            // The first row is the token that begins the text.
            weigh(states, 1, chunk, config.hidden_size);
        }
        let per_text = texts[0].len();
        let mut pooled = Vec::new();
        if options.pooled {
            let whole = network.read("pooled")?;
            let width = whole.desc.shape.last();
            let first = |row: &[f32]| Tensor::from_f32([width], row);
            pooled = whole.to_f32().chunks_exact(width).step_by(per_text).map(first).collect();
        }
        Ok((states.chunks_exact(size * per_text).map(<[f32]>::to_vec).collect(), pooled))
    }
}

/// Refuses results that are no numbers.
pub(super) fn finite(states: Vec<f32>, weights: &Weights, dtype: DType) -> Result<Vec<f32>> {
    match states.iter().find(|v| !v.is_finite()) {
        None => Ok(states),
        Some(wrong) => Err(Error::Invalid {
            what: format!("result of the encoder of text in {}", weights.file()),
            expected: "numbers".to_owned(),
            found: format!("{wrong}{}", if dtype == DType::F16 { "; it may need f32" } else { "" }),
        }),
    }
}

/// Multiplies the states of a chunk's tokens, from row `first` on, by their weights and keeps the mean of all.
pub(super) fn weigh(states: &mut [f32], first: usize, chunk: &[(u32, f32)], width: usize) {
    if chunk.iter().all(|(_, weight)| *weight == 1.0) {
        return;
    }
    let mean = |states: &[f32]| states.iter().map(|v| f64::from(*v)).sum::<f64>() / states.len() as f64;
    let before = mean(states);
    for (row, (_, weight)) in states.chunks_exact_mut(width).skip(first).zip(chunk) {
        row.iter_mut().for_each(|v| *v *= weight);
    }
    let scale = (before / mean(states)) as f32;
    if scale.is_finite() {
        states.iter_mut().for_each(|v| *v *= scale);
    }
}

//! transformers' `CLIPTextModel`: the encoder of text of Stable Diffusion (Radford et al. 2021, arXiv:2103.00020).

use std::ops::Range;

use serde::Deserialize;

use super::config::Class;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::attention::AttentionOptions;
use crate::ops::expr::Unary;
use crate::ops::strided;
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// `config.json`, with transformers' defaults. [`ClipTextConfig::from_json`] refuses what this crate cannot run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub projection_dim: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f32,
    pub eos_token_id: u32,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        ClipTextConfig {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

const CLASS: Class = Class("CLIPTextModel");

/// Embeddings of tokens beyond the vocabulary.
const ADDED: &str = "added_token_embedding";

impl ClipTextConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no JSON, and for each setting that this crate does not have, by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: ClipTextConfig = CLASS.parse(text)?;
        config.activation()?;
        CLASS.sizes([
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("max_position_embeddings", config.max_position_embeddings),
        ])?;
        match config.num_attention_heads {
            heads if heads > 0 && config.hidden_size.is_multiple_of(heads) => Ok(config),
            heads => {
                let expected = format!("a divisor of hidden_size, {}", config.hidden_size);
                Err(CLASS.unsupported("num_attention_heads", &expected, heads))
            }
        }
    }

    /// The configuration of an encoder whose file has none, told by its tensors: heads of 64 and, in OpenCLIP's, GELU.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] and [`Error::WrongTensor`].
    pub fn of_weights(weights: &Weights, open_clip: bool) -> Result<Self> {
        let prefix = prefix(weights);
        let matrix = |name: &str| {
            let name = format!("{prefix}{name}");
            match weights.shape(&name).map(|shape| shape.to_vec()).as_deref() {
                Some(&[rows, columns]) => Ok([rows, columns]),
                found => Err(Error::WrongTensor {
                    file: weights.file().to_owned(),
                    name,
                    expected: "a matrix".to_owned(),
                    found: found.map_or("no such tensor".to_owned(), |shape| format!("shape {shape:?}")),
                }),
            }
        };
        let [vocab_size, hidden_size] = matrix("embeddings.token_embedding.weight")?;
        let [max_position_embeddings, _] = matrix("embeddings.position_embedding.weight")?;
        let [intermediate_size, _] = matrix("encoder.layers.0.mlp.fc1.weight")?;
        let layer = |i: &usize| weights.contains(&format!("{prefix}encoder.layers.{i}.layer_norm1.weight"));
        Ok(ClipTextConfig {
            vocab_size,
            hidden_size,
            intermediate_size,
            max_position_embeddings,
            projection_dim: weights
                .shape("text_projection.weight")
                .and_then(|shape| shape.first().copied())
                .unwrap_or(hidden_size),
            num_hidden_layers: (0..).take_while(layer).count(),
            num_attention_heads: (hidden_size / 64).max(1),
            hidden_act: if open_clip { "gelu" } else { "quick_gelu" }.to_owned(),
            ..ClipTextConfig::default()
        })
    }

    fn activation(&self) -> Result<Unary> {
        CLASS.one_of("hidden_act", &self.hidden_act, &["quick_gelu", "gelu"])?;
        Ok(if self.hidden_act == "gelu" { Unary::Gelu } else { Unary::QuickGelu })
    }

    /// Where a text ends: the token whose result stands for all of it. Old configurations give 2 as its number, which
    /// it is not: there it is the largest one.
    pub fn end(&self, tokens: &[u32]) -> usize {
        let known = tokens.iter().copied().filter(|&token| (token as usize) < self.vocab_size);
        let largest = known.max();
        let is_end = |token: u32| match self.eos_token_id {
            2 => Some(token) == largest,
            end => token == end,
        };
        tokens.iter().position(|&token| is_end(token)).unwrap_or(0)
    }

    /// The embeddings of tokens `[tokens, hidden_size]`, f32. They are looked up on the host: a text has some dozen
    /// rows of a table of some 150 MB, which the device then need not hold.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongTensor`], [`Error::Invalid`] for a token that is not in the table.
    pub fn embed(&self, weights: &Weights, tokens: &[u32]) -> Result<Tensor> {
        let name = format!("{}embeddings.token_embedding.weight", prefix(weights));
        let table = weights.tensor(&name, &[self.vocab_size, self.hidden_size])?;
        let added = self.added(weights)?;
        // An empty table may claim any width.
        let mut rows = Vec::new();
        for &token in tokens {
            let row = token as usize;
            let beyond = row.checked_sub(self.vocab_size);
            rows.extend(match (beyond, &added) {
                (None, _) => table.rows(row..row + 1).to_f32(),
                (Some(row), Some(added)) if row < added.desc.shape[0] => added.rows(row..row + 1).to_f32(),
                _ => {
                    return Err(Error::Invalid {
                        what: "token".to_owned(),
                        expected: format!("below {}, the size of the encoder's vocabulary", self.vocab_size),
                        found: token.to_string(),
                    });
                }
            });
        }
        Ok(Tensor::from_f32([tokens.len(), self.hidden_size], &rows))
    }

    /// Gives the vectors `[k, hidden_size]` to `k` tokens beyond the vocabulary, and says which these are.
    ///
    /// # Errors
    /// [`Error::Invalid`] for vectors of another width.
    pub fn add_tokens(&self, weights: &mut Weights, vectors: &Tensor) -> Result<Range<u32>> {
        let [count, width] = vectors.desc.shape[..] else {
            return Err(CLASS.unsupported("vectors", "[k, hidden_size]", &vectors.desc.shape));
        };
        if width != self.hidden_size {
            let expected = format!("[k, {}]", self.hidden_size);
            return Err(CLASS.unsupported("vectors", &expected, &vectors.desc.shape));
        }
        let before = self.added(weights)?;
        let known = before.as_ref().map_or(0, |added| added.desc.shape[0]);
        let mut rows = before.map_or_else(Vec::new, |added| added.to_f32());
        rows.extend(vectors.to_f32());
        weights.insert(ADDED, Tensor::from_f32([known + count, width], &rows));
        let first = (self.vocab_size + known) as u32;
        Ok(first..first + count as u32)
    }

    fn added(&self, weights: &Weights) -> Result<Option<Tensor>> {
        let count = weights.shape(ADDED).and_then(|shape| shape.first().copied());
        count.map(|count| weights.tensor(ADDED, &[count, self.hidden_size])).transpose()
    }
}

/// What tensors' names begin with; newer files leave it out.
fn prefix(weights: &Weights) -> &'static str {
    match weights.contains("text_model.embeddings.token_embedding.weight") {
        true => "text_model.",
        false => "",
    }
}

/// What is asked of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipTextOptions {
    /// Layers at the end whose results are not used ("clip skip").
    pub skip: usize,
    /// Whether the states go through the last layer norm.
    pub normalise: bool,
    /// Whether the text as a whole is wanted too.
    pub pooled: bool,
}

/// The results of an encoder.
#[derive(Clone, Copy, Debug)]
pub struct ClipText {
    /// `[n, tokens, hidden_size]`.
    pub states: ValueId,
    /// `[n, projection_dim]`, or `[n, hidden_size]` of encoders without a projection.
    pub pooled: Option<ValueId>,
}

/// The network: `x` `[n, tokens, hidden_size]`, see [`ClipTextConfig::embed`]; `ends` `[n]`, u32, are the rows of
/// `[n · tokens]` at which the texts end.
///
/// # Errors
/// [`Error::Invalid`] for more tokens than there are positions and more skipped layers than there are, and those of
/// the weights.
pub fn clip_text(
    g: &mut Graph,
    config: &ClipTextConfig,
    w: Source,
    x: ValueId,
    ends: Option<ValueId>,
    options: ClipTextOptions,
) -> Result<ClipText> {
    let [n, tokens, c] = g.shape(x)[..] else {
        return Err(CLASS.unsupported("embeddings", "[n, tokens, hidden_size]", g.shape(x)));
    };
    let positions = config.max_position_embeddings;
    if tokens > positions {
        return Err(CLASS.unsupported("number of tokens", &format!("at most {positions}"), tokens));
    }
    let Some(used) = config.num_hidden_layers.checked_sub(options.skip) else {
        let expected = format!("at most {}", config.num_hidden_layers);
        return Err(CLASS.unsupported("number of skipped layers", &expected, options.skip));
    };
    let prefix = prefix(w.weights);
    let table = w.get(g, &format!("{prefix}embeddings.position_embedding.weight"), &[positions, c])?;
    let rows = strided::Range { start: 0, stop: Some(tokens), step: 1 };
    let places = g.slice(table, &[rows, strided::Range::all()])?;
    let x = g.cast(x, w.dtype)?;
    let mut h = g.add(x, places)?;
    let mut states = h;
    let layers = if options.pooled { config.num_hidden_layers } else { used };
    for layer in 0..layers {
        h = self::layer(g, config, w, &format!("{prefix}encoder.layers.{layer}"), h)?;
        if layer + 1 == used {
            states = h;
        }
    }
    let normed =
        |g: &mut Graph, h| w.layer_norm(g, &format!("{prefix}final_layer_norm"), h, config.layer_norm_eps);
    let last = if options.pooled { Some(normed(g, h)?) } else { None };
    let states = match (options.normalise, last) {
        (false, _) => states,
        (true, Some(last)) if used == layers => last,
        (true, _) => normed(g, states)?,
    };
    let pooled = match (last, ends) {
        (Some(last), Some(ends)) => {
            let rows = g.reshape(last, [n * tokens, c])?;
            let end = g.scoped("pooled", |g| g.gather(rows, ends, 0))?;
            Some(match w.weights.contains("text_projection.weight") {
                true => w.matrix(g, "text_projection", end, config.projection_dim)?,
                false => end,
            })
        }
        _ => None,
    };
    Ok(ClipText { states, pooled })
}

/// Self-attention to what came before, then a feed-forward network, each after a norm and added to what it got.
fn layer(g: &mut Graph, config: &ClipTextConfig, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let c = g.shape(x).last();
    let at = |part: &str| format!("{name}.{part}");
    let h = w.layer_norm(g, &at("layer_norm1"), x, config.layer_norm_eps)?;
    let q = w.linear(g, &at("self_attn.q_proj"), h, c)?;
    let k = w.linear(g, &at("self_attn.k_proj"), h, c)?;
    let v = w.linear(g, &at("self_attn.v_proj"), h, c)?;
    let causal = AttentionOptions { causal: true, ..AttentionOptions::default() };
    let h = g.scoped(&at("self_attn"), |g| g.attention(q, k, v, config.num_attention_heads, causal))?;
    let h = w.linear(g, &at("self_attn.out_proj"), h, c)?;
    let x = g.add(h, x)?;
    let h = w.layer_norm(g, &at("layer_norm2"), x, config.layer_norm_eps)?;
    let h = w.linear(g, &at("mlp.fc1"), h, config.intermediate_size)?;
    let activation = config.activation()?;
    let h = g.scoped(&at("mlp"), |g| g.unary(activation, h))?;
    let h = w.linear(g, &at("mlp.fc2"), h, c)?;
    g.add(h, x)
}

/// The graph of an encoder for `n` texts: inputs `embeddings` `[n, tokens, hidden_size]` and, if the text as a whole
/// is wanted, `ends` `[n]`; outputs `states` and `pooled`.
///
/// # Errors
/// As [`clip_text`].
pub fn clip_text_graph(
    config: &ClipTextConfig,
    w: Source,
    [n, tokens]: [usize; 2],
    options: ClipTextOptions,
) -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("embeddings", [n, tokens, config.hidden_size], DType::F32);
    let ends = options.pooled.then(|| g.input("ends", [n], DType::U32));
    let found = clip_text(&mut g, config, w, x, ends, options)?;
    let states = g.cast(found.states, DType::F32)?;
    g.output("states", states);
    if let Some(pooled) = found.pooled {
        let pooled = g.cast(pooled, DType::F32)?;
        g.output("pooled", pooled);
    }
    Ok(g)
}

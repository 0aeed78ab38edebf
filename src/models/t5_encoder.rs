//! transformers' `T5EncoderModel`, version 1.1: the large encoder of text of Stable Diffusion 3 (Raffel et al. 2020,
//! arXiv:1910.10683; gated as Shazeer 2020, arXiv:2002.05202).

use serde::Deserialize;

use super::config::Class;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::attention::{AttentionOptions, MAX_HEAD_SIZE};
use crate::ops::expr::Unary;
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// `config.json`, with transformers' defaults. [`T5EncoderConfig::from_json`] refuses what this crate cannot run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct T5EncoderConfig {
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f32,
    pub feed_forward_proj: String,
}

impl Default for T5EncoderConfig {
    fn default() -> Self {
        T5EncoderConfig {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".to_owned(),
        }
    }
}

const CLASS: Class = Class("T5EncoderModel");

impl T5EncoderConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no JSON, and for each setting that this crate does not have, by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: T5EncoderConfig = CLASS.parse(text)?;
        CLASS.one_of("feed_forward_proj", &config.feed_forward_proj, &["gated-gelu"])?;
        CLASS.sizes([
            ("d_model", config.d_model),
            ("d_kv", config.d_kv),
            ("d_ff", config.d_ff),
            ("num_layers", config.num_layers),
            ("num_heads", config.num_heads),
        ])?;
        if config.d_kv > MAX_HEAD_SIZE {
            return Err(CLASS.unsupported("d_kv", &format!("at most {MAX_HEAD_SIZE}"), config.d_kv));
        }
        // A quarter of the buckets, in each direction, have one distance each.
        let (buckets, distance) =
            (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        if !(4..=1 << 16).contains(&buckets) || !(buckets / 4 + 1..=1 << 16).contains(&distance) {
            let what = "relative_attention_num_buckets and relative_attention_max_distance";
            let expected = "at least 4, and more than a quarter of that";
            return Err(CLASS.unsupported(what, expected, format!("{buckets}, {distance}")));
        }
        Ok(config)
    }

    /// The configuration of an encoder whose file has none, told by its tensors.
    ///
    /// # Errors
    /// [`Error::WrongTensor`] for what is missing or no matrix.
    pub fn of_weights(weights: &Weights) -> Result<Self> {
        let matrix = |name: &str| match weights.shape(name).map(|shape| shape.to_vec()).as_deref() {
            Some(&[rows, columns]) => Ok([rows, columns]),
            found => Err(Error::WrongTensor {
                file: weights.file().to_owned(),
                name: name.to_owned(),
                expected: "a matrix".to_owned(),
                found: found.map_or("no such tensor".to_owned(), |shape| format!("shape {shape:?}")),
            }),
        };
        let [vocab_size, d_model] = matrix(table_name(weights))?;
        let layer = "encoder.block.0.layer";
        let [relative_attention_num_buckets, num_heads] =
            matrix(&format!("{layer}.0.SelfAttention.relative_attention_bias.weight"))?;
        let [inner, _] = matrix(&format!("{layer}.0.SelfAttention.q.weight"))?;
        let [d_ff, _] = matrix(&format!("{layer}.1.DenseReluDense.wi_0.weight"))?;
        let layer =
            |i: &usize| weights.contains(&format!("encoder.block.{i}.layer.0.SelfAttention.q.weight"));
        let settings = serde_json::json!({
            "vocab_size": vocab_size,
            "d_model": d_model,
            "d_kv": inner / num_heads.max(1),
            "d_ff": d_ff,
            "num_layers": (0..).take_while(layer).count(),
            "num_heads": num_heads,
            "relative_attention_num_buckets": relative_attention_num_buckets,
            "feed_forward_proj": "gated-gelu",
        });
        T5EncoderConfig::from_json(&settings.to_string())
    }

    /// The embeddings of tokens `[tokens, d_model]`, f32, looked up on the host as those of CLIP.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongTensor`], [`Error::Invalid`] for a token that is
    /// not in the table.
    pub fn embed(&self, weights: &Weights, tokens: &[u32]) -> Result<Tensor> {
        let table = weights.tensor(table_name(weights), &[self.vocab_size, self.d_model])?;
        let mut rows = Vec::with_capacity(tokens.len() * self.d_model);
        for &token in tokens {
            let row = token as usize;
            if row >= self.vocab_size {
                return Err(Error::Invalid {
                    what: "token".to_owned(),
                    expected: format!("below {}, the size of the encoder's vocabulary", self.vocab_size),
                    found: token.to_string(),
                });
            }
            rows.extend(table.rows(row..row + 1).to_f32());
        }
        Ok(Tensor::from_f32([tokens.len(), self.d_model], &rows))
    }

    /// Which bias is for a key `key − query` tokens away: near ones have one each, those from a quarter of the buckets
    /// on share them in even steps of the logarithm, the two directions apart.
    fn bucket(&self, query: usize, key: usize) -> u32 {
        let half = self.relative_attention_num_buckets / 2;
        let near = half / 2;
        let away = key.abs_diff(query);
        let bucket = if away < near {
            away
        } else {
            // In f32 as the reference, which cuts off what falls on the border of two.
            let far = (self.relative_attention_max_distance as f64 / near as f64).ln() as f32;
            let steps = (away as f32 / near as f32).ln() / far * (half - near) as f32;
            (near + steps as usize).min(half - 1)
        };
        (bucket + if key > query { half } else { 0 }) as u32
    }
}

/// What the table of tokens is called.
fn table_name(weights: &Weights) -> &'static str {
    match weights.contains("shared.weight") {
        true => "shared.weight",
        false => "encoder.embed_tokens.weight",
    }
}

/// The network: `x` `[n, tokens, d_model]`, see [`T5EncoderConfig::embed`]; the result has its shape, and is f32. What
/// goes from layer to layer is f32 whatever `w` says, as published weights overflow in f16 there.
///
/// # Errors
/// Those of the weights.
pub fn t5_encoder(g: &mut Graph, config: &T5EncoderConfig, w: Source, x: ValueId) -> Result<ValueId> {
    let [_, tokens, _] = g.shape(x)[..] else {
        return Err(CLASS.unsupported("embeddings", "[n, tokens, d_model]", g.shape(x)));
    };
    let whole = Source { dtype: DType::F32, ..w };
    let bias = position_bias(g, config, w, tokens)?;
    let mut h = x;
    for layer in 0..config.num_layers {
        let at = |part: &str| format!("encoder.block.{layer}.layer.{part}");
        let normed = whole.rms_norm(g, &at("0.layer_norm"), h, config.layer_norm_epsilon)?;
        let attended = attention(g, config, w, &at("0.SelfAttention"), normed, bias)?;
        h = g.add(attended, h)?;
        let normed = whole.rms_norm(g, &at("1.layer_norm"), h, config.layer_norm_epsilon)?;
        let fed = feed_forward(g, config, w, &at("1.DenseReluDense"), normed)?;
        h = g.add(fed, h)?;
    }
    whole.rms_norm(g, "encoder.final_layer_norm", h, config.layer_norm_epsilon)
}

/// What each head adds to the scores, `[1, heads, tokens, tokens]`: the same in all layers, from the table of the first.
fn position_bias(g: &mut Graph, config: &T5EncoderConfig, w: Source, tokens: usize) -> Result<ValueId> {
    let name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias";
    let heads = config.num_heads;
    let shape = [config.relative_attention_num_buckets, heads];
    let table = w.get(g, &format!("{name}.weight"), &shape)?;
    let buckets: Vec<u32> = (0..tokens * tokens).map(|i| config.bucket(i / tokens, i % tokens)).collect();
    let buckets = g.weight(&format!("{name}.buckets"), Tensor::from_u32([tokens * tokens], &buckets));
    g.scoped(name, |g| {
        let bias = g.gather(table, buckets, 0)?;
        let bias = g.transpose(bias, &[1, 0])?;
        g.reshape(bias, [1, heads, tokens, tokens])
    })
}

/// Self-attention whose scores are not scaled, f32 in and out.
fn attention(
    g: &mut Graph,
    config: &T5EncoderConfig,
    w: Source,
    name: &str,
    x: ValueId,
    bias: ValueId,
) -> Result<ValueId> {
    let inner = config.num_heads * config.d_kv;
    let x = g.cast(x, w.dtype)?;
    let mut projected = |part: &str| w.matrix(g, &format!("{name}.{part}"), x, inner);
    let [q, k, v] = [projected("q")?, projected("k")?, projected("v")?];
    let options = AttentionOptions { scale: Some(1.0), mask: Some(bias), causal: false };
    let h = g.scoped(name, |g| g.attention(q, k, v, config.num_heads, options))?;
    let h = w.matrix(g, &format!("{name}.o"), h, config.d_model)?;
    g.cast(h, DType::F32)
}

/// `gelu(x A) · (x B)`, then back; the last matrix in f32, as its products overflow in f16.
fn feed_forward(
    g: &mut Graph,
    config: &T5EncoderConfig,
    w: Source,
    name: &str,
    x: ValueId,
) -> Result<ValueId> {
    let x = g.cast(x, w.dtype)?;
    let gate = w.matrix(g, &format!("{name}.wi_0"), x, config.d_ff)?;
    let value = w.matrix(g, &format!("{name}.wi_1"), x, config.d_ff)?;
    let h = g.scoped(name, |g| {
        let gate = g.unary(Unary::GeluTanh, gate)?;
        let h = g.mul(gate, value)?;
        g.cast(h, DType::F32)
    })?;
    Source { dtype: DType::F32, ..w }.matrix(g, &format!("{name}.wo"), h, config.d_model)
}

impl T5EncoderConfig {
    /// Whether all tensors are there and can be read.
    ///
    /// # Errors
    /// Those of the weights, all of them at once.
    pub fn check_weights(&self, weights: &Weights) -> Result<()> {
        weights.survey(|weights| {
            weights.tensor(table_name(weights), &[self.vocab_size, self.d_model])?;
            t5_encoder_graph(self, Source { weights, dtype: DType::F32 }, [1, 1])
        })
    }
}

/// The graph of an encoder for `n` texts: input `embeddings` `[n, tokens, d_model]`, output `states`.
///
/// # Errors
/// As [`t5_encoder`].
pub fn t5_encoder_graph(config: &T5EncoderConfig, w: Source, [n, tokens]: [usize; 2]) -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("embeddings", [n, tokens, config.d_model], DType::F32);
    let states = t5_encoder(&mut g, config, w, x)?;
    g.output("states", states);
    Ok(g)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_widen_with_the_distance() {
        let config = T5EncoderConfig::default();
        let ahead: Vec<u32> =
            [0, 1, 7, 8, 11, 12, 16, 32, 64, 127, 128, 5000].map(|k| config.bucket(0, k)).into();
        assert_eq!(ahead, [0, 17, 23, 24, 24, 25, 26, 28, 30, 31, 31, 31]);
        let behind: Vec<u32> = [1, 7, 8, 64, 500].map(|q| config.bucket(q, 0)).into();
        assert_eq!(behind, [1, 7, 8, 14, 15]);
    }

    #[test]
    fn settings_that_are_not_here_are_named() {
        for (text, named) in [
            (r#"{"feed_forward_proj": "relu"}"#, "relu"),
            ("{}", "feed_forward_proj"),
            (r#"{"feed_forward_proj": "gated-gelu", "d_kv": 512}"#, "d_kv"),
            (r#"{"feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 2}"#, "num_buckets"),
        ] {
            let error = T5EncoderConfig::from_json(text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}

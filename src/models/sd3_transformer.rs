//! diffusers' `SD3Transformer2DModel`: the transformer of Stable Diffusion 3 and 3.5, in which text and picture have
//! weights of their own and look at each other in one attention (MMDiT; Esser et al. 2024, arXiv:2403.03206, figure 2).

use serde::Deserialize;

use super::config::Class;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{self, Source};
use crate::ops::TimestepEmbedding;
use crate::ops::attention::{AttentionOptions, MAX_HEAD_SIZE};
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::strided::Range;
use crate::tensor::{Tensor, TensorDesc};

/// `config.json`, with diffusers' defaults. [`Sd3TransformerConfig::from_json`] refuses what this crate cannot run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Sd3TransformerConfig {
    pub sample_size: usize,
    pub patch_size: usize,
    pub in_channels: usize,
    pub num_layers: usize,
    pub attention_head_dim: usize,
    pub num_attention_heads: usize,
    pub joint_attention_dim: usize,
    pub caption_projection_dim: usize,
    pub pooled_projection_dim: usize,
    /// As many as `in_channels` if there is none.
    pub out_channels: Option<usize>,
    pub pos_embed_max_size: usize,
    /// Layers in which the picture looks at itself once more (Stable Diffusion 3.5 medium).
    pub dual_attention_layers: Vec<usize>,
    pub qk_norm: Option<String>,
}

impl Default for Sd3TransformerConfig {
    fn default() -> Self {
        Sd3TransformerConfig {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: 4096,
            caption_projection_dim: 1152,
            pooled_projection_dim: 2048,
            out_channels: Some(16),
            pos_embed_max_size: 96,
            dual_attention_layers: Vec::new(),
            qk_norm: None,
        }
    }
}

const CLASS: Class = Class("SD3Transformer2DModel");

/// Of all norms.
const EPS: f32 = 1e-6;

/// Numbers that a timestep becomes before the first layer sees it.
const TIMESTEP_WAVES: usize = 256;

impl Sd3TransformerConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for what is no JSON, and for each setting that this crate does not have, by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: Sd3TransformerConfig = CLASS.parse(text)?;
        config.check()?;
        Ok(config)
    }

    pub(super) fn check(&self) -> Result<()> {
        CLASS.sizes([
            ("sample_size", self.sample_size),
            ("patch_size", self.patch_size),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels()),
            ("num_layers", self.num_layers),
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
            ("pos_embed_max_size", self.pos_embed_max_size),
        ])?;
        if self.attention_head_dim > MAX_HEAD_SIZE {
            let expected = format!("at most {MAX_HEAD_SIZE}");
            return Err(CLASS.unsupported("attention_head_dim", &expected, self.attention_head_dim));
        }
        if self.caption_projection_dim != self.width() {
            let expected = format!("{}, the width of the transformer", self.width());
            return Err(CLASS.unsupported("caption_projection_dim", &expected, self.caption_projection_dim));
        }
        if let Some(norm) = &self.qk_norm {
            CLASS.one_of("qk_norm", norm, &["rms_norm"])?;
        }
        match self.dual_attention_layers.iter().find(|layer| **layer >= self.num_layers) {
            Some(layer) => {
                let expected = format!("layers below {}", self.num_layers);
                Err(CLASS.unsupported("dual_attention_layers", &expected, layer))
            }
            None => Ok(()),
        }
    }

    pub fn out_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Numbers in a token.
    fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }
}

/// What the network is told beside the latent.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// `[n or 1, k]`, f32, the first column: σ · 1000.
    pub timesteps: ValueId,
    /// `[n, tokens, joint_attention_dim]`.
    pub text: ValueId,
    /// The texts as a whole `[n, pooled_projection_dim]`.
    pub pooled: ValueId,
}

/// The network: `x` `[n, h, w, in_channels]`, of which rows and columns that fill no patch are left out; the result is
/// `[n, h, w, out_channels]` of the rest.
///
/// # Errors
/// [`crate::Error::Invalid`] for a latent that is smaller than a patch or larger than the table of positions, and those
/// of the weights.
pub fn sd3_transformer(
    g: &mut Graph,
    config: &Sd3TransformerConfig,
    w: Source,
    x: ValueId,
    conditions: &Conditions,
) -> Result<ValueId> {
    let c = config.width();
    let [n, h, width, _] = g.shape(x)[..] else {
        return Err(CLASS.unsupported("latent", "[n, h, w, in_channels]", g.shape(x)));
    };
    let size @ [rows, columns] = [h, width].map(|side| side / config.patch_size);
    let mut picture = patches(g, config, w, x, size)?;
    let mut text = w.linear(g, "context_embedder", conditions.text, c)?;
    let conditioning = conditioning(g, config, w, conditions)?;

    for layer in 0..config.num_layers {
        let block = Block { config, w, name: format!("transformer_blocks.{layer}"), conditioning };
        let dual = config.dual_attention_layers.contains(&layer);
        let last = layer + 1 == config.num_layers;
        (picture, text) = block.build(g, picture, text, dual, last)?;
    }

    let out = Modulation::new(g, w, "norm_out", conditioning, 2)?;
    let [scale, shift] = [out.part(g, 0)?, out.part(g, 1)?];
    let h = modulated(g, "norm_out", picture, shift, scale)?;
    let (p, c_out) = (config.patch_size, config.out_channels());
    let h = w.linear(g, "proj_out", h, p * p * c_out)?;
    // A token is a patch of p × p pixels.
    let h = g.reshape(h, [n, rows, columns, p, p, c_out])?;
    let h = g.transpose(h, &[0, 1, 3, 2, 4, 5])?;
    g.reshape(h, [n, rows * p, columns * p, c_out])
}

/// Patches as tokens `[n, rows · columns, c]`, with where they are: the middle of the table of positions.
fn patches(
    g: &mut Graph,
    config: &Sd3TransformerConfig,
    w: Source,
    x: ValueId,
    [rows, columns]: [usize; 2],
) -> Result<ValueId> {
    let (c, p, most) = (config.width(), config.patch_size, config.pos_embed_max_size);
    if rows.min(columns) == 0 || rows.max(columns) > most {
        let expected = format!("{p} to {} pixels high and wide", most * p);
        let found = format!("{}×{}", g.shape(x)[2], g.shape(x)[1]);
        return Err(CLASS.unsupported("latent", &expected, found));
    }
    let table = w.weights.tensor("pos_embed.pos_embed", &[1, most * most, c])?;
    let table = Tensor { desc: TensorDesc::new([most * most, c], table.desc.dtype), ..table };
    // Cut out here: all of it can take a gigabyte of the device's memory.
    let [top, left] = [rows, columns].map(|count| (most - count) / 2);
    let row = |row: usize| table.rows(row * most + left..row * most + left + columns).to_f32();
    let places: Vec<f32> = (top..top + rows).flat_map(row).collect();
    let places = g.weight("pos_embed.pos_embed", Tensor::from_f32([1, rows, columns, c], &places));
    let places = g.scoped("pos_embed", |g| g.cast(places, w.dtype))?;
    let options = Conv2dOptions { stride: [p; 2], ..Conv2dOptions::default() };
    let tokens = w.conv(g, "pos_embed.proj", x, c, p, options)?;
    let tokens = g.add(tokens, places)?;
    let n = g.shape(x)[0];
    g.reshape(tokens, [n, rows * columns, c])
}

/// Time and the text as a whole, as all blocks are told them: `[n, c]`, activated.
fn conditioning(
    g: &mut Graph,
    config: &Sd3TransformerConfig,
    w: Source,
    conditions: &Conditions,
) -> Result<ValueId> {
    let c = config.width();
    let at = |part: &str| format!("time_text_embed.{part}");
    let waves = TimestepEmbedding { dtype: w.dtype, ..TimestepEmbedding::new(TIMESTEP_WAVES, true, 0.0) };
    let time = nn::time_embedding(g, w, &at("timestep_embedder"), conditions.timesteps, waves, c)?;
    let h = w.linear(g, &at("text_embedder.linear_1"), conditions.pooled, c)?;
    let h = g.silu(h)?;
    let text = w.linear(g, &at("text_embedder.linear_2"), h, c)?;
    let h = g.add(text, time)?;
    g.silu(h)
}

/// A joint block.
struct Block<'a> {
    config: &'a Sd3TransformerConfig,
    w: Source<'a>,
    name: String,
    conditioning: ValueId,
}

impl Block<'_> {
    fn at(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    /// Picture `[n, l, c]` and text `[n, t, c]` after the block. Nothing reads the text after the `last`.
    fn build(
        &self,
        g: &mut Graph,
        picture: ValueId,
        text: ValueId,
        dual: bool,
        last: bool,
    ) -> Result<(ValueId, ValueId)> {
        let parts = if dual { 9 } else { 6 };
        let told = Modulation::new(g, self.w, &self.at("norm1"), self.conditioning, parts)?;
        let normed = g.scoped(&self.at("norm1"), |g| g.layer_norm(picture, None, None, EPS))?;
        let seen = told.applied(g, normed, 0)?;
        let text_parts = if last { 2 } else { 6 };
        let text_told = Modulation::new(g, self.w, &self.at("norm1_context"), self.conditioning, text_parts)?;
        let text_normed = g.scoped(&self.at("norm1_context"), |g| g.layer_norm(text, None, None, EPS))?;
        let text_seen = match last {
            // The last one has the scale before the shift.
            true => {
                let [scale, shift] = [text_told.part(g, 0)?, text_told.part(g, 1)?];
                scaled_and_shifted(g, text_normed, shift, scale)?
            }
            false => text_told.applied(g, text_normed, 0)?,
        };

        let (h, text_h) = self.joint_attention(g, seen, text_seen, last)?;
        let mut picture = told.gated(g, h, 2, picture)?;
        if dual {
            let seen = told.applied(g, normed, 6)?;
            let h = self.self_attention(g, seen)?;
            picture = told.gated(g, h, 8, picture)?;
        }
        let picture = self.feed_forward(g, ["norm2", "ff"], picture, &told)?;
        if last {
            return Ok((picture, text));
        }
        let text = text_told.gated(g, text_h, 2, text)?;
        let text = self.feed_forward(g, ["norm2_context", "ff_context"], text, &text_told)?;
        Ok((picture, text))
    }

    /// Attention of both to both. In the last block the text is only looked at: it has no result.
    fn joint_attention(
        &self,
        g: &mut Graph,
        picture: ValueId,
        text: ValueId,
        last: bool,
    ) -> Result<(ValueId, ValueId)> {
        let l = g.shape(picture)[1];
        let mut both = |what: &str, [of_picture, of_text]: [&str; 2]| {
            let a = self.projected(g, of_picture, what, picture)?;
            let b = self.projected(g, of_text, what, text)?;
            g.scoped(&self.at("attn"), |g| g.concat(&[a, b], 1))
        };
        let k = both("k", ["attn.to_k", "attn.add_k_proj"])?;
        let v = both("v", ["attn.to_v", "attn.add_v_proj"])?;
        let q = match last {
            true => self.projected(g, "attn.to_q", "q", picture)?,
            false => both("q", ["attn.to_q", "attn.add_q_proj"])?,
        };
        let heads = self.config.num_attention_heads;
        let h = g.scoped(&self.at("attn"), |g| g.attention(q, k, v, heads, AttentionOptions::default()))?;
        let c = self.config.width();
        if last {
            return Ok((self.w.linear(g, &self.at("attn.to_out.0"), h, c)?, text));
        }
        let tokens = |g: &mut Graph, start: usize, stop: Option<usize>| {
            g.slice(h, &[Range::all(), Range { start, stop, step: 1 }, Range::all()])
        };
        let [picture, text] = [tokens(g, 0, Some(l))?, tokens(g, l, None)?];
        let picture = self.w.linear(g, &self.at("attn.to_out.0"), picture, c)?;
        Ok((picture, self.w.linear(g, &self.at("attn.to_add_out"), text, c)?))
    }

    /// Attention of the picture to itself.
    fn self_attention(&self, g: &mut Graph, x: ValueId) -> Result<ValueId> {
        let mut projected = |what: &str| self.projected(g, &format!("attn2.to_{what}"), what, x);
        let [q, k, v] = [projected("q")?, projected("k")?, projected("v")?];
        let heads = self.config.num_attention_heads;
        let h = g.scoped(&self.at("attn2"), |g| g.attention(q, k, v, heads, AttentionOptions::default()))?;
        self.w.linear(g, &self.at("attn2.to_out.0"), h, self.config.width())
    }

    /// Queries (`what` is q), keys (k) or values (v) `[n, l, c]` of tokens `x`; of the first two each head is
    /// normalised, if the model has it so.
    fn projected(&self, g: &mut Graph, layer: &str, what: &str, x: ValueId) -> Result<ValueId> {
        let c = self.config.width();
        let h = self.w.linear(g, &self.at(layer), x, c)?;
        if self.config.qk_norm.is_none() || what == "v" {
            return Ok(h);
        }
        let attention = layer.split('.').next().unwrap_or(layer);
        let norm = if layer.contains("add_") { "norm_added" } else { "norm" };
        let norm = self.at(&format!("{attention}.{norm}_{what}"));
        let [n, l, _] = g.shape(h)[..] else { unreachable!("tokens are [n, l, c]") };
        let [heads, d] = [self.config.num_attention_heads, self.config.attention_head_dim];
        let h = g.reshape(h, [n, l, heads, d])?;
        let h = self.w.rms_norm(g, &norm, h, EPS)?;
        g.reshape(h, [n, l, c])
    }

    /// `x` + gate · (four times as wide, GELU, back) of its modulated norm.
    fn feed_forward(
        &self,
        g: &mut Graph,
        [norm, layers]: [&str; 2],
        x: ValueId,
        told: &Modulation,
    ) -> Result<ValueId> {
        let c = self.config.width();
        let h = g.scoped(&self.at(norm), |g| g.layer_norm(x, None, None, EPS))?;
        let h = told.applied(g, h, 3)?;
        let h = self.w.linear(g, &self.at(&format!("{layers}.net.0.proj")), h, 4 * c)?;
        let h = g.scoped(&self.at(layers), |g| g.unary(Unary::GeluTanh, h))?;
        let h = self.w.linear(g, &self.at(&format!("{layers}.net.2")), h, c)?;
        told.gated(g, h, 5, x)
    }
}

/// What `NAME.linear` makes of the conditioning: shifts, scales and gates (adaLN-Zero; Peebles and Xie 2023,
/// arXiv:2212.09748). Its parts are taken out of the matrix when it is loaded, so that those of the results need not be.
struct Modulation {
    name: String,
    weight: ValueId,
    bias: ValueId,
    conditioning: ValueId,
}

impl Modulation {
    fn new(g: &mut Graph, w: Source, name: &str, conditioning: ValueId, parts: usize) -> Result<Self> {
        let c = g.shape(conditioning).last();
        let name = format!("{name}.linear");
        let weight = w.get(g, &format!("{name}.weight"), &[parts * c, c])?;
        let bias = w.get(g, &format!("{name}.bias"), &[parts * c])?;
        Ok(Modulation { name, weight, bias, conditioning })
    }

    /// Part `i`, `[n, 1, c]`.
    fn part(&self, g: &mut Graph, i: usize) -> Result<ValueId> {
        let [n, c] = g.shape(self.conditioning)[..] else { unreachable!("conditioning is [n, c]") };
        let rows = Range { start: i * c, stop: Some((i + 1) * c), step: 1 };
        g.scoped(&self.name, |g| {
            let weight = g.slice(self.weight, &[rows, Range::all()])?;
            let bias = g.slice(self.bias, &[rows])?;
            let part = g.linear(self.conditioning, weight, Some(bias))?;
            g.reshape(part, [n, 1, c])
        })
    }

    /// `normed` · (1 + scale) + shift, which are the parts `i + 1` and `i`.
    fn applied(&self, g: &mut Graph, normed: ValueId, i: usize) -> Result<ValueId> {
        let [shift, scale] = [self.part(g, i)?, self.part(g, i + 1)?];
        g.scoped(&self.name, |g| scaled_and_shifted(g, normed, shift, scale))
    }

    /// `x` + gate · `h`, where the gate is part `i`.
    fn gated(&self, g: &mut Graph, h: ValueId, i: usize, x: ValueId) -> Result<ValueId> {
        let gate = self.part(g, i)?;
        let product = Expr::binary(Binary::Mul, Expr::input(0), Expr::input(1));
        let sum = Expr::binary(Binary::Add, product, Expr::input(2));
        g.scoped(&self.name, |g| g.elementwise(sum, &[h, gate, x]))
    }
}

/// The norm of `x`, modulated.
fn modulated(g: &mut Graph, name: &str, x: ValueId, shift: ValueId, scale: ValueId) -> Result<ValueId> {
    g.scoped(name, |g| {
        let normed = g.layer_norm(x, None, None, EPS)?;
        scaled_and_shifted(g, normed, shift, scale)
    })
}

fn scaled_and_shifted(g: &mut Graph, x: ValueId, shift: ValueId, scale: ValueId) -> Result<ValueId> {
    let scale_by = Expr::binary(Binary::Add, Expr::Const(1.0), Expr::input(1));
    let product = Expr::binary(Binary::Mul, Expr::input(0), scale_by);
    g.elementwise(Expr::binary(Binary::Add, product, Expr::input(2)), &[x, scale, shift])
}

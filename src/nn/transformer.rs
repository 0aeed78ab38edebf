//! Transformer blocks over the pixels of a feature map that also look at a text.

use super::Source;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::attention::AttentionOptions;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::Unary;
use crate::ops::strided::Range;

/// Pictures of a batch in some of whose layers no pixel looks at another: self-attention passes its values on as they are
/// (perturbed-attention guidance, Ahn et al. 2024, arXiv:2403.17377).
#[derive(Clone, Copy, Debug)]
pub struct Perturbed<'a> {
    /// The first of them; they are the last of the batch.
    pub from: usize,
    /// Parts of the layers' names.
    pub layers: &'a [String],
}

impl Perturbed<'_> {
    /// Whether a layer is one of these. `blocks.1` is no part of `blocks.10`.
    pub fn covers(&self, layer: &str) -> bool {
        let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let is_part = |part: &str| {
            let number = part.ends_with(|c: char| c.is_ascii_digit());
            let whole = |(at, _): (usize, &str)| !number || !digit(&layer[at + part.len()..]);
            !part.is_empty() && layer.match_indices(part).any(whole)
        };
        self.layers.iter().any(|part| is_part(part))
    }
}

/// What the transformers of a network have in common, and how large this one is.
#[derive(Clone, Copy, Debug)]
pub struct TransformerOptions<'a> {
    pub heads: usize,
    pub layers: usize,
    pub groups: usize,
    /// `proj_in` and `proj_out` are fully connected layers, not 1×1 convolutions; the same arithmetic, other shapes.
    pub linear_projection: bool,
    /// The first attention of each layer looks at the text too, not at the pixels.
    pub only_cross_attention: bool,
    pub perturbed: Option<Perturbed<'a>>,
}

/// norm → projection → `layers` times (self-attention, attention to `text`, feed-forward) → projection, then
/// + `x`: diffusers' `Transformer2DModel`. `x` is `[n, h, w, c]`, `text` `[n, tokens, d]`.
pub fn spatial_transformer(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    text: ValueId,
    options: TransformerOptions,
) -> Result<ValueId> {
    let [n, height, width, c] = g.shape(x)[..] else { unreachable!("the blocks before give feature maps") };
    if options.heads == 0 || !c.is_multiple_of(options.heads) {
        return Err(Error::Invalid {
            what: format!("heads of {name}"),
            expected: format!("a divisor of its {c} channels"),
            found: options.heads.to_string(),
        });
    }
    // Another norm than the residual blocks', whatever these have.
    const EPS: f32 = 1e-6;
    let h = w.group_norm(g, &format!("{name}.norm"), x, options.groups, EPS)?;
    let project = |g: &mut Graph, part: &str, h: ValueId| match options.linear_projection {
        true => w.linear(g, &format!("{name}.{part}"), h, c),
        false => w.conv(g, &format!("{name}.{part}"), h, c, 1, Conv2dOptions::default()),
    };
    let h = project(g, "proj_in", h)?;
    let mut tokens = g.reshape(h, [n, height * width, c])?;
    for layer in 0..options.layers {
        let at = |part: &str| format!("{name}.transformer_blocks.{layer}.{part}");
        let h = w.layer_norm(g, &at("norm1"), tokens, 1e-5)?;
        let seen = if options.only_cross_attention { text } else { h };
        let name = at("attn1");
        let perturbed = options.perturbed.filter(|p| !options.only_cross_attention && p.covers(&name));
        let h = match perturbed {
            Some(perturbed) => perturbed_attention(g, w, &name, h, options.heads, perturbed.from)?,
            None => attention(g, w, &name, h, seen, options.heads)?,
        };
        tokens = g.add(h, tokens)?;
        let h = w.layer_norm(g, &at("norm2"), tokens, 1e-5)?;
        let h = attention(g, w, &at("attn2"), h, text, options.heads)?;
        tokens = g.add(h, tokens)?;
        let h = w.layer_norm(g, &at("norm3"), tokens, 1e-5)?;
        let h = gated_feed_forward(g, w, &at("ff"), h)?;
        tokens = g.add(h, tokens)?;
    }
    let h = g.reshape(tokens, [n, height, width, c])?;
    let h = project(g, "proj_out", h)?;
    g.add(h, x)
}

/// Queries from `x` `[n, l, c]`, keys and values from `seen` `[n, m, d]`.
fn attention(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    seen: ValueId,
    heads: usize,
) -> Result<ValueId> {
    let c = g.shape(x).last();
    let q = w.matrix(g, &format!("{name}.to_q"), x, c)?;
    let k = w.matrix(g, &format!("{name}.to_k"), seen, c)?;
    let v = w.matrix(g, &format!("{name}.to_v"), seen, c)?;
    let h = g.scoped(name, |g| g.attention(q, k, v, heads, AttentionOptions::default()))?;
    w.linear(g, &format!("{name}.to_out.0"), h, c)
}

/// Self-attention of the pictures before `from`; of those that follow, the values alone.
fn perturbed_attention(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    heads: usize,
    from: usize,
) -> Result<ValueId> {
    let c = g.shape(x).last();
    let rows = |start, stop| [Range { start, stop, step: 1 }, Range::all(), Range::all()];
    let v = w.matrix(g, &format!("{name}.to_v"), x, c)?;
    let plain = g.scoped(name, |g| g.slice(x, &rows(0, Some(from))))?;
    let q = w.matrix(g, &format!("{name}.to_q"), plain, c)?;
    let k = w.matrix(g, &format!("{name}.to_k"), plain, c)?;
    let h = g.scoped(name, |g| {
        let seen = g.slice(v, &rows(0, Some(from)))?;
        let h = g.attention(q, k, seen, heads, AttentionOptions::default())?;
        let rest = g.slice(v, &rows(from, None))?;
        g.concat(&[h, rest], 0)
    })?;
    w.linear(g, &format!("{name}.to_out.0"), h, c)
}

/// `(x A) · gelu(x B)`, four times as wide, then back (GEGLU, Shazeer 2020). The file has A and B as one matrix; they
/// are taken apart when it is loaded, so that their results need not be.
fn gated_feed_forward(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let c = g.shape(x).last();
    let inner = 4 * c;
    let at = format!("{name}.net.0.proj");
    let weight = w.get(g, &format!("{at}.weight"), &[2 * inner, c])?;
    let bias = w.get(g, &format!("{at}.bias"), &[2 * inner])?;
    let mut half = |start: usize| -> Result<ValueId> {
        let rows = Range { start, stop: Some(start + inner), step: 1 };
        g.scoped(&at, |g| {
            let weight = g.slice(weight, &[rows, Range::all()])?;
            let bias = g.slice(bias, &[rows])?;
            g.linear(x, weight, Some(bias))
        })
    };
    let (value, gate) = (half(0)?, half(inner)?);
    let h = g.scoped(&at, |g| {
        let gate = g.unary(Unary::Gelu, gate)?;
        g.mul(value, gate)
    })?;
    w.linear(g, &format!("{name}.net.2"), h, c)
}

#[cfg(test)]
mod tests {
    use super::Perturbed;

    #[test]
    fn numbers_in_names_are_whole() {
        let layers = ["mid".to_owned(), "blocks.1".to_owned(), String::new()];
        let perturbed = Perturbed { from: 1, layers: &layers };
        assert!(perturbed.covers("mid_block.attentions.0.transformer_blocks.0.attn1"));
        assert!(perturbed.covers("up_blocks.1.attentions.0.transformer_blocks.0.attn1"));
        assert!(!perturbed.covers("up_blocks.0.attentions.0.transformer_blocks.10.attn1"));
    }
}

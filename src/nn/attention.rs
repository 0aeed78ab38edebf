//! Self-attention over the pixels of a feature map.

use super::{ResnetOptions, Source};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::attention::{AttentionOptions, MAX_HEAD_SIZE};
use crate::ops::matmul::Matmul;
use crate::ops::strided::Range;

/// norm → queries, keys, values → attention between all pixels → projection, then + `x`:
/// diffusers' `Attention` with a residual connection. `x` is `[n, h, w, c]`.
pub fn attention_block(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    head_size: usize,
    options: ResnetOptions,
) -> Result<ValueId> {
    let [n, height, width, c] = g.shape(x)[..] else { unreachable!("the blocks before give feature maps") };
    if head_size == 0 || !c.is_multiple_of(head_size) {
        return Err(Error::Invalid {
            what: format!("attention_head_dim of {name}"),
            expected: format!("a divisor of its {c} channels"),
            found: head_size.to_string(),
        });
    }
    // Files from before 2023 have the names of the second column.
    let at = |new: &str, old: &str| match w.weights.contains(&format!("{name}.{old}.weight")) {
        true => format!("{name}.{old}"),
        false => format!("{name}.{new}"),
    };
    let h = w.group_norm(g, &format!("{name}.group_norm"), x, options.groups, options.eps)?;
    let tokens = g.reshape(h, [n, height * width, c])?;
    let q = projection(g, w, &at("to_q", "query"), tokens)?;
    let k = projection(g, w, &at("to_k", "key"), tokens)?;
    let v = projection(g, w, &at("to_v", "value"), tokens)?;
    let h = g.scoped(name, |g| match head_size > MAX_HEAD_SIZE && head_size == c {
        true => wide_attention(g, q, k, v),
        false => g.attention(q, k, v, c / head_size, AttentionOptions::default()),
    })?;
    let h = projection(g, w, &at("to_out.0", "proj_attn"), h)?;
    let h = g.reshape(h, [n, height, width, c])?;
    g.add(h, x)
}

/// A fully connected layer of the width of `x`; old files have some as 1×1 convolutions.
fn projection(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let c = g.shape(x).last();
    let weight = format!("{name}.weight");
    if w.weights.shape(&weight).is_none_or(|shape| shape.len() != 4) {
        return w.linear(g, name, x, c);
    }
    let weight = w.get(g, &weight, &[c, c, 1, 1])?;
    let weight = g.reshape(weight, [c, c])?;
    let bias = w.get(g, &format!("{name}.bias"), &[c])?;
    g.scoped(name, |g| g.linear(x, weight, Some(bias)))
}

/// Most scores that are held at a time.
const SCORES: usize = 1 << 24;

/// One head too wide for the attention kernel's registers (an autoencoder's has 512 channels): two matrix
/// products with the scores between them, as many queries at a time as the scores may take. All `[n, l, c]`.
fn wide_attention(g: &mut Graph, q: ValueId, k: ValueId, v: ValueId) -> Result<ValueId> {
    let [n, l, c] = g.shape(q)[..] else { unreachable!("the caller gives rows") };
    let q = g.affine(q, 1.0 / (c as f32).sqrt(), 0.0)?;
    let mut parts = Vec::new();
    for start in (0..l).step_by((SCORES / (n * l)).max(1)) {
        let stop = (start + (SCORES / (n * l)).max(1)).min(l);
        let rows = match stop - start == l {
            true => q,
            false => g.slice(q, &[Range::all(), Range { start, stop: Some(stop), step: 1 }, Range::all()])?,
        };
        let scores = g.matmul(rows, k, Matmul { transpose_b: true, ..Matmul::default() })?;
        let shares = g.softmax(scores, 2)?;
        parts.push(g.matmul(shares, v, Matmul::default())?);
    }
    g.concat(&parts, 1)
}

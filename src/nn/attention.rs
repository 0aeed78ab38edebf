//! Self-attention over the pixels of a feature map.

use super::{ResnetOptions, Source};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::attention::AttentionOptions;

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
    let q = w.linear(g, &at("to_q", "query"), tokens, c)?;
    let k = w.linear(g, &at("to_k", "key"), tokens, c)?;
    let v = w.linear(g, &at("to_v", "value"), tokens, c)?;
    let h = g.scoped(name, |g| g.attention(q, k, v, c / head_size, AttentionOptions::default()))?;
    let h = w.linear(g, &at("to_out.0", "proj_attn"), h, c)?;
    let h = g.reshape(h, [n, height, width, c])?;
    g.add(h, x)
}

//! Single-file checkpoints of Stable Diffusion 3 with the names of its authors' code (`joint_blocks.…`): their tensors
//! under diffusers' names. Nothing is copied but the few that diffusers has in another order.

use super::ldm;
use crate::error::{Error, Result};
use crate::tensor::{Bytes, Tensor};
use crate::weights::Weights;

/// A checkpoint with all that it is made of.
#[derive(Clone, Debug)]
pub struct Sd3Checkpoint {
    file: Weights,
    /// What the names of the transformer begin with.
    prefix: &'static str,
}

/// As part of a whole checkpoint, and alone.
const PREFIXES: [&str; 2] = ["model.diffusion_model.", ""];
const MARK: &str = "joint_blocks.0.context_block.adaLN_modulation.1.bias";

fn prefix(file: &Weights) -> Option<&'static str> {
    PREFIXES.into_iter().find(|prefix| file.contains(&format!("{prefix}{MARK}")))
}

impl Sd3Checkpoint {
    /// Whether a file has the names of such a checkpoint.
    pub fn is_one(file: &Weights) -> bool {
        prefix(file).is_some()
    }

    /// The checkpoint in a file that is open.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that is none.
    pub fn new(file: Weights) -> Result<Self> {
        match prefix(&file) {
            Some(prefix) => Ok(Sd3Checkpoint { file, prefix }),
            None => Err(Error::Format {
                path: file.file().into(),
                message: format!("is no checkpoint of Stable Diffusion 3: it has no {MARK}"),
            }),
        }
    }

    /// Where the checkpoint comes from.
    pub fn file(&self) -> &str {
        self.file.file()
    }

    /// The transformer's tensors under the names of `SD3Transformer2DModel`.
    pub fn transformer(&self) -> Weights {
        let layer = |name: &str| name.strip_prefix("joint_blocks.")?.split('.').next()?.parse::<usize>().ok();
        let names = self.file.names();
        let last = names.iter().filter_map(|name| layer(name.strip_prefix(self.prefix)?)).max().unwrap_or(0);
        self.file.renamed(|name, tensor| match name.strip_prefix(self.prefix) {
            Some(name) => renamed(name, tensor, last),
            None => Vec::new(),
        })
    }

    /// The autoencoder's tensors under the names of `AutoencoderKL`.
    pub fn vae(&self) -> Weights {
        ldm::vae(&self.file)
    }

    /// CLIP's two encoders of text under transformers' names, those that the file has.
    pub fn text_encoders(&self) -> [Option<Weights>; 2] {
        ["clip_l", "clip_g"].map(|encoder| self.text_encoder(encoder))
    }

    /// T5 under transformers' names, if the file has it.
    pub fn t5(&self) -> Option<Weights> {
        self.text_encoder("t5xxl")
    }

    fn text_encoder(&self, encoder: &str) -> Option<Weights> {
        let prefix = format!("text_encoders.{encoder}.transformer.");
        self.file.part(&prefix)
    }
}

/// What a tensor is called outside of the layers.
const WHOLE: [(&str, &str); 9] = [
    ("x_embedder.proj.", "pos_embed.proj."),
    ("context_embedder.", "context_embedder."),
    ("t_embedder.mlp.0.", "time_text_embed.timestep_embedder.linear_1."),
    ("t_embedder.mlp.2.", "time_text_embed.timestep_embedder.linear_2."),
    ("y_embedder.mlp.0.", "time_text_embed.text_embedder.linear_1."),
    ("y_embedder.mlp.2.", "time_text_embed.text_embedder.linear_2."),
    ("final_layer.linear.", "proj_out."),
    ("final_layer.adaLN_modulation.1.", "norm_out.linear."),
    ("pos_embed", "pos_embed.pos_embed"),
];
/// And in a layer, for the picture and for the text.
const LAYER: [(&str, &str, &str); 9] = [
    ("attn.ln_q.", "attn.norm_q.", "attn.norm_added_q."),
    ("attn.ln_k.", "attn.norm_k.", "attn.norm_added_k."),
    ("attn.proj.", "attn.to_out.0.", "attn.to_add_out."),
    ("attn2.ln_q.", "attn2.norm_q.", ""),
    ("attn2.ln_k.", "attn2.norm_k.", ""),
    ("attn2.proj.", "attn2.to_out.0.", ""),
    ("adaLN_modulation.1.", "norm1.linear.", "norm1_context.linear."),
    ("mlp.fc1.", "ff.net.0.proj.", "ff_context.net.0.proj."),
    ("mlp.fc2.", "ff.net.2.", "ff_context.net.2."),
];
/// Query, key and value, which are one matrix in the file.
const QKV: [(&str, [&str; 3], [&str; 3]); 2] = [
    (
        "attn.qkv.",
        ["attn.to_q.", "attn.to_k.", "attn.to_v."],
        ["attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj."],
    ),
    ("attn2.qkv.", ["attn2.to_q.", "attn2.to_k.", "attn2.to_v."], [""; 3]),
];

/// diffusers' names of a tensor of the transformer, whose layers are `0..=last`.
fn renamed(name: &str, tensor: Tensor, last: usize) -> Vec<(String, Tensor)> {
    let Some(in_layer) = name.strip_prefix("joint_blocks.") else {
        let known = WHOLE.into_iter().find_map(|(old, new)| Some((new, name.strip_prefix(old)?)));
        return match known {
            // Shift and scale of the last norm.
            Some((new @ "norm_out.linear.", part)) => vec![(format!("{new}{part}"), halves_swapped(&tensor))],
            Some((new, part)) => vec![(format!("{new}{part}"), tensor)],
            None => Vec::new(),
        };
    };
    let Some((layer, (block, name))) =
        in_layer.split_once('.').and_then(|(layer, rest)| Some((layer, rest.split_once('.')?)))
    else {
        return Vec::new();
    };
    let text = block == "context_block";
    let at = |part: &str| format!("transformer_blocks.{layer}.{part}");
    for (old, picture, context) in QKV {
        if let Some(part) = name.strip_prefix(old) {
            let names = if text { context } else { picture };
            let rows = tensor.desc.shape.first().map_or(0, |rows| rows / 3);
            let third = |i: usize| tensor.rows(i * rows..(i + 1) * rows);
            let all = names.into_iter().enumerate().filter(|(_, name)| !name.is_empty() && rows > 0);
            return all.map(|(i, name)| (at(&format!("{name}{part}")), third(i))).collect();
        }
    }
    let known = LAYER.into_iter().find_map(|(old, picture, context)| {
        let new = if text { context } else { picture };
        Some((new, name.strip_prefix(old)?)).filter(|_| !new.is_empty())
    });
    match known {
        // The last layer gives no text: its norm is as the last of all.
        Some((new @ "norm1_context.linear.", part)) if layer.parse() == Ok(last) => {
            vec![(at(&format!("{new}{part}")), halves_swapped(&tensor))]
        }
        Some((new, part)) => vec![(at(&format!("{new}{part}")), tensor)],
        None => Vec::new(),
    }
}

/// The second half of the rows, then the first.
fn halves_swapped(tensor: &Tensor) -> Tensor {
    let rows = tensor.desc.shape.first().copied().unwrap_or(0);
    if rows < 2 || rows % 2 != 0 {
        return tensor.clone();
    }
    let [first, second] = [0..rows / 2, rows / 2..rows].map(|half| tensor.rows(half));
    let bytes = [&second.bytes[..], &first.bytes].concat();
    Tensor { desc: tensor.desc.clone(), bytes: Bytes::Owned(bytes.into()) }
}

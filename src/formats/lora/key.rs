//! What a tensor's name in a file of adapters says: which network, which layer, which of its factors.
//!
//! ```text
//! unet.PATH.lora_A.weight                          PEFT, and diffusers since
//! unet.PATH.lora.down.weight                       diffusers 0.22
//! unet.BLOCK.attn1.processor.to_q_lora.up.weight   diffusers before, also without the first word
//! text_encoder.PATH.lora_linear_layer.up.weight    the same of encoders of text
//! base_model.model.PATH.lora_A.NAME.weight         PEFT alone
//! transformer.PATH.lora_A.weight                   of Stable Diffusion 3, beside text_encoder_2, text_encoder_3
//! lora_unet_PA_TH.lora_down.weight                 kohya; lora_te_, lora_te1_, lora_te2_, lora_te3_
//! diffusion_model.PATH.lora_down.weight            ComfyUI; text_encoders.clip_l.transformer., clip_g, t5xxl
//! ```

/// The network that a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Unet,
    /// An encoder of text, from 0; T5 is the third.
    Text(usize),
    /// Not said.
    Any,
}

/// What a tensor is to its layer.
pub type Role = &'static str;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub part: Part,
    /// The layer, with dots or, in kohya's files, underscores between its words.
    pub path: String,
    pub role: Role,
}

const ROLES: [(&str, Role); 23] = [
    ("lora_A", "down"),
    ("lora_down", "down"),
    ("lora_B", "up"),
    ("lora_up", "up"),
    ("lora_mid", "mid"),
    ("alpha", "alpha"),
    ("diff", "diff"),
    ("diff_b", "diff_b"),
    ("hada_w1_a", "hada_w1_a"),
    ("hada_w1_b", "hada_w1_b"),
    ("hada_w2_a", "hada_w2_a"),
    ("hada_w2_b", "hada_w2_b"),
    ("hada_t1", "hada_t1"),
    ("hada_t2", "hada_t2"),
    ("lokr_w1", "lokr_w1"),
    ("lokr_w1_a", "lokr_w1_a"),
    ("lokr_w1_b", "lokr_w1_b"),
    ("lokr_w2", "lokr_w2"),
    ("lokr_w2_a", "lokr_w2_a"),
    ("lokr_w2_b", "lokr_w2_b"),
    ("lokr_t2", "lokr_t2"),
    ("dora_scale", "dora"),
    ("lora_magnitude_vector", "dora"),
];

const PARTS: [(&str, Part); 15] = [
    ("unet.", Part::Unet),
    ("transformer.", Part::Unet),
    ("text_encoder.", Part::Text(0)),
    ("text_encoder_2.", Part::Text(1)),
    ("text_encoder_3.", Part::Text(2)),
    ("text_encoders.clip_l.transformer.", Part::Text(0)),
    ("text_encoders.clip_g.transformer.", Part::Text(1)),
    ("text_encoders.t5xxl.transformer.", Part::Text(2)),
    ("lora_unet_", Part::Unet),
    ("lora_te_", Part::Text(0)),
    ("lora_te1_", Part::Text(0)),
    ("lora_te2_", Part::Text(1)),
    ("lora_te3_", Part::Text(2)),
    ("diffusion_model.", Part::Unet),
    ("model.diffusion_model.", Part::Unet),
];

/// Before the names that PEFT writes by itself.
pub const PEFT: &str = "base_model.model.";

impl Key {
    /// None for names that are none of an adapter that this crate knows.
    pub fn parse(name: &str) -> Option<Key> {
        let (part, name) = part(name);
        let words: Vec<&str> = name.split('.').collect();
        let (at, role, tail) = words.iter().enumerate().skip(1).find_map(|(i, word)| {
            let known = ROLES.iter().find(|(known, _)| known == word).map(|(_, role)| *role);
            let known = known.map(|role| (i, role, &words[i + 1..]));
            // The layer's own word may carry the adapter's: `to_q_lora.down.weight`.
            let stem = matches!(*word, "lora" | "lora_linear_layer") || word.ends_with("_lora");
            known.or_else(|| {
                let role = match *words.get(i + 1).filter(|_| stem)? {
                    "down" => "down",
                    "up" => "up",
                    "alpha" => "alpha",
                    _ => return None,
                };
                let at = if word.ends_with("_lora") { i + 1 } else { i };
                Some((at, role, &words[i + 2..]))
            })
        })?;
        let ends = match role {
            // PEFT may write the adapter's name between.
            "down" | "up" if matches!(words[at], "lora_A" | "lora_B") => {
                matches!(tail, ["weight"] | [_, "weight"])
            }
            "down" | "up" | "mid" => tail == ["weight"],
            _ => matches!(tail, [] | ["weight"]),
        };
        ends.then(|| Key { part, path: path(part, &words[..at]), role })
    }

    /// The layers that a name may mean: what it begins with, the longest first.
    pub fn beginnings(name: &str) -> Vec<(Part, String)> {
        let (part, name) = part(name);
        let words: Vec<&str> = name.split('.').collect();
        (1..=words.len()).rev().map(|n| (part, path(part, &words[..n]))).collect()
    }
}

fn part(name: &str) -> (Part, &str) {
    let name = name.strip_prefix(PEFT).unwrap_or(name);
    PARTS
        .iter()
        .find_map(|(prefix, part)| Some((*part, name.strip_prefix(prefix)?)))
        .unwrap_or((Part::Any, name))
}

/// The layer that these words name, without those of old processors of attention.
fn path(part: Part, words: &[&str]) -> String {
    let mut words: Vec<&str> = words.iter().copied().filter(|word| *word != "processor").collect();
    let old = words.last().and_then(|word| word.strip_suffix("_lora"));
    if let (Some(old), Some(last)) = (old, words.last_mut()) {
        *last = match (old, part) {
            ("to_q", Part::Text(_)) => "q_proj",
            ("to_k", Part::Text(_)) => "k_proj",
            ("to_v", Part::Text(_)) => "v_proj",
            ("to_out", Part::Text(_)) => "out_proj",
            ("to_out", _) => "to_out.0",
            (other, _) => other,
        };
    }
    words.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let is = |name: &str, part: Part, path: &str, role: Role| {
            assert_eq!(Key::parse(name), Some(Key { part, path: path.to_owned(), role }), "{name}");
        };
        let block = "down_blocks.0.attentions.1.transformer_blocks.0";
        for prefix in ["unet.", "base_model.model.unet."] {
            is(
                &format!("{prefix}{block}.attn1.to_q.lora_A.weight"),
                Part::Unet,
                &format!("{block}.attn1.to_q"),
                "down",
            );
            is(
                &format!("{prefix}{block}.ff.net.2.lora_B.default.weight"),
                Part::Unet,
                &format!("{block}.ff.net.2"),
                "up",
            );
        }
        let old = format!("{block}.attn2.processor.to_out_lora");
        is(&format!("unet.{old}.up.weight"), Part::Unet, &format!("{block}.attn2.to_out.0"), "up");
        is(&format!("{old}.down.weight"), Part::Any, &format!("{block}.attn2.to_out.0"), "down");
        is(&format!("{old}.alpha"), Part::Any, &format!("{block}.attn2.to_out.0"), "alpha");
        is("unet.conv_in.lora.down.weight", Part::Unet, "conv_in", "down");
        let text = "text_model.encoder.layers.3";
        is(
            &format!("text_encoder.{text}.self_attn.to_q_lora.down.weight"),
            Part::Text(0),
            &format!("{text}.self_attn.q_proj"),
            "down",
        );
        is(
            &format!("text_encoder.{text}.self_attn.to_out_lora.up.weight"),
            Part::Text(0),
            &format!("{text}.self_attn.out_proj"),
            "up",
        );
        is(
            &format!("text_encoder_2.{text}.mlp.fc1.lora_linear_layer.up.weight"),
            Part::Text(1),
            &format!("{text}.mlp.fc1"),
            "up",
        );
        is(
            "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
            Part::Unet,
            "mid_block_attentions_0_proj_in",
            "up",
        );
        is("lora_unet_input_blocks_4_1_proj_in.alpha", Part::Unet, "input_blocks_4_1_proj_in", "alpha");
        is(
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_mid.weight",
            Part::Text(0),
            "text_model_encoder_layers_0_mlp_fc1",
            "mid",
        );
        is(
            "text_encoder_3.encoder.block.0.layer.1.DenseReluDense.wi_0.lora_A.weight",
            Part::Text(2),
            "encoder.block.0.layer.1.DenseReluDense.wi_0",
            "down",
        );
        is(
            "lora_te3_encoder_block_23_layer_0_SelfAttention_q.alpha",
            Part::Text(2),
            "encoder_block_23_layer_0_SelfAttention_q",
            "alpha",
        );
        is(
            "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.o.lora_up.weight",
            Part::Text(2),
            "encoder.block.0.layer.0.SelfAttention.o",
            "up",
        );
        is("transformer.proj_out.lora_B.weight", Part::Unet, "proj_out", "up");
        is("lora_te2_text_projection.hada_w1_a", Part::Text(1), "text_projection", "hada_w1_a");
        is("diffusion_model.out.2.diff_b", Part::Unet, "out.2", "diff_b");
        is("lora_unet_conv_in.dora_scale", Part::Unet, "conv_in", "dora");
        for other in [
            "",
            ".",
            "a",
            "lora_A.weight",
            "alpha",
            "unet.conv_in.weight",
            "unet.conv_in.lora_B.bias",
            "to_q_lora",
            "unet.x.lora.weight",
            "lora_unet_conv_in.oft_blocks",
            "unet.a.b_lora.up.down.weight",
            "unet.x.lora_A.a.b.weight",
        ] {
            assert_eq!(Key::parse(other), None, "{other}");
        }
    }
}

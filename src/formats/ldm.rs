//! Single-file checkpoints with the names of the latent-diffusion code (`model.diffusion_model.…`,
//! `first_stage_model.…`), as A1111 and ComfyUI use them: their tensors under diffusers' names, which is all that the
//! rest of this crate knows. Nothing is copied but what the file has transposed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::tensor::{Bytes, Shape, Tensor, TensorDesc};
use crate::weights::Weights;

/// A checkpoint with all that it is made of.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    file: Weights,
    unet: Weights,
    blocks: Blocks,
}

const UNET: &str = "model.diffusion_model.";
const VAE: [&str; 2] = ["first_stage_model.", "vae."];

/// Where an encoder of text lies, and whose names it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextEncoderNames {
    /// transformers' `CLIPTextModel`.
    Transformers,
    /// OpenCLIP's.
    OpenClip,
}

const TEXT: [(&str, TextEncoderNames); 5] = [
    ("cond_stage_model.transformer.", TextEncoderNames::Transformers),
    ("cond_stage_model.model.", TextEncoderNames::OpenClip),
    ("conditioner.embedders.0.transformer.", TextEncoderNames::Transformers),
    ("conditioner.embedders.0.model.", TextEncoderNames::OpenClip),
    ("conditioner.embedders.1.model.", TextEncoderNames::OpenClip),
];

impl Checkpoint {
    /// Whether a file has the names of such a checkpoint.
    pub fn is_one(weights: &Weights) -> bool {
        weights.contains(&format!("{UNET}input_blocks.0.0.weight"))
    }

    /// Maps a file.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that is none, and those of [`Weights::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(Weights::open(path)?)
    }

    /// The checkpoint in a file that is open.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that is none.
    pub fn new(file: Weights) -> Result<Self> {
        if !Self::is_one(&file) {
            return Err(Error::Format {
                path: file.file().into(),
                message: format!(
                    "is no latent-diffusion checkpoint: it has no {UNET}input_blocks.0.0.weight"
                ),
            });
        }
        let unet = file.renamed(|name, tensor| match name.strip_prefix(UNET) {
            Some(rest) => vec![(rest.to_owned(), tensor)],
            None => Vec::new(),
        });
        let blocks = Blocks::of(&unet);
        Ok(Checkpoint { file, unet, blocks })
    }

    /// Where the checkpoint comes from.
    pub fn file(&self) -> &str {
        self.file.file()
    }

    /// How the UNet's blocks make up levels.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The UNet's tensors under the names of `UNet2DConditionModel`.
    pub fn unet(&self) -> Weights {
        self.unet.renamed(|name, tensor| {
            self.blocks.diffusers(name).map(|name| (name, tensor)).into_iter().collect()
        })
    }

    /// The autoencoder's tensors under the names of `AutoencoderKL`.
    pub fn vae(&self) -> Weights {
        vae(&self.file)
    }

    /// The encoders of text, in the order in which their results stand, under transformers' names.
    pub fn text_encoders(&self) -> Vec<(TextEncoderNames, Weights)> {
        let names = self.file.names();
        TEXT.into_iter()
            .filter(|(prefix, _)| names.iter().any(|name| name.starts_with(prefix)))
            .map(|(prefix, names)| {
                let weights = self.file.renamed(|name, tensor| match (name.strip_prefix(prefix), names) {
                    (None, _) => Vec::new(),
                    (Some(rest), TextEncoderNames::Transformers) => vec![(rest.to_owned(), tensor)],
                    (Some(rest), TextEncoderNames::OpenClip) => open_clip(rest, tensor),
                });
                (names, weights)
            })
            .collect()
    }
}

/// The autoencoder's tensors of a checkpoint under the names of `AutoencoderKL`.
pub(super) fn vae(file: &Weights) -> Weights {
    let prefix = VAE.into_iter().find(|prefix| file.contains(&format!("{prefix}decoder.conv_in.weight")));
    let prefix = prefix.unwrap_or(VAE[0]);
    let names = file.names();
    let level = |name: &&str| {
        name.strip_prefix(prefix)?.strip_prefix("decoder.up.")?.split('.').next()?.parse::<usize>().ok()
    };
    let last = names.iter().filter_map(level).max().unwrap_or(0);
    file.renamed(|name, tensor| {
        let renamed = name.strip_prefix(prefix).and_then(|rest| vae_name(rest, last));
        renamed.map(|name| squeezed(name, tensor)).into_iter().collect()
    })
}

/// A ControlNet's tensors under the names of `ControlNetModel`; none if the file has none under the names of a checkpoint.
pub fn controlnet(file: &Weights) -> Option<Weights> {
    let prefix = ["control_model.", ""]
        .into_iter()
        .find(|prefix| file.contains(&format!("{prefix}input_hint_block.0.weight")))?;
    let control = file.renamed(|name, tensor| {
        name.strip_prefix(prefix).map(|rest| (rest.to_owned(), tensor)).into_iter().collect()
    });
    let blocks = Blocks::of(&control);
    Some(
        control
            .renamed(|name, tensor| blocks.diffusers(name).map(|name| (name, tensor)).into_iter().collect()),
    )
}

/// What an input block of the UNet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Layer { level: usize, layer: usize },
    Down { level: usize },
}

/// The flat list of a UNet's blocks, as levels of layers.
#[derive(Clone, Debug)]
pub struct Blocks {
    places: Vec<Place>,
    /// Layers of each level on the way down.
    pub layers: Vec<usize>,
    /// The last layer of a ControlNet's way from its picture to the latents.
    last_hint: Option<usize>,
}

impl Blocks {
    fn of(unet: &Weights) -> Self {
        let (mut places, mut layers) = (vec![Place::First], vec![0]);
        for i in 1.. {
            let level = layers.len() - 1;
            if unet.contains(&format!("input_blocks.{i}.0.op.weight")) {
                places.push(Place::Down { level });
                layers.push(0);
            } else if unet.contains(&format!("input_blocks.{i}.0.in_layers.0.weight")) {
                places.push(Place::Layer { level, layer: layers[level] });
                layers[level] += 1;
            } else {
                break;
            }
        }
        let hint = |i: &usize| unet.contains(&format!("input_hint_block.{i}.weight"));
        // Every second is an activation.
        let last_hint = (0..).step_by(2).take_while(hint).last();
        Blocks { places, layers, last_hint }
    }

    /// The blocks of a UNet whose tensors have diffusers' names.
    pub fn of_unet(unet: &Weights) -> Self {
        let has = |level: usize, layer: usize| {
            unet.contains(&format!("down_blocks.{level}.resnets.{layer}.conv1.weight"))
        };
        let (mut places, mut layers) = (vec![Place::First], Vec::new());
        for level in (0..).take_while(|&level| has(level, 0)) {
            if level > 0 {
                places.push(Place::Down { level: level - 1 });
            }
            layers.push((0..).take_while(|&layer| has(level, layer)).count());
            places.extend((0..layers[level]).map(|layer| Place::Layer { level, layer }));
        }
        Blocks { places, layers, last_hint: None }
    }

    /// The index of the input block of a layer.
    pub fn input(&self, level: usize, layer: usize) -> Option<usize> {
        self.places.iter().position(|place| *place == Place::Layer { level, layer })
    }

    /// Block and layer on the way up of an output block.
    fn output(&self, mut i: usize) -> Option<(usize, usize)> {
        for (block, layers) in self.layers.iter().rev().enumerate() {
            // One more than on the way down.
            if i <= *layers {
                return Some((block, i));
            }
            i -= layers + 1;
        }
        None
    }

    /// diffusers' name of a tensor of the UNet or of its ControlNet; none for what they do not have.
    fn diffusers(&self, name: &str) -> Option<String> {
        let parts: Vec<&str> = name.split('.').collect();
        let number = |i: usize| parts.get(i)?.parse::<usize>().ok();
        let rest = |from: usize| parts.get(from..).map(|rest| rest.join("."));
        match parts[0] {
            "time_embed" => Some(format!("time_embedding.linear_{}.{}", number(1)? / 2 + 1, rest(2)?)),
            "cond_proj" => Some(format!("time_embedding.{name}")),
            "label_emb" => match number(1) {
                Some(_) => Some(format!("add_embedding.linear_{}.{}", number(2)? / 2 + 1, rest(3)?)),
                None => Some(format!("class_embedding.{}", rest(1)?)),
            },
            "out" => {
                Some(format!("{}.{}", if number(1)? == 0 { "conv_norm_out" } else { "conv_out" }, rest(2)?))
            }
            "input_hint_block" => {
                let part = match number(1)? {
                    0 => "conv_in".to_owned(),
                    last if Some(last) == self.last_hint => "conv_out".to_owned(),
                    layer => format!("blocks.{}", (layer / 2).checked_sub(1)?),
                };
                Some(format!("controlnet_cond_embedding.{part}.{}", rest(2)?))
            }
            "zero_convs" => Some(format!("controlnet_down_blocks.{}.{}", number(1)?, rest(3)?)),
            "middle_block_out" => Some(format!("controlnet_mid_block.{}", rest(2)?)),
            "input_blocks" => match (self.places.get(number(1)?)?, number(2)?) {
                (Place::First, _) => Some(format!("conv_in.{}", rest(3)?)),
                (Place::Down { level }, _) => {
                    Some(format!("down_blocks.{level}.downsamplers.0.conv.{}", rest(4)?))
                }
                (Place::Layer { level, layer }, 0) => {
                    Some(format!("down_blocks.{level}.resnets.{layer}.{}", resnet(&rest(3)?)?))
                }
                (Place::Layer { level, layer }, _) => {
                    Some(format!("down_blocks.{level}.attentions.{layer}.{}", rest(3)?))
                }
            },
            "middle_block" => match number(1)? {
                1 => Some(format!("mid_block.attentions.0.{}", rest(2)?)),
                block => Some(format!("mid_block.resnets.{}.{}", block / 2, resnet(&rest(2)?)?)),
            },
            "output_blocks" => {
                let (block, layer) = self.output(number(1)?)?;
                let rest = rest(3)?;
                Some(match (number(2)?, rest.strip_prefix("conv.")) {
                    (0, _) => format!("up_blocks.{block}.resnets.{layer}.{}", resnet(&rest)?),
                    (_, Some(rest)) => format!("up_blocks.{block}.upsamplers.0.conv.{rest}"),
                    (_, None) => format!("up_blocks.{block}.attentions.{layer}.{rest}"),
                })
            }
            _ => None,
        }
    }

    /// A checkpoint's name of a tensor of `unet`, which has diffusers' names: the way back.
    pub fn checkpoint_name(&self, name: &str, unet: &Weights) -> Option<String> {
        let parts: Vec<&str> = name.split('.').collect();
        let number = |i: usize| parts.get(i)?.parse::<usize>().ok();
        let rest = |from: usize| parts.get(from..).map(|rest| rest.join("."));
        let back = |from: usize| {
            let rest = rest(from)?;
            RESNET.iter().find_map(|(old, new)| Some(format!("{old}{}", rest.strip_prefix(new)?)))
        };
        let input = |wanted: Place| self.places.iter().position(|place| *place == wanted);
        match (parts[0], parts.get(1).copied()) {
            ("conv_in", _) => Some(format!("input_blocks.0.0.{}", rest(1)?)),
            ("conv_norm_out", _) => Some(format!("out.0.{}", rest(1)?)),
            ("conv_out", _) => Some(format!("out.2.{}", rest(1)?)),
            ("time_embedding", Some("linear_1")) => Some(format!("time_embed.0.{}", rest(2)?)),
            ("time_embedding", Some("linear_2")) => Some(format!("time_embed.2.{}", rest(2)?)),
            ("time_embedding", Some("cond_proj")) => rest(1),
            ("add_embedding", Some("linear_1")) => Some(format!("label_emb.0.0.{}", rest(2)?)),
            ("add_embedding", Some("linear_2")) => Some(format!("label_emb.0.2.{}", rest(2)?)),
            ("class_embedding", _) => Some(format!("label_emb.{}", rest(1)?)),
            ("mid_block", Some("attentions")) => Some(format!("middle_block.1.{}", rest(3)?)),
            ("mid_block", Some("resnets")) => {
                Some(format!("middle_block.{}.{}", number(2)?.checked_mul(2)?, back(3)?))
            }
            ("down_blocks", _) => {
                let (level, layer) = (number(1)?, number(3)?);
                let at = |place| input(place).map(|i| format!("input_blocks.{i}"));
                Some(match *parts.get(2)? {
                    "downsamplers" => format!("{}.0.op.{}", at(Place::Down { level })?, rest(5)?),
                    "resnets" => format!("{}.0.{}", at(Place::Layer { level, layer })?, back(4)?),
                    _ => format!("{}.1.{}", at(Place::Layer { level, layer })?, rest(4)?),
                })
            }
            ("up_blocks", _) => {
                let (block, layer) = (number(1)?, number(3)?);
                let level = self.layers.len().checked_sub(block)?.checked_sub(1)?;
                let before: usize = self.layers[level + 1..].iter().map(|layers| layers + 1).sum();
                Some(match *parts.get(2)? {
                    "upsamplers" => {
                        let last = self.layers[level];
                        // After the layer's attention, if it has one.
                        let attention = format!("up_blocks.{block}.attentions.{last}.norm.weight");
                        let place = if unet.contains(&attention) { 2 } else { 1 };
                        format!("output_blocks.{}.{place}.conv.{}", before + last, rest(5)?)
                    }
                    "resnets" => format!("output_blocks.{}.0.{}", before.checked_add(layer)?, back(4)?),
                    _ => format!("output_blocks.{}.1.{}", before.checked_add(layer)?, rest(4)?),
                })
            }
            _ => None,
        }
    }
}

/// Parts of a residual block of the UNet.
const RESNET: [(&str, &str); 6] = [
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
];

fn resnet(name: &str) -> Option<String> {
    replaced(name, &RESNET)
}

fn replaced(name: &str, prefixes: &[(&str, &str)]) -> Option<String> {
    prefixes.iter().find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)))
}

/// diffusers' name of a tensor of the autoencoder, whose decoder counts its `last + 1` levels from the other end.
fn vae_name(name: &str, last: usize) -> Option<String> {
    const ATTENTION: [(&str, &str); 5] = [
        ("norm.", "group_norm."),
        ("q.", "to_q."),
        ("k.", "to_k."),
        ("v.", "to_v."),
        ("proj_out.", "to_out.0."),
    ];
    let parts: Vec<&str> = name.split('.').collect();
    if matches!(parts[0], "quant_conv" | "post_quant_conv") {
        return Some(name.to_owned());
    }
    let half = parts[0];
    let rest = |from: usize| parts.get(from..).map(|rest| rest.join("."));
    // Only the shortcut is called otherwise.
    let resnet = |from: usize| Some(rest(from)?.replace("nin_shortcut.", "conv_shortcut."));
    let name = match (half, *parts.get(1)?) {
        ("encoder" | "decoder", "conv_in" | "conv_out") => rest(1)?,
        ("encoder" | "decoder", "norm_out") => format!("conv_norm_out.{}", rest(2)?),
        ("encoder" | "decoder", "mid") => match *parts.get(2)? {
            "attn_1" => format!("mid_block.attentions.0.{}", replaced(&rest(3)?, &ATTENTION)?),
            "block_1" => format!("mid_block.resnets.0.{}", resnet(3)?),
            "block_2" => format!("mid_block.resnets.1.{}", resnet(3)?),
            _ => return None,
        },
        ("encoder", "down") | ("decoder", "up") => {
            let level: usize = parts.get(2)?.parse().ok()?;
            let (blocks, sampler, level) = match half {
                "encoder" => ("down_blocks", "downsamplers", level),
                _ => ("up_blocks", "upsamplers", last.checked_sub(level)?),
            };
            match *parts.get(3)? {
                "block" => format!("{blocks}.{level}.resnets.{}.{}", parts.get(4)?, resnet(5)?),
                "downsample" | "upsample" => format!("{blocks}.{level}.{sampler}.0.{}", rest(4)?),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(format!("{half}.{name}"))
}

/// The attention's 1×1 convolutions as the matrices that they are.
fn squeezed(name: String, tensor: Tensor) -> (String, Tensor) {
    match tensor.desc.shape[..] {
        [rows, columns, 1, 1] if name.contains("attentions") => {
            let desc = TensorDesc { shape: Shape::from([rows, columns]), dtype: tensor.desc.dtype };
            (name, Tensor { desc, bytes: tensor.bytes })
        }
        _ => (name, tensor),
    }
}

/// transformers' names of a tensor of OpenCLIP: query, key and value are one there.
fn open_clip(name: &str, tensor: Tensor) -> Vec<(String, Tensor)> {
    const LAYER: [(&str, &str); 5] = [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
        ("attn.out_proj.", "self_attn.out_proj."),
    ];
    let whole: BTreeMap<&str, &str> = BTreeMap::from([
        ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        ("ln_final.weight", "text_model.final_layer_norm.weight"),
        ("ln_final.bias", "text_model.final_layer_norm.bias"),
    ]);
    if let Some(name) = whole.get(name) {
        return vec![((*name).to_owned(), tensor)];
    }
    if name == "text_projection" {
        return vec![("text_projection.weight".to_owned(), transposed(&tensor))];
    }
    let Some((layer, rest)) =
        name.strip_prefix("transformer.resblocks.").and_then(|rest| rest.split_once('.'))
    else {
        return Vec::new();
    };
    let at = |part: &str| format!("text_model.encoder.layers.{layer}.{part}");
    if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
        let rows = tensor.desc.shape.first().copied().unwrap_or(0) / 3;
        let part = |(i, name): (usize, &str)| {
            (at(&format!("self_attn.{name}_proj.{kind}")), tensor.rows(i * rows..(i + 1) * rows))
        };
        return if rows == 0 {
            Vec::new()
        } else {
            ["q", "k", "v"].into_iter().enumerate().map(part).collect()
        };
    }
    replaced(rest, &LAYER).map(|part| (at(&part), tensor)).into_iter().collect()
}

/// The transposed matrix; anything else as it is.
fn transposed(tensor: &Tensor) -> Tensor {
    let [rows, columns] = tensor.desc.shape[..] else { return tensor.clone() };
    if tensor.desc.shape.elements() == 0 {
        return tensor.clone();
    }
    let size = tensor.desc.dtype.bytes();
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            bytes.extend_from_slice(&tensor.bytes[(row * columns + column) * size..][..size]);
        }
    }
    Tensor {
        desc: TensorDesc { shape: Shape::from([columns, rows]), dtype: tensor.desc.dtype },
        bytes: Bytes::Owned(bytes.into()),
    }
}

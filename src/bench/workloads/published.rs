//! Published networks at their full size, with weights out of their names, and what PyTorch computed of them in float64
//! (`scripts/references/bench.py`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::bench::check::{Expected, sha256};
use crate::bench::hashed;
use crate::bench::network::{Contents, Made, Reference as How};
use crate::error::Result;
use crate::models;
use crate::models::autoencoder::{AutoencoderConfig, decode};
use crate::models::autoencoder_kl::AutoencoderKlConfig;
use crate::models::clip_text::{ClipTextConfig, ClipTextOptions, clip_text_graph};
use crate::models::unet2d::{UNet2dConfig, unet2d};
use crate::models::unet2d_condition::{Conditions, UNet2dConditionConfig, unet2d_condition};
use crate::nn::Source;
use crate::parallel;
use crate::tensor::{Bytes, DType, Shape, Tensor, TensorDesc};
use crate::weights::Weights;

/// How a network is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It reads pictures, and its tensors say what it is.
    Vision,
    /// diffusers' `UNet2DModel`.
    UNet2d,
    /// Stable Diffusion's.
    Unet,
    Decoder,
    TextEncoder,
}

/// A stored reference.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub name: &'static str,
    pub title: &'static str,
    pub kind: Kind,
    text: &'static str,
}

macro_rules! published {
    ($($name:literal, $title:literal, $kind:ident;)*) => {
        /// All of them.
        pub const PUBLISHED: &[Published] = &[$(Published {
            name: $name,
            title: $title,
            kind: Kind::$kind,
            text: include_str!(concat!("references/", $name, ".json")),
        },)*];
    };
}

published! {
    "resnet50", "ResNet-50, 224×224", Vision;
    "mobilenet_v2", "MobileNetV2, 224×224", Vision;
    "efficientnet_b0", "EfficientNet-B0, 224×224", Vision;
    "rrdb", "ESRGAN's generator with 6 blocks, 64×64 to 256×256", Vision;
    "ssdlite", "SSDLite on MobileNetV3-Large, 320×320", Vision;
    "ddpm", "DDPM's UNet for CIFAR-10, 32×32", UNet2d;
    "text", "Stable Diffusion 1.5's text encoder, 77 tokens", TextEncoder;
    "unet_32", "Stable Diffusion 1.5's UNet, one call, 32×32 latents", Unet;
    "unet_64", "Stable Diffusion 1.5's UNet, one call, 64×64 latents", Unet;
    "decoder_32", "Stable Diffusion 1.5's decoder, 32×32 latents to 256×256", Decoder;
}

/// The timestep that the references of UNets were computed for.
const TIMESTEP: f32 = 421.0;

#[derive(Deserialize)]
struct Reference {
    source: String,
    config: Value,
    inputs: BTreeMap<String, Vec<usize>>,
    outputs: BTreeMap<String, Output>,
    /// Of tensors whose names end so.
    gains: BTreeMap<String, f32>,
    /// Names and shapes, as `conv1.weight 64x3x7x7`.
    tensors: Vec<String>,
    #[serde(default)]
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Output {
    largest: f64,
    at: Vec<usize>,
    values: Vec<f64>,
}

impl Published {
    /// The reference of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn find(name: &str) -> &'static Published {
        PUBLISHED.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("no reference {name}"))
    }

    fn reference(&self) -> Reference {
        serde_json::from_str(self.text).expect("references are as the script writes them")
    }

    /// Its weights; hollow ones have shapes alone.
    pub fn weights(&self, contents: Contents) -> Weights {
        self.reference().weights(self.name, contents)
    }

    /// Its configuration's text.
    pub fn config(&self) -> String {
        self.reference().config.to_string()
    }

    /// Shape of what it reads, `[n, h, w, c]`; of latents, if it reads these.
    ///
    /// # Panics
    /// If it reads tokens.
    pub fn picture(&self) -> Shape {
        self.reference().inputs["x"].clone().into()
    }

    /// The network for so many times the picture of the reference.
    ///
    /// # Errors
    /// Those of the graph.
    pub fn make(&self, contents: Contents, batch: usize, dtype: DType) -> Result<Made> {
        let reference = self.reference();
        let weights = reference.weights(self.name, contents);
        let source = Source { weights: &weights, dtype };
        let expected = reference
            .outputs
            .iter()
            .map(|(name, Output { largest, at, values })| Expected {
                output: if self.kind == Kind::TextEncoder { "states".to_owned() } else { name.clone() },
                at: at.clone(),
                values: values.clone(),
                largest: *largest,
            })
            .collect();
        let sha256 = sha256(self.text.as_bytes());
        let mut made = Made::new(How::Stored { source: reference.source.clone(), sha256, expected });
        made.weights = reference.bytes();
        let text = reference.config.to_string();
        if self.kind == Kind::TextEncoder {
            let config = ClipTextConfig::from_json(&text)?;
            let options = ClipTextOptions { skip: 0, normalise: true, pooled: false };
            let positions = config.max_position_embeddings;
            made.graph = clip_text_graph(&config, source, [batch, positions], options)?;
            if contents == Contents::Real {
                let mut tokens = reference.tokens.clone();
                let end = *tokens.last().expect("a reference of tokens");
                tokens.resize(positions, end);
                let mut one = config.embed(&weights, &tokens)?;
                one.desc.shape = [1, positions, config.hidden_size].into();
                made.inputs.push(("embeddings".to_owned(), repeated(&one, batch)));
            }
            return Ok(made);
        }
        for (name, shape) in &reference.inputs {
            made.inputs.push((name.clone(), repeated(&hashed::input(name, shape.clone()), batch)));
        }
        let g = &mut made.graph;
        let inputs: BTreeMap<&str, _> = made
            .inputs
            .iter()
            .map(|(name, tensor)| (name.as_str(), g.input(name, tensor.desc.shape.clone(), DType::F32)))
            .collect();
        let x = g.cast(inputs["x"], dtype)?;
        let outputs = match self.kind {
            Kind::Vision => models::from_weights(weights, None)?.build(g, x)?,
            Kind::UNet2d | Kind::Unet => {
                let timesteps = g.weight("timesteps", Tensor::from_f32([1, 1], &[TIMESTEP]));
                let y = if self.kind == Kind::UNet2d {
                    unet2d(g, &UNet2dConfig::from_json(&text)?, source, x, timesteps, None)?
                } else {
                    let text_states = g.cast(inputs["text"], dtype)?;
                    let conditions = Conditions {
                        timesteps,
                        text: text_states,
                        pooled: None,
                        guidance: None,
                        class: None,
                        residuals: &[],
                        perturbed: None,
                    };
                    unet2d_condition(g, &UNet2dConditionConfig::from_json(&text)?, source, x, &conditions)?
                };
                vec![("y".to_owned(), y)]
            }
            Kind::Decoder => {
                let config: AutoencoderConfig = AutoencoderKlConfig::from_json(&text)?.into();
                // Pipelines decode latents as samplers have them: scaled.
                let [scale, shift] = config.scaling();
                let z = g.affine(x, 1.0 / scale, shift)?;
                vec![("y".to_owned(), decode(g, &config, source, z)?)]
            }
            Kind::TextEncoder => unreachable!("built above"),
        };
        for (name, y) in outputs {
            let y = made.graph.cast(y, DType::F32)?;
            made.graph.output(&name, y);
        }
        Ok(made)
    }
}

impl Reference {
    fn shapes(&self) -> Vec<(&str, Shape)> {
        let shape = |text: &str| -> Vec<usize> {
            text.split('x').filter(|d| !d.is_empty()).map(|d| d.parse().expect("a number")).collect()
        };
        self.tensors
            .iter()
            .map(|line| line.split_once(' ').expect("a name and a shape"))
            .map(|(name, text)| (name, shape(text).into()))
            .collect()
    }

    fn bytes(&self) -> u64 {
        self.shapes().iter().map(|(_, shape)| 4 * shape.elements() as u64).sum()
    }

    fn weights(&self, name: &str, contents: Contents) -> Weights {
        let gain = |name: &str| {
            self.gains.iter().find(|(end, _)| name.ends_with(end.as_str())).map_or(1.0, |(_, gain)| *gain)
        };
        let tensors = match contents {
            Contents::Hollow => {
                self.shapes().into_iter().map(|(name, shape)| (name, hollow(shape))).collect()
            }
            Contents::Real => parallel::map(&self.shapes(), |(name, shape)| {
                (*name, hashed::weight(name, shape, gain(name)))
            }),
        };
        Weights::of_tensors(name, tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)))
    }
}

/// A tensor that nobody looks into.
fn hollow(shape: Shape) -> Tensor {
    Tensor { desc: TensorDesc::new(shape, DType::F32), bytes: Bytes::Owned([].into()) }
}

/// `batch` times the one of `[1, …]`.
fn repeated(one: &Tensor, batch: usize) -> Tensor {
    let mut shape = one.desc.shape.to_vec();
    shape[0] = batch;
    Tensor {
        desc: TensorDesc::new(shape, one.desc.dtype),
        bytes: Bytes::Owned(one.bytes.repeat(batch).into()),
    }
}

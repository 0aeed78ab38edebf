//! diffusers' `AutoencoderTiny` (TAESD, madebyollin/taesd): a small distilled stand-in for the autoencoder of latent
//! diffusion, which shows latents at once where the large one takes as long as some steps.

use std::path::Path;

use serde::Deserialize;

use super::config::Class;
use super::latent_diffusion::Part;
use crate::error::{Error, Result};
use crate::files;
use crate::formats::diffusers;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::weights::Weights;

/// `config.json`, with diffusers' defaults. [`AutoencoderTinyConfig::from_json`] refuses what this crate cannot run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct AutoencoderTinyConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub encoder_block_out_channels: Vec<usize>,
    pub decoder_block_out_channels: Vec<usize>,
    pub act_fn: String,
    pub upsample_fn: String,
    pub latent_channels: usize,
    pub upsampling_scaling_factor: usize,
    pub num_encoder_blocks: Vec<usize>,
    pub num_decoder_blocks: Vec<usize>,
    /// What counts as the largest latent where they are stored as bytes.
    pub latent_magnitude: f32,
    /// The byte of a latent of 0, as a part of the largest.
    pub latent_shift: f32,
    /// The diffusion model sees `(latent − shift) · scale`.
    pub scaling_factor: f32,
    pub shift_factor: Option<f32>,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        AutoencoderTinyConfig {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            act_fn: "relu".to_owned(),
            upsample_fn: "nearest".to_owned(),
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_magnitude: 3.0,
            latent_shift: 0.5,
            scaling_factor: 1.0,
            shift_factor: None,
        }
    }
}

const CLASS: Class = Class("AutoencoderTiny");

impl AutoencoderTinyConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no JSON, and for each setting that this crate does not have, by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: AutoencoderTinyConfig = CLASS.parse(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        CLASS.one_of("act_fn", &self.act_fn, &["relu"])?;
        CLASS.one_of("upsample_fn", &self.upsample_fn, &["nearest"])?;
        if self.upsampling_scaling_factor != 2 {
            let found = self.upsampling_scaling_factor;
            return Err(CLASS.unsupported("upsampling_scaling_factor", "2", found));
        }
        let halves = [
            ("encoder_block_out_channels", &self.encoder_block_out_channels, &self.num_encoder_blocks),
            ("decoder_block_out_channels", &self.decoder_block_out_channels, &self.num_decoder_blocks),
        ];
        let levels = self.encoder_block_out_channels.len();
        for (setting, widths, blocks) in halves {
            let same = widths.windows(2).all(|pair| pair[0] == pair[1]);
            if !(1..=16).contains(&levels) || widths.len() != levels || blocks.len() != levels || !same {
                let expected =
                    "one width for all levels, as many in both halves, and a number of blocks for each";
                return Err(CLASS.unsupported(setting, expected, format!("{widths:?}, blocks {blocks:?}")));
            }
            CLASS.sizes(widths.iter().map(|&width| (setting, width)))?;
            // None in a level is odd, but sound.
            CLASS.sizes(blocks.iter().map(|&count| ("number of blocks", count.max(1))))?;
        }
        if !(self.latent_magnitude.is_finite() && self.latent_magnitude > 0.0) {
            return Err(CLASS.unsupported("latent_magnitude", "above 0", self.latent_magnitude));
        }
        CLASS.sizes([
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
        ])
    }

    /// Pixels of a picture along each side of a latent's pixel.
    pub fn factor(&self) -> usize {
        1 << (self.decoder_block_out_channels.len() - 1)
    }
}

impl Part<AutoencoderTinyConfig> {
    /// Reads a folder with `config.json` and weights, or a file with the names of TAESD's own code
    /// (`taesd_decoder.safetensors`), which may have the decoder alone.
    ///
    /// # Errors
    /// Those of [`AutoencoderTinyConfig::from_json`] and of the files, [`Error::Format`] for a file of other layers.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            let text = files::text(&path.join("config.json"))?;
            let config = AutoencoderTinyConfig::from_json(&text)?;
            return Ok(Part { config, weights: diffusers::weights(path)? });
        }
        let weights = Weights::open(path)?.renamed(|name, tensor| match taesd_name(name) {
            Some(name) => vec![(name, tensor)],
            None => vec![(name.to_owned(), tensor)],
        });
        Ok(Part { config: config_of(&weights)?, weights })
    }
}

/// diffusers' name of a tensor of TAESD's own code. Its decoder begins with a clamp that is a layer of its own.
fn taesd_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("taesd_").unwrap_or(name);
    let (half, first, rest) = match (name.strip_prefix("encoder."), name.strip_prefix("decoder.")) {
        (Some(rest), _) => ("encoder", 0, rest),
        (None, Some(rest)) => ("decoder", 1, rest),
        (None, None) => ("decoder", 1, name),
    };
    let (layer, rest) = rest.split_once('.')?;
    let layer = layer.parse::<usize>().ok()?.checked_sub(first)?;
    Some(format!("{half}.layers.{layer}.{rest}"))
}

/// The configuration of a decoder by its layers; the encoder is taken to mirror it.
fn config_of(weights: &Weights) -> Result<AutoencoderTinyConfig> {
    let wrong = |message: String| Error::Format { path: weights.file().into(), message };
    let conv = |layer: usize| match weights.shape(&format!("decoder.layers.{layer}.weight"))?[..] {
        [to, from, 3, 3] => Some([to, from]),
        _ => None,
    };
    let Some([width, latent_channels]) = conv(0) else {
        return Err(wrong("holds no decoder of TAESD: expected layer 1 to be a 3×3 convolution".to_owned()));
    };
    // The first convolution and its activation; then blocks, an enlargement and a convolution for each level.
    let (mut layer, mut blocks) = (2, vec![0]);
    let out_channels = loop {
        let last = blocks.len() - 1;
        match (conv(layer), conv(layer + 1)) {
            _ if weights.contains(&format!("decoder.layers.{layer}.conv.0.weight")) => {
                blocks[last] += 1;
                layer += 1;
            }
            (Some([out_channels, _]), _) => break out_channels,
            (None, Some(_)) => {
                blocks.push(0);
                layer += 2;
            }
            (None, None) => {
                let message = format!("ends in the middle of TAESD's decoder, at its layer {}", layer + 1);
                return Err(wrong(message));
            }
        }
    };
    let config = AutoencoderTinyConfig {
        in_channels: out_channels,
        out_channels,
        latent_channels,
        encoder_block_out_channels: vec![width; blocks.len()],
        decoder_block_out_channels: vec![width; blocks.len()],
        num_encoder_blocks: blocks.iter().rev().copied().collect(),
        num_decoder_blocks: blocks,
        ..AutoencoderTinyConfig::default()
    };
    config.check()?;
    Ok(config)
}

/// Latents `[n, h / f, w / f, latent_channels]` of pictures `[n, h, w, in_channels]` from −1 to 1.
pub fn encode(g: &mut Graph, config: &AutoencoderTinyConfig, w: Source, x: ValueId) -> Result<ValueId> {
    let mut layers = Layers { w, half: "encoder", next: 0 };
    let mut h = g.affine(x, 0.5, 0.5)?;
    for (level, (&width, &blocks)) in
        config.encoder_block_out_channels.iter().zip(&config.num_encoder_blocks).enumerate()
    {
        h = match level {
            0 => layers.conv(g, h, width)?,
            _ => layers.plain_conv(g, h, Conv2dOptions::padded(1).stride(2))?,
        };
        for _ in 0..blocks {
            h = layers.block(g, h)?;
        }
    }
    layers.conv(g, h, config.latent_channels)
}

/// Pictures `[n, f · h, f · w, out_channels]`, about −1 to 1, of latents `[n, h, w, latent_channels]` as the encoder
/// gives them.
pub fn decode(g: &mut Graph, config: &AutoencoderTinyConfig, w: Source, z: ValueId) -> Result<ValueId> {
    let mut layers = Layers { w, half: "decoder", next: 0 };
    // A soft clamp: what is beyond ±3 is hardly told apart.
    let part = Expr::binary(Binary::Mul, Expr::input(0), Expr::Const(1.0 / 3.0));
    let clamped = Expr::binary(Binary::Mul, Expr::unary(Unary::Tanh, part), Expr::Const(3.0));
    let mut h = g.elementwise(clamped, &[z])?;
    h = layers.conv(g, h, config.decoder_block_out_channels[0])?;
    h = g.relu(h)?;
    layers.skip();
    for (level, &blocks) in config.num_decoder_blocks.iter().enumerate() {
        for _ in 0..blocks {
            h = layers.block(g, h)?;
        }
        if level + 1 < config.num_decoder_blocks.len() {
            h = g.upsample_nearest(h, 2)?;
            layers.skip();
            h = layers.plain_conv(g, h, Conv2dOptions::padded(1))?;
        }
    }
    let h = layers.conv(g, h, config.out_channels)?;
    g.affine(h, 2.0, -1.0)
}

/// Latents as 0 to 1, in which they can be stored as bytes.
pub fn to_unit(g: &mut Graph, config: &AutoencoderTinyConfig, z: ValueId) -> Result<ValueId> {
    let part = Expr::binary(Binary::Mul, Expr::input(0), Expr::Const(0.5 / config.latent_magnitude));
    let shifted = Expr::binary(Binary::Add, part, Expr::Const(config.latent_shift));
    g.elementwise(Expr::clamp(shifted, 0.0, 1.0), &[z])
}

/// The latents of what [`to_unit`] gave.
pub fn from_unit(g: &mut Graph, config: &AutoencoderTinyConfig, unit: ValueId) -> Result<ValueId> {
    let scale = 2.0 * config.latent_magnitude;
    g.affine(unit, scale, -config.latent_shift * scale)
}

/// The layers of one half, which the file numbers through, those without weights too.
struct Layers<'a> {
    w: Source<'a>,
    half: &'static str,
    next: usize,
}

impl Layers<'_> {
    fn skip(&mut self) {
        self.next += 1;
    }

    fn name(&mut self) -> String {
        self.skip();
        format!("{}.layers.{}", self.half, self.next - 1)
    }

    fn conv(&mut self, g: &mut Graph, x: ValueId, width: usize) -> Result<ValueId> {
        let name = self.name();
        self.w.conv(g, &name, x, width, 3, Conv2dOptions::padded(1))
    }

    /// A convolution without a bias that keeps the channels.
    fn plain_conv(&mut self, g: &mut Graph, x: ValueId, options: Conv2dOptions) -> Result<ValueId> {
        let (name, c) = (self.name(), g.shape(x).last());
        let weight = self.w.get(g, &format!("{name}.weight"), &[c, c, 3, 3])?;
        g.scoped(&name, |g| g.conv2d(x, weight, None, options))
    }

    /// `relu(conv(relu(conv(relu(conv(x))))) + x)`
    fn block(&mut self, g: &mut Graph, x: ValueId) -> Result<ValueId> {
        let (name, c) = (self.name(), g.shape(x).last());
        let mut h = x;
        for i in [0, 2, 4] {
            h = self.w.conv(g, &format!("{name}.conv.{i}"), h, c, 3, Conv2dOptions::padded(1))?;
            h = if i < 4 { g.relu(h)? } else { g.add(h, x)? };
        }
        g.relu(h)
    }
}

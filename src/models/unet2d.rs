//! diffusers' `UNet2DModel`: the network of DDPM (Ho et al. 2020, arXiv:2006.11239), of ADM (Dhariwal & Nichol 2021,
//! arXiv:2105.05233) and of score models (Song et al. 2021, arXiv:2011.13456).

use serde::Deserialize;

use super::config::Class;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{self, Resample, ResamplingOptions, ResnetOptions, Source};
use crate::ops::TimestepEmbedding;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::Binary;
use crate::ops::strided::Range;
use crate::tensor::DType;

/// Height and width, or one number for both.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Square(usize),
    HeightWidth([usize; 2]),
}

/// `config.json`, with diffusers' defaults. [`UNet2dConfig::from_json`] refuses what this crate cannot run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct UNet2dConfig {
    pub sample_size: Option<Size>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub center_input_sample: bool,
    pub time_embedding_type: String,
    pub time_embedding_dim: Option<usize>,
    pub freq_shift: f64,
    pub flip_sin_to_cos: bool,
    pub down_block_types: Vec<String>,
    pub mid_block_type: Option<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub mid_block_scale_factor: f64,
    pub downsample_padding: usize,
    pub downsample_type: String,
    pub upsample_type: String,
    pub act_fn: String,
    pub attention_head_dim: Option<usize>,
    pub norm_num_groups: usize,
    pub attn_norm_num_groups: Option<usize>,
    pub norm_eps: f32,
    pub resnet_time_scale_shift: String,
    pub class_embed_type: Option<String>,
    pub num_class_embeds: Option<usize>,
    pub add_attention: bool,
}

impl Default for UNet2dConfig {
    fn default() -> Self {
        let blocks = |of: [&str; 4]| of.map(str::to_owned).to_vec();
        UNet2dConfig {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: "positional".to_owned(),
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: blocks([
                "DownBlock2D",
                "AttnDownBlock2D",
                "AttnDownBlock2D",
                "AttnDownBlock2D",
            ]),
            mid_block_type: Some("UNetMidBlock2D".to_owned()),
            up_block_types: blocks(["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"]),
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: "conv".to_owned(),
            upsample_type: "conv".to_owned(),
            act_fn: "silu".to_owned(),
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: "default".to_owned(),
            class_embed_type: None,
            num_class_embeds: None,
            add_attention: true,
        }
    }
}

const CLASS: Class = Class("UNet2DModel");

impl UNet2dConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for what is no JSON, and for each setting that this crate does not have, by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: UNet2dConfig = CLASS.parse(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        CLASS.one_of("time_embedding_type", &self.time_embedding_type, &["positional", "fourier"])?;
        CLASS.one_of("act_fn", &self.act_fn, &["silu", "swish"])?;
        CLASS.one_of(
            "resnet_time_scale_shift",
            &self.resnet_time_scale_shift,
            &["default", "scale_shift"],
        )?;
        if self.scale_shift() && self.add_attention && self.attn_norm_num_groups.is_none() {
            let expected = "a number, as resnet_time_scale_shift is scale_shift";
            return Err(CLASS.unsupported("attn_norm_num_groups", expected, "null"));
        }
        CLASS.one_of("downsample_type", &self.downsample_type, &["conv", "resnet"])?;
        CLASS.one_of("upsample_type", &self.upsample_type, &["conv", "resnet"])?;
        if let Some(mid) = &self.mid_block_type {
            CLASS.one_of("mid_block_type", mid, &["UNetMidBlock2D"])?;
        }
        CLASS.null(&[("class_embed_type", &self.class_embed_type)])?;
        if self.mid_block_scale_factor != 1.0 {
            return Err(CLASS.unsupported("mid_block_scale_factor", "1", self.mid_block_scale_factor));
        }
        let levels = self.block_out_channels.len();
        CLASS.levels(levels)?;
        if self.down_block_types.len() != levels || self.up_block_types.len() != levels {
            let found =
                format!("{}, {levels} and {}", self.down_block_types.len(), self.up_block_types.len());
            let what = "lengths of down_block_types, block_out_channels and up_block_types";
            return Err(CLASS.unsupported(what, "as many of each", found));
        }
        for kind in &self.down_block_types {
            CLASS.one_of(
                "down_block_types",
                kind,
                &["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"],
            )?;
        }
        for kind in &self.up_block_types {
            CLASS.one_of("up_block_types", kind, &["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"])?;
        }
        let channels = self.block_out_channels.iter().map(|&c| ("block_out_channels", c));
        CLASS.sizes(channels.chain([
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups),
        ]))
    }

    /// Height and width of the pictures.
    pub fn size(&self) -> Result<[usize; 2]> {
        let size = match self.sample_size {
            Some(Size::Square(size)) => [size; 2],
            Some(Size::HeightWidth(size)) => size,
            None => return Err(CLASS.unsupported("sample_size", "a number of pixels", "null")),
        };
        let multiple = 1 << (self.block_out_channels.len() - 1);
        match size.iter().all(|s| (1..=1 << 14).contains(s) && s.is_multiple_of(multiple)) {
            true => Ok(size),
            false => Err(CLASS.unsupported(
                "sample_size",
                &format!("multiples of {multiple}"),
                format!("{size:?}"),
            )),
        }
    }

    fn scale_shift(&self) -> bool {
        self.resnet_time_scale_shift == "scale_shift"
    }

    /// Whether a block changes the size by a residual block rather than a filter.
    fn resamples(&self, kind: &str, kind_of_sampler: &str) -> bool {
        kind.starts_with("Resnet") || kind.starts_with("Attn") && kind_of_sampler == "resnet"
    }

    fn resnet(&self) -> ResnetOptions {
        ResnetOptions { groups: self.norm_num_groups, eps: self.norm_eps }
    }

    fn head_size(&self, channels: usize) -> usize {
        self.attention_head_dim.unwrap_or(channels)
    }
}

/// The network: `x` `[n, h, w, in_channels]`, `timesteps` `[n or 1, k]` (f32, the first column),
/// `labels` `[n]` (u32) where there are classes; the result is `[n, h, w, out_channels]`.
pub fn unet2d(
    g: &mut Graph,
    config: &UNet2dConfig,
    w: Source,
    x: ValueId,
    timesteps: ValueId,
    labels: Option<ValueId>,
) -> Result<ValueId> {
    let channels = &config.block_out_channels;
    let options = config.resnet();
    let last = channels.len() - 1;

    // Time and class, as one vector for all blocks.
    let width = config.time_embedding_dim.unwrap_or(4 * channels[0]);
    let fourier = config.time_embedding_type == "fourier";
    let mut time = if fourier {
        nn::fourier_embedding(g, w, timesteps, channels[0], width)?
    } else {
        let mut sinusoids = TimestepEmbedding::new(channels[0], config.flip_sin_to_cos, config.freq_shift);
        sinusoids.dtype = w.dtype;
        nn::time_embedding(g, w, "time_embedding", timesteps, sinusoids, width)?
    };
    match (config.num_class_embeds, labels) {
        (Some(classes), Some(labels)) => {
            let table = w.get(g, "class_embedding.weight", &[classes, width])?;
            let class = g.scoped("class_embedding", |g| g.gather(table, labels, 0))?;
            time = g.add(class, time)?;
        }
        (None, None) => {}
        (classes, _) => {
            return Err(CLASS.unsupported(
                "num_class_embeds",
                "labels with classes, none without",
                format!("{classes:?}"),
            ));
        }
    }
    let time = g.silu(time)?;
    let resnet = |g: &mut Graph, name: &str, h: ValueId, c: usize, resample: Resample| match resample
        == Resample::None
        && !config.scale_shift()
    {
        true => nn::resnet_block(g, w, name, h, Some(time), c, options),
        false => {
            let scale_shift = config.scale_shift();
            let options = ResamplingOptions { norms: options, resample, scale_shift };
            nn::resampling_resnet_block(g, w, name, h, time, c, options)
        }
    };

    let x = match config.center_input_sample {
        true => g.affine(x, 2.0, -1.0)?,
        false => x,
    };
    let mut h = w.conv(g, "conv_in", x, channels[0], 3, Conv2dOptions::padded(1))?;

    // Down: each result is kept for the way up.
    let mut skips = vec![h];
    for (level, kind) in config.down_block_types.iter().enumerate() {
        let c = channels[level];
        for layer in 0..config.layers_per_block {
            let name = |part: &str| format!("down_blocks.{level}.{part}.{layer}");
            h = resnet(g, &name("resnets"), h, c, Resample::None)?;
            if kind == "AttnDownBlock2D" {
                h = nn::attention_block(g, w, &name("attentions"), h, config.head_size(c), options)?;
            }
            skips.push(h);
        }
        if level < last {
            let name = format!("down_blocks.{level}.downsamplers.0");
            h = match config.resamples(kind, &config.downsample_type) {
                true => resnet(g, &name, h, c, Resample::Half)?,
                false => nn::downsample(g, w, &name, h, config.downsample_padding)?,
            };
            skips.push(h);
        }
    }

    if config.mid_block_type.is_some() {
        let c = channels[last];
        h = resnet(g, "mid_block.resnets.0", h, c, Resample::None)?;
        if config.add_attention {
            let groups = config.attn_norm_num_groups.unwrap_or(options.groups);
            let options = ResnetOptions { groups, ..options };
            h = nn::attention_block(g, w, "mid_block.attentions.0", h, config.head_size(c), options)?;
        }
        h = resnet(g, "mid_block.resnets.1", h, c, Resample::None)?;
    }

    // Up: one layer more than down, each beside what was kept.
    for (level, kind) in config.up_block_types.iter().enumerate() {
        let c = channels[last - level];
        for layer in 0..=config.layers_per_block {
            let name = |part: &str| format!("up_blocks.{level}.{part}.{layer}");
            let skip = skips.pop().expect("up takes as many as down kept");
            h = g.scoped(&format!("up_blocks.{level}"), |g| g.concat(&[h, skip], 3))?;
            h = resnet(g, &name("resnets"), h, c, Resample::None)?;
            if kind == "AttnUpBlock2D" {
                h = nn::attention_block(g, w, &name("attentions"), h, config.head_size(c), options)?;
            }
        }
        if level < last {
            let name = format!("up_blocks.{level}.upsamplers.0");
            h = match config.resamples(kind, &config.upsample_type) {
                true => resnet(g, &name, h, c, Resample::Double)?,
                false => nn::upsample(g, w, &name, h)?,
            };
        }
    }

    let h = w.group_norm(g, "conv_norm_out", h, options.groups, options.eps)?;
    let h = g.silu(h)?;
    let y = w.conv(g, "conv_out", h, config.out_channels, 3, Conv2dOptions::padded(1))?;
    if !fourier {
        return Ok(y);
    }
    // The score: noise over its level.
    let first = Range { start: 0, stop: Some(1), step: 1 };
    let level = g.slice(timesteps, &[Range::all(), first])?;
    let level = g.reshape(level, [g.shape(level)[0], 1, 1, 1])?;
    let y = g.cast(y, DType::F32)?;
    g.binary(Binary::Div, y, level)
}

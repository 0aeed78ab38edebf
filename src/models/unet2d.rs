//! diffusers' `UNet2DModel`: the network of DDPM (Ho et al. 2020, arXiv:2006.11239), of ADM (Dhariwal & Nichol 2021,
//! arXiv:2105.05233) and of score models (NCSN++ and DDPM++ of Song et al. 2021, arXiv:2011.13456).
//!
//! The "skip" blocks of NCSN++ are shown the picture at the size of each level on the way down, and add to it at each on
//! the way up.

use std::f64::consts::SQRT_2;

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
    /// `None`: a quarter of the channels, at most 32.
    pub norm_num_groups: Option<usize>,
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
            norm_num_groups: Some(32),
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

/// Channels of the picture that the "skip" blocks of diffusers have convolutions for.
const RGB: usize = 3;

fn is_skip(kind: &str) -> bool {
    matches!(kind, "SkipDownBlock2D" | "AttnSkipDownBlock2D" | "SkipUpBlock2D" | "AttnSkipUpBlock2D")
}

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
        if !(self.mid_block_scale_factor > 0.0 && self.mid_block_scale_factor.is_finite()) {
            let expected = "a positive number";
            return Err(CLASS.unsupported("mid_block_scale_factor", expected, self.mid_block_scale_factor));
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
            let known = [
                "DownBlock2D",
                "AttnDownBlock2D",
                "ResnetDownsampleBlock2D",
                "SkipDownBlock2D",
                "AttnSkipDownBlock2D",
            ];
            CLASS.one_of("down_block_types", kind, &known)?;
        }
        for kind in &self.up_block_types {
            let known =
                ["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D"];
            CLASS.one_of("up_block_types", kind, &known)?;
        }
        self.check_skips()?;
        let channels = self.block_out_channels.iter().map(|&c| ("block_out_channels", c));
        CLASS.sizes(channels.chain([
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups.unwrap_or(1)),
        ]))
    }

    /// The picture beside the network must have its size wherever they meet.
    fn check_skips(&self) -> Result<()> {
        let last = self.block_out_channels.len() - 1;
        let (down, up) = (&self.down_block_types, &self.up_block_types);
        let skip = |kind: &String| is_skip(kind);
        if down[..last].iter().skip_while(|kind| is_skip(kind)).any(skip) {
            let expected = "skip blocks before all others, as these leave the picture large";
            return Err(CLASS.unsupported("down_block_types", expected, down.join(", ")));
        }
        let enlarged = up.iter().skip_while(|kind| !is_skip(kind));
        if up[..last].iter().any(skip) && !enlarged.clone().all(skip) {
            let expected = "skip blocks after all others, as these leave the picture small";
            return Err(CLASS.unsupported("up_block_types", expected, up.join(", ")));
        }
        for (setting, channels, kinds, of) in [
            ("in_channels", self.in_channels, down, "down_block_types"),
            ("out_channels", self.out_channels, up, "up_block_types"),
        ] {
            if channels != RGB && kinds[..last].iter().any(skip) {
                let expected = format!("{RGB}, as {of} has skip blocks");
                return Err(CLASS.unsupported(setting, &expected, channels));
            }
        }
        match self.norm_num_groups.is_none() && !down.iter().chain(up).all(skip) {
            true => Err(CLASS.unsupported("norm_num_groups", "a number, as not all are skip blocks", "null")),
            false => Ok(()),
        }
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

    fn groups(&self, channels: usize) -> usize {
        self.norm_num_groups.unwrap_or_else(|| quarter(channels))
    }

    fn head_size(&self, channels: usize) -> usize {
        self.attention_head_dim.unwrap_or(channels)
    }
}

/// Groups of a norm that nobody chose.
fn quarter(channels: usize) -> usize {
    (channels / 4).min(32)
}

/// What the layers of a network share.
struct Layers<'a> {
    config: &'a UNet2dConfig,
    w: Source<'a>,
    /// Time and class `[n or 1, t]`, activated.
    time: ValueId,
}

impl Layers<'_> {
    /// A residual block whose norms have `groups`.
    fn resnet(
        &self,
        g: &mut Graph,
        name: &str,
        h: ValueId,
        c: usize,
        groups: [usize; 2],
        resample: Resample,
    ) -> Result<ValueId> {
        let scale_shift = self.config.resnet_time_scale_shift == "scale_shift";
        let norms = ResnetOptions { groups: groups[0], eps: self.config.norm_eps };
        match resample == Resample::None && !scale_shift && groups[0] == groups[1] {
            true => nn::resnet_block(g, self.w, name, h, Some(self.time), c, norms),
            false => {
                let options = ResamplingOptions { norms, groups_out: groups[1], resample, scale_shift };
                nn::resampling_resnet_block(g, self.w, name, h, self.time, c, options)
            }
        }
    }

    fn attention(&self, g: &mut Graph, name: &str, h: ValueId, groups: usize) -> Result<ValueId> {
        let head_size = self.config.head_size(g.shape(h).last());
        nn::attention_block(
            g,
            self.w,
            name,
            h,
            head_size,
            ResnetOptions { groups, eps: self.config.norm_eps },
        )
    }

    /// A residual block of a skip block; `groups` are those of the first norm.
    fn skip_resnet(
        &self,
        g: &mut Graph,
        name: &str,
        h: ValueId,
        c: usize,
        groups: usize,
        resample: Resample,
    ) -> Result<ValueId> {
        let h = self.resnet(g, name, h, c, [groups, quarter(c)], resample)?;
        scaled(g, name, h, SQRT_2)
    }

    fn skip_attention(&self, g: &mut Graph, name: &str, h: ValueId) -> Result<ValueId> {
        /// Of the norm, whatever the configuration.
        const GROUPS: usize = 32;
        let h = self.attention(g, name, h, GROUPS)?;
        scaled(g, name, h, SQRT_2)
    }
}

/// A sum of two paths, over √2 where it shall vary no more than each.
fn scaled(g: &mut Graph, name: &str, h: ValueId, factor: f64) -> Result<ValueId> {
    match factor == 1.0 {
        true => Ok(h),
        false => g.scoped(name, |g| g.affine(h, (1.0 / factor) as f32, 0.0)),
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
    let layers = Layers { config, w, time };
    let resnet = |g: &mut Graph, name: &str, h: ValueId, c: usize, resample: Resample| {
        layers.resnet(g, name, h, c, [config.groups(g.shape(h).last()), config.groups(c)], resample)
    };

    let x = match config.center_input_sample {
        true => g.affine(x, 2.0, -1.0)?,
        false => x,
    };
    let mut h = w.conv(g, "conv_in", x, channels[0], 3, Conv2dOptions::padded(1))?;

    // Down: each result is kept for the way up.
    let mut skips = vec![h];
    let mut shown = x;
    for (level, kind) in config.down_block_types.iter().enumerate() {
        let c = channels[level];
        for layer in 0..config.layers_per_block {
            let name = |part: &str| format!("down_blocks.{level}.{part}.{layer}");
            let (residual, attention) = (name("resnets"), name("attentions"));
            h = match is_skip(kind) {
                true => {
                    let groups = quarter(g.shape(h).last());
                    layers.skip_resnet(g, &residual, h, c, groups, Resample::None)?
                }
                false => resnet(g, &residual, h, c, Resample::None)?,
            };
            h = match kind.as_str() {
                "AttnDownBlock2D" => layers.attention(g, &attention, h, config.groups(c))?,
                "AttnSkipDownBlock2D" => layers.skip_attention(g, &attention, h)?,
                _ => h,
            };
            skips.push(h);
        }
        if level < last {
            let name = |part: &str| format!("down_blocks.{level}.{part}");
            let sampler = name("downsamplers.0");
            h = if is_skip(kind) {
                let half =
                    layers.skip_resnet(g, &name("resnet_down"), h, c, quarter(c), Resample::FirHalf)?;
                shown = g.scoped(&sampler, |g| nn::fir_downsample(g, shown))?;
                let seen = w.conv(g, &name("skip_conv"), shown, c, 1, Conv2dOptions::default())?;
                g.add(seen, half)?
            } else if config.resamples(kind, &config.downsample_type) {
                resnet(g, &sampler, h, c, Resample::Half)?
            } else {
                nn::downsample(g, w, &sampler, h, config.downsample_padding)?
            };
            skips.push(h);
        }
    }

    if config.mid_block_type.is_some() {
        let (c, factor) = (channels[last], config.mid_block_scale_factor);
        let mut part = |g: &mut Graph, name: &str, attends: bool| {
            h = match attends {
                true => {
                    let groups = config.attn_norm_num_groups.unwrap_or(config.groups(c));
                    layers.attention(g, name, h, groups)?
                }
                false => resnet(g, name, h, c, Resample::None)?,
            };
            h = scaled(g, name, h, factor)?;
            Ok(())
        };
        part(g, "mid_block.resnets.0", false)?;
        if config.add_attention {
            part(g, "mid_block.attentions.0", true)?;
        }
        part(g, "mid_block.resnets.1", false)?;
    }

    // Up: one layer more than down, each beside what was kept.
    let mut drawn: Option<ValueId> = None;
    for (level, kind) in config.up_block_types.iter().enumerate() {
        let c = channels[last - level];
        for layer in 0..=config.layers_per_block {
            let name = |part: &str| format!("up_blocks.{level}.{part}.{layer}");
            let (residual, attention) = (name("resnets"), name("attentions"));
            let skip = skips.pop().expect("up takes as many as down kept");
            let [ours, kept] = [h, skip].map(|part| g.shape(part).last());
            h = g.scoped(&format!("up_blocks.{level}"), |g| g.concat(&[h, skip], 3))?;
            h = match kind.as_str() {
                "SkipUpBlock2D" => {
                    layers.skip_resnet(g, &residual, h, c, quarter(ours + kept), Resample::None)?
                }
                // diffusers takes a quarter of the second alone, and so do the files.
                "AttnSkipUpBlock2D" => {
                    layers.skip_resnet(g, &residual, h, c, (ours + kept / 4).min(32), Resample::None)?
                }
                _ => resnet(g, &residual, h, c, Resample::None)?,
            };
            h = match kind.as_str() {
                "AttnUpBlock2D" => layers.attention(g, &attention, h, config.groups(c))?,
                "AttnSkipUpBlock2D" if layer == config.layers_per_block => {
                    layers.skip_attention(g, &format!("up_blocks.{level}.attentions.0"), h)?
                }
                _ => h,
            };
        }
        let name = |part: &str| format!("up_blocks.{level}.{part}");
        if is_skip(kind)
            && let Some(small) = drawn
        {
            drawn = Some(g.scoped(&name("upsampler"), |g| nn::fir_upsample(g, small))?);
        }
        if level < last {
            let sampler = name("upsamplers.0");
            h = if is_skip(kind) {
                let more = w.group_norm(g, &name("skip_norm"), h, quarter(c), config.norm_eps)?;
                let more = g.silu(more)?;
                let more = w.conv(g, &name("skip_conv"), more, RGB, 3, Conv2dOptions::padded(1))?;
                drawn = Some(match drawn {
                    Some(drawn) => g.add(drawn, more)?,
                    None => more,
                });
                layers.skip_resnet(g, &name("resnet_up"), h, c, quarter(c), Resample::FirDouble)?
            } else if config.resamples(kind, &config.upsample_type) {
                resnet(g, &sampler, h, c, Resample::Double)?
            } else {
                nn::upsample(g, w, &sampler, h)?
            };
        }
    }

    let h = w.group_norm(g, "conv_norm_out", h, config.groups(channels[0]), config.norm_eps)?;
    let h = g.silu(h)?;
    let y = w.conv(g, "conv_out", h, config.out_channels, 3, Conv2dOptions::padded(1))?;
    let y = match drawn {
        Some(drawn) => g.add(y, drawn)?,
        None => y,
    };
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

//! diffusers' `AutoencoderKL`: pictures to the latents of latent diffusion and back (Rombach et al. 2022, arXiv:2112.10752).

use serde::Deserialize;

use super::config::Class;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{self, ResnetOptions, Source};
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::strided::Range;

/// `config.json`, with diffusers' defaults. [`AutoencoderKlConfig::from_json`] refuses what this crate cannot run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub act_fn: String,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    /// The diffusion model sees `(latent − shift) · scale`.
    pub scaling_factor: f32,
    pub shift_factor: Option<f32>,
    /// Overflows in f16.
    pub force_upcast: bool,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        AutoencoderKlConfig {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".to_owned()],
            up_block_types: vec!["UpDecoderBlock2D".to_owned()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".to_owned(),
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

const CLASS: Class = Class("AutoencoderKL");

impl AutoencoderKlConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for what is no JSON, and for each setting that this crate does not have, by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: AutoencoderKlConfig = CLASS.parse(text)?;
        config.check()?;
        Ok(config)
    }

    pub(super) fn check(&self) -> Result<()> {
        CLASS.one_of("act_fn", &self.act_fn, &["silu", "swish"])?;
        let levels = self.block_out_channels.len();
        CLASS.levels(levels)?;
        for (setting, kinds, only) in [
            ("down_block_types", &self.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", &self.up_block_types, "UpDecoderBlock2D"),
        ] {
            if kinds.len() != levels || kinds.iter().any(|kind| kind != only) {
                return Err(CLASS.unsupported(
                    setting,
                    &format!("{levels} times {only}"),
                    format!("{kinds:?}"),
                ));
            }
        }
        let channels = self.block_out_channels.iter().map(|&c| ("block_out_channels", c));
        CLASS.sizes(channels.chain([
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.norm_num_groups),
        ]))
    }

    /// Pixels of a picture along each side of a latent's pixel.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    fn resnet(&self) -> ResnetOptions {
        ResnetOptions { groups: self.norm_num_groups, eps: 1e-6 }
    }
}

/// Mean and logarithm of the variance of the latents, `[n, h / f, w / f, 2 · latent_channels]`, of pictures
/// `[n, h, w, in_channels]` from −1 to 1.
pub fn encode(g: &mut Graph, config: &AutoencoderKlConfig, w: Source, x: ValueId) -> Result<ValueId> {
    let h = encode_first(g, config, w, x, 0)?;
    encode_rest(g, config, w, h, 0)
}

/// The encoder's first convolution and so many levels of resolution, each with its step to half of it:
/// `[n, h / 2^levels, w / 2^levels, c]`. At most all but one.
pub fn encode_first(
    g: &mut Graph,
    config: &AutoencoderKlConfig,
    w: Source,
    x: ValueId,
    levels: usize,
) -> Result<ValueId> {
    let first = config.block_out_channels[0];
    let mut h = w.conv(g, "encoder.conv_in", x, first, 3, Conv2dOptions::padded(1))?;
    for level in 0..levels {
        h = encode_level(g, config, w, h, level)?;
    }
    Ok(h)
}

fn encode_level(
    g: &mut Graph,
    config: &AutoencoderKlConfig,
    w: Source,
    mut h: ValueId,
    level: usize,
) -> Result<ValueId> {
    for layer in 0..config.layers_per_block {
        let name = format!("encoder.down_blocks.{level}.resnets.{layer}");
        h = nn::resnet_block(g, w, &name, h, None, config.block_out_channels[level], config.resnet())?;
    }
    match level + 1 < config.block_out_channels.len() {
        true => nn::downsample(g, w, &format!("encoder.down_blocks.{level}.downsamplers.0"), h, 0),
        false => Ok(h),
    }
}

/// What [`encode`] gives, from the result of [`encode_first`].
pub fn encode_rest(
    g: &mut Graph,
    config: &AutoencoderKlConfig,
    w: Source,
    mut h: ValueId,
    levels: usize,
) -> Result<ValueId> {
    for level in levels..config.block_out_channels.len() {
        h = encode_level(g, config, w, h, level)?;
    }
    let options = config.resnet();
    let h = middle(g, config, w, "encoder", h)?;
    let h = w.group_norm(g, "encoder.conv_norm_out", h, options.groups, options.eps)?;
    let h = g.silu(h)?;
    let moments = 2 * config.latent_channels;
    let h = w.conv(g, "encoder.conv_out", h, moments, 3, Conv2dOptions::padded(1))?;
    match config.use_quant_conv {
        true => w.conv(g, "quant_conv", h, moments, 1, Conv2dOptions::default()),
        false => Ok(h),
    }
}

/// Latents as the diffusion model sees them, drawn from what [`encode`] says of pictures:
/// `(mean + deviation · noise − shift) · scale`, `[n, h, w, latent_channels]`.
pub fn sampled(
    g: &mut Graph,
    config: &AutoencoderKlConfig,
    moments: ValueId,
    noise: ValueId,
) -> Result<ValueId> {
    let c = config.latent_channels;
    let part = |start: usize| Range { start, stop: Some(start + c), step: 1 };
    let all = Range::all();
    let mean = g.slice(moments, &[all, all, all, part(0)])?;
    let spread = g.slice(moments, &[all, all, all, part(c)])?;
    // As the reference: what is beyond this is no variance of use, and overflows.
    let log_variance = Expr::clamp(Expr::input(0), -30.0, 20.0);
    let deviation = Expr::unary(Unary::Exp, Expr::binary(Binary::Mul, Expr::Const(0.5), log_variance));
    let drawn = Expr::binary(Binary::Mul, deviation, Expr::input(1));
    let z = g.elementwise(Expr::binary(Binary::Add, drawn, Expr::input(2)), &[spread, noise, mean])?;
    let scale = config.scaling_factor;
    g.affine(z, scale, -config.shift_factor.unwrap_or(0.0) * scale)
}

/// Pictures `[n, f · h, f · w, out_channels]`, about −1 to 1, of latents `[n, h, w, latent_channels]` as the encoder
/// gives them (not scaled).
pub fn decode(g: &mut Graph, config: &AutoencoderKlConfig, w: Source, z: ValueId) -> Result<ValueId> {
    let h = decode_first(g, config, w, z, 0)?;
    decode_rest(g, config, w, h, 0)
}

/// The decoder's middle and the residual blocks of so many levels of resolution, not yet enlarged for the next:
/// `[n, 2^(blocks − 1) · h, 2^(blocks − 1) · w, c]`, or `[n, h, w, c]` for none. At most all but one.
pub fn decode_first(
    g: &mut Graph,
    config: &AutoencoderKlConfig,
    w: Source,
    z: ValueId,
    blocks: usize,
) -> Result<ValueId> {
    let z = match config.use_post_quant_conv {
        true => w.conv(g, "post_quant_conv", z, config.latent_channels, 1, Conv2dOptions::default())?,
        false => z,
    };
    let widest = config.block_out_channels[config.block_out_channels.len() - 1];
    let h = w.conv(g, "decoder.conv_in", z, widest, 3, Conv2dOptions::padded(1))?;
    let mut h = middle(g, config, w, "decoder", h)?;
    for block in 0..blocks {
        h = decode_block(g, config, w, h, block)?;
    }
    Ok(h)
}

fn decode_block(
    g: &mut Graph,
    config: &AutoencoderKlConfig,
    w: Source,
    mut h: ValueId,
    block: usize,
) -> Result<ValueId> {
    if block > 0 {
        h = nn::upsample(g, w, &format!("decoder.up_blocks.{}.upsamplers.0", block - 1), h)?;
    }
    let channels = config.block_out_channels[config.block_out_channels.len() - 1 - block];
    for layer in 0..=config.layers_per_block {
        let name = format!("decoder.up_blocks.{block}.resnets.{layer}");
        h = nn::resnet_block(g, w, &name, h, None, channels, config.resnet())?;
    }
    Ok(h)
}

/// What [`decode`] gives, from the result of [`decode_first`].
pub fn decode_rest(
    g: &mut Graph,
    config: &AutoencoderKlConfig,
    w: Source,
    mut h: ValueId,
    blocks: usize,
) -> Result<ValueId> {
    for block in blocks..config.block_out_channels.len() {
        h = decode_block(g, config, w, h, block)?;
    }
    let options = config.resnet();
    let h = w.group_norm(g, "decoder.conv_norm_out", h, options.groups, options.eps)?;
    let h = g.silu(h)?;
    w.conv(g, "decoder.conv_out", h, config.out_channels, 3, Conv2dOptions::padded(1))
}

impl AutoencoderKlConfig {
    /// How many lines of what [`decode_rest`] is given reach into a line of its picture, at most, on either side;
    /// norms apart.
    pub fn decoder_margin(&self, blocks: usize) -> usize {
        let mut margin = 1;
        for block in (blocks..self.block_out_channels.len()).rev() {
            margin += 2 * (self.layers_per_block + 1);
            if block > 0 {
                margin = (margin + 1).div_ceil(2);
            }
        }
        margin
    }

    /// How many lines of a picture reach into a line of what [`encode_first`] gives, at most, on either side of those
    /// that it stands for; norms apart.
    pub fn encoder_margin(&self, levels: usize) -> usize {
        (0..levels).fold(1, |margin, level| margin + ((2 * self.layers_per_block + 1) << level))
    }
}

fn middle(g: &mut Graph, config: &AutoencoderKlConfig, w: Source, part: &str, x: ValueId) -> Result<ValueId> {
    let (c, options) = (g.shape(x).last(), config.resnet());
    let at = |block: &str| format!("{part}.mid_block.{block}");
    let mut h = nn::resnet_block(g, w, &at("resnets.0"), x, None, c, options)?;
    if config.mid_block_add_attention {
        h = nn::attention_block(g, w, &at("attentions.0"), h, c, options)?;
    }
    nn::resnet_block(g, w, &at("resnets.1"), h, None, c, options)
}

//! diffusers' `ControlNetModel` (Zhang et al. 2023, arXiv:2302.05543): a copy of the first half of a UNet that also sees
//! a picture (edges, depth, a pose) and says what the UNet is to add to its own.

use std::path::Path;

use serde::Deserialize;

use super::config::Class;
use super::latent_checkpoint::control_config;
use super::latent_diffusion::Part;
use super::unet2d_condition::{Conditions, Encoded, Residuals, UNet2dConditionConfig, encode};
use crate::error::Result;
use crate::files;
use crate::formats::{diffusers, ldm};
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::reduce::Reduction;
use crate::ops::strided::Range;
use crate::weights::Weights;

/// `config.json`, with diffusers' defaults. [`ControlNetConfig::from_json`] refuses what this crate cannot run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ControlNetConfig {
    /// Those of the UNet; what comes after its middle is not used.
    #[serde(flatten)]
    pub unet: UNet2dConditionConfig,
    pub conditioning_channels: usize,
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// Whether the picture is seen as `rgb` or `bgr`; it is given as the former.
    pub controlnet_conditioning_channel_order: String,
    /// Only the means of the results are added, and not where guidance leads away from.
    pub global_pool_conditions: bool,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        ControlNetConfig {
            unet: UNet2dConditionConfig::default(),
            conditioning_channels: 3,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            controlnet_conditioning_channel_order: "rgb".to_owned(),
            global_pool_conditions: false,
        }
    }
}

const CLASS: Class = Class("ControlNetModel");

impl ControlNetConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for what is no JSON, and for each setting that this crate does not have, by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: ControlNetConfig = CLASS.parse(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        self.unet.check_encoder(CLASS)?;
        let order = &self.controlnet_conditioning_channel_order;
        CLASS.one_of("controlnet_conditioning_channel_order", order, &["rgb", "bgr"])?;
        if self.conditioning_channels != 3 {
            return Err(CLASS.unsupported("conditioning_channels", "3", self.conditioning_channels));
        }
        let widths = &self.conditioning_embedding_out_channels;
        if widths.is_empty() || widths.len() > 16 {
            return Err(CLASS.unsupported(
                "conditioning_embedding_out_channels",
                "1 to 16 widths",
                widths.len(),
            ));
        }
        CLASS.sizes(widths.iter().map(|&width| ("conditioning_embedding_out_channels", width)))
    }

    /// Pixels of the picture along each side of a latent's pixel.
    pub fn factor(&self) -> usize {
        1 << (self.conditioning_embedding_out_channels.len() - 1)
    }
}

impl Part<ControlNetConfig> {
    /// Reads a folder with `config.json` and weights, or a single file with the names of diffusers or of the original
    /// code, by the shapes of its tensors.
    ///
    /// # Errors
    /// Those of [`ControlNetConfig::from_json`] and of the files; [`Error::MissingTensor`](crate::Error::MissingTensor), [`Error::Unsupported`](crate::Error::Unsupported) for a
    /// file that holds something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            let text = files::text(&path.join("config.json"))?;
            return Ok(Part {
                config: ControlNetConfig::from_json(&text)?,
                weights: diffusers::weights(path)?,
            });
        }
        let file = Weights::open(path)?;
        let weights = ldm::controlnet(&file).unwrap_or(file);
        let config = control_config(&weights)?;
        config.check()?;
        Ok(Part { config, weights })
    }
}

/// What the UNet that sees `x` `[n, h, w, in_channels]` under the same conditions is to add. `picture` is
/// `[n or 1, f · h, f · w, 3]`, 0 to 1.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for conditions that the configuration has not or lacks, [`Error::Graph`](crate::Error::Graph) for a picture of another
/// size, and those of the weights.
pub fn controlnet(
    g: &mut Graph,
    config: &ControlNetConfig,
    w: Source,
    x: ValueId,
    picture: ValueId,
    conditions: &Conditions,
) -> Result<Residuals> {
    let hint = embedding(g, config, w, picture)?;
    let Encoded { skips, middle, .. } = encode(g, CLASS, &config.unet, w, x, Some(hint), conditions)?;
    // All zeros before training, so that a new network changes nothing.
    let zero_conv = |g: &mut Graph, name: &str, h: ValueId| {
        let h = w.conv(g, name, h, g.shape(h).last(), 1, Conv2dOptions::default())?;
        match config.global_pool_conditions {
            true => g.scoped(name, |g| g.reduce(h, Reduction::Mean, &[1, 2], true)),
            false => Ok(h),
        }
    };
    let down = skips.iter().enumerate();
    Ok(Residuals {
        down: down
            .map(|(i, &h)| zero_conv(g, &format!("controlnet_down_blocks.{i}"), h))
            .collect::<Result<_>>()?,
        middle: zero_conv(g, "controlnet_mid_block", middle)?,
    })
}

/// The picture at the size of the latents: `[n, h, w, block_out_channels[0]]`.
fn embedding(g: &mut Graph, config: &ControlNetConfig, w: Source, picture: ValueId) -> Result<ValueId> {
    const NAME: &str = "controlnet_cond_embedding";
    let widths = &config.conditioning_embedding_out_channels;
    let picture = match config.controlnet_conditioning_channel_order.as_str() {
        "bgr" => {
            let backwards = Range { start: 2, stop: None, step: -1 };
            g.slice(picture, &[Range::all(), Range::all(), Range::all(), backwards])?
        }
        _ => picture,
    };
    let padded = Conv2dOptions::padded(1);
    let mut h = w.conv(g, &format!("{NAME}.conv_in"), picture, widths[0], 3, padded)?;
    h = g.silu(h)?;
    for (i, pair) in widths.windows(2).enumerate() {
        h = w.conv(g, &format!("{NAME}.blocks.{}", 2 * i), h, pair[0], 3, padded)?;
        h = g.silu(h)?;
        h = w.conv(g, &format!("{NAME}.blocks.{}", 2 * i + 1), h, pair[1], 3, padded.stride(2))?;
        h = g.silu(h)?;
    }
    w.conv(g, &format!("{NAME}.conv_out"), h, config.unet.block_out_channels[0], 3, padded)
}

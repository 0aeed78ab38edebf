//! diffusers' `UNet2DConditionModel`: the network of Stable Diffusion (Rombach et al. 2022, arXiv:2112.10752) and
//! of those that followed it: SDXL (size and crop as conditions), LCM (guidance as one), inpainting, the ×4 upscaler.

use serde::Deserialize;

use super::config::Class;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{self, Perturbed, ResnetOptions, Source, TransformerOptions};
use crate::ops::TimestepEmbedding;
use crate::ops::conv2d::Conv2dOptions;

/// One value for all levels, or one for each.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Levels<T> {
    Same(T),
    Each(Vec<T>),
}

impl<T: Copy> Levels<T> {
    fn at(&self, level: usize) -> T {
        match self {
            Levels::Same(value) => *value,
            Levels::Each(values) => values[level],
        }
    }

    fn fits(&self, levels: usize) -> bool {
        match self {
            Levels::Same(_) => true,
            Levels::Each(values) => values.len() == levels,
        }
    }
}

/// `config.json`, with diffusers' defaults. [`UNet2dConditionConfig::from_json`] refuses what this crate cannot run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct UNet2dConditionConfig {
    pub sample_size: Option<super::unet2d::Size>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<String>,
    pub mid_block_type: Option<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: Levels<usize>,
    /// The *number* of heads, whatever its name says: published files have it so.
    pub attention_head_dim: Levels<usize>,
    pub num_attention_heads: Option<Levels<usize>>,
    pub cross_attention_dim: usize,
    pub transformer_layers_per_block: Levels<usize>,
    pub use_linear_projection: bool,
    pub only_cross_attention: Levels<bool>,
    pub norm_num_groups: usize,
    pub norm_eps: f32,
    pub act_fn: String,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub downsample_padding: usize,
    pub mid_block_scale_factor: f64,
    pub resnet_time_scale_shift: String,
    pub center_input_sample: bool,
    pub dual_cross_attention: bool,
    pub class_embed_type: Option<String>,
    pub num_class_embeds: Option<usize>,
    pub addition_embed_type: Option<String>,
    pub addition_time_embed_dim: Option<usize>,
    pub projection_class_embeddings_input_dim: Option<usize>,
    pub time_cond_proj_dim: Option<usize>,
    pub time_embedding_type: String,
    pub time_embedding_dim: Option<usize>,
    pub time_embedding_act_fn: Option<String>,
    pub timestep_post_act: Option<String>,
    pub encoder_hid_dim: Option<usize>,
    pub encoder_hid_dim_type: Option<String>,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
    pub resnet_out_scale_factor: f64,
    pub attention_type: String,
    pub cross_attention_norm: Option<String>,
    pub reverse_transformer_layers_per_block: Option<Levels<usize>>,
}

impl Default for UNet2dConditionConfig {
    fn default() -> Self {
        let text = str::to_owned;
        UNet2dConditionConfig {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            down_block_types: [
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
            ]
            .map(text)
            .to_vec(),
            mid_block_type: Some(text("UNetMidBlock2DCrossAttn")),
            up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
                .map(text)
                .to_vec(),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: Levels::Same(2),
            attention_head_dim: Levels::Same(8),
            num_attention_heads: None,
            cross_attention_dim: 1280,
            transformer_layers_per_block: Levels::Same(1),
            use_linear_projection: false,
            only_cross_attention: Levels::Same(false),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            act_fn: text("silu"),
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            resnet_time_scale_shift: text("default"),
            center_input_sample: false,
            dual_cross_attention: false,
            class_embed_type: None,
            num_class_embeds: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            time_cond_proj_dim: None,
            time_embedding_type: text("positional"),
            time_embedding_dim: None,
            time_embedding_act_fn: None,
            timestep_post_act: None,
            encoder_hid_dim: None,
            encoder_hid_dim_type: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            resnet_out_scale_factor: 1.0,
            attention_type: text("default"),
            cross_attention_norm: None,
            reverse_transformer_layers_per_block: None,
        }
    }
}

const CLASS: Class = Class("UNet2DConditionModel");
const CROSS_ATTENTION_MID: &str = "UNetMidBlock2DCrossAttn";

impl UNet2dConditionConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for what is no JSON, and for each setting that this crate does not have, by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: UNet2dConditionConfig = CLASS.parse(text)?;
        config.check()?;
        Ok(config)
    }

    pub(super) fn check(&self) -> Result<()> {
        self.check_encoder(CLASS)?;
        let levels = self.block_out_channels.len();
        if self.up_block_types.len() != levels {
            let expected = format!("{levels} blocks, as block_out_channels");
            return Err(CLASS.unsupported("up_block_types", &expected, self.up_block_types.len()));
        }
        for kind in &self.up_block_types {
            CLASS.one_of("up_block_types", kind, &["UpBlock2D", "CrossAttnUpBlock2D"])?;
        }
        CLASS.sizes([("out_channels", self.out_channels), ("conv_out_kernel", self.conv_out_kernel)])
    }

    /// All but what comes after the middle, for each `class` that has such an encoder.
    pub(super) fn check_encoder(&self, class: Class) -> Result<()> {
        class.one_of("act_fn", &self.act_fn, &["silu", "swish"])?;
        class.one_of("resnet_time_scale_shift", &self.resnet_time_scale_shift, &["default"])?;
        class.one_of("time_embedding_type", &self.time_embedding_type, &["positional"])?;
        class.one_of("attention_type", &self.attention_type, &["default"])?;
        if let Some(mid) = &self.mid_block_type {
            class.one_of("mid_block_type", mid, &[CROSS_ATTENTION_MID, "UNetMidBlock2D"])?;
        }
        if let Some(added) = &self.addition_embed_type {
            class.one_of("addition_embed_type", added, &["text_time"])?;
            let [Some(1..), Some(1..)] =
                [self.addition_time_embed_dim, self.projection_class_embeddings_input_dim]
            else {
                let what = "addition_time_embed_dim and projection_class_embeddings_input_dim";
                return Err(class.unsupported(what, "numbers, as addition_embed_type is text_time", "null"));
            };
        }
        class.null(&[
            ("class_embed_type", &self.class_embed_type),
            ("time_embedding_act_fn", &self.time_embedding_act_fn),
            ("timestep_post_act", &self.timestep_post_act),
            ("encoder_hid_dim_type", &self.encoder_hid_dim_type),
            ("cross_attention_norm", &self.cross_attention_norm),
        ])?;
        for (setting, is_default) in [
            ("center_input_sample", !self.center_input_sample),
            ("dual_cross_attention", !self.dual_cross_attention),
            ("mid_block_scale_factor", self.mid_block_scale_factor == 1.0),
            ("resnet_out_scale_factor", self.resnet_out_scale_factor == 1.0),
            ("encoder_hid_dim", self.encoder_hid_dim.is_none()),
            ("reverse_transformer_layers_per_block", self.reverse_transformer_layers_per_block.is_none()),
        ] {
            if !is_default {
                return Err(class.unsupported(setting, "its default", "another value"));
            }
        }
        let levels = self.block_out_channels.len();
        class.levels(levels)?;
        let each = self.layers_per_block.fits(levels)
            && self.heads().fits(levels)
            && self.transformer_layers_per_block.fits(levels)
            && self.only_cross_attention.fits(levels);
        if self.down_block_types.len() != levels || !each {
            let what = "lengths of down_block_types and what is given for each level";
            return Err(class.unsupported(what, &format!("{levels}, as block_out_channels"), "others"));
        }
        for kind in &self.down_block_types {
            class.one_of("down_block_types", kind, &["DownBlock2D", "CrossAttnDownBlock2D"])?;
        }
        let mut sizes = vec![
            ("in_channels", self.in_channels),
            ("norm_num_groups", self.norm_num_groups),
            ("cross_attention_dim", self.cross_attention_dim),
            ("conv_in_kernel", self.conv_in_kernel),
        ];
        for level in 0..levels {
            sizes.push(("block_out_channels", self.block_out_channels[level]));
            sizes.push(("layers_per_block", self.layers_per_block.at(level)));
            sizes.push(("attention_head_dim", self.heads().at(level)));
            // Levels without transformers may say that they have none.
            let transformers = self.transformer_layers_per_block.at(level).max(1);
            sizes.push(("transformer_layers_per_block", transformers));
        }
        class.sizes(sizes)
    }

    fn heads(&self) -> &Levels<usize> {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim)
    }

    fn resnet(&self) -> ResnetOptions {
        ResnetOptions { groups: self.norm_num_groups, eps: self.norm_eps }
    }

    /// Names of the layers in which pixels look at each other, from the first to the last.
    pub fn self_attentions(&self) -> Vec<String> {
        let last = self.block_out_channels.len() - 1;
        let mut all = Vec::new();
        let mut transformer = |name: String, level: usize| {
            let layers = 0..self.transformer_layers_per_block.at(level);
            all.extend(layers.map(|layer| format!("{name}.transformer_blocks.{layer}.attn1")));
        };
        let looks =
            |kind: &str, level: usize| kind.starts_with("Cross") && !self.only_cross_attention.at(level);
        for (level, kind) in self.down_block_types.iter().enumerate() {
            if looks(kind, level) {
                let layers = 0..self.layers_per_block.at(level);
                layers
                    .for_each(|layer| transformer(format!("down_blocks.{level}.attentions.{layer}"), level));
            }
        }
        if self.mid_block_type.as_deref() == Some(CROSS_ATTENTION_MID) {
            transformer("mid_block.attentions.0".to_owned(), last);
        }
        for (block, kind) in self.up_block_types.iter().enumerate() {
            let level = last - block;
            if looks(kind, level) {
                let layers = 0..=self.layers_per_block.at(level);
                layers.for_each(|layer| transformer(format!("up_blocks.{block}.attentions.{layer}"), level));
            }
        }
        all
    }

    fn transformer<'a>(&self, level: usize, conditions: &Conditions<'a>) -> TransformerOptions<'a> {
        TransformerOptions {
            heads: self.heads().at(level),
            layers: self.transformer_layers_per_block.at(level),
            groups: self.norm_num_groups,
            linear_projection: self.use_linear_projection,
            only_cross_attention: self.only_cross_attention.at(level),
            perturbed: conditions.perturbed,
        }
    }
}

/// What the network is told beside the latent.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// `[n or 1, k]`, f32, the first column.
    pub timesteps: ValueId,
    /// `[n, tokens, cross_attention_dim]`.
    pub text: ValueId,
    /// SDXL: pooled text `[n, p]`, and sizes and crop `[n, k]`, f32.
    pub pooled: Option<[ValueId; 2]>,
    /// LCM: embedded guidance `[n, time_cond_proj_dim]`.
    pub guidance: Option<ValueId>,
    /// The ×4 upscaler: noise level of the small picture, `[n]`, u32.
    pub class: Option<ValueId>,
    /// What ControlNets have found: added to what the way down leaves.
    pub residuals: &'a [Residuals],
    /// Those of the batch that are to look less closely.
    pub perturbed: Option<Perturbed<'a>>,
}

/// What a ControlNet adds to each result of the way down, first to last, and to the middle: `[n, h, w, c]` as that has,
/// or `[n, 1, 1, c]`.
#[derive(Clone, Debug)]
pub struct Residuals {
    pub down: Vec<ValueId>,
    pub middle: ValueId,
}

/// The network: `x` `[n, h, w, in_channels]` of any size; the result is `[n, h, w, out_channels]`.
///
/// # Errors
/// [`crate::Error::Invalid`] for conditions that the configuration has not or lacks, and those of the weights.
pub fn unet2d_condition(
    g: &mut Graph,
    config: &UNet2dConditionConfig,
    w: Source,
    x: ValueId,
    conditions: &Conditions,
) -> Result<ValueId> {
    let channels = &config.block_out_channels;
    let options = config.resnet();
    let last = channels.len() - 1;
    let text = conditions.text;
    let Encoded { time, mut skips, middle: mut h } = encode(g, CLASS, config, w, x, None, conditions)?;
    for residuals in conditions.residuals {
        if residuals.down.len() != skips.len() {
            let expected = format!("{}, as the UNet has on its way down", skips.len());
            return Err(CLASS.unsupported("number of residuals", &expected, residuals.down.len()));
        }
        for (skip, residual) in skips.iter_mut().zip(&residuals.down) {
            *skip = g.add(*skip, *residual)?;
        }
        h = g.add(h, residuals.middle)?;
    }

    // Up: one layer more than down, each beside what was kept.
    for (block, kind) in config.up_block_types.iter().enumerate() {
        let level = last - block;
        for layer in 0..=config.layers_per_block.at(level) {
            let name = |part: &str| format!("up_blocks.{block}.{part}.{layer}");
            let skip = skips.pop().expect("up takes as many as down kept");
            h = g.scoped(&format!("up_blocks.{block}"), |g| g.concat(&[h, skip], 3))?;
            h = nn::resnet_block(g, w, &name("resnets"), h, Some(time), channels[level], options)?;
            if kind == "CrossAttnUpBlock2D" {
                h = nn::spatial_transformer(
                    g,
                    w,
                    &name("attentions"),
                    h,
                    text,
                    config.transformer(level, conditions),
                )?;
            }
        }
        if level > 0 {
            let skip = *skips.last().expect("up takes as many as down kept");
            let size = [g.shape(skip)[1], g.shape(skip)[2]];
            h = nn::upsample_to(g, w, &format!("up_blocks.{block}.upsamplers.0"), h, size)?;
        }
    }

    let h = w.group_norm(g, "conv_norm_out", h, options.groups, options.eps)?;
    let h = g.silu(h)?;
    let padding = Conv2dOptions::padded(config.conv_out_kernel / 2);
    w.conv(g, "conv_out", h, config.out_channels, config.conv_out_kernel, padding)
}

/// What the first half of the network leaves for the second.
pub(super) struct Encoded {
    /// For the blocks on the way up, as for those before: activated.
    pub time: ValueId,
    /// Every result of the way down.
    pub skips: Vec<ValueId>,
    pub middle: ValueId,
}

/// The first half: down and the middle. `hint` is added to what the first convolution makes of `x`.
pub(super) fn encode(
    g: &mut Graph,
    class: Class,
    config: &UNet2dConditionConfig,
    w: Source,
    x: ValueId,
    hint: Option<ValueId>,
    conditions: &Conditions,
) -> Result<Encoded> {
    let channels = &config.block_out_channels;
    let options = config.resnet();
    let last = channels.len() - 1;
    let text = conditions.text;
    let embedding = time(g, class, config, w, conditions)?;
    let embedding = g.scoped("time_embedding", |g| g.silu(embedding))?;
    let time = Some(embedding);

    let padding = Conv2dOptions::padded(config.conv_in_kernel / 2);
    let mut h = w.conv(g, "conv_in", x, channels[0], config.conv_in_kernel, padding)?;
    if let Some(hint) = hint {
        h = g.add(h, hint)?;
    }

    let mut skips = vec![h];
    for (level, kind) in config.down_block_types.iter().enumerate() {
        for layer in 0..config.layers_per_block.at(level) {
            let name = |part: &str| format!("down_blocks.{level}.{part}.{layer}");
            h = nn::resnet_block(g, w, &name("resnets"), h, time, channels[level], options)?;
            if kind == "CrossAttnDownBlock2D" {
                h = nn::spatial_transformer(
                    g,
                    w,
                    &name("attentions"),
                    h,
                    text,
                    config.transformer(level, conditions),
                )?;
            }
            skips.push(h);
        }
        if level < last {
            let name = format!("down_blocks.{level}.downsamplers.0");
            h = nn::downsample(g, w, &name, h, config.downsample_padding)?;
            skips.push(h);
        }
    }

    if let Some(kind) = &config.mid_block_type {
        h = nn::resnet_block(g, w, "mid_block.resnets.0", h, time, channels[last], options)?;
        if kind == CROSS_ATTENTION_MID {
            let transformer =
                TransformerOptions { only_cross_attention: false, ..config.transformer(last, conditions) };
            h = nn::spatial_transformer(g, w, "mid_block.attentions.0", h, text, transformer)?;
            h = nn::resnet_block(g, w, "mid_block.resnets.1", h, time, channels[last], options)?;
        }
    }
    Ok(Encoded { time: embedding, skips, middle: h })
}

/// Time and what is added to it, as one vector for all blocks: `[n or 1, width]`.
fn time(
    g: &mut Graph,
    class: Class,
    config: &UNet2dConditionConfig,
    w: Source,
    conditions: &Conditions,
) -> Result<ValueId> {
    let width = config.time_embedding_dim.unwrap_or(4 * config.block_out_channels[0]);
    let sinusoids = |dim: usize| TimestepEmbedding {
        dtype: w.dtype,
        ..TimestepEmbedding::new(dim, config.flip_sin_to_cos, config.freq_shift)
    };
    let waves = sinusoids(config.block_out_channels[0]);
    let mut h = g.scoped("time_embedding", |g| g.timestep_embedding(conditions.timesteps, waves))?;
    match (config.time_cond_proj_dim, conditions.guidance) {
        (Some(_), Some(guidance)) => {
            let more = w.matrix(g, "time_embedding.cond_proj", guidance, g.shape(h).last())?;
            h = g.add(more, h)?;
        }
        (None, None) => {}
        (dim, _) => {
            let expected = "embedded guidance where there is one, none where not";
            return Err(class.unsupported("time_cond_proj_dim", expected, format!("{dim:?}")));
        }
    }
    let h = w.linear(g, "time_embedding.linear_1", h, width)?;
    let h = g.silu(h)?;
    let mut time = w.linear(g, "time_embedding.linear_2", h, width)?;

    match (config.num_class_embeds, conditions.class) {
        (Some(classes), Some(index)) => {
            let table = w.get(g, "class_embedding.weight", &[classes, width])?;
            let more = g.scoped("class_embedding", |g| g.gather(table, index, 0))?;
            time = g.add(more, time)?;
        }
        (None, None) => {}
        (classes, _) => {
            let expected = "a class where there are some, none where not";
            return Err(class.unsupported("num_class_embeds", expected, format!("{classes:?}")));
        }
    }
    match (&config.addition_embed_type, conditions.pooled) {
        (Some(_), Some([pooled, sizes])) => {
            let [n, count] = g.shape(sizes)[..] else {
                return Err(class.unsupported("sizes", "of two dimensions", g.shape(sizes)));
            };
            let dim = config.addition_time_embed_dim.expect("checked with the configuration");
            let added = g.scoped("add_embedding", |g| {
                let rows = g.reshape(sizes, [n * count, 1])?;
                let waves = g.timestep_embedding(rows, sinusoids(dim))?;
                let waves = g.reshape(waves, [n, count * dim])?;
                g.concat(&[pooled, waves], 1)
            })?;
            let h = w.linear(g, "add_embedding.linear_1", added, width)?;
            let h = g.silu(h)?;
            let added = w.linear(g, "add_embedding.linear_2", h, width)?;
            time = g.add(added, time)?;
        }
        (None, None) => {}
        (kind, _) => {
            let expected = "pooled text and sizes where there is one, none where not";
            return Err(class.unsupported("addition_embed_type", expected, format!("{kind:?}")));
        }
    }
    Ok(time)
}

//! What a single-file checkpoint leaves unsaid: configurations, told by the shapes of its tensors.

use super::autoencoder_kl::AutoencoderKlConfig;
use super::controlnet::ControlNetConfig;
use super::latent_conditions::{Micro, upscaler_schedule};
use super::latent_diffusion::{LatentDiffusion, Part};
use super::unet2d::Size;
use super::unet2d_condition::{Levels, UNet2dConditionConfig};
use crate::diffusion::ScheduleConfig;
use crate::error::{Error, Result};
use crate::formats::ldm::Checkpoint;
use crate::weights::Weights;

/// The families, told by the width of the text that their UNets read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Stable Diffusion 1: eight heads everywhere, 1×1 convolutions round the transformers.
    One,
    /// Stable Diffusion 2: heads of 64.
    Two,
    /// SDXL: heads of 64, and the size as a condition.
    Xl,
    /// SDXL's refiner, which is told of beauty.
    XlRefiner,
    /// The ×4 upscaler: eight heads everywhere, and the noise of a small picture as a class.
    Upscaler,
}

impl LatentDiffusion {
    /// The model in a single-file checkpoint. Whether Stable Diffusion 2 predicts noise or v is not in its tensors:
    /// `prediction` says it, in diffusers' words; without it v.
    ///
    /// # Errors
    /// [`Error::Format`] for a UNet that is cut or of another family, and those of [`LatentDiffusion::new`].
    pub fn from_checkpoint(name: &str, checkpoint: &Checkpoint, prediction: Option<&str>) -> Result<Self> {
        let unet = checkpoint.unet();
        let vae = checkpoint.vae();
        let (config, family) = unet_config(checkpoint, &unet)?;
        let vae_config = vae_config(&vae, family)?;
        let prediction = match (prediction, family) {
            (Some(prediction), _) => prediction,
            (None, Family::Two) if config.in_channels == 4 => "v_prediction",
            (None, Family::Upscaler) => "v_prediction",
            _ => "epsilon",
        };
        let schedule = ScheduleConfig {
            class_name: Some("EulerDiscreteScheduler".to_owned()),
            timestep_spacing: Some("leading".to_owned()),
            prediction_type: Some(prediction.to_owned()),
            ..match family {
                Family::Upscaler => upscaler_schedule(),
                _ => ScheduleConfig::stable_diffusion(),
            }
        };
        let unet = Part { config, weights: unet };
        let mut model =
            LatentDiffusion::new(name, unet, Part { config: vae_config, weights: vae }, &schedule)?;
        if family == Family::XlRefiner {
            model.micro = Micro::Beauty;
        }
        Ok(model)
    }
}

/// The shape of a tensor that must be there.
pub(super) fn shape<const N: usize>(weights: &Weights, name: &str) -> Result<[usize; N]> {
    let expected = format!("of {N} dimensions");
    let file = weights.file().to_owned();
    match weights.shape(name).map(|shape| (shape, shape[..].try_into())) {
        Some((_, Ok(shape))) => Ok(shape),
        Some((shape, Err(_))) => {
            Err(Error::WrongTensor { file, name: name.to_owned(), expected, found: format!("shape {shape}") })
        }
        None => Err(Error::MissingTensor { file, name: name.to_owned(), expected }),
    }
}

/// How many of `NAME.0`, `NAME.1` … with this `part` there are.
pub(super) fn count(weights: &Weights, name: impl Fn(usize) -> String) -> usize {
    (0..).take_while(|&i| weights.contains(&name(i))).count()
}

fn unet_config(checkpoint: &Checkpoint, unet: &Weights) -> Result<(UNet2dConditionConfig, Family)> {
    let pooled = checkpoint
        .text_encoders()
        .last()
        .and_then(|(_, text)| text.shape("text_projection.weight").and_then(|shape| shape.first().copied()));
    let (encoder, family) = encoder_config(unet, &checkpoint.blocks().layers, pooled)?;
    let [out_channels, ..] = shape::<4>(unet, "conv_out.weight")?;
    let up = |kind: &String| if kind.starts_with("Cross") { "CrossAttnUpBlock2D" } else { "UpBlock2D" };
    let config = UNet2dConditionConfig {
        out_channels,
        up_block_types: encoder.down_block_types.iter().rev().map(|kind| up(kind).to_owned()).collect(),
        ..encoder
    };
    config.check()?;
    Ok((config, family))
}

/// What a UNet has up to its middle, or a ControlNet. `pooled` is the width of the pooled text, if the file tells it.
fn encoder_config(
    unet: &Weights,
    layers: &[usize],
    pooled: Option<usize>,
) -> Result<(UNet2dConditionConfig, Family)> {
    let levels = layers.len();
    let unsupported = |what: String| Error::Unsupported { path: unet.file().into(), nodes: vec![what] };
    let [width, in_channels, _, _] = shape::<4>(unet, "conv_in.weight")?;
    let mut channels = Vec::new();
    let mut depths = Vec::new();
    for (level, &layers) in layers.iter().enumerate() {
        if layers == 0 {
            return Err(unsupported(format!("a UNet whose level {level} has no layers")));
        }
        channels.push(shape::<4>(unet, &format!("down_blocks.{level}.resnets.0.conv2.weight"))?[0]);
        depths.push(count(unet, |i| {
            format!("down_blocks.{level}.attentions.0.transformer_blocks.{i}.norm1.weight")
        }));
    }
    let middle = count(unet, |i| format!("mid_block.attentions.0.transformer_blocks.{i}.norm1.weight"));
    let attention: Vec<bool> = depths.iter().map(|depth| *depth > 0).collect();
    let last = levels - 1;
    if middle == 0 || attention[last] && depths[last] != middle {
        let found = format!("{middle} transformer blocks in the middle, {} beside it", depths[last]);
        return Err(unsupported(format!("a UNet with {found} (a distilled variant?)")));
    }
    depths[last] = middle;
    let text = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    let [_, cross_attention_dim] = shape::<2>(unet, text)?;
    let proj = unet.shape("mid_block.attentions.0.proj_in.weight").map_or(0, |shape| shape.len());
    let added = unet.shape("add_embedding.linear_1.weight").map(|shape| shape.last());
    let down = |attention: &bool| if *attention { "CrossAttnDownBlock2D" } else { "DownBlock2D" };
    let classes = unet.shape("class_embedding.weight").and_then(|shape| shape.first().copied());
    let embedded = |added: usize, pooled: usize| {
        let numbers = added.checked_sub(pooled).filter(|numbers| *numbers > 0)?;
        let fits = |micro: &Micro| numbers.is_multiple_of(micro.count());
        let micro = [Micro::Sizes, Micro::Beauty].into_iter().find(fits)?;
        Some((micro, numbers / micro.count()))
    };
    let told = match added {
        // Whoever leaves the encoders out has SDXL's, whose second gives 1280 numbers.
        Some(added) => Some(embedded(added, pooled.unwrap_or(1280)).ok_or_else(|| {
            let xl = "SDXL has 2816, its refiner 2560";
            unsupported(format!("a UNet with {added} numbers beside the text ({xl})"))
        })?),
        None => None,
    };
    let family = match (told, classes, proj) {
        (Some((Micro::Sizes, _)), ..) => Family::Xl,
        (Some((Micro::Beauty, _)), ..) => Family::XlRefiner,
        (None, Some(_), _) => Family::Upscaler,
        (None, None, 4) => Family::One,
        _ => Family::Two,
    };
    let heads = |c: &usize| match family {
        Family::One | Family::Upscaler => 8,
        _ => (c / 64).max(1),
    };
    let config = UNet2dConditionConfig {
        sample_size: Some(Size::Square(match family {
            Family::One => 64,
            Family::Two => 96,
            Family::Xl | Family::XlRefiner | Family::Upscaler => 128,
        })),
        in_channels,
        attention_head_dim: Levels::Each(channels.iter().map(heads).collect()),
        // The upscaler's transformers but the deepest look at the text alone, in both their attentions.
        only_cross_attention: match classes {
            Some(_) => Levels::Each((0..levels).map(|level| level != last).collect()),
            None => Levels::Same(false),
        },
        down_block_types: attention.iter().map(|attention| down(attention).to_owned()).collect(),
        layers_per_block: Levels::Each(layers.to_vec()),
        transformer_layers_per_block: Levels::Each(depths.iter().map(|depth| (*depth).max(1)).collect()),
        cross_attention_dim,
        use_linear_projection: proj == 2,
        num_class_embeds: classes,
        addition_embed_type: added.map(|_| "text_time".to_owned()),
        addition_time_embed_dim: told.map(|(_, dim)| dim),
        projection_class_embeddings_input_dim: added,
        time_cond_proj_dim: unet.shape("time_embedding.cond_proj.weight").map(|shape| shape.last()),
        block_out_channels: channels,
        ..UNet2dConditionConfig::default()
    };
    if config.block_out_channels[0] != width {
        return Err(unsupported(format!("a UNet that begins with {width} channels")));
    }
    Ok((config, family))
}

/// The configuration of a ControlNet by the shapes of its tensors, which have diffusers' names.
pub(super) fn control_config(weights: &Weights) -> Result<ControlNetConfig> {
    let resnet = |level: usize, layer: usize| format!("down_blocks.{level}.resnets.{layer}.norm1.weight");
    let levels = count(weights, |level| resnet(level, 0));
    let layers: Vec<usize> = (0..levels).map(|level| count(weights, |layer| resnet(level, layer))).collect();
    let hint = |part: &str| Ok(shape::<4>(weights, &format!("controlnet_cond_embedding.{part}.weight"))?[0]);
    let mut widths = vec![hint("conv_in")?];
    let blocks = count(weights, |i| format!("controlnet_cond_embedding.blocks.{i}.weight"));
    // Two for each level, of which the second widens.
    for i in (1..blocks).step_by(2) {
        widths.push(hint(&format!("blocks.{i}"))?);
    }
    if layers.is_empty() {
        let name = resnet(0, 0);
        let expected = "of 1 dimension".to_owned();
        return Err(Error::MissingTensor { file: weights.file().to_owned(), name, expected });
    }
    Ok(ControlNetConfig {
        unet: encoder_config(weights, &layers, None)?.0,
        conditioning_embedding_out_channels: widths,
        ..ControlNetConfig::default()
    })
}

fn vae_config(vae: &Weights, family: Family) -> Result<AutoencoderKlConfig> {
    let config = vae_shape(vae)?;
    Ok(AutoencoderKlConfig {
        scaling_factor: match (family, config.block_out_channels.len()) {
            (Family::Xl | Family::XlRefiner, _) => 0.13025,
            (Family::Upscaler, _) | (_, 3) => 0.08333,
            _ => 0.18215,
        },
        ..config
    })
}

/// The configuration of an autoencoder but for the scale of its latents.
pub(super) fn vae_shape(vae: &Weights) -> Result<AutoencoderKlConfig> {
    let conv = |level: usize| format!("encoder.down_blocks.{level}.resnets.0.conv1.weight");
    let levels = count(vae, conv);
    let channels: Vec<usize> =
        (0..levels).map(|level| Ok(shape::<4>(vae, &conv(level))?[0])).collect::<Result<_>>()?;
    let [_, in_channels, _, _] = shape::<4>(vae, "encoder.conv_in.weight")?;
    let [_, latent_channels, _, _] = shape::<4>(vae, "decoder.conv_in.weight")?;
    let [out_channels, ..] = shape::<4>(vae, "decoder.conv_out.weight")?;
    let config = AutoencoderKlConfig {
        in_channels,
        out_channels,
        latent_channels,
        down_block_types: vec!["DownEncoderBlock2D".to_owned(); levels],
        up_block_types: vec!["UpDecoderBlock2D".to_owned(); levels],
        block_out_channels: channels,
        layers_per_block: count(vae, |layer| format!("encoder.down_blocks.0.resnets.{layer}.conv1.weight")),
        use_quant_conv: vae.contains("quant_conv.weight"),
        use_post_quant_conv: vae.contains("post_quant_conv.weight"),
        mid_block_add_attention: vae.contains("encoder.mid_block.attentions.0.to_q.weight"),
        ..AutoencoderKlConfig::default()
    };
    config.check()?;
    Ok(config)
}

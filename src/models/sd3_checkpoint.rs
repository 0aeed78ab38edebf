//! What a single file of Stable Diffusion 3 leaves unsaid: configurations, told by the shapes of its tensors.

use super::autoencoder_kl::AutoencoderKlConfig;
use super::latent_checkpoint::{count, shape, vae_shape};
use super::latent_diffusion::{LatentDiffusion, Part};
use super::sd3_transformer::Sd3TransformerConfig;
use crate::diffusion::ScheduleConfig;
use crate::error::{Error, Result};
use crate::formats::mmdit::Sd3Checkpoint;
use crate::weights::Weights;

/// Numbers in a head of all published models.
const HEAD: usize = 64;

/// Latents along each side of a token; published models have two.
const MOST_PATCH: usize = 1 << 10;

impl LatentDiffusion {
    /// The model in a single file of Stable Diffusion 3 or 3.5, with the schedule that all of them have.
    ///
    /// # Errors
    /// [`crate::Error::MissingTensor`] for a file without an autoencoder, and those of [`LatentDiffusion::new`].
    pub fn from_sd3_checkpoint(name: &str, checkpoint: &Sd3Checkpoint) -> Result<Self> {
        let (transformer, vae) = (checkpoint.transformer(), checkpoint.vae());
        let config = transformer_config(&transformer)?;
        let vae_config =
            AutoencoderKlConfig { scaling_factor: 1.5305, shift_factor: Some(0.0609), ..vae_shape(&vae)? };
        let mut schedule = ScheduleConfig {
            class_name: Some("FlowMatchEulerDiscreteScheduler".to_owned()),
            ..ScheduleConfig::default()
        };
        schedule.flow.shift = Some(3.0);
        let denoiser = Part { config, weights: transformer };
        LatentDiffusion::new(name, denoiser, Part { config: vae_config, weights: vae }, &schedule)
    }
}

/// The configuration of a transformer by the shapes of its tensors, which have diffusers' names.
fn transformer_config(weights: &Weights) -> Result<Sd3TransformerConfig> {
    let [width, in_channels, patch_size, _] = shape::<4>(weights, "pos_embed.proj.weight")?;
    if patch_size > MOST_PATCH {
        return Err(Error::WrongTensor {
            file: weights.file().to_owned(),
            name: "pos_embed.proj.weight".to_owned(),
            expected: format!("squares of at most {MOST_PATCH} pixels"),
            found: format!("{patch_size}"),
        });
    }
    let [_, places, _] = shape::<3>(weights, "pos_embed.pos_embed")?;
    let [_, joint_attention_dim] = shape::<2>(weights, "context_embedder.weight")?;
    let [_, pooled_projection_dim] = shape::<2>(weights, "time_text_embed.text_embedder.linear_1.weight")?;
    let [out, _] = shape::<2>(weights, "proj_out.weight")?;
    let num_layers = count(weights, |i| format!("transformer_blocks.{i}.attn.to_q.weight"));
    let norm = weights.shape("transformer_blocks.0.attn.norm_q.weight");
    let attention_head_dim = norm.map_or(HEAD, |norm| norm.elements()).max(1);
    let dual = |i: &usize| weights.contains(&format!("transformer_blocks.{i}.attn2.to_q.weight"));
    let config = Sd3TransformerConfig {
        patch_size,
        in_channels,
        num_layers,
        attention_head_dim,
        num_attention_heads: width / attention_head_dim,
        joint_attention_dim,
        caption_projection_dim: width,
        pooled_projection_dim,
        out_channels: Some(out / (patch_size * patch_size).max(1)),
        pos_embed_max_size: places.isqrt(),
        dual_attention_layers: (0..num_layers).filter(dual).collect(),
        qk_norm: norm.map(|_| "rms_norm".to_owned()),
        ..Sd3TransformerConfig::default()
    };
    config.check()?;
    Ok(config)
}

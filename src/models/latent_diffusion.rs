//! Latent diffusion (Rombach et al. 2022, arXiv:2112.10752): a UNet that works on the latents of an autoencoder, told
//! by text. Stable Diffusion 1, 2 and XL, their turbo, consistency and inpainting variants, the ×4 upscaler.

use std::path::Path;

use super::autoencoder_kl::AutoencoderKlConfig;
use super::latent_conditions::{LowResolution, Micro};
use super::unet2d::Size;
use super::unet2d_condition::UNet2dConditionConfig;
use crate::diffusion::{NoiseSchedule, Sampler, ScheduleConfig, SigmaSchedule};
use crate::error::{Error, Result};
use crate::formats::diffusers::Folder;
use crate::weights::Weights;

/// A network with its configuration.
#[derive(Clone, Debug)]
pub struct Part<C> {
    pub config: C,
    pub weights: Weights,
}

/// The parts of a model, as its files have them. The encoders of text are apart: they are
/// not needed while pictures are made.
#[derive(Clone, Debug)]
pub struct LatentDiffusion {
    pub name: String,
    pub unet: Part<UNet2dConditionConfig>,
    pub vae: Part<AutoencoderKlConfig>,
    pub schedule: NoiseSchedule,
    pub sampler: Sampler,
    pub sigmas: SigmaSchedule,
    /// Of the ×4 upscaler.
    pub low_resolution: Option<LowResolution>,
    /// Of SDXL.
    pub micro: Micro,
    few_steps: bool,
}

/// What a model makes pictures from beside text, told by the channels of its UNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Nothing.
    Text,
    /// A mask and the picture outside of it: latents, mask, masked latents.
    Masked,
    /// A small picture with some noise: latents, picture.
    Small,
}

impl LatentDiffusion {
    /// Reads a pipeline's folder.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a pipeline of other parts, [`Error::Invalid`] and [`Error::Unknown`] for settings that
    /// this crate does not have, and those of the files.
    pub fn open(folder: &Folder) -> Result<Self> {
        let parts = [("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL")];
        let wrong: Vec<String> = parts
            .iter()
            .filter(|(part, class)| folder.part(part) != Some(class))
            .map(|(part, class)| {
                format!("{part} of class {} (this crate has {class})", folder.part(part).unwrap_or("none"))
            })
            .collect();
        if !wrong.is_empty() {
            return Err(Error::Unsupported { path: folder.path().to_owned(), nodes: wrong });
        }
        let unet = UNet2dConditionConfig::from_json(&folder.text("unet", "config.json")?)?;
        let vae = AutoencoderKlConfig::from_json(&folder.text("vae", "config.json")?)?;
        let schedule = ScheduleConfig::from_json(&folder.text("scheduler", "scheduler_config.json")?)?;
        let path = folder.path();
        let mut model = LatentDiffusion::new(
            &name_of(path),
            Part { config: unet, weights: folder.weights("unet")? },
            Part { config: vae, weights: folder.weights("vae")? },
            &schedule,
        )?;
        if model.low_resolution.is_some() {
            model.low_resolution = Some(LowResolution::open(folder)?);
        }
        if folder.setting("requires_aesthetics_score").and_then(serde_json::Value::as_bool) == Some(true) {
            model.micro = Micro::Beauty;
        }
        Ok(model)
    }

    /// A model of these parts.
    ///
    /// # Errors
    /// [`Error::Invalid`] for parts that do not fit each other and for schedules that this crate does not have.
    pub fn new(
        name: &str,
        unet: Part<UNet2dConditionConfig>,
        vae: Part<AutoencoderKlConfig>,
        schedule: &ScheduleConfig,
    ) -> Result<Self> {
        let latents = vae.config.latent_channels;
        if unet.config.out_channels != latents {
            return Err(Error::Invalid {
                what: format!("UNet of {name}"),
                expected: format!("{latents} channels, as the latents of its autoencoder have"),
                found: unet.config.out_channels.to_string(),
            });
        }
        let sampler = Sampler::of_config(schedule)?.unwrap_or(Sampler::DpmPlusPlus2M);
        let mut model = LatentDiffusion {
            name: name.to_owned(),
            few_steps: schedule.timestep_spacing.as_deref() == Some("trailing")
                && schedule.rescale_betas_zero_snr != Some(true)
                && matches!(sampler, Sampler::Euler | Sampler::EulerAncestral),
            unet,
            vae,
            sampler,
            sigmas: schedule.sigma_schedule()?,
            schedule: NoiseSchedule::new(schedule)?,
            low_resolution: None,
            micro: Micro::Sizes,
        };
        if model.given()? == Given::Small {
            model.low_resolution = Some(LowResolution::published()?);
        }
        Ok(model)
    }

    /// What the UNet wants beside text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number of channels that none of them has.
    pub fn given(&self) -> Result<Given> {
        let (unet, latents) = (&self.unet.config, self.vae.config.latent_channels);
        match unet.in_channels.checked_sub(latents) {
            Some(0) => Ok(Given::Text),
            Some(more) if more == latents + 1 => Ok(Given::Masked),
            Some(3) => Ok(Given::Small),
            _ => Err(Error::Invalid {
                what: format!("in_channels of the UNet of {}", self.name),
                expected: format!(
                    "{latents}, {} (inpainting) or {} (upscaling)",
                    2 * latents + 1,
                    latents + 3
                ),
                found: unet.in_channels.to_string(),
            }),
        }
    }

    /// Height and width of pictures that the model was trained for.
    pub fn size(&self) -> [usize; 2] {
        let [height, width] = match self.unet.config.sample_size {
            None => [64, 64],
            Some(Size::Square(side)) => [side, side],
            Some(Size::HeightWidth(size)) => size,
        };
        [height, width].map(|side| side * self.vae.config.factor())
    }

    /// Whether the guidance is an input of the UNet (consistency models) rather than a second run of it.
    pub fn embeds_guidance(&self) -> bool {
        self.unet.config.time_cond_proj_dim.is_some()
    }

    /// Steps and guidance that suit the model.
    pub fn habits(&self) -> (usize, f32) {
        if self.low_resolution.is_some() {
            return (50, 9.0);
        }
        match (self.embeds_guidance(), self.few_steps, self.unet.config.addition_embed_type.is_some()) {
            (true, _, _) => (4, 8.5),
            (_, true, _) => (2, 1.0),
            (_, _, true) => (25, 5.0),
            _ => (25, 7.5),
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.display().to_string())
}

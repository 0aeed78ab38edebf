//! Latent diffusion (Rombach et al. 2022, arXiv:2112.10752): a network that works on the latents of an autoencoder, told
//! by text. Stable Diffusion 1, 2 and XL, their turbo, consistency and inpainting variants, the ×4 upscaler; Stable
//! Diffusion 3.

use std::path::Path;

use super::autoencoder::AutoencoderConfig;
use super::denoiser::DenoiserConfig;
use super::latent_conditions::{LowResolution, Micro};
use super::sd3_transformer::Sd3TransformerConfig;
use super::unet2d_condition::UNet2dConditionConfig;
use crate::diffusion::{NoiseSchedule, Prediction, Sampler, ScheduleConfig, SigmaSchedule, Spacing};
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
    pub denoiser: Part<DenoiserConfig>,
    pub vae: Part<AutoencoderConfig>,
    pub schedule: NoiseSchedule,
    pub sampler: Sampler,
    pub sigmas: SigmaSchedule,
    /// Of the ×4 upscaler.
    pub low_resolution: Option<LowResolution>,
    /// Of SDXL.
    pub micro: Micro,
    few_steps: bool,
}

/// What a model makes pictures from beside text, told by the channels of its network.
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
        let [unet, transformer] = DenoiserConfig::PARTS;
        let denoiser = if folder.part(transformer.0).is_some() { transformer } else { unet };
        let parts = [(denoiser.0, &[denoiser.1][..]), ("vae", &AutoencoderConfig::CLASSES)];
        let wrong: Vec<String> = parts
            .iter()
            .map(|(part, classes)| (part, folder.part(part).unwrap_or("none"), classes))
            .filter(|(_, class, classes)| !classes.contains(class))
            .map(|(part, class, classes)| {
                format!("{part} of class {class} (this crate has {})", classes.join(" and "))
            })
            .collect();
        if !wrong.is_empty() {
            return Err(Error::Unsupported { path: folder.path().to_owned(), nodes: wrong });
        }
        let text = folder.text(denoiser.0, "config.json")?;
        let config: DenoiserConfig = match denoiser == transformer {
            true => Sd3TransformerConfig::from_json(&text)?.into(),
            false => UNet2dConditionConfig::from_json(&text)?.into(),
        };
        let vae = folder.part("vae").unwrap_or_default();
        let vae = AutoencoderConfig::from_json(vae, &folder.text("vae", "config.json")?)?;
        let schedule = ScheduleConfig::from_json(&folder.text("scheduler", "scheduler_config.json")?)?;
        let path = folder.path();
        let mut model = LatentDiffusion::new(
            &name_of(path),
            Part { config, weights: folder.weights(denoiser.0)? },
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
        denoiser: Part<impl Into<DenoiserConfig>>,
        vae: Part<impl Into<AutoencoderConfig>>,
        schedule: &ScheduleConfig,
    ) -> Result<Self> {
        let denoiser = Part { config: denoiser.config.into(), weights: denoiser.weights };
        let vae = Part { config: vae.config.into(), weights: vae.weights };
        let latents = vae.config.latent_channels();
        if denoiser.config.out_channels() != latents {
            return Err(Error::Invalid {
                what: format!("network of {name}"),
                expected: format!("{latents} channels, as the latents of its autoencoder have"),
                found: denoiser.config.out_channels().to_string(),
            });
        }
        denoiser.config.check_weights(&denoiser.weights)?;
        vae.config.check_weights(&vae.weights)?;
        let sampler = Sampler::of_config(schedule)?.unwrap_or(Sampler::DpmPlusPlus2M);
        let few_steps = match &denoiser.config {
            DenoiserConfig::UNet(_) => {
                schedule.timestep_spacing.as_deref() == Some("trailing")
                    && schedule.rescale_betas_zero_snr != Some(true)
                    && matches!(sampler, Sampler::Euler | Sampler::EulerAncestral)
            }
            // Nothing in its files but the name tells a distilled one from its teacher.
            DenoiserConfig::Sd3(_) => name.to_ascii_lowercase().contains("turbo"),
        };
        let mut model = LatentDiffusion {
            name: name.to_owned(),
            few_steps,
            denoiser,
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

    /// What the network wants beside text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number of channels that none of them has.
    pub fn given(&self) -> Result<Given> {
        let (denoiser, latents) = (&self.denoiser.config, self.vae.config.latent_channels());
        match (denoiser.in_channels().checked_sub(latents), denoiser) {
            (Some(0), _) => Ok(Given::Text),
            (Some(more), DenoiserConfig::UNet(_)) if more == latents + 1 => Ok(Given::Masked),
            (Some(3), DenoiserConfig::UNet(_)) => Ok(Given::Small),
            (_, DenoiserConfig::Sd3(_)) => Err(Error::Invalid {
                what: format!("in_channels of the transformer of {}", self.name),
                expected: latents.to_string(),
                found: denoiser.in_channels().to_string(),
            }),
            _ => Err(Error::Invalid {
                what: format!("in_channels of the UNet of {}", self.name),
                expected: format!(
                    "{latents}, {} (inpainting) or {} (upscaling)",
                    2 * latents + 1,
                    latents + 3
                ),
                found: denoiser.in_channels().to_string(),
            }),
        }
    }

    /// Has runs begin with noise alone, and their timesteps end with the last that the model was trained with (Lin et al.
    /// 2023, arXiv:2305.08891), for models that were trained so and do not say it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for models that predict the noise, which is all there is then, and for flow models, which
    /// begin so anyway.
    pub fn use_zero_terminal_snr(&mut self) -> Result<()> {
        match self.schedule.prediction {
            Prediction::V | Prediction::Sample => {}
            other => {
                return Err(Error::Invalid {
                    what: format!("what {} predicts, for zero terminal SNR", self.name),
                    expected: "v_prediction or sample".to_owned(),
                    found: if other == Prediction::Flow { "flow" } else { "epsilon" }.to_owned(),
                });
            }
        }
        self.schedule = self.schedule.clone().with_zero_terminal_snr();
        self.schedule.spacing = Some(Spacing::Trailing);
        Ok(())
    }

    /// Height and width of pictures that the model was trained for.
    pub fn size(&self) -> [usize; 2] {
        self.denoiser.config.sample_size().map(|side| side * self.vae.config.factor())
    }

    /// Pixels of a picture of which its height and width are multiples.
    pub fn multiple(&self) -> usize {
        self.vae.config.factor() * self.denoiser.config.patch()
    }

    /// Whether the guidance is an input of the network (consistency models) rather than a second run of it.
    pub fn embeds_guidance(&self) -> bool {
        self.denoiser.config.guidance_width().is_some()
    }

    /// Steps and guidance that suit the model.
    pub fn habits(&self) -> (usize, f32) {
        if self.low_resolution.is_some() {
            return (50, 9.0);
        }
        if let DenoiserConfig::Sd3(config) = &self.denoiser.config {
            return match (self.few_steps, config.dual_attention_layers.is_empty(), &config.qk_norm) {
                (true, ..) => (4, 1.0),
                // As the authors run 3.5 medium, 3.5 large and 3.
                (_, false, _) => (40, 4.5),
                (_, _, Some(_)) => (28, 3.5),
                _ => (28, 7.0),
            };
        }
        match (self.embeds_guidance(), self.few_steps, self.denoiser.config.is_told_sizes()) {
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

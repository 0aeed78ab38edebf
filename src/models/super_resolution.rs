//! Super-resolution by latent diffusion (Rombach et al. 2022, arXiv:2112.10752, section 4.4; diffusers'
//! `LDMSuperResolutionPipeline`): a UNet that sees the small picture beside the latents of the large one, and no text.

use super::latent_diffusion::Part;
use super::unet2d::UNet2dConfig;
use super::vq_model::VqModelConfig;
use crate::diffusion::{NoiseSchedule, Sampler, ScheduleConfig, SigmaSchedule};
use crate::error::{Error, Result};
use crate::formats::diffusers::Folder;

/// The parts of a model, as its files have them.
#[derive(Clone, Debug)]
pub struct SuperResolution {
    pub name: String,
    pub unet: Part<UNet2dConfig>,
    pub vqvae: Part<VqModelConfig>,
    pub schedule: NoiseSchedule,
    pub sampler: Sampler,
    pub sigmas: SigmaSchedule,
}

impl SuperResolution {
    /// Whether a pipeline's folder holds such a model.
    pub fn is_in(folder: &Folder) -> bool {
        folder.class() == "LDMSuperResolutionPipeline"
    }

    /// Reads a pipeline's folder.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a pipeline of other parts, [`Error::Invalid`] for parts that do not fit each other and
    /// for settings that this crate does not have, and those of the files.
    pub fn open(folder: &Folder) -> Result<Self> {
        let wrong: Vec<String> = [("unet", "UNet2DModel"), ("vqvae", "VQModel")]
            .iter()
            .filter(|(part, class)| folder.part(part) != Some(class))
            .map(|(part, class)| {
                format!(
                    "{part} of class {} (super-resolution has {class})",
                    folder.part(part).unwrap_or("none")
                )
            })
            .collect();
        if !wrong.is_empty() {
            return Err(Error::Unsupported { path: folder.path().to_owned(), nodes: wrong });
        }
        let unet = UNet2dConfig::from_json(&folder.text("unet", "config.json")?)?;
        let vqvae = VqModelConfig::from_json(&folder.text("vqvae", "config.json")?)?;
        let schedule = ScheduleConfig::from_json(&folder.text("scheduler", "scheduler_config.json")?)?;
        let width = vqvae.width();
        if [unet.in_channels, unet.out_channels] != [width + 3, width] || unet.num_class_embeds.is_some() {
            return Err(Error::Invalid {
                what: "channels of the UNet for super-resolution".to_owned(),
                expected: format!("{} in (latents and picture), {width} out, no classes", width + 3),
                found: format!(
                    "{} in, {} out, classes {:?}",
                    unet.in_channels, unet.out_channels, unet.num_class_embeds
                ),
            });
        }
        let path = folder.path();
        Ok(SuperResolution {
            name: path.file_name().map_or_else(|| path.display().to_string(), |n| n.display().to_string()),
            unet: Part { config: unet, weights: folder.weights("unet")? },
            vqvae: Part { config: vqvae, weights: folder.weights("vqvae")? },
            sampler: Sampler::of_config(&schedule)?.unwrap_or(Sampler::Ddim { eta: 0.0 }),
            sigmas: schedule.sigma_schedule()?,
            schedule: NoiseSchedule::new(&schedule)?,
        })
    }

    /// What heights and widths of small pictures must be multiples of, so that the UNet can halve them.
    pub fn multiple(&self) -> usize {
        1 << (self.unet.config.block_out_channels.len() - 1)
    }
}

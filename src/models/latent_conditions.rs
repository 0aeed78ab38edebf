//! What some latent diffusion models are told beside a text, as far as their tensors do not say it.

use crate::diffusion::{NoiseSchedule, ScheduleConfig};
use crate::error::{Error, Result};
use crate::formats::diffusers::Folder;

/// How the ×4 upscaler's small picture is made noisy before the UNet sees it: it is told the level as a class, and so
/// knows how little of the picture's detail to trust (Ho et al. 2021, arXiv:2106.15282, noise conditioning augmentation).
#[derive(Clone, Debug, PartialEq)]
pub struct LowResolution {
    pub schedule: NoiseSchedule,
    /// The highest level that the model was trained with.
    pub max_noise_level: usize,
}

impl LowResolution {
    /// That of Stability AI's ×4 upscaler.
    ///
    /// # Errors
    /// None that it could have.
    pub fn published() -> Result<Self> {
        Ok(LowResolution { schedule: NoiseSchedule::new(&upscaler_schedule())?, max_noise_level: 350 })
    }

    /// What a pipeline's folder says of it, in `low_res_scheduler` and `max_noise_level`.
    ///
    /// # Errors
    /// Those of the files.
    pub fn open(folder: &Folder) -> Result<Self> {
        let published = Self::published()?;
        let schedule = match folder.part("low_res_scheduler") {
            None => published.schedule,
            Some(_) => {
                let text = folder.text("low_res_scheduler", "scheduler_config.json")?;
                NoiseSchedule::new(&ScheduleConfig::from_json(&text)?)?
            }
        };
        let most = folder.setting("max_noise_level").and_then(serde_json::Value::as_u64);
        let max_noise_level = most.map_or(published.max_noise_level, |most| most as usize);
        Ok(LowResolution { schedule, max_noise_level })
    }

    /// How much of the picture and how much unit noise there is at a level.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a level that the model does not know.
    pub fn signal_and_noise(&self, level: usize) -> Result<[f32; 2]> {
        // Flow and score models have no levels of this kind.
        let levels = &self.schedule.alphas_cumprod;
        let most = self.max_noise_level.min(levels.len().saturating_sub(1));
        let Some(alpha) = levels.get(level).filter(|_| level <= most) else {
            return Err(Error::Invalid {
                what: "noise level of the small picture".to_owned(),
                expected: format!("at most {most}"),
                found: level.to_string(),
            });
        };
        Ok([alpha.sqrt() as f32, (1.0 - alpha).sqrt() as f32])
    }
}

/// The schedule of Stability AI's ×4 upscaler, both of its latents and of its small picture.
pub(super) fn upscaler_schedule() -> ScheduleConfig {
    ScheduleConfig { beta_start: Some(0.0001), beta_end: Some(0.02), ..ScheduleConfig::stable_diffusion() }
}

/// What SDXL's networks are told of the training pictures that are wished for, beside the pooled text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Micro {
    /// Original height and width, top and left of the crop, wanted height and width (Podell et al. 2023,
    /// arXiv:2307.01952, section 2.2).
    Sizes,
    /// The refiner: original height and width, top and left of the crop, and how beautiful the picture is, of 10.
    Beauty,
}

impl Micro {
    /// How many numbers those are.
    pub fn count(self) -> usize {
        match self {
            Micro::Sizes => 6,
            Micro::Beauty => 5,
        }
    }
}

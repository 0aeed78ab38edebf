//! What a painter's networks are made of, and whether it fits together.

use super::control::Control;
use super::{PaintOptions, StartFrom};
use crate::diffusion::{Start, Table};
use crate::error::{Error, Result};
use crate::models::latent_diffusion::{Given, LatentDiffusion};
use crate::target::Target;
use crate::tasks::sampling::{Draws, Step};
use crate::tensor::DType;

/// All that the graphs are made of.
pub(super) struct Parts<'a> {
    pub model: &'a LatentDiffusion,
    pub batch: usize,
    pub tokens: usize,
    pub canvas: StartFrom,
    pub options: &'a PaintOptions,
    pub controls: &'a [Control],
}

impl Parts<'_> {
    pub(super) fn check(&self, target: &Target) -> Result<()> {
        let PaintOptions { height, width, guidance, rescale, dtype, .. } = *self.options;
        let invalid = |what: &str, expected: String, found: String| {
            Err(Error::Invalid { what: format!("{what} of {}", self.model.name), expected, found })
        };
        let multiple = self.model.multiple();
        let fits = |side: usize| side > 0 && side.is_multiple_of(multiple);
        if !fits(height) || !fits(width) {
            return invalid("size", format!("multiples of {multiple}"), format!("{width}×{height}"));
        }
        if self.batch == 0 || self.tokens == 0 {
            return invalid("batch and tokens", "at least 1".to_owned(), "0".to_owned());
        }
        if !guidance.is_finite() || !(0.0..=1.0).contains(&rescale) {
            let expected = "a number, and 0 to 1".to_owned();
            return invalid("guidance and its rescale", expected, format!("{guidance}, {rescale}"));
        }
        match (self.given(), self.canvas) {
            (Given::Masked, StartFrom::Noise | StartFrom::Picture) => {
                return invalid("picture", "one with a mask".to_owned(), "none".to_owned());
            }
            (Given::Small, _) => {
                return invalid(
                    "task",
                    "text to picture, picture to picture, inpainting".to_owned(),
                    "upscaling".to_owned(),
                );
            }
            _ => {}
        }
        self.check_controls()?;
        if dtype == DType::F16 && !target.f16 {
            let device = target.name.clone();
            return Err(Error::Feature { device, feature: "16-bit floats", advice: "use f32" });
        }
        Ok(())
    }

    pub(super) fn given(&self) -> Given {
        self.model.given().unwrap_or(Given::Text)
    }

    /// Twice for guidance, but for models that have it as an input.
    pub(super) fn copies(&self) -> usize {
        if self.options.guidance == 1.0 || self.model.embeds_guidance() { 1 } else { 2 }
    }

    /// Height, width and channels of the latents.
    pub(super) fn latent(&self) -> [usize; 3] {
        let factor = self.model.vae.config.factor();
        [self.options.height / factor, self.options.width / factor, self.model.vae.config.latent_channels()]
    }

    /// Sizes and crop that the UNet is told (SDXL): original, crop, wanted.
    pub(super) fn ids(&self) -> Option<[usize; 6]> {
        let PaintOptions { height, width, original, .. } = *self.options;
        let [h, w, top, left] = original.unwrap_or([height, width, 0, 0]);
        self.model.denoiser.config.is_told_sizes().then_some([h, w, top, left, height, width])
    }

    /// Width of the pooled text.
    pub(super) fn pooled(&self) -> Option<usize> {
        self.model.denoiser.config.pooled_width()
    }

    /// The table and where in it the run begins.
    pub(super) fn start(&self) -> Result<Start> {
        let o = self.options;
        let multiple = self.model.multiple();
        let schedule = self.model.schedule.for_tokens(o.height / multiple * (o.width / multiple))?;
        let table = Table::new(&schedule, o.sampler, o.sigmas, o.steps)?;
        match self.canvas {
            StartFrom::Noise => Ok(Start { row: 0, clean: 0.0, noise: table.init_noise_scale, table }),
            _ if o.strength == 1.0 && self.canvas == StartFrom::Masked => {
                Ok(Start { row: 0, clean: 0.0, noise: table.init_noise_scale, table })
            }
            _ => table.start(o.strength),
        }
    }

    /// Whether the picture itself is encoded, and not only what lies outside of a mask.
    pub(super) fn encodes(&self) -> bool {
        self.canvas == StartFrom::Picture
            || self.canvas == StartFrom::Masked
                && (self.given() == Given::Text || self.options.strength < 1.0)
    }

    /// Which tensors of noise the parts take, in the order of diffusers' pipelines: the encoded picture's,
    /// the first sample's, the masked picture's, then those on the way.
    pub(super) fn draws(&self) -> Draws {
        let drawn = self.model.vae.config.draws();
        let start = usize::from(drawn && self.encodes());
        Draws { start, rows: start + 1 + usize::from(drawn && self.canvas == StartFrom::Masked) }
    }

    pub(super) fn step<'t>(&self, table: &'t Table) -> Result<Step<'t>> {
        Ok(Step {
            table,
            batch: self.batch,
            shape: self.latent(),
            copies: self.copies(),
            dtype: self.options.dtype,
            noise: self.options.noise,
            draws: self.draws(),
        })
    }
}

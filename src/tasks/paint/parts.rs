//! What a painter's networks are made of, and whether it fits together.

use super::control::Control;
use super::small::RGB;
use super::{PaintOptions, StartFrom};
use crate::diffusion::{Start, Table};
use crate::error::{Error, Result};
use crate::models::latent_conditions::Micro;
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
            (Given::Small, StartFrom::Small) => {
                self.low_resolution()?.signal_and_noise(self.options.noise_level)?;
                let classes = self.classes().unwrap_or(usize::MAX);
                if self.options.noise_level >= classes {
                    let found = self.options.noise_level.to_string();
                    return invalid("noise level of the small picture", format!("below {classes}"), found);
                }
            }
            (given, StartFrom::Small) | (given @ Given::Small, _) => {
                let expected = if given == Given::Small { "to enlarge a picture" } else { "another" };
                return invalid("task", expected.to_owned(), format!("{:?}", self.canvas));
            }
            _ => {}
        }
        self.check_span()?;
        self.check_controls()?;
        self.check_pag()?;
        if dtype == DType::F16 && !target.f16 {
            let device = target.name.clone();
            return Err(Error::Feature { device, feature: "16-bit floats", advice: "use f32" });
        }
        Ok(())
    }

    pub(super) fn given(&self) -> Given {
        self.model.given().unwrap_or(Given::Text)
    }

    /// Height, width and channels of the latents.
    pub(super) fn latent(&self) -> [usize; 3] {
        let factor = self.model.vae.config.factor();
        [self.options.height / factor, self.options.width / factor, self.model.vae.config.latent_channels()]
    }

    /// What the UNet is told beside the text (SDXL), with it and with what guidance leads away from.
    pub(super) fn ids(&self) -> Option<[Vec<f32>; 2]> {
        if !self.model.denoiser.config.is_told_sizes() {
            return None;
        }
        let PaintOptions { height, width, original, aesthetic, .. } = *self.options;
        let [h, w, top, left] = original.unwrap_or([height, width, 0, 0]);
        let sizes = [h, w, top, left].map(|v| v as f32);
        let size = [height as f32, width as f32];
        Some(aesthetic.map(|score| match self.model.micro {
            Micro::Sizes => [&sizes[..], &size].concat(),
            Micro::Beauty => [&sizes[..], &[score]].concat(),
        }))
    }

    /// Classes that the network is told (×4 upscaler).
    pub(super) fn classes(&self) -> Option<usize> {
        self.model.denoiser.config.unet().and_then(|unet| unet.num_class_embeds)
    }

    /// Width of the pooled text.
    pub(super) fn pooled(&self) -> Option<usize> {
        self.model.denoiser.config.pooled_width(self.model.micro.count())
    }

    /// The table and where in it the run begins.
    pub(super) fn start(&self) -> Result<Start> {
        let o = self.options;
        let multiple = self.model.multiple();
        let schedule = self.model.schedule.for_tokens(o.height / multiple * (o.width / multiple))?;
        let table = Table::new(&schedule, o.sampler, o.sigmas.clone(), o.steps)?;
        match self.canvas {
            StartFrom::Noise | StartFrom::Small => {
                let table = table.part(o.span)?;
                Ok(Start { row: 0, clean: 0.0, noise: table.init_noise_scale, table })
            }
            _ if o.strength == 1.0 && self.canvas == StartFrom::Masked => {
                Ok(Start { row: 0, clean: 0.0, noise: table.init_noise_scale, table })
            }
            _ => table.start(o.strength),
        }
    }

    /// A part of a run is for those that begin with noise, or go on from such ones' latents.
    fn check_span(&self) -> Result<()> {
        if self.options.span == [0.0, 1.0] || self.canvas == StartFrom::Noise {
            return Ok(());
        }
        Err(Error::Invalid {
            what: format!("span of a run that begins from {:?}", self.canvas),
            expected: "the whole, 0 to 1 (strength makes it shorter)".to_owned(),
            found: format!("{:?}", self.options.span),
        })
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
        let small = self.canvas == StartFrom::Small;
        let start = usize::from(drawn && self.encodes() || small);
        let [h, w, _] = self.latent();
        Draws {
            start,
            rows: start + 1 + usize::from(drawn && self.canvas == StartFrom::Masked),
            odd: if small { RGB * h * w } else { 0 },
        }
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

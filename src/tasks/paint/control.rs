//! Pictures that say how the result is composed: edges, depth, a pose, read by ControlNets at each step.

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::parts::Parts;
use super::{PaintOptions, Painter};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::models::controlnet::{ControlNetConfig, controlnet};
use crate::models::latent_diffusion::Part;
use crate::models::unet2d_condition::{Conditions, Residuals};
use crate::nn::Source;
use crate::ops::pad::PadMode;
use crate::ops::strided::Range;
use crate::tensor::{DType, Tensor};

/// A ControlNet, how much it has to say, and when.
#[derive(Clone, Debug)]
pub struct Control {
    pub model: Part<ControlNetConfig>,
    /// Factor of what it adds, 1 as it was trained.
    pub scale: f32,
    /// It adds something only in the steps between these shares of all steps, 0 to 1. The others take as long.
    pub start: f64,
    pub end: f64,
    /// It guesses what its picture shows where the text says nothing: it has its say with the text alone, not with what
    /// is not wanted, and the less the finer the level (diffusers' `guess_mode`).
    pub guess: bool,
}

impl Control {
    /// As it was trained, in all steps.
    pub fn of(model: Part<ControlNetConfig>) -> Self {
        Control { model, scale: 1.0, start: 0.0, end: 1.0, guess: false }
    }

    /// The factor of each of so many calls of the UNet: of those that lie between start and end as a whole.
    fn scales(&self, calls: usize) -> Vec<f32> {
        let share = |call: usize| call as f64 / calls as f64;
        let inside = |call: usize| share(call) >= self.start && share(call + 1) <= self.end;
        (0..calls).map(|call| if inside(call) { self.scale } else { 0.0 }).collect()
    }

    /// All that a saved run must agree with, wherever the files are.
    pub(super) fn description(&self) -> String {
        let Control { model, scale, start, end, guess } = self;
        // Every file in a folder of diffusers has the same name.
        let parts: Vec<_> = Path::new(model.weights.file()).iter().collect();
        let name: PathBuf = parts[parts.len().saturating_sub(2)..].iter().collect();
        let guess = if *guess { ", a guess" } else { "" };
        format!("{} × {scale} from {start} to {end}{guess}", name.display())
    }

    /// What each of so many results of the way down is multiplied by, and the middle's after them.
    fn shares(&self, down: usize) -> Vec<f32> {
        // The means of all levels are of one size.
        match self.guess && !self.model.config.global_pool_conditions {
            true => (0..=down).map(|i| 10f64.powf(i as f64 / down as f64 - 1.0) as f32).collect(),
            false => vec![1.0; down + 1],
        }
    }
}

impl Parts<'_> {
    pub(super) fn check_controls(&self) -> Result<()> {
        let vae = &self.model.vae.config;
        let Some(unet) = self.model.denoiser.config.unet() else {
            return match self.controls {
                [] => Ok(()),
                _ => Err(Error::Invalid {
                    what: format!("controls of {}", self.model.name),
                    expected: "none, as it is a transformer".to_owned(),
                    found: self.controls.len().to_string(),
                }),
            };
        };
        for (i, control) in self.controls.iter().enumerate() {
            let config = &control.model.config;
            let invalid = |what: &str, expected: String, found: String| {
                Err(Error::Invalid { what: format!("{what} of control {i}"), expected, found })
            };
            let Control { scale, start, end, .. } = *control;
            if !(scale.is_finite() && start >= 0.0 && start < end && end <= 1.0) {
                let expected = "a number, and 0 to 1, the one before the other".to_owned();
                return invalid("scale, start and end", expected, format!("{scale}, {start}, {end}"));
            }
            // Of which family it is; what remains is seen by the shapes of its weights.
            for (what, expected, found) in [
                (
                    "block_out_channels",
                    format!("{:?}", unet.block_out_channels),
                    format!("{:?}", config.unet.block_out_channels),
                ),
                (
                    "cross_attention_dim",
                    unet.cross_attention_dim.to_string(),
                    config.unet.cross_attention_dim.to_string(),
                ),
                ("in_channels", vae.latent_channels().to_string(), config.unet.in_channels.to_string()),
                (
                    "pixels of the picture for one of the latents",
                    vae.factor().to_string(),
                    config.factor().to_string(),
                ),
            ] {
                if expected != found {
                    let expected = format!("{expected}, as {} has", self.model.name);
                    return invalid(what, expected, found);
                }
            }
        }
        Ok(())
    }

    /// Of the batch of the network those with the text.
    fn first_copy(&self, g: &mut Graph, x: ValueId) -> Result<ValueId> {
        let mut ranges = vec![Range::all(); g.shape(x).len()];
        ranges[0] = Range { start: 0, stop: Some(self.batch), step: 1 };
        g.slice(x, &ranges)
    }

    /// The network's whole batch: zeros for what is not wanted.
    fn for_all_copies(&self, g: &mut Graph, x: ValueId) -> Result<ValueId> {
        let mut padding = vec![[0, 0]; g.shape(x).len()];
        padding[0] = [0, self.batch];
        let both = g.pad(x, &padding, PadMode::Constant(0.0))?;
        if self.copies() == 2 { Ok(both) } else { g.concat(&[both, x], 0) }
    }

    /// What the controls add to the UNet's answer to the latents `x`; `conditions` are its own.
    pub(super) fn residuals(
        &self,
        g: &mut Graph,
        x: ValueId,
        step: ValueId,
        conditions: &Conditions,
    ) -> Result<Vec<Residuals>> {
        let PaintOptions { height, width, dtype, .. } = *self.options;
        let calls = self.start()?.table.rows.len();
        let mut all = Vec::with_capacity(self.controls.len());
        for (i, control) in self.controls.iter().enumerate() {
            let Part { config, weights } = &control.model;
            let picture = g.input(&format!("control{i}"), [1, height, width, 3], DType::F32);
            let scales = g.input(&format!("control{i}.scales"), [calls, 1], DType::F32);
            let pooled = conditions.pooled.filter(|_| config.unet.addition_embed_type.is_some());
            let mut conditions =
                Conditions { pooled, guidance: None, residuals: &[], perturbed: None, ..*conditions };
            all.push(g.scoped(&format!("control{i}"), |g| {
                let mut x = x;
                if control.guess && self.is_guided() {
                    x = self.first_copy(g, x)?;
                    conditions.text = self.first_copy(g, conditions.text)?;
                    if let Some(pooled) = &mut conditions.pooled {
                        *pooled = [self.first_copy(g, pooled[0])?, self.first_copy(g, pooled[1])?];
                    }
                }
                let picture = g.cast(picture, dtype)?;
                let found = controlnet(g, config, Source { weights, dtype }, x, picture, &conditions)?;
                let scale = g.gather(scales, step, 0)?;
                let mut scale = g.reshape(scale, [1, 1, 1, 1])?;
                if config.global_pool_conditions && self.is_guided() && !control.guess {
                    let wanted = self.of_copies(vec![1.0; self.batch], vec![0.0; self.batch]).concat();
                    let wanted = Tensor::from_f32([wanted.len(), 1, 1, 1], &wanted);
                    let wanted = g.weight("wanted", wanted);
                    scale = g.mul(wanted, scale)?;
                }
                let scale = g.cast(scale, dtype)?;
                let shares = control.shares(found.down.len());
                let added = |g: &mut Graph, residual: ValueId, share: f32| {
                    let residual = g.mul(residual, scale)?;
                    let residual = if share == 1.0 { residual } else { g.affine(residual, share, 0.0)? };
                    match control.guess && self.is_guided() {
                        true => self.for_all_copies(g, residual),
                        false => Ok(residual),
                    }
                };
                let middle = added(g, found.middle, 1.0)?;
                let down = found.down.into_iter().zip(shares);
                let down = down.map(|(residual, share)| added(g, residual, share));
                Ok::<_, Error>(Residuals { down: down.collect::<Result<_>>()?, middle })
            })?);
        }
        Ok(all)
    }
}

impl Painter {
    /// Shows the controls their pictures, one each, for the runs that begin from now on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number of pictures than of controls, or another size than the result's.
    pub fn control(&mut self, pictures: &[&RgbImage]) -> Result<()> {
        let PaintOptions { height, width, .. } = self.options;
        if pictures.len() != self.controls.len() {
            return Err(Error::Invalid {
                what: "pictures for controls".to_owned(),
                expected: self.controls.len().to_string(),
                found: pictures.len().to_string(),
            });
        }
        for (i, picture) in pictures.iter().enumerate() {
            if picture.dimensions() != (width as u32, height as u32) {
                return Err(Error::Invalid {
                    what: format!("picture for control {i}"),
                    expected: format!("{width}×{height} pixels, as the result"),
                    found: format!("{}×{}", picture.width(), picture.height()),
                });
            }
            let shares: Vec<f32> = picture.iter().map(|&byte| f32::from(byte) / 255.0).collect();
            let picture = Tensor::from_f32([1, height, width, 3], &shares);
            self.around.step.write(&format!("control{i}"), &picture)?;
        }
        self.controlled = true;
        Ok(())
    }

    /// Uploads when the controls have a say.
    pub(super) fn tell_scales(&self) -> Result<()> {
        let calls = self.around.table.rows.len();
        for (i, control) in self.controls.iter().enumerate() {
            let scales = Tensor::from_f32([calls, 1], &control.scales(calls));
            self.around.step.write(&format!("control{i}.scales"), &scales)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Weights;

    #[test]
    fn a_control_has_its_say_in_whole_steps() {
        let empty = safetensors::serialize::<&str, safetensors::tensor::TensorView, _>([], None).unwrap();
        let weights = Weights::from_static("empty", empty.leak()).unwrap();
        let model = Part { config: ControlNetConfig::default(), weights };
        let mut control = Control { scale: 0.8, start: 0.25, end: 0.75, ..Control::of(model) };
        assert_eq!(control.scales(4), [0.0, 0.8, 0.8, 0.0]);
        assert_eq!(control.scales(5), [0.0, 0.0, 0.8, 0.0, 0.0]);
        (control.start, control.end) = (0.0, 1.0);
        assert_eq!(control.scales(3), [0.8; 3]);
        assert_eq!(control.description(), "empty × 0.8 from 0 to 1");
        assert_eq!(control.shares(2), [1.0; 3]);
        control.guess = true;
        assert_eq!(control.shares(2), [0.1, 0.1f32.sqrt(), 1.0]);
        assert_eq!(control.description(), "empty × 0.8 from 0 to 1, a guess");
    }
}

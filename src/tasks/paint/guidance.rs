//! What of a network's answers the sampler's step is given: guidance away from what is not wanted, away from a network
//! that looks less closely, and the contrast that this adds taken back.

use super::Painter;
use super::parts::Parts;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::models::denoiser::DenoiserConfig;
use crate::nn::Perturbed;
use crate::ops::expr::Binary;
use crate::ops::reduce::Reduction;
use crate::ops::strided::Range;
use crate::tensor::{DType, Tensor};

/// Perturbed-attention guidance (Ahn et al. 2024, arXiv:2403.17377): away from what the network would make if the pixels
/// in some of its layers did not look at each other, which have structure go to pieces. Half as much work again, or twice
/// as much where there is no other guidance.
#[derive(Clone, Debug, PartialEq)]
pub struct Pag {
    /// How strictly; above 0.
    pub scale: f32,
    /// By how much the scale falls from each training timestep to the next, from that at step 1000 on, to 0 at least.
    pub adaptive: f32,
    /// Parts of the names of self-attention layers, as diffusers has them: `mid`, `down_blocks.1`,
    /// `up_blocks.0.attentions.1`.
    pub layers: Vec<String>,
}

impl Pag {
    /// In the layers of the middle, as the authors have it, all along.
    pub fn of(scale: f32) -> Self {
        Pag { scale, adaptive: 0.0, layers: vec!["mid".to_owned()] }
    }

    /// The scale at a training timestep.
    fn at(&self, timestep: f64) -> f32 {
        (f64::from(self.scale) - f64::from(self.adaptive) * (1000.0 - timestep)).max(0.0) as f32
    }
}

impl Parts<'_> {
    /// Whether the network is also asked what it makes of what is not wanted; some have guidance as an input.
    pub(super) fn is_guided(&self) -> bool {
        self.options.guidance != 1.0 && !self.model.embeds_guidance()
    }

    /// How often the network sees each picture: with the text, without it where there is guidance, and with the text
    /// but attention that is perturbed.
    pub(super) fn copies(&self) -> usize {
        1 + usize::from(self.is_guided()) + usize::from(self.options.pag.is_some())
    }

    /// One of what is wanted and one of what is not for each of the copies, in their order.
    pub(super) fn of_copies<T: Clone>(&self, wanted: T, unwanted: T) -> Vec<T> {
        let mut all = vec![wanted; self.copies()];
        if self.is_guided() {
            all[1] = unwanted;
        }
        all
    }

    /// Which of the network's batch are perturbed, and where.
    pub(super) fn perturbed(&self) -> Option<Perturbed<'_>> {
        let pag = self.options.pag.as_ref()?;
        Some(Perturbed { from: (self.copies() - 1) * self.batch, layers: &pag.layers })
    }

    pub(super) fn check_pag(&self) -> Result<()> {
        let Some(pag) = &self.options.pag else { return Ok(()) };
        let invalid = |what: &str, expected: String, found: String| {
            let what = format!("{what} of {}", self.model.name);
            Err(Error::Invalid { what, expected, found })
        };
        let DenoiserConfig::UNet(unet) = &self.model.denoiser.config else {
            let expected = "none, as it is a transformer".to_owned();
            return invalid("perturbed-attention guidance", expected, pag.scale.to_string());
        };
        if !(pag.scale > 0.0 && pag.scale.is_finite() && pag.adaptive >= 0.0 && pag.adaptive.is_finite()) {
            let expected = "a scale above 0, and a fall of it that is none or above".to_owned();
            let found = format!("{} and {}", pag.scale, pag.adaptive);
            return invalid("perturbed-attention guidance", expected, found);
        }
        let layers = unet.self_attentions();
        let none = |part: &&String| {
            let part = Perturbed { from: 0, layers: std::slice::from_ref(*part) };
            !layers.iter().any(|layer| part.covers(layer))
        };
        if pag.layers.is_empty() || pag.layers.iter().any(|part| none(&part)) {
            let expected = format!("parts of their names: {}", layers.join(", "));
            let found = pag.layers.iter().find(none).map_or("none", |part| part);
            return invalid("self-attention layers", expected, found.to_owned());
        }
        Ok(())
    }

    /// The network's answers `[copies · batch, h, w, c]` → what the sampler's step takes: with the text and without, or
    /// the two in one.
    pub(super) fn guided(&self, g: &mut Graph, y: ValueId, step: ValueId) -> Result<ValueId> {
        let rescales = self.options.rescale > 0.0 && self.is_guided();
        if !rescales && self.options.pag.is_none() {
            return Ok(y);
        }
        let n = self.batch;
        let y = g.cast(y, DType::F32)?;
        let copy = |g: &mut Graph, i: usize| {
            let rows = Range { start: i * n, stop: Some((i + 1) * n), step: 1 };
            g.slice(y, &[rows, Range::all(), Range::all(), Range::all()])
        };
        let with = copy(g, 0)?;
        // What both get alike, so that guidance, which adds the difference of the two, leaves it as it is.
        let away = match self.options.pag {
            None => None,
            Some(_) => {
                let perturbed = copy(g, self.copies() - 1)?;
                let scales = g.input("pag", [self.start()?.table.rows.len(), 1], DType::F32);
                let scale = g.gather(scales, step, 0)?;
                let scale = g.reshape(scale, [1, 1, 1, 1])?;
                let away = g.binary(Binary::Sub, with, perturbed)?;
                Some(g.mul(away, scale)?)
            }
        };
        let and_away = |g: &mut Graph, x: ValueId| away.map_or(Ok(x), |away| g.add(x, away));
        if !self.is_guided() {
            return and_away(g, with);
        }
        let without = copy(g, 1)?;
        if !rescales {
            let both = [and_away(g, with)?, and_away(g, without)?];
            return g.concat(&both, 0);
        }
        let scale = self.options.guidance;
        let (a, b) = (g.affine(with, scale, 0.0)?, g.affine(without, 1.0 - scale, 0.0)?);
        let guided = g.add(a, b)?;
        let guided = and_away(g, guided)?;
        self.rescaled(g, guided, with)
    }

    /// With as much contrast as the prediction `with` the text, in part.
    fn rescaled(&self, g: &mut Graph, guided: ValueId, with: ValueId) -> Result<ValueId> {
        let spread = |g: &mut Graph, x: ValueId| {
            let mean = g.reduce(x, Reduction::Mean, &[1, 2, 3], true)?;
            let x = g.binary(Binary::Sub, x, mean)?;
            g.reduce(x, Reduction::L2, &[1, 2, 3], true)
        };
        let [wanted, found] = [spread(g, with)?, spread(g, guided)?];
        let part = self.options.rescale;
        let factor = g.binary(Binary::Div, wanted, found)?;
        let factor = g.affine(factor, part, 1.0 - part)?;
        g.mul(guided, factor)
    }
}

impl Painter {
    /// Uploads the scales of perturbed-attention guidance.
    pub(super) fn tell_pag(&self) -> Result<()> {
        let Some(pag) = &self.options.pag else { return Ok(()) };
        let rows = &self.around.table.rows;
        let scales: Vec<f32> = rows.iter().map(|row| pag.at(row.timestep)).collect();
        self.around.step.write("pag", &Tensor::from_f32([rows.len(), 1], &scales))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_falls_to_nothing_at_least() {
        let pag = Pag { adaptive: 1.0 / 256.0, ..Pag::of(3.0) };
        assert_eq!([1000.0, 488.0, 232.0, 0.0].map(|t| pag.at(t)), [3.0, 1.0, 0.0, 0.0]);
        assert_eq!(Pag::of(2.0).at(1.0), 2.0);
    }
}

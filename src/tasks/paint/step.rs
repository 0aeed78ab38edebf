//! One step as a graph: the network with all that it is told, guidance, and what stays as it was.

use super::StartFrom;
use super::parts::Parts;
use super::small::RGB;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::models::denoiser::DenoiserConfig;
use crate::models::latent_diffusion::Given;
use crate::models::sd3_transformer::{self, sd3_transformer};
use crate::models::unet2d_condition::{Conditions, unet2d_condition};
use crate::nn::Source;
use crate::ops::expr::Binary;
use crate::ops::strided::Range;
use crate::tasks::sampling::Step;
use crate::tensor::{DType, Tensor};

impl Parts<'_> {
    pub(super) fn step_graph(&self, step: Step) -> Result<Graph> {
        let denoiser = &self.model.denoiser;
        let weights = denoiser.weights.in_blocks(self.options.weights);
        let n = self.copies() * self.batch;
        let [h, w, c] = self.latent();
        let predict = |g: &mut Graph, mut x: ValueId, row: ValueId, step: ValueId| {
            let dtype = self.options.dtype;
            let input = |g: &mut Graph, name: &str, shape: &[usize]| {
                let id = g.input(name, shape, DType::F32);
                g.cast(id, dtype)
            };
            let text = input(g, "text", &[n, self.tokens, denoiser.config.text_width()])?;
            let whole = match self.pooled() {
                Some(width) => Some(input(g, "pooled", &[n, width])?),
                None => None,
            };
            let sizes = self.ids().map(|[ids, _]| g.input("sizes", [n, ids.len()], DType::F32));
            let pooled = whole.zip(sizes).map(<[ValueId; 2]>::from);
            let guidance = match denoiser.config.guidance_width() {
                Some(dim) => Some(input(g, "embedded_guidance", &[n, dim])?),
                None => None,
            };
            let class = match (self.given(), self.classes()) {
                (Given::Small, Some(_)) => Some(g.input("class", [n], DType::U32)),
                _ => None,
            };
            let perturbed = self.perturbed();
            let mut conditions =
                Conditions { timesteps: row, text, pooled, guidance, class, residuals: &[], perturbed };
            let residuals = self.residuals(g, x, step, &conditions)?;
            conditions.residuals = &residuals;
            let beside = match self.given() {
                Given::Text => 0,
                Given::Masked => 1 + c,
                Given::Small => RGB,
            };
            if beside > 0 {
                let extra = input(g, "extra", &[self.batch, h, w, beside])?;
                let extra = if self.copies() > 1 { g.concat(&vec![extra; self.copies()], 0)? } else { extra };
                x = g.concat(&[x, extra], 3)?;
            }
            let source = Source { weights: &weights, dtype };
            let y = match &denoiser.config {
                DenoiserConfig::UNet(config) => unet2d_condition(g, config, source, x, &conditions)?,
                DenoiserConfig::Sd3(config) => {
                    let pooled = whole.expect("its configuration has a width of pooled text");
                    let conditions = sd3_transformer::Conditions { timesteps: row, text, pooled };
                    sd3_transformer(g, config, source, x, &conditions)?
                }
            };
            g.scoped("guidance", |g| self.guided(g, y, step))
        };
        let keep = |g: &mut Graph, next: ValueId, step: ValueId| match (self.canvas, self.given()) {
            (StartFrom::Masked, Given::Text) => self.blend(g, next, step),
            _ => Ok(next),
        };
        step.graph(predict, keep)
    }

    /// The next sample where the mask is white, the given picture at the same level of noise elsewhere.
    fn blend(&self, g: &mut Graph, next: ValueId, step: ValueId) -> Result<ValueId> {
        let [h, w, c] = self.latent();
        let [slots, rows] = [g.shape(next)[0], self.start()?.table.rows.len()];
        let known = g.input("known", [self.batch, h, w, c], DType::F32);
        let noise = g.input("noise", [self.batch, h, w, c], DType::F32);
        let mask = g.input("mask", [1, h, w, 1], DType::F32);
        let levels = g.input("levels", [rows, 2], DType::F32);
        let level = g.gather(levels, step, 0)?;
        let at = |i: usize| [Range::all(), Range { start: i, stop: Some(i + 1), step: 1 }];
        let signal = g.slice(level, &at(0))?;
        let sigma = g.slice(level, &at(1))?;
        let [signal, sigma] = [g.reshape(signal, [1, 1, 1, 1])?, g.reshape(sigma, [1, 1, 1, 1])?];
        let (known, noise) = (g.mul(known, signal)?, g.mul(noise, sigma)?);
        let known = g.add(known, noise)?;
        let mut first = vec![0.0; slots];
        first[0] = 1.0;
        let first = g.weight("first", Tensor::from_f32([slots, 1, 1, 1, 1], &first));
        // Where the latent itself, not its history, is outside of the mask.
        let outside = g.affine(mask, -1.0, 1.0)?;
        let outside = g.mul(first, outside)?;
        let change = g.binary(Binary::Sub, known, next)?;
        let change = g.mul(outside, change)?;
        g.add(next, change)
    }
}

/// Sinusoids of `guidance − 1`, as consistency models are told it (Luo et al. 2023, arXiv:2310.04378).
pub(super) fn embedded_guidance(guidance: f32, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let angle = |i: usize| {
        let frequency = (-(10000f64.ln()) * i as f64 / (half - 1).max(1) as f64).exp();
        1000.0 * (f64::from(guidance) - 1.0) * frequency
    };
    let mut waves: Vec<f32> = (0..half).map(|i| angle(i).sin() as f32).collect();
    waves.extend((0..half).map(|i| angle(i).cos() as f32));
    waves.resize(dim, 0.0);
    waves
}

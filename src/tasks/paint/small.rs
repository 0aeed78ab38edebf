//! The ×4 upscaler's small picture: made noisy, and shown to the UNet in every step.

use image::RgbImage;

use super::Painter;
use super::parts::Parts;
use crate::diffusion::CpuGenerator;
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::latent_conditions::LowResolution;
use crate::tasks::sampling::{NoiseSource, padded};
use crate::tensor::{DType, Tensor};

/// Channels of a picture.
pub(super) const RGB: usize = 3;

impl Painter {
    /// Hands one small picture over for all of the batch, with each seed's own noise.
    pub(super) fn prepare_small(&self, small: &RgbImage, seeds: &[u64]) -> Result<()> {
        let parts = self.parts();
        let [h, w, _] = parts.latent();
        let noise = (self.options.noise == NoiseSource::Cpu).then(|| {
            let draw = |seed: &u64| channels_last(&CpuGenerator::new(*seed).normal(RGB * h * w), RGB);
            padded(seeds, self.batch()).iter().flat_map(draw).collect()
        });
        self.show_small(&[small], seeds, noise)
    }

    /// Hands small pictures over, one for all or one each, with unit noise `[n, h, w, 3]` or the seeds' own.
    pub(super) fn show_small(
        &self,
        smalls: &[&RgbImage],
        seeds: &[u64],
        noise: Option<Vec<f32>>,
    ) -> Result<()> {
        let parts = self.parts();
        let [h, w, _] = parts.latent();
        if let Some(wrong) = smalls.iter().find(|small| small.dimensions() != (w as u32, h as u32)) {
            return Err(Error::Invalid {
                what: "small picture".to_owned(),
                expected: format!("{w}×{h} pixels, a quarter of the result's sides"),
                found: format!("{}×{}", wrong.width(), wrong.height()),
            });
        }
        let network = Network::new(self.gpu(), &parts.small_graph(smalls.len(), noise.is_some())?)?;
        let plain = |byte: &u8| f32::from(*byte) / 127.5 - 1.0;
        let pixels: Vec<f32> = smalls.iter().flat_map(|small| small.as_raw()).map(plain).collect();
        network.write("picture", &Tensor::from_f32([smalls.len(), h, w, RGB], &pixels))?;
        match noise {
            Some(noise) => {
                network.write("noise", &Tensor::from_f32([self.batch(), h, w, RGB], &noise))?;
            }
            None => network.write("seeds", &self.around.seeds(seeds))?,
        }
        network.submit(1)?;
        self.around.step.copy("extra", &network, "extra")
    }
}

impl Parts<'_> {
    /// What the model says of its small picture's noise.
    pub(super) fn low_resolution(&self) -> Result<LowResolution> {
        self.model.low_resolution.clone().map_or_else(LowResolution::published, Ok)
    }

    /// Pictures from −1 to 1, and noise → what the UNet sees of them.
    fn small_graph(&self, pictures: usize, given_noise: bool) -> Result<Graph> {
        let mut g = Graph::new();
        let [h, w, _] = self.latent();
        let [signal, sigma] = self.low_resolution()?.signal_and_noise(self.options.noise_level)?;
        let picture = g.input("picture", [pictures, h, w, RGB], DType::F32);
        let noise = if given_noise {
            g.input("noise", [self.batch, h, w, RGB], DType::F32)
        } else {
            let seeds = g.input("seeds", [self.batch, 2], DType::U32);
            g.noise(seeds, [h, w, RGB], 0)?
        };
        let (picture, noise) = (g.affine(picture, signal, 0.0)?, g.affine(noise, sigma, 0.0)?);
        let extra = g.add(noise, picture)?;
        g.output("extra", extra);
        Ok(g)
    }
}

/// PyTorch's order of one picture, `[c, h, w]`, as `[h, w, c]`.
pub(super) fn channels_last(values: &[f32], channels: usize) -> Vec<f32> {
    let area = values.len() / channels;
    (0..values.len()).map(|at| values[at % channels * area + at / channels]).collect()
}

//! A picture to begin with: encoded, masked, brought to the noise of the first step.

use super::parts::Parts;
use super::{Canvas, PaintOptions, Painter, StartFrom};
use crate::diffusion::Start;
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::autoencoder_kl::{encode, sampled};
use crate::models::latent_diffusion::Given;
use crate::nn::Source;
use crate::tasks::sampling::NoiseSource;
use crate::tasks::sampling::padded;
use crate::tensor::{DType, Tensor};

impl Painter {
    /// Brings a canvas to the latents: encodes the picture and adds the noise that the first step begins with.
    pub(super) fn prepare(&self, canvas: Canvas, seeds: &[u64]) -> Result<()> {
        if self.canvas == StartFrom::Small {
            return self.prepare_small(canvas.picture, seeds);
        }
        let parts = self.parts();
        let network = Network::new(self.gpu(), &parts.prepare_graph(&self.start)?)?;
        let PaintOptions { height, width, .. } = self.options;
        let size = (width as u32, height as u32);
        let mismatch = |what: &str, found: (u32, u32)| Error::Invalid {
            what: what.to_owned(),
            expected: format!("{width}×{height} pixels, as the result"),
            found: format!("{}×{}", found.0, found.1),
        };
        if canvas.picture.dimensions() != size {
            return Err(mismatch("picture to begin with", canvas.picture.dimensions()));
        }
        let plain = |pixel: f32| pixel / 127.5 - 1.0;
        let picture: Vec<f32> = canvas.picture.iter().map(|&b| plain(f32::from(b))).collect();
        let shape = [1, height, width, 3];
        let masked = match (self.canvas, canvas.mask) {
            (StartFrom::Masked, Some(mask)) if mask.dimensions() == size => Some(mask),
            (StartFrom::Masked, Some(mask)) => return Err(mismatch("mask", mask.dimensions())),
            (StartFrom::Masked, None) => return Err(mismatch("mask", (0, 0))),
            _ => None,
        };
        if parts.encodes() {
            network.write("picture", &Tensor::from_f32(shape, &picture))?;
        }
        if let Some(mask) = masked {
            let factor = self.model.vae.config.factor();
            let [h, w, _] = parts.latent();
            let white =
                |x: usize, y: usize| f32::from(u8::from(mask.get_pixel(x as u32, y as u32).0[0] >= 128));
            let small: Vec<f32> = (0..h * w).map(|i| white(i % w * factor, i / w * factor)).collect();
            let small = Tensor::from_f32([1, h, w, 1], &small);
            if parts.given() == Given::Masked {
                network.write("mask", &small)?;
                let hole = |(i, v): (usize, &f32)| v * (1.0 - white(i / 3 % width, i / 3 / width));
                let outside: Vec<f32> = picture.iter().enumerate().map(hole).collect();
                network.write("outside", &Tensor::from_f32(shape, &outside))?;
            } else {
                self.around.step.write("mask", &small)?;
            }
        }
        match self.options.noise {
            NoiseSource::Cuda => network.write("seeds", &self.around.seeds(seeds))?,
            NoiseSource::Cpu => {
                let [h, w, c] = parts.latent();
                let seeds = padded(seeds, self.batch());
                for draw in 0..parts.draws().rows {
                    let noise = self.around.cpu_noise(&seeds, draw, 1);
                    let name = format!("noise{draw}");
                    if network.desc(&name).is_ok() {
                        network.write(&name, &Tensor::from_f32([seeds.len(), h, w, c], &noise))?;
                    }
                }
            }
        }
        network.submit(1)?;
        self.around.step.copy("sample", &network, "sample")?;
        if self.canvas == StartFrom::Masked {
            match parts.given() {
                Given::Masked => self.around.step.copy("extra", &network, "extra")?,
                _ => {
                    self.around.step.copy("known", &network, "known")?;
                    self.around.step.copy("noise", &network, "noise")?;
                    let levels: Vec<f32> = self.next_levels();
                    let rows = self.around.table.rows.len();
                    self.around.step.write("levels", &Tensor::from_f32([rows, 2], &levels))?;
                }
            }
        }
        Ok(())
    }

    /// How much signal and noise the sample has after each row.
    fn next_levels(&self) -> Vec<f32> {
        let rows = &self.around.table.rows;
        let after =
            |i: usize| rows.get(i + 1).map_or([1.0, 0.0], |row| [row.signal as f32, row.sigma as f32]);
        (0..rows.len()).flat_map(after).collect()
    }
}

impl Parts<'_> {
    /// A canvas → the first `sample`, and what the steps want of it: `known` and `noise`, or `extra`.
    fn prepare_graph(&self, start: &Start) -> Result<Graph> {
        let mut g = Graph::new();
        let vae = &self.model.vae;
        let PaintOptions { height, width, .. } = *self.options;
        let latent = self.latent();
        let [h, w, c] = latent;
        let source = Source { weights: &vae.weights, dtype: DType::F32 };
        let seeds =
            (self.options.noise == NoiseSource::Cuda).then(|| g.input("seeds", [self.batch, 2], DType::U32));
        let noise = |g: &mut Graph, draw: usize| match seeds {
            Some(seeds) => g.noise(seeds, latent, draw as u32),
            None => Ok(g.input(&format!("noise{draw}"), [self.batch, h, w, c], DType::F32)),
        };
        // A sample of what the encoder says of a picture, as the UNet sees it.
        let encoded = |g: &mut Graph, name: &str, draw: usize| {
            let picture = g.input(name, [1, height, width, vae.config.in_channels], DType::F32);
            let moments = g.scoped(name, |g| encode(g, &vae.config, source, picture))?;
            let noise = noise(g, draw)?;
            g.scoped(name, |g| sampled(g, &vae.config, moments, noise))
        };
        let draws = self.draws();
        let fresh = noise(&mut g, draws.start)?;
        let mut known = None;
        let mut first = g.affine(fresh, start.noise as f32, 0.0)?;
        if self.encodes() {
            let z = encoded(&mut g, "picture", 0)?;
            known = Some(z);
            if start.clean != 0.0 {
                let clean = g.affine(z, start.clean as f32, 0.0)?;
                first = g.add(clean, first)?;
            }
        }
        let mut slots = vec![0.0; 2 + start.table.history];
        slots[0] = 1.0;
        let slots = g.weight("slots", Tensor::from_f32([slots.len(), 1, 1, 1, 1], &slots));
        let sample = g.mul(first, slots)?;
        g.output("sample", sample);
        match (self.canvas, self.given(), known) {
            (StartFrom::Masked, Given::Masked, _) => {
                let outside = encoded(&mut g, "outside", draws.start + 1)?;
                let mask = g.input("mask", [1, h, w, 1], DType::F32);
                let mask = g.broadcast_to(mask, [self.batch, h, w, 1])?;
                let extra = g.concat(&[mask, outside], 3)?;
                g.output("extra", extra);
            }
            (StartFrom::Masked, _, Some(known)) => {
                g.output("known", known);
                let fresh = g.affine(fresh, 1.0, 0.0)?;
                g.output("noise", fresh);
            }
            _ => {}
        }
        Ok(g)
    }
}

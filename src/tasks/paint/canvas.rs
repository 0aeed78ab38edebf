//! A picture to begin with: encoded, masked, brought to the noise of the first step.

use super::bands::{Bands, Whole};
use super::memory::Turns;
use super::parts::Parts;
use super::{Canvas, PaintOptions, Painter, StartFrom};
use crate::diffusion::Start;
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::autoencoder::{AutoencoderConfig, encode};
use crate::models::autoencoder_kl::{encode_first, encode_rest, sampled};
use crate::models::latent_diffusion::Given;
use crate::nn::Source;
use crate::plan::{NetworkMemory, Plan};
use crate::target::Target;
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
        let Some(encoder) = &self.encoder else { return Ok(()) };
        if self.memory.turns == Turns::OneAtATime {
            self.around.step.set_aside()?;
        }
        let network = Network::aside(self.gpu(), encoder.rest.clone())?;
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
            encoder.tell(&network, "picture", &Tensor::from_f32(shape, &picture))?;
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
                encoder.tell(&network, "outside", &Tensor::from_f32(shape, &outside))?;
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
        drop(network);
        self.gpu().settle()
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
    /// A canvas → the first `sample`, and what the steps want of it: `known` and `noise`, or `extra`. Pictures are
    /// encoded from what [`encode_first`] makes of so many levels, or from the beginning.
    fn prepare_graph(&self, start: &Start, levels: Option<usize>) -> Result<Graph> {
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
            let z = match (levels, &vae.config) {
                (Some(levels), AutoencoderConfig::Kl(config)) => {
                    let channels = config.block_out_channels[levels - 1];
                    let features =
                        g.input(name, [1, height >> levels, width >> levels, channels], DType::F32);
                    let moments = g.scoped(name, |g| encode_rest(g, config, source, features, levels))?;
                    let noise = noise(g, draw)?;
                    g.scoped(name, |g| sampled(g, config, moments, noise))?
                }
                _ => {
                    let picture = g.input(name, [1, height, width, vae.config.in_channels()], DType::F32);
                    g.scoped(name, |g| encode(g, &vae.config, source, picture, |g| noise(g, draw)))?
                }
            };
            // What is not drawn is the same for all.
            g.broadcast_to(z, [self.batch, h, w, c])
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

    /// The encoder at once.
    pub(super) fn encoder(&self, start: &Start, target: &Target) -> Result<EncoderPlan> {
        Ok(EncoderPlan { rest: Plan::compile(&self.prepare_graph(start, None)?, target)?, bands: None })
    }

    /// The encoder in bands: as few of its levels as possible, in as few as fit, the rest at once.
    pub(super) fn encoder_in_bands(
        &self,
        start: &Start,
        target: &Target,
        fits: &dyn Fn(u64) -> bool,
    ) -> Result<Option<EncoderPlan>> {
        let vae = &self.model.vae;
        let AutoencoderConfig::Kl(config) = &vae.config else { return Ok(None) };
        let PaintOptions { height, width, .. } = *self.options;
        for levels in 1..config.block_out_channels.len() {
            let rest = match Plan::compile(&self.prepare_graph(start, Some(levels))?, target) {
                Ok(plan) if fits(plan.memory().peak) => plan,
                Ok(_) | Err(Error::Limit { .. }) => continue,
                Err(error) => return Err(error),
            };
            let whole = Whole { height, step: 1 << levels, margin: config.encoder_margin(levels) };
            let ports = rest.memory().ports;
            let bands = Bands::plan(
                target,
                whole,
                |memory| fits(ports + memory.peak),
                |lines| {
                    let mut g = Graph::new();
                    let source = Source { weights: &vae.weights, dtype: DType::F32 };
                    let x = g.input("picture", [1, lines, width, config.in_channels], DType::F32);
                    let features = encode_first(&mut g, config, source, x, levels)?;
                    g.output("features", features);
                    Ok(g)
                },
            )?;
            if let Some(bands) = bands {
                return Ok(Some(EncoderPlan { rest, bands: Some((levels, bands)) }));
            }
        }
        Ok(None)
    }
}

/// How pictures become latents.
#[derive(Clone, Debug)]
pub(super) struct EncoderPlan {
    /// All of it, or what is computed at once.
    pub rest: Plan,
    /// How many levels of resolution come before that, in bands.
    bands: Option<(usize, Bands)>,
}

impl EncoderPlan {
    pub fn memory(&self) -> NetworkMemory {
        let rest = self.rest.memory();
        match &self.bands {
            None => rest,
            Some((_, bands)) => {
                let most = bands.memory();
                let [held, peak] = [most.held, most.peak].map(|bytes| rest.ports + bytes);
                NetworkMemory { held: rest.held.max(held), peak: rest.peak.max(peak), ports: rest.ports }
            }
        }
    }

    pub fn bands(&self) -> Option<usize> {
        self.bands.as_ref().map(|(_, bands)| bands.count())
    }

    /// Gives the network a picture `[1, h, w, c]`, or what the bands make of it.
    fn tell(&self, network: &Network, name: &str, picture: &Tensor) -> Result<()> {
        let Some((levels, bands)) = &self.bands else { return network.write(name, picture) };
        bands.run(
            |plan| Network::aside(network.gpu(), plan),
            |band, lines| band.write("picture", &picture.lines(lines)),
            |band, lines, at| {
                let lines = lines.start >> levels..lines.end >> levels;
                network.copy_lines(name, at >> levels, band, "features", lines)
            },
        )
    }
}

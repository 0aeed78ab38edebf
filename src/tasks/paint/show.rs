//! From latents to pictures.

use image::RgbImage;

use super::bands::{Bands, Whole};
use super::memory::Turns;
use super::parts::Parts;
use crate::diffusion::Table;
use crate::engine::{Network, NotFinite};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::autoencoder::{AutoencoderConfig, decode};
use crate::models::autoencoder_kl::{AutoencoderKlConfig, decode_first, decode_rest};
use crate::models::latent_diffusion::Part;
use crate::nn::Source;
use crate::plan::{NetworkMemory, Plan};
use crate::target::Target;
use crate::tasks::sampling::{Show, bytes_to_pictures, count_faults, refuse_faults};
use crate::tensor::{DType, Tensor};

impl Parts<'_> {
    /// One picture of a sample, as an autoencoder shows it: input `which` says of which slot and picture.
    pub(super) fn show_graph(&self, table: &Table, vae: &Part<AutoencoderConfig>) -> Result<Graph> {
        self.shown(table, vae, |g, source, z| {
            let picture = decode(g, &vae.config, source, z)?;
            count_faults(g, z, picture)?;
            let picture = g.picture_from_tensor(picture, 0, 0.5, 0.5)?;
            g.output("picture", picture);
            Ok(())
        })
    }

    /// The part of it that is computed at once where the rest is in bands: as far as `decode_first` goes.
    fn first_graph(&self, table: &Table, config: &AutoencoderKlConfig, blocks: usize) -> Result<Graph> {
        self.shown(table, &self.model.vae, |g, source, z| {
            let features = decode_first(g, config, source, z, blocks)?;
            g.output("features", features);
            count_faults(g, z, features)?;
            Ok(())
        })
    }

    fn shown(
        &self,
        table: &Table,
        vae: &Part<AutoencoderConfig>,
        decode: impl FnOnce(&mut Graph, Source, ValueId) -> Result<()>,
    ) -> Result<Graph> {
        let [h, w, c] = self.latent();
        let slots = 2 + table.history;
        let mut g = Graph::new();
        let sample = g.input("sample", [slots, self.batch, h, w, c], DType::F32);
        let which = g.input("which", [1], DType::U32);
        let all = g.reshape(sample, [slots * self.batch, h, w, c])?;
        let z = g.gather(all, which, 0)?;
        let [scale, shift] = vae.config.scaling();
        let z = g.affine(z, 1.0 / scale, shift)?;
        let dtype = self.dtype_of(&vae.config);
        let z = g.cast(z, dtype)?;
        decode(&mut g, Source { weights: &vae.weights, dtype }, z)?;
        Ok(g)
    }

    fn dtype_of(&self, vae: &AutoencoderConfig) -> DType {
        if vae.force_upcast() { DType::F32 } else { self.options.dtype }
    }

    /// A band of the picture: the `lines` of the `features`.
    fn rest_graph(
        &self,
        config: &AutoencoderKlConfig,
        blocks: usize,
        features: &[usize],
        lines: usize,
    ) -> Result<Graph> {
        let vae = &self.model.vae;
        let dtype = self.dtype_of(&vae.config);
        let mut g = Graph::new();
        let features = g.input("features", features, dtype);
        let chosen = g.input("lines", [lines], DType::U32);
        let h = g.gather(features, chosen, 1)?;
        let picture = decode_rest(&mut g, config, Source { weights: &vae.weights, dtype }, h, blocks)?;
        // What is wrong before the bands was counted there.
        let none = g.weight("none", Tensor::from_f32([1], &[0.0]));
        count_faults(&mut g, none, picture)?;
        let picture = g.picture_from_tensor(picture, 0, 0.5, 0.5)?;
        g.output("picture", picture);
        Ok(g)
    }

    /// The decoder at once.
    pub(super) fn decoder(&self, table: &Table, target: &Target) -> Result<DecoderPlan> {
        Ok(DecoderPlan {
            first: Plan::compile(&self.show_graph(table, &self.model.vae)?, target)?,
            bands: None,
        })
    }

    /// The decoder in bands: as much of it at once as fits, the rest in as few as fit.
    pub(super) fn decoder_in_bands(
        &self,
        table: &Table,
        target: &Target,
        fits: &dyn Fn(u64) -> bool,
    ) -> Result<Option<DecoderPlan>> {
        // A tiny one needs little, and has no norms that see the whole picture.
        let AutoencoderConfig::Kl(config) = &self.model.vae.config else { return Ok(None) };
        for blocks in (0..config.block_out_channels.len()).rev() {
            let first = match Plan::compile(&self.first_graph(table, config, blocks)?, target) {
                Ok(plan) if fits(plan.memory().peak) => plan,
                Ok(_) | Err(Error::Limit { .. }) => continue,
                Err(error) => return Err(error),
            };
            let features = &first.outputs[0].desc.shape;
            let whole = Whole { height: features[1], step: 1, margin: config.decoder_margin(blocks) };
            let ports = first.memory().ports;
            // A band's network counts the features among its own.
            let shared = first.outputs[0].desc.bytes();
            let fits = |memory: NetworkMemory| fits(ports - shared + memory.peak);
            let graph = |lines| self.rest_graph(config, blocks, features, lines);
            if let Some(bands) = Bands::plan(target, whole, fits, graph)? {
                return Ok(Some(DecoderPlan { first, bands: Some(bands) }));
            }
        }
        Ok(None)
    }
}

/// How latents become pictures.
#[derive(Clone, Debug)]
pub(super) struct DecoderPlan {
    /// All of it, or what is computed at once.
    pub first: Plan,
    pub bands: Option<Bands>,
}

impl DecoderPlan {
    pub fn memory(&self) -> NetworkMemory {
        let first = self.first.memory();
        match &self.bands {
            None => first,
            Some(bands) => {
                let most = bands.memory();
                let ports = first.ports - self.first.outputs[0].desc.bytes();
                NetworkMemory {
                    held: first.held.max(ports + most.held),
                    peak: first.peak.max(ports + most.peak),
                    ports: first.ports,
                }
            }
        }
    }
}

/// The decoder on a device.
#[derive(Debug)]
pub(super) struct Decoder {
    gpu: Gpu,
    plan: DecoderPlan,
    turns: Turns,
    /// Kept where there is room for it.
    kept: Option<Network>,
}

impl Decoder {
    pub fn new(gpu: &Gpu, plan: DecoderPlan, turns: Turns) -> Result<Self> {
        let kept = match turns {
            Turns::Together if plan.bands.is_none() => Some(Network::from_plan(gpu, plan.first.clone())?),
            _ => None,
        };
        Ok(Decoder { gpu: gpu.clone(), plan, turns, kept })
    }

    /// Where what the decoder makes of a place of the sample stops being finite, if it does; in what is computed at once.
    pub fn watch(&self, step: &Network, at: u32) -> Result<Option<NotFinite>> {
        let network = Network::from_plan(&self.gpu, self.plan.first.clone())?;
        network.copy("sample", step, "sample")?;
        network.write("which", &Tensor::from_u32([1], &[at]))?;
        network.run_watched()
    }

    fn in_bands(&self, bands: &Bands, step: &Network, at: u32) -> Result<RgbImage> {
        let first = Network::aside(&self.gpu, self.plan.first.clone())?;
        first.copy("sample", step, "sample")?;
        first.write("which", &Tensor::from_u32([1], &[at]))?;
        first.submit(1)?;
        refuse_faults(&first)?;
        first.set_aside()?;
        let (mut bytes, mut width) = (Vec::new(), 0);
        bands.run(
            |plan| Network::beside(&self.gpu, plan, &[("features", &first, "features")]),
            |network, lines| {
                let lines: Vec<u32> = lines.map(|line| line as u32).collect();
                network.write("lines", &Tensor::from_u32([lines.len()], &lines))
            },
            |network, lines, _| {
                refuse_faults(network)?;
                let picture = bytes_to_pictures(&network.read("picture")?).remove(0);
                width = picture.width();
                // Of the picture, a whole number for each of the features.
                let factor = picture.height() as usize / bands.lines();
                let line = 3 * width as usize * factor;
                bytes.extend_from_slice(&picture.as_raw()[lines.start * line..lines.end * line]);
                Ok(())
            },
        )?;
        let height = (bytes.len() / 3) as u32 / width;
        Ok(RgbImage::from_raw(width, height, bytes).expect("as many bytes as pixels"))
    }
}

impl Show for Decoder {
    fn show(&self, step: &Network, at: &[u32]) -> Result<Vec<RgbImage>> {
        if let Some(network) = &self.kept {
            return network.show(step, at);
        }
        if self.turns == Turns::OneAtATime {
            step.set_aside()?;
        }
        let pictures = match &self.plan.bands {
            None => Network::from_plan(&self.gpu, self.plan.first.clone())?.show(step, at),
            Some(bands) => at.iter().map(|&at| self.in_bands(bands, step, at)).collect(),
        };
        // What was made for it goes before others come.
        self.gpu.settle()?;
        pictures
    }
}

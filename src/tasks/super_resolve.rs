//! Small pictures to large ones by latent diffusion without a text.

use image::RgbImage;

use super::sampling::{Draws, NoiseSource, Sampling, SamplingLoop, Step, count_faults};
use crate::diffusion::{Sampler, SigmaSchedule, Table};
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::super_resolution::SuperResolution;
use crate::models::unet2d::unet2d;
use crate::models::vq_model::decode;
use crate::nn::Source;
use crate::plan::Plan;
use crate::tensor::{DType, Tensor};

/// How pictures are enlarged; [`SuperResolveOptions::of`] gives a model's own.
#[derive(Clone, Debug, PartialEq)]
pub struct SuperResolveOptions {
    /// Of the small pictures, multiples of [`SuperResolution::multiple`].
    pub height: usize,
    pub width: usize,
    pub steps: usize,
    pub sampler: Sampler,
    pub sigmas: SigmaSchedule,
    pub noise: NoiseSource,
    /// Storage of weights and activations; latents are f32 always.
    pub dtype: DType,
}

impl SuperResolveOptions {
    pub fn of(model: &SuperResolution) -> Self {
        let [height, width] = model.unet.config.size().unwrap_or([128, 128]);
        SuperResolveOptions {
            height,
            width,
            steps: 100,
            sampler: model.sampler,
            sigmas: model.sigmas.clone(),
            noise: NoiseSource::Cuda,
            dtype: DType::F32,
        }
    }
}

/// A model on a device, ready to enlarge `batch` pictures of a size at a time.
#[derive(Debug)]
pub struct SuperResolver {
    model: SuperResolution,
    options: SuperResolveOptions,
    around: SamplingLoop,
    /// A sample → a picture of one of its latents.
    show: Network,
}

/// Channels of a picture.
const RGB: usize = 3;

impl SuperResolver {
    /// Compiles the model and uploads its weights.
    ///
    /// # Errors
    /// [`Error::Invalid`] for impossible options, and all of [`Network::new`].
    pub fn new(
        gpu: &Gpu,
        model: &SuperResolution,
        batch: usize,
        options: &SuperResolveOptions,
    ) -> Result<Self> {
        let SuperResolveOptions { height, width, dtype, noise, .. } = *options;
        let multiple = model.multiple();
        let fits = |side: usize| side > 0 && side.is_multiple_of(multiple);
        if batch == 0 || !fits(height) || !fits(width) {
            return Err(Error::Invalid {
                what: format!("batch and size of {}", model.name),
                expected: format!("at least 1, and multiples of {multiple}"),
                found: format!("{batch}, {width}×{height}"),
            });
        }
        if dtype == DType::F16 && !gpu.target().f16 {
            let device = gpu.target().name.clone();
            return Err(Error::Feature { device, feature: "16-bit floats", advice: "use f32" });
        }
        let table = Table::new(&model.schedule, options.sampler, options.sigmas.clone(), options.steps)?;
        let shape = [height, width, model.vqvae.config.width()];
        let step = Step { table: &table, batch, shape, copies: 1, dtype, noise, draws: Draws::default() };
        let predict = |g: &mut Graph, x: ValueId, row: ValueId, _| {
            let small = g.input("small", [batch, height, width, RGB], DType::F32);
            let small = g.cast(small, dtype)?;
            let x = g.concat(&[x, small], 3)?;
            unet2d(g, &model.unet.config, Source { weights: &model.unet.weights, dtype }, x, row, None)
        };
        let graph = step.graph(predict, |_, next, _| Ok(next))?;
        let plan = Plan::compile(&graph, gpu.target())?;
        Ok(SuperResolver {
            around: SamplingLoop::new(gpu, step, plan, 1.0)?,
            show: Network::new(gpu, &show_graph(model, options, step)?)?,
            model: model.clone(),
            options: options.clone(),
        })
    }

    pub fn model(&self) -> &SuperResolution {
        &self.model
    }

    pub fn options(&self) -> &SuperResolveOptions {
        &self.options
    }

    /// Begins to enlarge at most as many pictures as the batch has, each with a seed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for pictures of another size and for another number of seeds, and those of the device.
    pub fn start(&mut self, pictures: &[RgbImage], seeds: &[u64]) -> Result<Sampling<'_>> {
        let SuperResolveOptions { height, width, .. } = self.options;
        let batch = self.around.batch;
        let wrong = pictures.iter().find(|p| p.dimensions() != (width as u32, height as u32));
        if pictures.len() != seeds.len() || !(1..=batch).contains(&seeds.len()) || wrong.is_some() {
            return Err(Error::Invalid {
                what: "pictures to enlarge, and seeds".to_owned(),
                expected: format!("1 to {batch} of each, pictures of {width}×{height}"),
                found: match wrong {
                    Some(picture) => format!("a picture of {}×{}", picture.width(), picture.height()),
                    None => format!("{} and {}", pictures.len(), seeds.len()),
                },
            });
        }
        let mut pixels: Vec<f32> =
            pictures.iter().flat_map(|p| p.as_raw()).map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
        pixels.resize(batch * height * width * RGB, 0.0);
        self.around.step.write("small", &Tensor::from_f32([batch, height, width, RGB], &pixels))?;
        self.around.begin(seeds)?;
        Ok(Sampling {
            around: &self.around,
            show: &self.show,
            preview: None,
            description: format!("{} with {:?}, batch {batch}", self.model.name, self.options),
            labels: vec![0; seeds.len()],
            seeds: seeds.to_vec(),
            row: 0,
        })
    }
}

/// One picture of a sample: input `which` says of which slot and picture.
fn show_graph(model: &SuperResolution, options: &SuperResolveOptions, step: Step) -> Result<Graph> {
    let mut g = Graph::new();
    let ([h, w, c], slots) = (step.shape, 2 + step.table.history);
    let sample = g.input("sample", [slots, step.batch, h, w, c], DType::F32);
    let which = g.input("which", [1], DType::U32);
    let all = g.reshape(sample, [slots * step.batch, h, w, c])?;
    let z = g.gather(all, which, 0)?;
    let dtype = if model.vqvae.config.force_upcast { DType::F32 } else { options.dtype };
    let picture = decode(&mut g, &model.vqvae.config, Source { weights: &model.vqvae.weights, dtype }, z)?;
    count_faults(&mut g, z, picture)?;
    let picture = g.picture_from_tensor(picture, 0, 0.5, 0.5)?;
    g.output("picture", picture);
    Ok(g)
}

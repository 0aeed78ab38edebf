//! Pictures out of noise: a diffusion model, a sampler, and the runs of both on a device.

use std::path::Path;

use super::sampling::{Draws, NoiseSource, Sampling, SamplingLoop, Step, count_faults, padded};
use super::sampling_state::SamplingState;
use crate::diffusion::{NoiseSchedule, Sampler, ScheduleConfig, SigmaSchedule, Table};
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::files;
use crate::formats::diffusers;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::models::letters;
use crate::models::unet2d::{UNet2dConfig, unet2d};
use crate::nn::Source;
use crate::plan::Plan;
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// A trained model: network, schedule, and what its labels are called.
#[derive(Clone, Debug)]
pub struct DiffusionModel {
    name: String,
    labels: Vec<String>,
    /// The class that stands for "no label".
    unconditional: Option<u32>,
    guidance: f32,
    config: UNet2dConfig,
    schedule: NoiseSchedule,
    sampler: Sampler,
    sigmas: SigmaSchedule,
    weights: Weights,
}

impl DiffusionModel {
    /// The bundled model of capital letters and digits.
    pub fn letters() -> Result<Self> {
        Ok(DiffusionModel {
            name: "letters-unet".to_owned(),
            labels: letters::labels(),
            unconditional: Some(letters::labels().len() as u32),
            guidance: 2.0,
            config: UNet2dConfig::from_json(letters::UNET.config)?,
            schedule: NoiseSchedule::new(&ScheduleConfig::from_json(letters::UNET.scheduler)?)?,
            sampler: Sampler::DpmPlusPlus2M,
            sigmas: SigmaSchedule::Model,
            weights: letters::UNET.weights()?,
        })
    }

    /// A folder of diffusers with a `UNet2DModel`: either its own (`config.json` and weights, with
    /// `scheduler_config.json` beside them) or a pipeline's, with `unet/` and `scheduler/`.
    /// Classes are called by their numbers.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file, [`Error::Invalid`] and [`Error::Unknown`] for a setting that this crate
    /// does not have, [`Error::Format`] for broken files.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let network = match folder.join("unet").is_dir() {
            true => folder.join("unet"),
            false => folder.to_owned(),
        };
        let scheduler = match folder.join("scheduler").is_dir() {
            true => folder.join("scheduler/scheduler_config.json"),
            false => folder.join("scheduler_config.json"),
        };
        let config = UNet2dConfig::from_json(&files::text(&network.join("config.json"))?)?;
        let schedule = ScheduleConfig::from_json(&files::text(&scheduler)?)?;
        let weights = diffusers::weights(&network)?;
        let name =
            folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.display().to_string());
        Ok(DiffusionModel {
            name,
            labels: (0..config.num_class_embeds.unwrap_or(0)).map(|i| i.to_string()).collect(),
            unconditional: None,
            guidance: 1.0,
            config,
            sampler: Sampler::of_config(&schedule)?.unwrap_or(Sampler::DpmPlusPlus2M),
            sigmas: schedule.sigma_schedule()?,
            schedule: NoiseSchedule::new(&schedule)?,
            weights,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the model was trained with.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// What the model can be asked for; none if it takes no labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What this model is best sampled with.
    pub fn options(&self) -> GenerateOptions {
        GenerateOptions {
            // Those of score models make up for their coarse steps by the number.
            steps: self.schedule.score.as_ref().map_or(20, |score| score.num_train_timesteps),
            sampler: self.sampler,
            sigmas: self.sigmas.clone(),
            guidance: self.guidance,
            noise: NoiseSource::Cuda,
            dtype: DType::F32,
        }
    }

    /// The class of a label.
    ///
    /// # Errors
    /// [`Error::Unknown`], with all labels.
    pub fn label(&self, label: &str) -> Result<u32> {
        self.labels.iter().position(|l| l == label).map(|i| i as u32).ok_or_else(|| Error::Unknown {
            what: "label",
            found: label.to_owned(),
            expected: self.labels.join(" "),
        })
    }

    /// Height, width and channels of the pictures.
    fn shape(&self) -> Result<[usize; 3]> {
        let [height, width] = self.config.size()?;
        match (self.config.in_channels, self.config.out_channels) {
            (a, b) if a == b && matches!(a, 1 | 3) => Ok([height, width, a]),
            (a, b) => Err(Error::Invalid {
                what: "channels of the model".to_owned(),
                expected: "1 or 3, as many in as out".to_owned(),
                found: format!("{a} in, {b} out"),
            }),
        }
    }

    /// One step for `batch` pictures as a graph. Inputs `table`, `guidance`, `labels` if the model takes
    /// them, `seeds` if the sampler draws noise on the way;
    /// states `sample` (see [`crate::ops::DiffusionStep`]) and `step`, which counts the runs.
    ///
    /// # Errors
    /// [`Error::Invalid`] for impossible options, [`Error::MissingTensor`], [`Error::WrongTensor`].
    pub fn step_graph(&self, batch: usize, options: &GenerateOptions) -> Result<Graph> {
        let table = self.table(options)?;
        self.build_step(batch, options, &table)
    }

    fn table(&self, options: &GenerateOptions) -> Result<Table> {
        Table::new(&self.schedule, options.sampler, options.sigmas.clone(), options.steps)
    }

    /// How often the network sees each picture in a step: twice with guidance.
    fn copies(&self, options: &GenerateOptions) -> Result<usize> {
        match (options.guidance == 1.0, self.unconditional) {
            (true, _) => Ok(1),
            (false, Some(_)) if options.guidance.is_finite() => Ok(2),
            (false, unconditional) => Err(Error::Invalid {
                what: format!("guidance of {}", self.name),
                expected: match unconditional {
                    Some(_) => "a number".to_owned(),
                    None => "1: the model has no class that stands for no label".to_owned(),
                },
                found: options.guidance.to_string(),
            }),
        }
    }

    fn build_step(&self, batch: usize, options: &GenerateOptions, table: &Table) -> Result<Graph> {
        let step = self.step(batch, options, table)?;
        let predict = |g: &mut Graph, x, row, _| {
            let labels =
                (!self.labels.is_empty()).then(|| g.input("labels", [step.copies * batch], DType::U32));
            let source = Source { weights: &self.weights, dtype: options.dtype };
            unet2d(g, &self.config, source, x, row, labels)
        };
        step.graph(predict, |_, next, _| Ok(next))
    }

    fn step<'a>(&self, batch: usize, options: &GenerateOptions, table: &'a Table) -> Result<Step<'a>> {
        let copies = self.copies(options)?;
        let GenerateOptions { dtype, noise, .. } = *options;
        Ok(Step { table, batch, shape: self.shape()?, copies, dtype, noise, draws: Draws::default() })
    }
}

/// How pictures are made; [`DiffusionModel::options`] gives a model's own.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    pub steps: usize,
    pub sampler: Sampler,
    pub sigmas: SigmaSchedule,
    /// Scale of classifier-free guidance; 1 for none, which takes half the work.
    pub guidance: f32,
    pub noise: NoiseSource,
    /// Storage of weights and activations; the latent is always f32.
    pub dtype: DType,
}

/// A model on a device, ready to make `batch` pictures at a time.
#[derive(Debug)]
pub struct Generator {
    model: DiffusionModel,
    options: GenerateOptions,
    around: SamplingLoop,
    /// A sample → pictures of its latent and of its x0.
    show: Network,
}

impl Generator {
    /// Compiles the model and uploads its weights.
    ///
    /// # Errors
    /// [`Error::Invalid`] for impossible options, and all of [`Network::new`].
    pub fn new(gpu: &Gpu, model: &DiffusionModel, batch: usize, options: &GenerateOptions) -> Result<Self> {
        if batch == 0 {
            return Err(Error::Invalid {
                what: "batch".to_owned(),
                expected: "at least 1".to_owned(),
                found: "0".to_owned(),
            });
        }
        if options.dtype == DType::F16 && !gpu.target().f16 {
            return Err(Error::Feature {
                device: gpu.target().name.clone(),
                feature: "16-bit floats",
                advice: "use f32",
            });
        }
        let table = model.table(options)?;
        let step = model.step(batch, options, &table)?;
        let plan = Plan::compile(&model.build_step(batch, options, &table)?, gpu.target())?;
        Ok(Generator {
            around: SamplingLoop::new(gpu, step, plan, options.guidance)?,
            show: Network::new(gpu, &show_graph(batch, step.shape, &table, model.schedule.range())?)?,
            model: model.clone(),
            options: options.clone(),
        })
    }

    /// The same on another device, as after the loss of this one's. Runs go on there from their last
    /// [state](Sampling::state): [`Generator::resume`].
    ///
    /// # Errors
    /// As [`Generator::new`].
    pub fn rebuild(&self, gpu: &Gpu) -> Result<Self> {
        Self::new(gpu, &self.model, self.batch(), &self.options)
    }

    pub fn gpu(&self) -> &Gpu {
        self.around.gpu()
    }

    pub fn model(&self) -> &DiffusionModel {
        &self.model
    }

    pub fn options(&self) -> &GenerateOptions {
        &self.options
    }

    pub fn batch(&self) -> usize {
        self.around.batch
    }

    /// What one model call and step do: FLOPs, parameters, memory.
    pub fn plan(&self) -> &Plan {
        self.around.plan()
    }

    /// Evaluations of the model for a picture.
    pub fn model_calls(&self) -> usize {
        self.around.table.rows.len()
    }

    /// Begins a run of at most `batch` pictures, one for each label and seed. Labels are
    /// ignored if the model takes none.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a label, [`Error::Invalid`] for a wrong number of them.
    pub fn start<L: AsRef<str>>(&mut self, labels: &[L], seeds: &[u64]) -> Result<Sampling<'_>> {
        let labels = match self.model.labels.is_empty() {
            true => vec![0; seeds.len()],
            false => labels.iter().map(|l| self.model.label(l.as_ref())).collect::<Result<Vec<_>>>()?,
        };
        self.prepare(&labels, seeds)?;
        self.around.begin(seeds)?;
        Ok(self.sampling(labels, seeds.to_vec(), 0))
    }

    /// Begins a run from given latents `[n, h, w, c]` instead of noise: x of the first row, already scaled.
    ///
    /// # Errors
    /// As [`Generator::start`], and [`Error::Invalid`] for another shape.
    pub fn start_from<L: AsRef<str>>(
        &mut self,
        labels: &[L],
        seeds: &[u64],
        latents: &Tensor,
    ) -> Result<Sampling<'_>> {
        let expected = [&[seeds.len()][..], &self.model.shape()?].concat();
        if latents.desc.shape[..] != expected[..] {
            return Err(Error::Invalid {
                what: "latents".to_owned(),
                expected: format!("{expected:?}"),
                found: latents.desc.to_string(),
            });
        }
        let sampling = self.start(labels, seeds)?;
        sampling.around.begin_from(&latents.to_f32())?;
        Ok(sampling)
    }

    /// Continues a run where [`Sampling::state`] was taken; the pictures are the same to the last bit.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the state is of another model, other options or another batch.
    pub fn resume(&mut self, state: &SamplingState) -> Result<Sampling<'_>> {
        let own = self.description();
        if state.description != own {
            return Err(Error::Invalid {
                what: "saved run".to_owned(),
                expected: own,
                found: state.description.clone(),
            });
        }
        let classes = self.model.labels.len().max(1) as u32;
        let rows = self.around.table.rows.len();
        if state.row > rows || state.labels.iter().any(|&l| l >= classes) {
            return Err(Error::Invalid {
                what: "saved run".to_owned(),
                expected: format!("at most {rows} model calls, labels below {classes}"),
                found: format!("{}, labels {:?}", state.row, state.labels),
            });
        }
        self.prepare(&state.labels, &state.seeds)?;
        self.around.rewind(&state.seeds, state.row)?;
        self.around.step.write("sample", &state.sample)?;
        Ok(self.sampling(state.labels.clone(), state.seeds.clone(), state.row))
    }

    fn sampling(&self, labels: Vec<u32>, seeds: Vec<u64>, row: usize) -> Sampling<'_> {
        Sampling {
            around: &self.around,
            show: &self.show,
            preview: None,
            description: self.description(),
            labels,
            seeds,
            row,
        }
    }

    /// All that a saved run must agree with.
    fn description(&self) -> String {
        let GenerateOptions { steps, sampler, sigmas, guidance, noise, dtype } = &self.options;
        format!(
            "{} with {steps} steps of {sampler}, sigmas {sigmas}, guidance {guidance}, noise {noise:?}, {dtype}, batch {}",
            self.model.name, self.around.batch
        )
    }

    /// Uploads labels; what the batch has too many repeats the last.
    fn prepare(&self, labels: &[u32], seeds: &[u64]) -> Result<()> {
        let batch = self.around.batch;
        if seeds.is_empty() || seeds.len() > batch || labels.len() != seeds.len() {
            return Err(Error::Invalid {
                what: "labels and seeds of a run".to_owned(),
                expected: format!("as many of each, 1 to {batch}"),
                found: format!("{} labels, {} seeds", labels.len(), seeds.len()),
            });
        }
        if !self.model.labels.is_empty() {
            let copies = self.model.copies(&self.options)?;
            let mut all: Vec<u32> = padded(labels, batch);
            all.resize(copies * batch, self.model.unconditional.unwrap_or(0));
            self.around.step.write("labels", &Tensor::from_u32([all.len()], &all))?;
        }
        Ok(())
    }
}

/// Values from `low` to `high` to bytes, of all pictures in a slot.
fn show_graph(batch: usize, [h, w, c]: [usize; 3], table: &Table, [low, high]: [f64; 2]) -> Result<Graph> {
    let mut g = Graph::new();
    let slots = 2 + table.history;
    let sample = g.input("sample", [slots, batch, h, w, c], DType::F32);
    let which = g.input("which", [batch], DType::U32);
    let all = g.reshape(sample, [slots * batch, h, w, c])?;
    let shown = g.gather(all, which, 0)?;
    count_faults(&mut g, shown, shown)?;
    let scale = 1.0 / (high - low);
    let picture = g.picture_from_tensor(shown, 0, scale as f32, (-low * scale) as f32)?;
    g.output("picture", picture);
    Ok(g)
}

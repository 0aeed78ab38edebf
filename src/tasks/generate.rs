//! Pictures out of noise: a diffusion model, a sampler, and the runs of both on a device.

use std::path::Path;

use image::RgbImage;

use super::sampling_state::SamplingState;
use crate::diffusion::{
    CpuGenerator, NoiseSchedule, ROW_FLOATS, Row, Sampler, ScheduleConfig, SigmaSchedule, Table,
};
use crate::engine::Network;
use crate::error::{Error, Result};
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
        let config = UNet2dConfig::from_json(&read(&network.join("config.json"))?)?;
        let schedule = ScheduleConfig::from_json(&read(&scheduler)?)?;
        let weights = Weights::open(network.join("diffusion_pytorch_model.safetensors"))?;
        let name =
            folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.display().to_string());
        Ok(DiffusionModel {
            name,
            labels: (0..config.num_class_embeds.unwrap_or(0)).map(|i| i.to_string()).collect(),
            unconditional: None,
            guidance: 1.0,
            config,
            sampler: Sampler::of_config(&schedule).unwrap_or(Sampler::DpmPlusPlus2M),
            sigmas: schedule.sigma_schedule()?,
            schedule: NoiseSchedule::new(&schedule)?,
            weights,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the model can be asked for; none if it takes no labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What this model is best sampled with.
    pub fn options(&self) -> GenerateOptions {
        GenerateOptions {
            steps: 20,
            sampler: self.sampler,
            sigmas: self.sigmas,
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
        Table::new(&self.schedule, options.sampler, options.sigmas, options.steps)
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
        let [h, w, c] = self.shape()?;
        let copies = self.copies(options)?;
        let mut g = Graph::new();
        let rows = g.input("table", [table.rows.len(), ROW_FLOATS], DType::F32);
        let guidance = g.input("guidance", [1], DType::F32);
        let seeds = draws(table).then(|| g.input("seeds", [batch, 2], DType::U32));
        let labels = (!self.labels.is_empty()).then(|| g.input("labels", [copies * batch], DType::U32));
        let slots = [2 + table.history, batch, h, w, c];
        let sample = g.state("sample", Tensor::from_f32(slots, &vec![0.0; slots.iter().product()]));
        let step = g.state("step", Tensor::from_u32([1], &[0]));

        let row = g.scoped("row", |g| g.gather(rows, step, 0))?;
        let x = g.scoped("input", |g| g.diffusion_input(sample, row, copies))?;
        let x = g.cast(x, options.dtype)?;
        let source = Source { weights: &self.weights, dtype: options.dtype };
        let prediction = unet2d(&mut g, &self.config, source, x, row, labels)?;
        let next = g.scoped("step", |g| g.diffusion_step(sample, prediction, row, guidance, seeds))?;
        let count = g.scoped("count", |g| g.affine(step, 1.0, 1.0))?;
        g.update(sample, next)?;
        g.update(step, count)?;
        Ok(g)
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Whose random numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoiseSource {
    /// As `torch.Generator("cuda")`, drawn on the device.
    #[default]
    Cuda,
    /// As `torch.Generator("cpu")`, drawn on the host; for samplers that draw no noise on the way.
    Cpu,
}

/// How pictures are made; [`DiffusionModel::options`] gives a model's own.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    table: Table,
    batch: usize,
    /// Noise → the first sample.
    start: Network,
    /// A sample → the next.
    step: Network,
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
        if options.noise == NoiseSource::Cpu && draws(&table) {
            return Err(Error::Invalid {
                what: "sampler with noise of PyTorch's CPU generator".to_owned(),
                expected: "one that draws no noise on the way (ddim, euler, heun, dpm++2m)".to_owned(),
                found: options.sampler.to_string(),
            });
        }
        let step = Network::new(gpu, &model.build_step(batch, options, &table)?)?;
        let rows: Vec<f32> = table.rows.iter().flat_map(Row::to_f32).collect();
        step.write("table", &Tensor::from_f32([table.rows.len(), ROW_FLOATS], &rows))?;
        step.write("guidance", &Tensor::from_f32([1], &[options.guidance]))?;
        let shape = model.shape()?;
        Ok(Generator {
            start: Network::new(gpu, &start_graph(batch, shape, &table)?)?,
            show: Network::new(gpu, &show_graph(batch, shape, &table)?)?,
            step,
            table,
            batch,
            model: model.clone(),
            options: *options,
        })
    }

    pub fn gpu(&self) -> &Gpu {
        self.step.gpu()
    }

    pub fn model(&self) -> &DiffusionModel {
        &self.model
    }

    pub fn options(&self) -> &GenerateOptions {
        &self.options
    }

    pub fn batch(&self) -> usize {
        self.batch
    }

    /// What one model call and step do: FLOPs, parameters, memory.
    pub fn plan(&self) -> &Plan {
        self.step.plan()
    }

    /// Evaluations of the model for a picture.
    pub fn model_calls(&self) -> usize {
        self.table.rows.len()
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
        match self.options.noise {
            NoiseSource::Cuda => {
                self.start.write("seeds", &self.seeds(seeds))?;
                self.start.submit(1)?;
                self.step.copy("sample", &self.start, "sample")?;
            }
            NoiseSource::Cpu => self.step.write("sample", &self.cpu_noise(seeds)?)?,
        }
        self.step.write("step", &Tensor::from_u32([1], &[0]))?;
        Ok(Sampling { generator: self, labels, seeds: seeds.to_vec(), row: 0 })
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
        let sample = self.sample_of(&latents.to_f32())?;
        let mut sampling = self.start(labels, seeds)?;
        sampling.generator.step.write("sample", &sample)?;
        sampling.row = 0;
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
        if state.row > self.table.rows.len() || state.labels.iter().any(|&l| l >= classes) {
            return Err(Error::Invalid {
                what: "saved run".to_owned(),
                expected: format!("at most {} model calls, labels below {classes}", self.table.rows.len()),
                found: format!("{}, labels {:?}", state.row, state.labels),
            });
        }
        self.prepare(&state.labels, &state.seeds)?;
        self.step.write("sample", &state.sample)?;
        self.step.write("step", &Tensor::from_u32([1], &[state.row as u32]))?;
        let (labels, seeds, row) = (state.labels.clone(), state.seeds.clone(), state.row);
        Ok(Sampling { generator: self, labels, seeds, row })
    }

    /// All that a saved run must agree with.
    fn description(&self) -> String {
        let GenerateOptions { steps, sampler, sigmas, guidance, noise, dtype } = self.options;
        format!(
            "{} with {steps} steps of {sampler}, sigmas {sigmas}, guidance {guidance}, noise {noise:?}, {dtype}, batch {}",
            self.model.name, self.batch
        )
    }

    /// Uploads labels and seeds; what the batch has too many repeats the last.
    fn prepare(&self, labels: &[u32], seeds: &[u64]) -> Result<()> {
        if seeds.is_empty() || seeds.len() > self.batch || labels.len() != seeds.len() {
            return Err(Error::Invalid {
                what: "labels and seeds of a run".to_owned(),
                expected: format!("as many of each, 1 to {}", self.batch),
                found: format!("{} labels, {} seeds", labels.len(), seeds.len()),
            });
        }
        if draws(&self.table) {
            self.step.write("seeds", &self.seeds(seeds))?;
        }
        if !self.model.labels.is_empty() {
            let copies = self.model.copies(&self.options)?;
            let mut all: Vec<u32> = padded(labels, self.batch);
            all.resize(copies * self.batch, self.model.unconditional.unwrap_or(0));
            self.step.write("labels", &Tensor::from_u32([all.len()], &all))?;
        }
        Ok(())
    }

    fn seeds(&self, seeds: &[u64]) -> Tensor {
        let words: Vec<u32> =
            padded(seeds, self.batch).iter().flat_map(|&s| [s as u32, (s >> 32) as u32]).collect();
        Tensor::from_u32([self.batch, 2], &words)
    }

    fn cpu_noise(&self, seeds: &[u64]) -> Result<Tensor> {
        let [h, w, c] = self.model.shape()?;
        let mut latents = Vec::with_capacity(seeds.len() * h * w * c);
        for &seed in seeds {
            let noise = CpuGenerator::new(seed).normal(h * w * c);
            for pixel in 0..h * w {
                let scaled =
                    |channel: usize| noise[channel * h * w + pixel] * self.table.init_noise_scale as f32;
                latents.extend((0..c).map(scaled));
            }
        }
        self.sample_of(&latents)
    }

    /// A first sample of the given latents: an empty history, zeros for what the batch has too many.
    fn sample_of(&self, latents: &[f32]) -> Result<Tensor> {
        let [h, w, c] = self.model.shape()?;
        let shape = [2 + self.table.history, self.batch, h, w, c];
        let mut values = vec![0.0; shape.iter().product()];
        values[..latents.len()].copy_from_slice(latents);
        Ok(Tensor::from_f32(shape, &values))
    }
}

/// Whether a sampler draws noise on the way.
fn draws(table: &Table) -> bool {
    table.rows.iter().any(|row| row.draw > 0)
}

fn padded<T: Copy>(values: &[T], n: usize) -> Vec<T> {
    let mut values = values.to_vec();
    if let Some(&last) = values.last() {
        values.resize(n, last);
    }
    values
}

/// Noise of each seed at the first row's level, and an empty history.
fn start_graph(batch: usize, shape: [usize; 3], table: &Table) -> Result<Graph> {
    let mut g = Graph::new();
    let slots = 2 + table.history;
    let seeds = g.input("seeds", [batch, 2], DType::U32);
    let noise = g.noise(seeds, shape, 0)?;
    let mut scales = vec![0.0; slots];
    scales[0] = table.init_noise_scale as f32;
    let scales = g.weight("scales", Tensor::from_f32([slots, 1, 1, 1, 1], &scales));
    let sample = g.mul(noise, scales)?;
    g.output("sample", sample);
    Ok(g)
}

/// −1..1 to bytes: of the latent (`picture`) and of the last x0 (`preview`).
fn show_graph(batch: usize, [h, w, c]: [usize; 3], table: &Table) -> Result<Graph> {
    let mut g = Graph::new();
    let sample = g.input("sample", [2 + table.history, batch, h, w, c], DType::F32);
    let picture = g.picture_from_tensor(sample, 0, 0.5, 0.5)?;
    let preview = g.picture_from_tensor(sample, 1, 0.5, 0.5)?;
    g.output("picture", picture);
    g.output("preview", preview);
    Ok(g)
}

/// A run under way: pictures between noise and done. Steps are submitted without
/// waiting for them; what reads pictures or the state waits.
#[derive(Debug)]
pub struct Sampling<'a> {
    generator: &'a mut Generator,
    labels: Vec<u32>,
    seeds: Vec<u64>,
    /// Rows of the table that were submitted.
    row: usize,
}

impl Sampling<'_> {
    /// Steps that the whole run has.
    pub fn steps(&self) -> usize {
        self.generator.table.steps
    }

    /// Steps submitted so far.
    pub fn steps_done(&self) -> usize {
        self.row.div_ceil(self.generator.options.sampler.calls_per_step())
    }

    pub fn is_done(&self) -> bool {
        self.row == self.generator.table.rows.len()
    }

    /// Submits the next step, if there is one, and returns what [`Gpu::wait`] can wait for.
    pub fn step(&mut self) -> Result<Option<wgpu::SubmissionIndex>> {
        self.submit(self.generator.options.sampler.calls_per_step())
    }

    /// Submits all that is left.
    pub fn run(&mut self) -> Result<()> {
        self.submit(usize::MAX).map(drop)
    }

    fn submit(&mut self, rows: usize) -> Result<Option<wgpu::SubmissionIndex>> {
        let rows = rows.min(self.generator.table.rows.len() - self.row);
        if rows == 0 {
            return Ok(None);
        }
        let submission = self.generator.step.submit(rows)?;
        self.row += rows;
        Ok(Some(submission))
    }

    /// The pictures as they would be if the noise left were none of theirs (the model's x0).
    pub fn preview(&self) -> Result<Vec<RgbImage>> {
        // Before the first step there is no x0.
        self.show(if self.row == 0 { "picture" } else { "preview" })
    }

    /// Finishes the run and reads the pictures.
    pub fn pictures(&mut self) -> Result<Vec<RgbImage>> {
        self.run()?;
        self.show("picture")
    }

    fn show(&self, output: &str) -> Result<Vec<RgbImage>> {
        let show = &self.generator.show;
        show.copy("sample", &self.generator.step, "sample")?;
        show.submit(1)?;
        let words = show.read(output)?;
        let [_, h, w] = words.desc.shape[..] else { unreachable!("pictures are [n, h, w]") };
        let pictures = words.bytes.chunks_exact(4 * h * w).take(self.seeds.len()).map(|bytes| {
            RgbImage::from_fn(w as u32, h as u32, |x, y| {
                let at = 4 * (y as usize * w + x as usize);
                image::Rgb([bytes[at], bytes[at + 1], bytes[at + 2]])
            })
        });
        Ok(pictures.collect())
    }

    /// The latents as they are now, `[n, h, w, c]`, f32.
    pub fn latents(&self) -> Result<Tensor> {
        let sample = self.generator.step.read("sample")?;
        let [_, _, h, w, c] = sample.desc.shape[..] else { unreachable!("samples have five dimensions") };
        let n = self.seeds.len();
        Ok(Tensor::from_f32([n, h, w, c], &sample.to_f32()[..n * h * w * c]))
    }

    /// All that the run needs to go on later, or elsewhere.
    pub fn state(&self) -> Result<SamplingState> {
        Ok(SamplingState {
            description: self.generator.description(),
            labels: self.labels.clone(),
            seeds: self.seeds.clone(),
            row: self.row,
            sample: self.generator.step.read("sample")?,
        })
    }
}

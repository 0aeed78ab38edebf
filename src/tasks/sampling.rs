//! The loop of diffusion on a device: noise, then step after step. The same for pictures and for latents.

use image::RgbImage;

use super::correction;
use super::sampling_state::SamplingState;
use crate::diffusion::{CpuGenerator, ROW_FLOATS, Row, Table};
use crate::engine::Network;
use crate::error::{Error, Part, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::nn::count_not_finite;
use crate::ops::strided::Range;
use crate::plan::Plan;
use crate::tensor::{DType, Tensor};

/// Whose random numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoiseSource {
    /// As `torch.Generator("cuda")`, drawn on the device.
    #[default]
    Cuda,
    /// As `torch.Generator("cpu")`, drawn on the host.
    Cpu,
}

/// How many tensors of noise a sampler draws on the way.
fn draws(table: &Table) -> usize {
    table.rows.iter().map(|row| row.draw as usize).max().unwrap_or(0)
}

/// What one step is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub table: &'a Table,
    pub batch: usize,
    /// Height, width and channels of what is sampled.
    pub shape: [usize; 3],
    /// How often the network sees each picture: twice for guidance.
    pub copies: usize,
    /// Storage of activations; what is sampled is always f32.
    pub dtype: DType,
    pub noise: NoiseSource,
    pub draws: Draws,
}

/// Which tensors of a seed's generator are used, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Draws {
    /// For the first sample.
    pub start: usize,
    /// For the first row that draws noise; others follow.
    pub rows: usize,
    /// Numbers of the very first tensor where it is of another size than the sample, else 0.
    pub odd: usize,
}

impl Default for Draws {
    fn default() -> Self {
        Draws { start: 0, rows: 1, odd: 0 }
    }
}

impl Step<'_> {
    /// Shape of the sample, see [`crate::ops::DiffusionStep`].
    fn slots(&self) -> [usize; 5] {
        let [h, w, c] = self.shape;
        [2 + self.table.history, self.batch, h, w, c]
    }

    /// The step as a graph. Inputs `table`, `guidance`, `seeds` (or `noises` and `draws`) if the sampler draws noise
    /// on the way, and those of `predict`, which gives the network's answer to its input `[copies · batch, h, w, c]`, the table's row and the number of the step.
    /// States `sample` and `step`, which counts the runs. `keep` may change each next sample, knowing the number of the step.
    pub fn graph(
        &self,
        predict: impl FnOnce(&mut Graph, ValueId, ValueId, ValueId) -> Result<ValueId>,
        keep: impl FnOnce(&mut Graph, ValueId, ValueId) -> Result<ValueId>,
    ) -> Result<Graph> {
        let mut g = Graph::new();
        let rows = g.input("table", [self.table.rows.len(), ROW_FLOATS], DType::F32);
        let guidance = g.input("guidance", [1], DType::F32);
        let draws = draws(self.table);
        let on_device = draws > 0 && self.noise == NoiseSource::Cuda;
        let seeds = on_device.then(|| g.input("seeds", [self.batch, 2], DType::U32));
        let slots = self.slots();
        let sample = g.state("sample", Tensor::from_f32(slots, &vec![0.0; slots.iter().product()]));
        let step = g.state("step", Tensor::from_u32([1], &[0]));

        let row = g.scoped("row", |g| g.gather(rows, step, 0))?;
        let x = g.scoped("input", |g| g.diffusion_input(sample, row, self.copies))?;
        let x = g.cast(x, self.dtype)?;
        let mut prediction = predict(&mut g, x, row, step)?;
        let given = match draws > 0 && self.noise == NoiseSource::Cpu {
            true => Some(g.scoped("noise", |g| self.given_noise(g, step))?),
            false => None,
        };
        let mut rates = None;
        if self.table.rows.iter().any(|row| row.correct > 0.0) {
            g.enter("rates");
            if self.copies > 1 {
                prediction = correction::guided(&mut g, prediction, guidance)?;
            }
            let noise = match (given, seeds) {
                (Some(noise), _) => noise,
                (None, Some(seeds)) => g.noise_of_row(seeds, self.shape, row)?,
                (None, None) => unreachable!("what corrects draws noise"),
            };
            rates = Some(correction::rates(&mut g, prediction, noise, row)?);
            g.leave();
        }
        let next = g.scoped("step", |g| g.diffusion_step(sample, prediction, row, guidance, seeds, rates))?;
        let next = match given {
            Some(noise) => g.scoped("noise", |g| self.add_noise(g, next, noise, row, rates))?,
            None => next,
        };
        let next = g.scoped("keep", |g| keep(g, next, step))?;
        let count = g.scoped("count", |g| g.affine(step, 1.0, 1.0))?;
        g.update(sample, next)?;
        g.update(step, count)?;
        Ok(g)
    }

    /// Unit noise of this step that the host has drawn, `[1, n, h, w, c]`.
    fn given_noise(&self, g: &mut Graph, step: ValueId) -> Result<ValueId> {
        let [h, w, c] = self.shape;
        let noises = g.input("noises", [draws(self.table), self.batch, h, w, c], DType::F32);
        let draws = g.input("draws", [self.table.rows.len()], DType::U32);
        let draw = g.gather(draws, step, 0)?;
        g.gather(noises, draw, 0)
    }

    /// The sample with that noise.
    fn add_noise(
        &self,
        g: &mut Graph,
        sample: ValueId,
        noise: ValueId,
        row: ValueId,
        rates: Option<ValueId>,
    ) -> Result<ValueId> {
        let scale = g.slice(row, &[Range::all(), number(NOISE)])?;
        let scale = g.reshape(scale, [1, 1, 1, 1, 1])?;
        let scale = match rates {
            Some(rates) => {
                let rate = g.slice(rates, &[Range::all(), number(1)])?;
                let rate = g.reshape(rate, [1, self.batch, 1, 1, 1])?;
                g.mul(scale, rate)?
            }
            None => scale,
        };
        let mut first = vec![0.0; self.slots()[0]];
        first[0] = 1.0;
        let first = g.weight("first", Tensor::from_f32([first.len(), 1, 1, 1, 1], &first));
        let scale = g.mul(first, scale)?;
        let noise = g.mul(scale, noise)?;
        g.add(sample, noise)
    }
}

/// Where a row has the scale of its noise, see [`Row::to_f32`].
const NOISE: usize = 12;

/// One place of an axis.
pub(super) fn number(at: usize) -> Range {
    Range { start: at, stop: Some(at + 1), step: 1 }
}

/// A step's network and the table that it walks along.
#[derive(Debug)]
pub(super) struct SamplingLoop {
    pub table: Table,
    pub batch: usize,
    shape: [usize; 3],
    noise: NoiseSource,
    draws: Draws,
    calls_per_step: usize,
    /// Noise → the first sample.
    start: Network,
    /// A sample → the next.
    pub step: Network,
}

impl SamplingLoop {
    /// Loads a step, the plan of a [`Step::graph`].
    pub fn new(gpu: &Gpu, step: Step, plan: Plan, guidance: f32) -> Result<Self> {
        let network = Network::from_plan(gpu, plan)?;
        let table = step.table;
        let count = table.rows.len();
        let row = |row: &Row| {
            let skipped = if row.draw > 0 { step.draws.rows as u32 - 1 } else { 0 };
            Row { draw: row.draw + skipped, ..*row }.to_f32()
        };
        let rows: Vec<f32> = table.rows.iter().flat_map(row).collect();
        network.write("table", &Tensor::from_f32([count, ROW_FLOATS], &rows))?;
        network.write("guidance", &Tensor::from_f32([1], &[guidance]))?;
        if draws(table) > 0 && step.noise == NoiseSource::Cpu {
            let draws: Vec<u32> = table.rows.iter().map(|row| row.draw.saturating_sub(1)).collect();
            network.write("draws", &Tensor::from_u32([count], &draws))?;
        }
        Ok(SamplingLoop {
            start: Network::new(gpu, &start_graph(step)?)?,
            step: network,
            table: table.clone(),
            batch: step.batch,
            shape: step.shape,
            noise: step.noise,
            draws: step.draws,
            calls_per_step: step.table.calls_per_step(),
        })
    }

    pub fn gpu(&self) -> &Gpu {
        self.step.gpu()
    }

    pub fn plan(&self) -> &Plan {
        self.step.plan()
    }

    /// Puts noise of these seeds in the first sample's place.
    pub fn begin(&self, seeds: &[u64]) -> Result<()> {
        self.rewind(seeds, 0)?;
        match self.noise {
            NoiseSource::Cuda => {
                self.start.write("seeds", &self.seeds(seeds))?;
                self.start.submit(1)?;
                self.step.copy("sample", &self.start, "sample")
            }
            NoiseSource::Cpu => {
                let scale = self.table.init_noise_scale as f32;
                let noise = self.cpu_noise(seeds, self.draws.start, 1);
                self.begin_from(&noise.iter().map(|v| v * scale).collect::<Vec<_>>())
            }
        }
    }

    /// Puts latents `[n, h, w, c]` in the first sample's place: an empty history, zeros for what the batch has too many.
    pub fn begin_from(&self, latents: &[f32]) -> Result<()> {
        let [h, w, c] = self.shape;
        let shape = [2 + self.table.history, self.batch, h, w, c];
        let mut values = vec![0.0; shape.iter().product()];
        values[..latents.len()].copy_from_slice(latents);
        self.step.write("sample", &Tensor::from_f32(shape, &values))
    }

    /// Uploads the seeds and where in the table the run stands.
    pub fn rewind(&self, seeds: &[u64], row: usize) -> Result<()> {
        if seeds.is_empty() || seeds.len() > self.batch {
            return Err(Error::Invalid {
                what: "seeds of a run".to_owned(),
                expected: format!("1 to {}", self.batch),
                found: seeds.len().to_string(),
            });
        }
        let draws = draws(&self.table);
        match self.noise {
            NoiseSource::Cuda if draws > 0 => self.step.write("seeds", &self.seeds(seeds))?,
            NoiseSource::Cpu if draws > 0 => {
                let [h, w, c] = self.shape;
                let noise = self.cpu_noise(&padded(seeds, self.batch), self.draws.rows, draws);
                self.step.write("noises", &Tensor::from_f32([draws, self.batch, h, w, c], &noise))?;
            }
            _ => {}
        }
        self.step.write("step", &Tensor::from_u32([1], &[row as u32]))
    }

    pub fn seeds(&self, seeds: &[u64]) -> Tensor {
        let words: Vec<u32> =
            padded(seeds, self.batch).iter().flat_map(|&s| [s as u32, (s >> 32) as u32]).collect();
        Tensor::from_u32([self.batch, 2], &words)
    }

    /// Unit noise of PyTorch's CPU generators, `[draws, n, h, w, c]`, after `skip` tensors of that size.
    pub fn cpu_noise(&self, seeds: &[u64], skip: usize, draws: usize) -> Vec<f32> {
        let [h, w, c] = self.shape;
        let size = h * w * c;
        let mut all = vec![0.0; draws * seeds.len() * size];
        for (i, &seed) in seeds.iter().enumerate() {
            let mut generator = CpuGenerator::new(seed);
            for draw in 0..skip {
                let odd = draw == 0 && self.draws.odd > 0;
                let _ = generator.normal(if odd { self.draws.odd } else { size });
            }
            for draw in 0..draws {
                let noise = generator.normal(size);
                let place = &mut all[(draw * seeds.len() + i) * size..][..size];
                for (at, value) in place.iter_mut().enumerate() {
                    *value = noise[at % c * h * w + at / c];
                }
            }
        }
        all
    }
}

/// As many as the batch has; the last is repeated.
pub(super) fn padded<T: Copy>(values: &[T], n: usize) -> Vec<T> {
    let mut values = values.to_vec();
    if let Some(&last) = values.last() {
        values.resize(n, last);
    }
    values
}

/// Noise of each seed at the first row's level, and an empty history.
pub(super) fn start_graph(step: Step) -> Result<Graph> {
    let mut g = Graph::new();
    let [slots, batch, ..] = step.slots();
    let seeds = g.input("seeds", [batch, 2], DType::U32);
    let noise = g.noise(seeds, step.shape, step.draws.start as u32)?;
    let mut scales = vec![0.0; slots];
    scales[0] = step.table.init_noise_scale as f32;
    let scales = g.weight("scales", Tensor::from_f32([slots, 1, 1, 1, 1], &scales));
    let sample = g.mul(noise, scales)?;
    g.output("sample", sample);
    Ok(g)
}

/// Turns samples into pictures.
pub(super) trait Show: std::fmt::Debug {
    /// Those of the network's `sample` `[slots, n, …]` at these of its `slots · n` places.
    fn show(&self, step: &Network, at: &[u32]) -> Result<Vec<RgbImage>>;
}

/// A `sample` and `which` of its slots and pictures → `picture`.
impl Show for Network {
    fn show(&self, step: &Network, at: &[u32]) -> Result<Vec<RgbImage>> {
        self.copy("sample", step, "sample")?;
        let together = self.desc("picture")?.shape[0];
        let mut pictures = Vec::new();
        for at in at.chunks(together) {
            self.write("which", &Tensor::from_u32([together], &padded(at, together)))?;
            self.submit(1)?;
            refuse_faults(self)?;
            pictures.extend(bytes_to_pictures(&self.read("picture")?));
        }
        pictures.truncate(at.len());
        Ok(pictures)
    }
}

/// Counts what is not finite in latents and in the pictures that a network makes of them: its output `faults`.
pub(super) fn count_faults(g: &mut Graph, latents: ValueId, picture: ValueId) -> Result<()> {
    let latents = count_not_finite(g, latents)?;
    let picture = count_not_finite(g, picture)?;
    let faults = g.concat(&[latents, picture], 0)?;
    g.output("faults", faults);
    Ok(())
}

/// Refuses pictures that hold what is no number; they would be black in places, or all over.
pub(super) fn refuse_faults(network: &Network) -> Result<()> {
    let faults = network.read("faults")?.to_f32();
    let part = match faults[..] {
        [latents, _] if latents > 0.0 => Part::Denoiser,
        [_, picture] if picture > 0.0 => Part::Decoder,
        _ => return Ok(()),
    };
    Err(Error::NotFinite { part, first: None })
}

/// A run under way: pictures between noise and done. Steps are submitted without
/// waiting for them; what reads pictures or the state waits.
#[derive(Debug)]
pub struct Sampling<'a> {
    pub(super) around: &'a SamplingLoop,
    pub(super) show: &'a dyn Show,
    /// The same for previews, if they are made otherwise.
    pub(super) preview: Option<&'a dyn Show>,
    /// All that a saved run must agree with.
    pub(super) description: String,
    pub(super) labels: Vec<u32>,
    pub(super) seeds: Vec<u64>,
    /// Rows of the table that were submitted.
    pub(super) row: usize,
}

impl Sampling<'_> {
    pub fn gpu(&self) -> &Gpu {
        self.around.gpu()
    }

    /// Steps that the whole run has.
    pub fn steps(&self) -> usize {
        self.around.table.steps
    }

    /// Steps submitted so far.
    pub fn steps_done(&self) -> usize {
        self.steps_of(self.row)
    }

    /// The steps that so many evaluations of the model are.
    pub fn steps_of(&self, rows: usize) -> usize {
        rows.div_ceil(self.around.calls_per_step)
    }

    pub fn is_done(&self) -> bool {
        self.row == self.around.table.rows.len()
    }

    /// Submits the next step, if there is one, and returns what [`Gpu::wait`] can wait for.
    pub fn step(&mut self) -> Result<Option<wgpu::SubmissionIndex>> {
        self.submit(self.around.calls_per_step)
    }

    /// Submits all that is left.
    pub fn run(&mut self) -> Result<()> {
        self.submit(usize::MAX).map(drop)
    }

    /// Steps to the end, and gives `keep` the state after every so many steps, which are waited for: a run whose device is
    /// lost goes on from the last of them, on another device, to the same bits.
    ///
    /// # Errors
    /// Those of the device.
    pub fn run_keeping(&mut self, every: usize, keep: &mut dyn FnMut(SamplingState)) -> Result<()> {
        while !self.is_done() {
            self.submit(self.around.calls_per_step.saturating_mul(every.max(1)))?;
            keep(self.state()?);
        }
        Ok(())
    }

    fn submit(&mut self, rows: usize) -> Result<Option<wgpu::SubmissionIndex>> {
        let rows = rows.min(self.around.table.rows.len() - self.row);
        if rows == 0 {
            return Ok(None);
        }
        let submission = self.around.step.submit(rows)?;
        self.row += rows;
        Ok(Some(submission))
    }

    /// The pictures as they would be if the noise left were none of theirs (the model's x0).
    pub fn preview(&self) -> Result<Vec<RgbImage>> {
        // Before the first step there is no x0.
        self.show_with(self.preview.unwrap_or(self.show), usize::from(self.row > 0))
    }

    /// Finishes the run and reads the pictures.
    pub fn pictures(&mut self) -> Result<Vec<RgbImage>> {
        self.run()?;
        self.show_with(self.show, 0)
    }

    /// Pictures of a slot of the sample: 0 is the latent, 1 its x0.
    fn show_with(&self, show: &dyn Show, slot: usize) -> Result<Vec<RgbImage>> {
        let at = |i: usize| (slot * self.around.batch + i) as u32;
        let at: Vec<u32> = (0..self.seeds.len()).map(at).collect();
        show.show(&self.around.step, &at)
    }

    /// The latents as they are now, `[n, h, w, c]`, f32.
    pub fn latents(&self) -> Result<Tensor> {
        let sample = self.around.step.read("sample")?;
        let [_, _, h, w, c] = sample.desc.shape[..] else { unreachable!("samples have five dimensions") };
        let n = self.seeds.len();
        Ok(Tensor::from_f32([n, h, w, c], &sample.to_f32()[..n * h * w * c]))
    }

    /// All that the run needs to go on later, or elsewhere.
    pub fn state(&self) -> Result<SamplingState> {
        Ok(SamplingState {
            description: self.description.clone(),
            labels: self.labels.clone(),
            seeds: self.seeds.clone(),
            row: self.row,
            sample: self.around.step.read("sample")?,
            note: String::new(),
        })
    }
}

/// Pictures of words `[n, h, w]`, red in the lowest byte.
pub(super) fn bytes_to_pictures(words: &Tensor) -> Vec<RgbImage> {
    let [_, h, w] = words.desc.shape[..] else { unreachable!("pictures are [n, h, w]") };
    let picture = |bytes: &[u8]| {
        RgbImage::from_fn(w as u32, h as u32, |x, y| {
            let at = 4 * (y as usize * w + x as usize);
            image::Rgb([bytes[at], bytes[at + 1], bytes[at + 2]])
        })
    };
    words.bytes.chunks_exact(4 * h * w).map(picture).collect()
}

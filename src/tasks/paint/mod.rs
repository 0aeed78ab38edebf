//! Pictures out of text, of other pictures, and of both: latent diffusion on a device.

mod adapters;
mod bands;
mod canvas;
mod control;
mod enlarge;
mod guidance;
mod latents;
mod memory;
mod parts;
mod pipeline;
mod show;
mod small;
mod step;

use image::{GrayImage, RgbImage};

pub use self::control::Control;
pub use self::guidance::Pag;
pub use self::latents::{Enlarge, Variation};
pub use self::memory::{Beside, Memory, Turns};
pub use self::pipeline::{Pipeline, Unsaid};

use self::canvas::EncoderPlan;
use self::parts::Parts;
use self::show::Decoder;
use self::step::embedded_guidance;
use super::sampling::{NoiseSource, Sampling, SamplingLoop, Show, padded};
use super::sampling_state::SamplingState;
use crate::diffusion::{Sampler, SigmaSchedule};
use crate::engine::NotFinite;
use crate::error::{Error, Part, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::models::autoencoder_tiny::AutoencoderTinyConfig;
use crate::models::latent_diffusion::{self, LatentDiffusion};
use crate::ops::quantized::BlockFormat;
use crate::plan::Plan;
use crate::target::Target;
use crate::tensor::{DType, Tensor};
use crate::text::TextEmbedding;

/// A wish and its opposite.
#[derive(Clone, Debug)]
pub struct Wish {
    pub text: TextEmbedding,
    /// What guidance leads away from; needed where there is guidance.
    pub negative: Option<TextEmbedding>,
}

/// How pictures are made; [`PaintOptions::of`] gives a model's own.
#[derive(Clone, Debug, PartialEq)]
pub struct PaintOptions {
    /// In pixels; multiples of [`LatentDiffusion::multiple`].
    pub height: usize,
    pub width: usize,
    pub steps: usize,
    pub sampler: Sampler,
    pub sigmas: SigmaSchedule,
    /// Scale of classifier-free guidance; 1 for none, which takes half the work.
    pub guidance: f32,
    /// How much of the contrast that guidance adds is taken back (Lin et al. 2023, arXiv:2305.08891, eq. 16), 0 to 1.
    pub rescale: f32,
    /// Guidance away from attention that is perturbed.
    pub pag: Option<Pag>,
    /// How much of a given picture is made anew: 1 for all of it.
    pub strength: f64,
    pub noise: NoiseSource,
    /// Storage of weights and activations. Latents are f32 always, the autoencoder where its configuration wants it.
    pub dtype: DType,
    /// Sizes and crop of the training pictures that are wished for (SDXL): original height and width, top, left.
    pub original: Option<[usize; 4]>,
    /// In which blocks of small integers the UNet's matrices and convolutions are kept, see [`in_blocks`](crate::Weights::in_blocks);
    /// `None` for numbers of [`PaintOptions::dtype`].
    pub weights: Option<BlockFormat>,
    /// Device memory that may be used, in bytes; all there is for none. Where it is short, networks take turns on the
    /// device ([`Turns`]); then pictures are encoded and shown in bands of lines, whose norms still see the whole
    /// picture, so that it is the same: 2 to 13 times the work of the autoencoder, the fewer bytes the more. The same is
    /// done where a feature map is larger than what the device binds.
    pub memory_budget: Option<u64>,
    /// How beautiful the pictures are that are wished for and that are not, of 10 (SDXL's refiner).
    pub aesthetic: [f32; 2],
    /// Level of the noise that is added to a small picture: the higher, the more is made anew (×4 upscaler).
    pub noise_level: usize,
    /// The part of the run that this painter does, by shares of the training timesteps, 0 being the noise and 1 the
    /// picture: a second model may go on from the latents of a first (diffusers' `denoising_start` and `denoising_end`).
    pub span: [f64; 2],
}

impl PaintOptions {
    pub fn of(model: &LatentDiffusion) -> Self {
        let ([height, width], (steps, guidance)) = (model.size(), model.habits());
        PaintOptions {
            height,
            width,
            steps,
            sampler: model.sampler,
            sigmas: model.sigmas.clone(),
            guidance,
            rescale: 0.0,
            pag: None,
            strength: 1.0,
            noise: NoiseSource::Cuda,
            dtype: DType::F32,
            original: None,
            weights: None,
            memory_budget: None,
            aesthetic: [6.0, 2.5],
            noise_level: 20,
            span: [0.0, 1.0],
        }
    }
}

/// A picture to begin with, all of it or where a mask is white; or one to enlarge.
#[derive(Clone, Copy, Debug)]
pub struct Canvas<'a> {
    pub picture: &'a RgbImage,
    pub mask: Option<&'a GrayImage>,
}

/// A model on a device, ready to make `batch` pictures at a time.
#[derive(Debug)]
pub struct Painter {
    model: LatentDiffusion,
    options: PaintOptions,
    canvas: StartFrom,
    controls: Vec<Control>,
    /// Whether the controls were shown pictures.
    controlled: bool,
    tokens: usize,
    around: SamplingLoop,
    memory: Memory,
    /// A sample → a picture of one of its latents.
    show: Decoder,
    encoder: Option<EncoderPlan>,
    /// The same, faster and less exact.
    preview: Option<Decoder>,
}

/// What runs begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    Noise,
    Picture,
    /// What lies outside of the mask stays.
    Masked,
    /// The latents of a smaller run, see [`Painter::start_larger`].
    Latents,
    /// A picture of a quarter of the height and width, for models that enlarge: the result shows the same.
    Small,
}

impl Painter {
    /// Compiles the model and uploads its weights, for texts of so many tokens.
    ///
    /// # Errors
    /// [`Error::Invalid`] for impossible options, [`Error::Budget`] for what takes more memory than the options allow,
    /// and all of [`Network::new`](crate::Network::new).
    pub fn new(
        gpu: &Gpu,
        model: &LatentDiffusion,
        batch: usize,
        tokens: usize,
        canvas: StartFrom,
        options: &PaintOptions,
    ) -> Result<Self> {
        Painter::controlled(gpu, model, batch, tokens, canvas, options, &[])
    }

    /// The same with ControlNets, which must be shown pictures ([`Painter::control`]) before the first run.
    ///
    /// # Errors
    /// As [`Painter::new`], and [`Error::Invalid`] for controls that were made for other models.
    pub fn controlled(
        gpu: &Gpu,
        model: &LatentDiffusion,
        batch: usize,
        tokens: usize,
        canvas: StartFrom,
        options: &PaintOptions,
        controls: &[Control],
    ) -> Result<Self> {
        let parts = Parts { model, batch, tokens, canvas, options, controls };
        parts.check(gpu.target())?;
        let start = parts.start()?;
        let layout = parts.layout(&start, gpu.target())?;
        let step = parts.step(&start.table)?;
        let around = SamplingLoop::new(gpu, step, layout.step, options.guidance)?;
        let painter = Painter {
            show: Decoder::new(gpu, layout.decoder, layout.memory.turns)?,
            encoder: layout.encoder,
            memory: layout.memory,
            preview: None,
            model: model.clone(),
            options: options.clone(),
            canvas,
            controls: controls.to_vec(),
            controlled: false,
            tokens,
            around,
        };
        painter.tell_what_is_fixed()?;
        Ok(painter)
    }

    /// What a painter of these arguments would take of a device's memory with what is `beside` it; makes nothing.
    ///
    /// # Errors
    /// As [`Painter::controlled`], without a device: [`Error::Limit`] for what it cannot bind, [`Error::Budget`] for
    /// what is more than the options allow.
    pub fn predict(
        target: &Target,
        model: &LatentDiffusion,
        batch: usize,
        tokens: usize,
        canvas: StartFrom,
        options: &PaintOptions,
        beside: &Beside,
    ) -> Result<Memory> {
        let parts = Parts { model, batch, tokens, canvas, options, controls: beside.controls };
        parts.check(target)?;
        let start = parts.start()?;
        let mut memory = match beside.preview {
            Some(tiny) => {
                let preview = parts.preview(&start.table, target, tiny)?.memory();
                parts.layout_with_preview(&start, target, preview)?.memory
            }
            None => parts.layout(&start, target)?.memory,
        };
        if let Some(encoders) = beside.encoders {
            memory.text_encoders = encoders.predict(target, batch, tokens, options.dtype)?;
            let most = memory.text_encoders.iter().map(|m| m.peak).max().unwrap_or(0);
            if options.memory_budget.is_some_and(|budget| most > budget) {
                return Err(parts.too_much(target, most, &[("encoder of text", most)]));
            }
            memory.peak = memory.peak.max(most);
        }
        Ok(memory)
    }

    /// One step as a graph, with guidance and sampler: what the time goes to.
    ///
    /// # Errors
    /// As [`Painter::predict`].
    pub fn step_graph(
        target: &Target,
        model: &LatentDiffusion,
        batch: usize,
        tokens: usize,
        options: &PaintOptions,
        controls: &[Control],
    ) -> Result<Graph> {
        let parts = Parts { model, batch, tokens, canvas: StartFrom::Noise, options, controls };
        parts.check(target)?;
        let start = parts.start()?;
        parts.step_graph(parts.step(&start.table)?)
    }

    /// What this one takes.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Gives its memory back to the device before this returns; a drop alone leaves that to later work.
    ///
    /// # Errors
    /// Those of the device.
    pub fn release(self) -> Result<()> {
        let gpu = self.gpu().clone();
        drop(self);
        gpu.settle()
    }

    fn parts(&self) -> Parts<'_> {
        let Painter { model, options, canvas, tokens, controls, .. } = self;
        Parts { model, batch: self.around.batch, tokens: *tokens, canvas: *canvas, options, controls }
    }

    /// Has [`Sampling::preview`] decode with a tiny autoencoder for the same latents (TAESD for Stable Diffusion 1 and 2,
    /// TAESDXL for XL), whatever the model's own is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other latents, [`Error::Budget`] where there is no room for it, and all of
    /// [`Network::new`](crate::Network::new).
    pub fn preview_with(&mut self, tiny: &latent_diffusion::Part<AutoencoderTinyConfig>) -> Result<()> {
        let (gpu, parts) = (self.gpu().clone(), self.parts());
        let plan = parts.preview(&self.around.table, gpu.target(), tiny)?;
        let (preview, budget) = (plan.memory(), self.options.memory_budget);
        // Anew, should there be one already.
        let memory = Memory { preview: None, preview_kept: false, ..self.memory.clone() };
        let mut memory = memory.with_preview(preview, budget);
        let layout = match budget.is_some_and(|budget| memory.peak > budget) {
            true => Some(parts.layout_with_preview(&parts.start()?, gpu.target(), preview)?),
            false => None,
        };
        self.preview = None;
        if let Some(layout) = layout {
            self.show = Decoder::new(&gpu, layout.decoder, layout.memory.turns)?;
            self.encoder = layout.encoder;
            memory = layout.memory;
            gpu.settle()?;
        }
        // Where the decoder stays and this one has no room to, it comes and goes alone.
        let turns = match (memory.preview_kept, memory.turns) {
            (false, Turns::Together) => Turns::DecoderInTurn,
            (_, turns) => turns,
        };
        self.preview = Some(Decoder::new(&gpu, plan, turns)?);
        self.memory = memory;
        Ok(())
    }

    pub fn gpu(&self) -> &Gpu {
        self.around.gpu()
    }

    pub fn model(&self) -> &LatentDiffusion {
        &self.model
    }

    pub fn options(&self) -> &PaintOptions {
        &self.options
    }

    pub fn batch(&self) -> usize {
        self.around.batch
    }

    /// Steps of a run.
    pub fn steps(&self) -> usize {
        self.around.table.steps
    }

    /// What one step does: FLOPs, parameters, memory.
    pub fn plan(&self) -> &Plan {
        self.around.plan()
    }

    /// Begins a run of at most `batch` pictures, one for each wish and seed, out of noise or on a canvas as the painter
    /// was made for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for wishes, seeds or a canvas that do not fit, and those of the device.
    pub fn start(&mut self, wishes: &[Wish], seeds: &[u64], canvas: Option<Canvas>) -> Result<Sampling<'_>> {
        self.tell(wishes, seeds)?;
        self.around.rewind(seeds, 0)?;
        match (canvas, self.canvas) {
            (None, StartFrom::Noise) if self.options.span[0] == 0.0 => self.around.begin(seeds)?,
            (None, StartFrom::Noise) => {
                return Err(Error::Invalid {
                    what: "start of a run that another began".to_owned(),
                    expected: "its latents".to_owned(),
                    found: "none".to_owned(),
                });
            }
            (Some(canvas), StartFrom::Small) => {
                self.around.begin(seeds)?;
                self.prepare(canvas, seeds)?;
            }
            (Some(canvas), StartFrom::Picture | StartFrom::Masked) => self.prepare(canvas, seeds)?,
            (_, kind) => {
                return Err(Error::Invalid {
                    what: "picture to begin with".to_owned(),
                    expected: match kind {
                        StartFrom::Noise => "none",
                        StartFrom::Latents => "none, but another run (start_larger)",
                        _ => "one",
                    }
                    .to_owned(),
                    found: match kind {
                        StartFrom::Noise => "one",
                        _ => "none",
                    }
                    .to_owned(),
                });
            }
        }
        Ok(self.sampling(seeds.to_vec(), 0))
    }

    /// Begins a run from given latents `[n, h, w, c]` instead of noise: x of the first row, already scaled.
    ///
    /// # Errors
    /// As [`Painter::start`], and [`Error::Invalid`] for another shape.
    pub fn start_from(&mut self, wishes: &[Wish], seeds: &[u64], latents: &Tensor) -> Result<Sampling<'_>> {
        let expected = [&[seeds.len()][..], &self.parts().latent()].concat();
        if latents.desc.shape[..] != expected[..] {
            return Err(Error::Invalid {
                what: "latents".to_owned(),
                expected: format!("{expected:?}"),
                found: latents.desc.to_string(),
            });
        }
        self.tell(wishes, seeds)?;
        self.around.rewind(seeds, 0)?;
        self.around.begin_from(&latents.to_f32())?;
        Ok(self.sampling(seeds.to_vec(), 0))
    }

    fn sampling(&self, seeds: Vec<u64>, row: usize) -> Sampling<'_> {
        Sampling {
            around: &self.around,
            show: &self.show,
            preview: self.preview.as_ref().map(|decoder| decoder as &dyn Show),
            description: self.description(),
            labels: vec![0; seeds.len()],
            seeds,
            row,
        }
    }

    /// Whether a saved run is one of this painter's, so that [`Painter::resume`] can go on with it.
    pub fn is_of(&self, state: &SamplingState) -> bool {
        state.description == self.description() && state.row <= self.around.table.rows.len()
    }

    /// Continues a run where [`Sampling::state`] was taken, with the same wishes and canvas.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the state is of another model, other options or another batch.
    pub fn resume(
        &mut self,
        wishes: &[Wish],
        canvas: Option<Canvas>,
        state: &SamplingState,
    ) -> Result<Sampling<'_>> {
        if !self.is_of(state) {
            return Err(Error::Invalid {
                what: "saved run".to_owned(),
                expected: self.description(),
                found: state.description.clone(),
            });
        }
        self.tell(wishes, &state.seeds)?;
        match canvas {
            Some(canvas) => self.prepare(canvas, &state.seeds)?,
            // What each step looks at, not only the first.
            None if matches!(self.canvas, StartFrom::Masked | StartFrom::Small) => {
                return Err(Error::Invalid {
                    what: "picture of a saved run".to_owned(),
                    expected: "that which it began with".to_owned(),
                    found: "none".to_owned(),
                });
            }
            None => {}
        }
        self.around.rewind(&state.seeds, state.row)?;
        self.around.step.write("sample", &state.sample)?;
        Ok(self.sampling(state.seeds.clone(), state.row))
    }

    /// From now on pictures are decoded in f32, whatever the options say: some autoencoders leave the range of 16 bits.
    ///
    /// # Errors
    /// Those of [`Painter::new`].
    pub fn decode_in_f32(&mut self) -> Result<()> {
        self.model.vae.config.upcast();
        let parts = self.parts();
        let layout = parts.layout(&parts.start()?, self.gpu().target())?;
        self.show = Decoder::new(self.gpu(), layout.decoder, layout.memory.turns)?;
        Ok(())
    }

    /// The same with other options. Pictures for ControlNets and what previews are decoded with have to be given again.
    ///
    /// # Errors
    /// Those of [`Painter::new`].
    pub fn again(&self, options: &PaintOptions) -> Result<Self> {
        self.on(self.gpu(), options)
    }

    /// The same on another device, as after the loss of this one's. Runs go on there from their last
    /// [state](super::Sampling::state): [`Painter::resume`]. Pictures for ControlNets and what previews are decoded with have
    /// to be given again.
    ///
    /// # Errors
    /// Those of [`Painter::new`].
    pub fn rebuild(&self, gpu: &Gpu) -> Result<Self> {
        self.on(gpu, &self.options)
    }

    fn on(&self, gpu: &Gpu, options: &PaintOptions) -> Result<Self> {
        Painter::controlled(gpu, &self.model, self.batch(), self.tokens, self.canvas, options, &self.controls)
    }

    /// Repeats a run in which this part gave what is no number, launch by launch up to the first that did: much slower.
    ///
    /// # Errors
    /// As [`Painter::start`].
    pub fn find_fault(
        &mut self,
        part: Part,
        wishes: &[Wish],
        seeds: &[u64],
        canvas: Option<Canvas>,
    ) -> Result<Option<NotFinite>> {
        self.start(wishes, seeds, canvas)?;
        let rows = self.around.table.rows.len();
        match part {
            Part::Denoiser => {
                for _ in 0..rows {
                    if let Some(found) = self.around.step.run_watched()? {
                        return Ok(Some(found));
                    }
                }
            }
            Part::Decoder => {
                self.around.step.submit(rows)?;
                for at in 0..seeds.len() {
                    if let Some(found) = self.show.watch(&self.around.step, at as u32)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }

    fn description(&self) -> String {
        // How much memory there is changes nothing about the pictures.
        let options = PaintOptions { memory_budget: None, ..self.options.clone() };
        let Painter { model, canvas, .. } = self;
        let controls: Vec<String> = self.controls.iter().map(Control::description).collect();
        let controls =
            if controls.is_empty() { String::new() } else { format!(", controls {}", controls.join(", ")) };
        format!("{} with {options:?}, from {canvas:?}, batch {}{controls}", model.name, self.batch())
    }

    /// Uploads what is the same for all runs.
    fn tell_what_is_fixed(&self) -> Result<()> {
        let parts = self.parts();
        let n = parts.copies() * self.batch();
        if let Some(dim) = self.model.denoiser.config.guidance_width() {
            let embedded = embedded_guidance(self.options.guidance, dim).repeat(n);
            self.around.step.write("embedded_guidance", &Tensor::from_f32([n, dim], &embedded))?;
        }
        self.tell_scales()?;
        self.tell_pag()?;
        if let Some([ids, negative]) = parts.ids() {
            let count = ids.len();
            let all: Vec<f32> =
                parts.of_copies(ids.repeat(self.batch()), negative.repeat(self.batch())).concat();
            self.around.step.write("sizes", &Tensor::from_f32([n, count], &all))?;
        }
        if self.canvas == StartFrom::Small && parts.classes().is_some() {
            let class = vec![self.options.noise_level as u32; n];
            self.around.step.write("class", &Tensor::from_u32([n], &class))?;
        }
        Ok(())
    }

    /// Uploads the text; what the batch has too many repeats the last.
    fn tell(&self, wishes: &[Wish], seeds: &[u64]) -> Result<()> {
        let batch = self.batch();
        let invalid = |what: &str, expected: String, found: String| Error::Invalid {
            what: what.to_owned(),
            expected,
            found,
        };
        if wishes.len() != seeds.len() || !(1..=batch).contains(&seeds.len()) {
            let found = format!("{} texts, {} seeds", wishes.len(), seeds.len());
            return Err(invalid("texts and seeds of a run", format!("as many of each, 1 to {batch}"), found));
        }
        if !self.controls.is_empty() && !self.controlled {
            return Err(invalid("pictures for controls", self.controls.len().to_string(), "none".to_owned()));
        }
        let wishes: Vec<&Wish> = padded(&wishes.iter().collect::<Vec<_>>(), batch);
        let wanted: Vec<&TextEmbedding> = wishes.iter().map(|wish| &wish.text).collect();
        let unwanted = match self.parts().is_guided() {
            true => wishes.iter().filter_map(|wish| wish.negative.as_ref()).collect(),
            false => wanted.clone(),
        };
        if unwanted.len() < wanted.len() {
            return Err(invalid("negative text", "one, for guidance".into(), "none".into()));
        }
        let texts: Vec<&TextEmbedding> = self.parts().of_copies(wanted, unwanted).concat();
        let shape = [self.tokens, self.model.denoiser.config.text_width()];
        let mut states = Vec::with_capacity(texts.len() * shape[0] * shape[1]);
        let mut pooled = Vec::new();
        for text in &texts {
            if text.states.desc.shape[..] != shape {
                return Err(invalid(
                    "embedding of the text",
                    format!("{shape:?}"),
                    text.states.desc.to_string(),
                ));
            }
            states.extend(text.states.to_f32());
            pooled.extend(text.pooled.iter().flat_map(Tensor::to_f32));
        }
        let n = texts.len();
        self.around.step.write("text", &Tensor::from_f32([n, shape[0], shape[1]], &states))?;
        if let Some(width) = self.parts().pooled() {
            if pooled.len() != n * width {
                let found = format!("{} numbers for {n} texts", pooled.len());
                return Err(invalid("pooled text", format!("{width} numbers for each"), found));
            }
            self.around.step.write("pooled", &Tensor::from_f32([n, width], &pooled))?;
        }
        Ok(())
    }
}

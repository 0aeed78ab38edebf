//! Pictures out of text, of other pictures, and of both: latent diffusion on a device.

mod bands;
mod canvas;
mod memory;
mod parts;
mod show;
mod step;

use image::{GrayImage, RgbImage};

pub use self::memory::{Memory, Turns};

use self::canvas::EncoderPlan;
use self::parts::Parts;
use self::show::Decoder;
use self::step::embedded_guidance;
use super::sampling::{NoiseSource, Sampling, SamplingLoop, padded};
use super::sampling_state::SamplingState;
use crate::diffusion::{Sampler, SigmaSchedule};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::models::latent_diffusion::LatentDiffusion;
use crate::ops::quantized::BlockFormat;
use crate::plan::Plan;
use crate::target::Target;
use crate::tensor::{DType, Tensor};
use crate::text::{TextEmbedding, TextEncoders};

/// A wish and its opposite.
#[derive(Clone, Debug)]
pub struct Wish {
    pub text: TextEmbedding,
    /// What guidance leads away from; needed where there is guidance.
    pub negative: Option<TextEmbedding>,
}

/// How pictures are made; [`PaintOptions::of`] gives a model's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaintOptions {
    /// In pixels; multiples of [`PaintOptions::multiple`].
    pub height: usize,
    pub width: usize,
    pub steps: usize,
    pub sampler: Sampler,
    pub sigmas: SigmaSchedule,
    /// Scale of classifier-free guidance; 1 for none, which takes half the work.
    pub guidance: f32,
    /// How much of the contrast that guidance adds is taken back (Lin et al. 2023, arXiv:2305.08891, eq. 16), 0 to 1.
    pub rescale: f32,
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
}

impl PaintOptions {
    pub fn of(model: &LatentDiffusion) -> Self {
        let ([height, width], (steps, guidance)) = (model.size(), model.habits());
        PaintOptions {
            height,
            width,
            steps,
            sampler: model.sampler,
            sigmas: model.sigmas,
            guidance,
            rescale: 0.0,
            strength: 1.0,
            noise: NoiseSource::Cuda,
            dtype: DType::F32,
            original: None,
            weights: None,
            memory_budget: None,
        }
    }
}

/// A picture to begin with, all of it or where a mask is white.
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
    tokens: usize,
    around: SamplingLoop,
    memory: Memory,
    /// A sample → a picture of one of its latents.
    show: Decoder,
    encoder: Option<EncoderPlan>,
}

/// What runs begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    Noise,
    Picture,
    /// What lies outside of the mask stays.
    Masked,
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
        let parts = Parts { model, batch, tokens, canvas, options };
        parts.check(gpu.target())?;
        let start = parts.start()?;
        let layout = parts.layout(&start, gpu.target())?;
        let (step, calls) = (parts.step(&start.table)?, options.sampler.calls_per_step());
        let around = SamplingLoop::new(gpu, step, layout.step, options.guidance, calls)?;
        let painter = Painter {
            show: Decoder::new(gpu, layout.decoder, layout.memory.turns)?,
            encoder: layout.encoder,
            memory: layout.memory,
            model: model.clone(),
            options: *options,
            canvas,
            tokens,
            around,
        };
        painter.tell_what_is_fixed()?;
        Ok(painter)
    }

    /// What a painter of these arguments would take of a device's memory, and the `encoders` of text before it; makes
    /// nothing.
    ///
    /// # Errors
    /// As [`Painter::new`], without a device: [`Error::Limit`] for what it cannot bind, [`Error::Budget`] for what is
    /// more than the options allow.
    pub fn predict(
        target: &Target,
        model: &LatentDiffusion,
        encoders: Option<&TextEncoders>,
        batch: usize,
        tokens: usize,
        canvas: StartFrom,
        options: &PaintOptions,
    ) -> Result<Memory> {
        let parts = Parts { model, batch, tokens, canvas, options };
        parts.check(target)?;
        let mut memory = parts.layout(&parts.start()?, target)?.memory;
        if let Some(encoders) = encoders {
            memory.text_encoders = encoders.predict(target, batch, tokens, options.dtype)?;
            let most = memory.text_encoders.iter().map(|m| m.peak).max().unwrap_or(0);
            if options.memory_budget.is_some_and(|budget| most > budget) {
                return Err(parts.too_much(target, most, &[("encoder of text", most)]));
            }
            memory.peak = memory.peak.max(most);
        }
        Ok(memory)
    }

    /// What this one takes.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn parts(&self) -> Parts<'_> {
        let Painter { model, options, canvas, tokens, .. } = self;
        Parts { model, batch: self.around.batch, tokens: *tokens, canvas: *canvas, options }
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
            (None, StartFrom::Noise) => self.around.begin(seeds)?,
            (Some(canvas), StartFrom::Picture | StartFrom::Masked) => self.prepare(canvas, seeds)?,
            (_, kind) => {
                return Err(Error::Invalid {
                    what: "picture to begin with".to_owned(),
                    expected: match kind {
                        StartFrom::Noise => "none",
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
            description: self.description(),
            labels: vec![0; seeds.len()],
            seeds,
            row,
        }
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
        let own = self.description();
        if state.description != own || state.row > self.around.table.rows.len() {
            return Err(Error::Invalid {
                what: "saved run".to_owned(),
                expected: own,
                found: state.description.clone(),
            });
        }
        self.tell(wishes, &state.seeds)?;
        if let Some(canvas) = canvas {
            self.prepare(canvas, &state.seeds)?;
        }
        self.around.rewind(&state.seeds, state.row)?;
        self.around.step.write("sample", &state.sample)?;
        Ok(self.sampling(state.seeds.clone(), state.row))
    }

    fn description(&self) -> String {
        // How much memory there is changes nothing about the pictures.
        let options = PaintOptions { memory_budget: None, ..self.options };
        format!("{} with {options:?}, from {:?}, batch {}", self.model.name, self.canvas, self.batch())
    }

    /// Uploads what is the same for all runs.
    fn tell_what_is_fixed(&self) -> Result<()> {
        let parts = self.parts();
        let n = parts.copies() * self.batch();
        let unet = &self.model.unet.config;
        if let Some(dim) = unet.time_cond_proj_dim {
            let embedded = embedded_guidance(self.options.guidance, dim).repeat(n);
            self.around.step.write("embedded_guidance", &Tensor::from_f32([n, dim], &embedded))?;
        }
        if parts.ids().is_some() {
            let ids: Vec<f32> = parts.ids().into_iter().flatten().map(|v| v as f32).collect();
            let shape = [n, ids.len()];
            self.around.step.write("sizes", &Tensor::from_f32(shape, &ids.repeat(n)))?;
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
        let wishes: Vec<&Wish> = padded(&wishes.iter().collect::<Vec<_>>(), batch);
        let mut texts: Vec<&TextEmbedding> = wishes.iter().map(|wish| &wish.text).collect();
        if self.parts().copies() == 2 {
            for wish in &wishes {
                let negative = wish.negative.as_ref();
                texts
                    .push(negative.ok_or_else(|| {
                        invalid("negative text", "one, for guidance".into(), "none".into())
                    })?);
            }
        }
        let shape = [self.tokens, self.model.unet.config.cross_attention_dim];
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

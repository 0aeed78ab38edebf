//! Pictures out of text, of other pictures, and of both: latent diffusion on a device.

mod canvas;
mod enlarge;
mod latents;
mod parts;
mod show;
mod small;
mod step;

use image::{GrayImage, RgbImage};

pub use self::latents::{Enlarge, Variation};
use self::parts::Parts;
use self::step::embedded_guidance;
use super::sampling::{NoiseSource, Sampling, SamplingLoop, padded};
use super::sampling_state::SamplingState;
use crate::diffusion::{Sampler, SigmaSchedule, Start};
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::models::latent_diffusion::LatentDiffusion;
use crate::plan::Plan;
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
            strength: 1.0,
            noise: NoiseSource::Cuda,
            dtype: DType::F32,
            original: None,
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
    tokens: usize,
    start: Start,
    around: SamplingLoop,
    /// A sample → a picture of one of its latents.
    show: Network,
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
    /// [`Error::Invalid`] for impossible options, and all of [`Network::new`].
    pub fn new(
        gpu: &Gpu,
        model: &LatentDiffusion,
        batch: usize,
        tokens: usize,
        canvas: StartFrom,
        options: &PaintOptions,
    ) -> Result<Self> {
        let parts = Parts { model, batch, tokens, canvas, options };
        parts.check(gpu)?;
        let start = parts.start()?;
        let step = parts.step(&start.table)?;
        let graph = parts.step_graph(step)?;
        let around =
            SamplingLoop::new(gpu, step, &graph, options.guidance, options.sampler.calls_per_step())?;
        let painter = Painter {
            show: Network::new(gpu, &parts.show_graph(&start.table)?)?,
            model: model.clone(),
            options: options.clone(),
            canvas,
            tokens,
            around,
            start,
        };
        painter.tell_what_is_fixed()?;
        Ok(painter)
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

    fn description(&self) -> String {
        format!("{} with {:?}, from {:?}, batch {}", self.model.name, self.options, self.canvas, self.batch())
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
        if let Some([ids, negative]) = parts.ids() {
            let mut all = ids.repeat(self.batch());
            all.extend(negative.repeat(n - self.batch()));
            self.around.step.write("sizes", &Tensor::from_f32([n, ids.len()], &all))?;
        }
        if self.canvas == StartFrom::Small && unet.num_class_embeds.is_some() {
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

//! Pictures out of text, of other pictures, and of both: latent diffusion on a device.

use image::{GrayImage, RgbImage};

use super::sampling::{Draws, NoiseSource, Sampling, SamplingLoop, Step, padded};
use super::sampling_state::SamplingState;
use crate::diffusion::{Sampler, SigmaSchedule, Start, Table};
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::autoencoder_kl::{decode, encode, sampled};
use crate::models::latent_diffusion::{Given, LatentDiffusion};
use crate::models::unet2d_condition::{Conditions, unet2d_condition};
use crate::nn::Source;
use crate::ops::expr::Binary;
use crate::ops::reduce::Reduction;
use crate::ops::strided::Range;
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
            options: *options,
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

    /// Brings a canvas to the latents: encodes the picture and adds the noise that the first step begins with.
    fn prepare(&self, canvas: Canvas, seeds: &[u64]) -> Result<()> {
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

/// Sinusoids of `guidance − 1`, as consistency models are told it (Luo et al. 2023, arXiv:2310.04378).
fn embedded_guidance(guidance: f32, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let angle = |i: usize| {
        let frequency = (-(10000f64.ln()) * i as f64 / (half - 1).max(1) as f64).exp();
        1000.0 * (f64::from(guidance) - 1.0) * frequency
    };
    let mut waves: Vec<f32> = (0..half).map(|i| angle(i).sin() as f32).collect();
    waves.extend((0..half).map(|i| angle(i).cos() as f32));
    waves.resize(dim, 0.0);
    waves
}

/// All that the graphs are made of.
struct Parts<'a> {
    model: &'a LatentDiffusion,
    batch: usize,
    tokens: usize,
    canvas: StartFrom,
    options: &'a PaintOptions,
}

impl Parts<'_> {
    fn check(&self, gpu: &Gpu) -> Result<()> {
        let PaintOptions { height, width, guidance, rescale, dtype, .. } = *self.options;
        let invalid = |what: &str, expected: String, found: String| {
            Err(Error::Invalid { what: format!("{what} of {}", self.model.name), expected, found })
        };
        let factor = self.model.vae.config.factor();
        let fits = |side: usize| side > 0 && side.is_multiple_of(factor);
        if !fits(height) || !fits(width) {
            return invalid("size", format!("multiples of {factor}"), format!("{width}×{height}"));
        }
        if self.batch == 0 || self.tokens == 0 {
            return invalid("batch and tokens", "at least 1".to_owned(), "0".to_owned());
        }
        if !guidance.is_finite() || !(0.0..=1.0).contains(&rescale) {
            let expected = "a number, and 0 to 1".to_owned();
            return invalid("guidance and its rescale", expected, format!("{guidance}, {rescale}"));
        }
        match (self.given(), self.canvas) {
            (Given::Masked, StartFrom::Noise | StartFrom::Picture) => {
                return invalid("picture", "one with a mask".to_owned(), "none".to_owned());
            }
            (Given::Small, _) => {
                return invalid(
                    "task",
                    "text to picture, picture to picture, inpainting".to_owned(),
                    "upscaling".to_owned(),
                );
            }
            _ => {}
        }
        if dtype == DType::F16 && !gpu.target().f16 {
            let device = gpu.target().name.clone();
            return Err(Error::Feature { device, feature: "16-bit floats", advice: "use f32" });
        }
        Ok(())
    }

    fn given(&self) -> Given {
        self.model.given().unwrap_or(Given::Text)
    }

    /// Twice for guidance, but for models that have it as an input.
    fn copies(&self) -> usize {
        if self.options.guidance == 1.0 || self.model.embeds_guidance() { 1 } else { 2 }
    }

    /// Height, width and channels of the latents.
    fn latent(&self) -> [usize; 3] {
        let factor = self.model.vae.config.factor();
        [self.options.height / factor, self.options.width / factor, self.model.vae.config.latent_channels]
    }

    /// Sizes and crop that the UNet is told (SDXL): original, crop, wanted.
    fn ids(&self) -> Option<[usize; 6]> {
        self.model.unet.config.addition_embed_type.as_ref()?;
        let PaintOptions { height, width, original, .. } = *self.options;
        let [h, w, top, left] = original.unwrap_or([height, width, 0, 0]);
        Some([h, w, top, left, height, width])
    }

    /// Width of the pooled text.
    fn pooled(&self) -> Option<usize> {
        let unet = &self.model.unet.config;
        let ids = 6 * unet.addition_time_embed_dim.unwrap_or(0);
        self.ids()?;
        unet.projection_class_embeddings_input_dim?.checked_sub(ids)
    }

    /// The table and where in it the run begins.
    fn start(&self) -> Result<Start> {
        let o = self.options;
        let table = Table::new(&self.model.schedule, o.sampler, o.sigmas, o.steps)?;
        match self.canvas {
            StartFrom::Noise => Ok(Start { row: 0, clean: 0.0, noise: table.init_noise_scale, table }),
            _ if o.strength == 1.0 && self.canvas == StartFrom::Masked => {
                Ok(Start { row: 0, clean: 0.0, noise: table.init_noise_scale, table })
            }
            _ => table.start(o.strength),
        }
    }

    /// Whether the picture itself is encoded, and not only what lies outside of a mask.
    fn encodes(&self) -> bool {
        self.canvas == StartFrom::Picture
            || self.canvas == StartFrom::Masked
                && (self.given() == Given::Text || self.options.strength < 1.0)
    }

    /// Which tensors of noise the parts take, in the order of diffusers' pipelines: the encoded picture's,
    /// the first sample's, the masked picture's, then those on the way.
    fn draws(&self) -> Draws {
        let start = usize::from(self.encodes());
        Draws { start, rows: start + 1 + usize::from(self.canvas == StartFrom::Masked) }
    }

    fn step<'t>(&self, table: &'t Table) -> Result<Step<'t>> {
        Ok(Step {
            table,
            batch: self.batch,
            shape: self.latent(),
            copies: self.copies(),
            dtype: self.options.dtype,
            noise: self.options.noise,
            draws: self.draws(),
        })
    }

    fn step_graph(&self, step: Step) -> Result<Graph> {
        let unet = &self.model.unet;
        let n = self.copies() * self.batch;
        let [h, w, c] = self.latent();
        let predict = |g: &mut Graph, mut x: ValueId, row: ValueId| {
            let dtype = self.options.dtype;
            let input = |g: &mut Graph, name: &str, shape: &[usize]| {
                let id = g.input(name, shape, DType::F32);
                g.cast(id, dtype)
            };
            let text = input(g, "text", &[n, self.tokens, unet.config.cross_attention_dim])?;
            let pooled = match (self.pooled(), self.ids()) {
                (Some(width), Some(ids)) => {
                    let pooled = input(g, "pooled", &[n, width])?;
                    Some([pooled, g.input("sizes", [n, ids.len()], DType::F32)])
                }
                _ => None,
            };
            let guidance = match unet.config.time_cond_proj_dim {
                Some(dim) => Some(input(g, "embedded_guidance", &[n, dim])?),
                None => None,
            };
            if self.given() == Given::Masked {
                let extra = input(g, "extra", &[self.batch, h, w, 1 + c])?;
                let extra = if self.copies() == 2 { g.concat(&[extra, extra], 0)? } else { extra };
                x = g.concat(&[x, extra], 3)?;
            }
            let conditions = Conditions { timesteps: row, text, pooled, guidance, class: None };
            let source = Source { weights: &unet.weights, dtype };
            let y = unet2d_condition(g, &unet.config, source, x, &conditions)?;
            match self.options.rescale > 0.0 && self.copies() == 2 {
                true => g.scoped("rescale", |g| self.guided(g, y)),
                false => Ok(y),
            }
        };
        let keep = |g: &mut Graph, next: ValueId, step: ValueId| match (self.canvas, self.given()) {
            (StartFrom::Masked, Given::Text) => self.blend(g, next, step),
            _ => Ok(next),
        };
        step.graph(predict, keep)
    }

    /// Guidance whose result has as much contrast as the prediction with the text, in part.
    fn guided(&self, g: &mut Graph, y: ValueId) -> Result<ValueId> {
        let n = self.batch;
        let half = |start: usize| Range { start, stop: Some(start + n), step: 1 };
        let y = g.cast(y, DType::F32)?;
        let rest = [Range::all(); 3];
        let with = g.slice(y, &[&[half(0)], &rest[..]].concat())?;
        let without = g.slice(y, &[&[half(n)], &rest[..]].concat())?;
        let scale = self.options.guidance;
        let (a, b) = (g.affine(with, scale, 0.0)?, g.affine(without, 1.0 - scale, 0.0)?);
        let guided = g.add(a, b)?;
        let spread = |g: &mut Graph, x: ValueId| {
            let mean = g.reduce(x, Reduction::Mean, &[1, 2, 3], true)?;
            let x = g.binary(Binary::Sub, x, mean)?;
            g.reduce(x, Reduction::L2, &[1, 2, 3], true)
        };
        let [wanted, found] = [spread(g, with)?, spread(g, guided)?];
        let part = self.options.rescale;
        let factor = g.binary(Binary::Div, wanted, found)?;
        let factor = g.affine(factor, part, 1.0 - part)?;
        g.mul(guided, factor)
    }

    /// The next sample where the mask is white, the given picture at the same level of noise elsewhere.
    fn blend(&self, g: &mut Graph, next: ValueId, step: ValueId) -> Result<ValueId> {
        let [h, w, c] = self.latent();
        let [slots, rows] = [g.shape(next)[0], self.start()?.table.rows.len()];
        let known = g.input("known", [self.batch, h, w, c], DType::F32);
        let noise = g.input("noise", [self.batch, h, w, c], DType::F32);
        let mask = g.input("mask", [1, h, w, 1], DType::F32);
        let levels = g.input("levels", [rows, 2], DType::F32);
        let level = g.gather(levels, step, 0)?;
        let at = |i: usize| [Range::all(), Range { start: i, stop: Some(i + 1), step: 1 }];
        let signal = g.slice(level, &at(0))?;
        let sigma = g.slice(level, &at(1))?;
        let [signal, sigma] = [g.reshape(signal, [1, 1, 1, 1])?, g.reshape(sigma, [1, 1, 1, 1])?];
        let (known, noise) = (g.mul(known, signal)?, g.mul(noise, sigma)?);
        let known = g.add(known, noise)?;
        let mut first = vec![0.0; slots];
        first[0] = 1.0;
        let first = g.weight("first", Tensor::from_f32([slots, 1, 1, 1, 1], &first));
        // Where the latent itself, not its history, is outside of the mask.
        let outside = g.affine(mask, -1.0, 1.0)?;
        let outside = g.mul(first, outside)?;
        let change = g.binary(Binary::Sub, known, next)?;
        let change = g.mul(outside, change)?;
        g.add(next, change)
    }

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

    /// One picture of a sample: input `which` says of which slot and picture.
    fn show_graph(&self, table: &Table) -> Result<Graph> {
        let vae = &self.model.vae;
        let [h, w, c] = self.latent();
        let slots = 2 + table.history;
        let mut g = Graph::new();
        let sample = g.input("sample", [slots, self.batch, h, w, c], DType::F32);
        let which = g.input("which", [1], DType::U32);
        let all = g.reshape(sample, [slots * self.batch, h, w, c])?;
        let z = g.gather(all, which, 0)?;
        let scale = 1.0 / vae.config.scaling_factor;
        let z = g.affine(z, scale, vae.config.shift_factor.unwrap_or(0.0))?;
        let dtype = if vae.config.force_upcast { DType::F32 } else { self.options.dtype };
        let z = g.cast(z, dtype)?;
        let picture = decode(&mut g, &vae.config, Source { weights: &vae.weights, dtype }, z)?;
        let picture = g.picture_from_tensor(picture, 0, 0.5, 0.5)?;
        g.output("picture", picture);
        Ok(g)
    }
}

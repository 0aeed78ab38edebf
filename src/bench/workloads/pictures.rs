//! Whole pictures: noise to pixels in 20 steps, as diffusers draws them.

use std::time::Instant;

use image::{ImageFormat, RgbImage};

use super::published::Published;
use crate::bench::case::{Case, Estimate, Label, Subject};
use crate::bench::check::{self, sha256};
use crate::bench::network::{self, Contents, Made, bytes};
use crate::bench::record::{Check, Group, KernelTime, Memory, PartTime, Start};
use crate::diffusion::ScheduleConfig;
use crate::engine::{Network, RunTime};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::models::autoencoder_kl::AutoencoderKlConfig;
use crate::models::latent_diffusion::{LatentDiffusion, Part};
use crate::models::unet2d_condition::UNet2dConditionConfig;
use crate::plan::Plan;
use crate::target::Target;
use crate::tasks::{
    Beside, DiffusionModel, GenerateOptions, Generator, NoiseSource, PaintOptions, Painter, Sampling,
    StartFrom, Wish,
};
use crate::tensor::{DType, Tensor};
use crate::text::TextEmbedding;

const STEPS: usize = 20;

/// Seconds above which a picture is drawn as seldom as can be.
const MINUTES: f64 = 60.0;

/// Decibels that a picture must be from the reference at least: one step of 255 everywhere is 48 dB.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 48.0,
        _ => 30.0,
    }
}

/// The bundled model draws a word.
pub struct Letters {
    label: Label,
}

const WORD: &str = "AQUA";
const LETTERS: &[u8] = include_bytes!("references/letters.png");

impl Letters {
    pub fn new(dtype: DType) -> Self {
        let title = format!("{WORD} drawn letter by letter, 32×32, {STEPS} steps");
        let batch = WORD.len() as u32;
        Letters {
            label: Label { group: Group::Diffusion, name: "letters-picture".to_owned(), title, dtype, batch },
        }
    }

    fn options(&self, model: &DiffusionModel) -> GenerateOptions {
        let (noise, dtype) = (NoiseSource::Cpu, self.label.dtype);
        GenerateOptions { steps: STEPS, guidance: 2.0, noise, dtype, ..model.options() }
    }
}

impl Case for Letters {
    fn label(&self) -> &Label {
        &self.label
    }

    fn estimate(&self, target: &Target) -> Result<Estimate> {
        let model = DiffusionModel::letters()?;
        let plan = Plan::compile(&model.step_graph(WORD.len(), &self.options(&model))?, target)?;
        Ok(of_steps(&plan))
    }

    fn prepare(&self, gpu: &Gpu) -> Result<Box<dyn Subject>> {
        let start = Instant::now();
        let model = DiffusionModel::letters()?;
        let generator = Generator::new(gpu, &model, WORD.len(), &self.options(&model))?;
        let load = start.elapsed().as_secs_f64();
        Ok(Box::new(Drawn::new(self.label.clone(), Engine::Letters(Box::new(generator)), load)?))
    }
}

/// Stable Diffusion 1.5 at its own size, with weights out of their names.
pub struct StableDiffusion {
    label: Label,
}

const SD15: &[u8] = include_bytes!("references/sd15.png");
/// Where in the picture the reference lies.
const MIDDLE: [u32; 4] = [224, 224, 64, 64];
const SCHEDULER: &str = r#"{"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": false, "clip_sample": false}"#;

impl StableDiffusion {
    pub fn new(dtype: DType) -> Self {
        let title = format!("Stable Diffusion 1.5, 512×512, {STEPS} steps with guidance, text to pixels");
        let name = "sd15-picture".to_owned();
        StableDiffusion { label: Label { group: Group::Diffusion, name, title, dtype, batch: 1 } }
    }

    fn model(contents: Contents) -> Result<LatentDiffusion> {
        let (unet, vae) = (Published::find("unet_64"), Published::find("decoder_32"));
        LatentDiffusion::new(
            "Stable Diffusion 1.5",
            Part {
                config: UNet2dConditionConfig::from_json(&unet.config())?,
                weights: unet.weights(contents),
            },
            Part { config: AutoencoderKlConfig::from_json(&vae.config())?, weights: vae.weights(contents) },
            &ScheduleConfig::from_json(SCHEDULER)?,
        )
    }

    fn options(&self, model: &LatentDiffusion) -> PaintOptions {
        let (noise, dtype) = (NoiseSource::Cpu, self.label.dtype);
        let options = PaintOptions::of(model);
        PaintOptions { height: 512, width: 512, steps: STEPS, guidance: 3.0, noise, dtype, ..options }
    }
}

impl Case for StableDiffusion {
    fn label(&self) -> &Label {
        &self.label
    }

    fn estimate(&self, target: &Target) -> Result<Estimate> {
        let model = Self::model(Contents::Hollow)?;
        let options = self.options(&model);
        let plan = Plan::compile(&Painter::step_graph(target, &model, 1, 77, &options, &[])?, target)?;
        let memory = Painter::predict(target, &model, 1, 77, StartFrom::Noise, &options, &Beside::default())?;
        Ok(Estimate { peak: memory.peak, ..of_steps(&plan) })
    }

    fn prepare(&self, gpu: &Gpu) -> Result<Box<dyn Subject>> {
        let start = Instant::now();
        let encoder = Published::find("text").make(Contents::Real, 2, self.label.dtype)?;
        let text = Network::new(gpu, &encoder.graph)?;
        let model = Self::model(Contents::Real)?;
        let painter = Painter::new(gpu, &model, 1, 77, StartFrom::Noise, &self.options(&model))?;
        let load = start.elapsed().as_secs_f64();
        let tokens = prompts(&encoder)?;
        let engine = Engine::StableDiffusion { text: Box::new(text), tokens, painter: Box::new(painter) };
        Ok(Box::new(Drawn::new(self.label.clone(), engine, load)?))
    }
}

/// Embedded tokens of the wish and of no text at all, `[2, 77, 768]`.
fn prompts(encoder: &Made) -> Result<Tensor> {
    let one = encoder.inputs.iter().find(|(name, _)| name == "embeddings").expect("an encoder reads them");
    let shape = one.1.desc.shape.to_vec();
    let mut values = one.1.to_f32();
    let (text, width) = (values.len() / shape[0], shape[2]);
    // Of no text: its start, then ends. Both stand in the wish already.
    let (first, end) = (values[..width].to_vec(), values[text - width..text].to_vec());
    values.truncate(text);
    values.extend(first);
    values.extend(end.repeat(shape[1] - 1));
    Ok(Tensor::from_f32(shape, &values))
}

fn of_steps(plan: &Plan) -> Estimate {
    let steps = STEPS as u64;
    Estimate {
        flops: steps * plan.flops(),
        bytes: steps * bytes(plan),
        weights: 4 * plan.parameters,
        peak: plan.peak_bytes(),
        launches: steps * plan.run.len() as u64,
        // The first, that of the check, one that warms up and one that counts.
        least_runs: 4,
    }
}

enum Engine {
    Letters(Box<Generator>),
    StableDiffusion { text: Box<Network>, tokens: Tensor, painter: Box<Painter> },
}

/// A picture, and where the time went.
struct Drawing {
    picture: RgbImage,
    encode: f64,
    wall: f64,
    parts: Vec<PartTime>,
}

impl Engine {
    fn draw(&mut self) -> Result<Drawing> {
        match self {
            Engine::Letters(generator) => {
                let labels: Vec<String> = WORD.chars().map(String::from).collect();
                let seeds: Vec<u64> = (1..=labels.len() as u64).collect();
                let start = Instant::now();
                let sampling = generator.start(&labels, &seeds)?;
                let pictures = follow(sampling, start, Vec::new())?;
                Ok(pictures)
            }
            Engine::StableDiffusion { text, tokens, painter } => {
                let start = Instant::now();
                let states = text.run(&[("embeddings", tokens)])?.remove(0);
                let (_, wide) = (states.desc.shape[1], states.desc.shape[2]);
                let states = states.to_f32();
                let [wanted, unwanted] = [0, 1].map(|i| {
                    let half = states.len() / 2;
                    let states = Tensor::from_f32([half / wide, wide], &states[i * half..(i + 1) * half]);
                    TextEmbedding { states, pooled: None }
                });
                let parts = vec![PartTime {
                    name: "text".to_owned(),
                    seconds: start.elapsed().as_secs_f64(),
                    calls: 1,
                }];
                let wish = Wish { text: wanted, negative: Some(unwanted) };
                follow(painter.start(&[wish], &[7], None)?, start, parts)
            }
        }
    }

    fn network(&self) -> &Plan {
        match self {
            Engine::Letters(generator) => generator.plan(),
            Engine::StableDiffusion { painter, .. } => painter.plan(),
        }
    }

    /// What must be seen, where in the picture, and the bytes of its file.
    fn reference(&self) -> (&'static [u8], Option<[u32; 4]>) {
        match self {
            Engine::Letters(_) => (LETTERS, None),
            Engine::StableDiffusion { .. } => (SD15, Some(MIDDLE)),
        }
    }
}

/// The run to its end; pictures side by side.
fn follow(mut sampling: Sampling, start: Instant, mut parts: Vec<PartTime>) -> Result<Drawing> {
    let before = start.elapsed().as_secs_f64();
    let mut last = None;
    while let Some(submission) = sampling.step()? {
        last = Some(submission);
    }
    let encoded = start.elapsed().as_secs_f64();
    if let Some(submission) = last {
        sampling.gpu().wait(submission)?;
    }
    let stepped = start.elapsed().as_secs_f64();
    let pictures = sampling.pictures()?;
    let wall = start.elapsed().as_secs_f64();
    let mut part =
        |name: &str, seconds, calls| parts.push(PartTime { name: name.to_owned(), seconds, calls });
    part("network", stepped - before, STEPS as u32);
    part("decoder", wall - stepped, 1);
    let [width, height] = [pictures[0].width(), pictures[0].height()];
    let mut picture = RgbImage::new(width * pictures.len() as u32, height);
    for (i, one) in pictures.iter().enumerate() {
        image::imageops::replace(&mut picture, one, i64::from(i as u32 * width), 0);
    }
    Ok(Drawing { picture, encode: encoded - before, wall, parts })
}

struct Drawn {
    label: Label,
    engine: Engine,
    start: Start,
    first: RgbImage,
    parts: Vec<PartTime>,
}

impl Drawn {
    fn new(label: Label, mut engine: Engine, load: f64) -> Result<Drawn> {
        let first = engine.draw()?;
        let start = Start { plan: 0.0, compile: 0.0, load, first_run: first.wall };
        Ok(Drawn { label, engine, start, first: first.picture, parts: first.parts })
    }
}

impl Subject for Drawn {
    fn start(&self) -> Option<Start> {
        Some(self.start)
    }

    fn memory(&self) -> Option<Memory> {
        Some(network::memory(self.engine.network()))
    }

    fn check(&mut self) -> Result<(Check, Option<String>)> {
        let (file, part) = self.engine.reference();
        let wanted = image::load_from_memory_with_format(file, ImageFormat::Png).expect("a PNG").to_rgb8();
        // A picture takes long: it is drawn once more, and held against the first; not even that if it takes minutes.
        let replays = if self.start.first_run > MINUTES { 1 } else { 2 };
        let picture = if replays == 1 { self.first.clone() } else { self.engine.draw()?.picture };
        let distinct = 1 + u32::from(picture != self.first);
        let [x, y, w, h] = part.unwrap_or([0, 0, picture.width(), picture.height()]);
        let found = image::imageops::crop_imm(&picture, x, y, w, h).to_image();
        let differences = found.iter().zip(wanted.iter()).map(|(a, b)| f64::from(a.abs_diff(*b)));
        let squares: f64 = differences.clone().map(|d| d * d).sum();
        let count = found.as_raw().len() as f64;
        let power: f64 = wanted.iter().map(|v| f64::from(*v).powi(2)).sum();
        let largest = differences.fold(0.0, f64::max);
        let check = Check {
            against: format!(
                "{}: the picture that diffusers draws from the same noise, float32",
                self.label.name
            ),
            reference: Some(sha256(file)),
            compared: count as u64,
            elements: picture.as_raw().len() as u64,
            max_abs: largest,
            max_rel: largest / 255.0,
            rms: (squares / power).sqrt(),
            // Equal pictures are 99 dB apart, so that it stays a number.
            psnr: Some((10.0 * (255.0 * 255.0 * count / squares).log10()).min(99.0)),
            tolerance: tolerance(self.label.dtype),
            nans: 0,
            infinities: 0,
            replays,
            distinct,
        };
        let fault = check::fault(&check);
        Ok((check, fault))
    }

    fn time(&mut self, runs: u32) -> Result<RunTime> {
        let (mut encode, mut wall) = (0.0, 0.0);
        for _ in 0..runs {
            let drawn = self.engine.draw()?;
            (encode, wall) = (encode + drawn.encode, wall + drawn.wall);
            self.parts = drawn.parts;
        }
        // Many networks and a way over the host: what counts is when the picture is there.
        Ok(RunTime { encode, wall, device: None })
    }

    fn kernels(&mut self) -> Result<Vec<KernelTime>> {
        Ok(Vec::new())
    }

    fn parts(&self) -> Vec<PartTime> {
        self.parts.clone()
    }
}

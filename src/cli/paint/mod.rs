//! `aquatint generate --prompt`: pictures out of text, by a model of latent diffusion.

mod adapters;
mod batch;
mod begin;
mod controls;
mod target;
mod upscale;

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use aquatint::models::autoencoder_tiny::AutoencoderTinyConfig;
use aquatint::models::latent_diffusion::{Given, Part};
use aquatint::tasks::{
    NoiseSource, PaintOptions, Painter, Pipeline, SamplingState, StartFrom, Variation, Wish,
};
use aquatint::{AdapterOptions, DType, Error, Gpu, units};

use self::batch::{Batch, Run};
use self::begin::Begin;
use self::target::Target;
use super::generate::{Generate, random_seed};
use super::painting::Painting;
use super::preview::Preview;
use super::{model, progress};

/// Most pixels of a picture's side.
const MAX_SIDE: usize = 8192;

fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

pub fn run(args: &Generate, painting: Painting, device: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let saved = args.resume.as_ref().map(SamplingState::load).transpose()?;
    let painting = complete(args, painting)?;
    let settings = &painting.settings;
    let path = model::locate(Path::new(&painting.model), args.offline)?;
    let mut pipeline = Pipeline::open(&path, settings.text.prediction.as_deref())?;
    // A folder of the hub's cache is called by a checksum.
    if let Some(name) = Path::new(&painting.model).file_stem() {
        pipeline.model.name = name.display().to_string();
    }
    pipeline.text.clip_skip = settings.text.clip_skip.unwrap_or(0);
    adapters::apply(&mut pipeline, &settings.text)?;

    let (options, begin) = options(args, &painting, &pipeline)?;
    let mut painting = painting;
    resolve(&mut painting, &options, begin.is_some());
    let painting = painting;
    let count = args.count.unwrap_or(1);
    let target = Target::new(args.out.as_deref(), count, painting.settings.seed.unwrap_or(0))?;

    let gpu = Gpu::with_options(device)?;
    let text = &painting.settings.text;
    let prompt = text.prompt.as_deref().unwrap_or_default();
    let [wanted, unwanted] = pipeline
        .text
        .encode(&gpu, &[(prompt, text.negative.as_deref())], options.dtype)?
        .pop()
        .expect("one text gives one embedding");
    let tokens = wanted.states.desc.shape[0];
    let chunk = pipeline.text.encoders[0].tokenizer.length;
    if tokens > chunk && pipeline.text.t5.is_none() {
        say(&format!("the prompt is longer than {} tokens: read in {} chunks", chunk - 2, tokens / chunk));
    }
    let wish = Wish { text: wanted, negative: Some(unwanted) };
    if pipeline.model.given()? == Given::Small {
        let begin = begin.as_ref().map(|begin| &begin.picture);
        return upscale::run(&gpu, &pipeline.model, &wish, (&painting, count, &target), begin, &options, out);
    }
    let hires = text.hires.is_some();
    let kind = match &begin {
        Some(begin) => begin.kind(),
        None if hires => StartFrom::Latents,
        None => StartFrom::Noise,
    };
    let batch = args.batch.clamp(1, count.max(1));
    let (controls, pictures) = controls::open(text, &options)?;
    let mut painter = Painter::controlled(&gpu, &pipeline.model, batch, tokens, kind, &options, &controls)?;
    painter.control(&pictures.iter().collect::<Vec<_>>())?;
    if let Some(tiny) = &args.preview_model {
        painter.preview_with(&Part::<AutoencoderTinyConfig>::open(model::locate(tiny, args.offline)?)?)?;
    }

    let small = match text.hires {
        Some(factor) => Some(Painter::new(
            &gpu,
            &pipeline.model,
            batch,
            tokens,
            StartFrom::Noise,
            &smaller(&options, factor, pipeline.model.multiple())?,
        )?),
        None => None,
    };
    let variation = text.variation.as_deref().map(variation).transpose()?;

    let start = Instant::now();
    let steps = painter.steps() + small.as_ref().map_or(0, Painter::steps);
    let bar = progress::steps((count.div_ceil(batch) * steps) as u64);
    let preview = Preview::new(args.preview);
    let mut run = Run {
        args,
        painting: &painting,
        target: &target,
        controls: &pictures,
        small,
        variation,
        bar,
        preview,
    };
    let first = painting.settings.seed.unwrap_or(0);
    let mut saved = saved;
    let mut done = 0;
    while done < count {
        let seeds: Vec<u64> = (done..count.min(done + batch)).map(|i| first.wrapping_add(i as u64)).collect();
        let wishes = vec![wish.clone(); seeds.len()];
        let canvas = begin.as_ref().map(Begin::canvas);
        let batch = Batch { wishes: &wishes, seeds: &seeds, canvas, left: count - done };
        for path in run.paint(&mut painter, &batch, saved.take())? {
            writeln!(out, "{}", path.display())?;
        }
        out.flush()?;
        done += seeds.len();
    }
    run.bar.finish_and_clear();
    let noun = if count == 1 { "picture" } else { "pictures" };
    let time = units::seconds(start.elapsed().as_secs_f64());
    say(&format!("{count} {noun} in {time} on {}: {}", gpu.info().name, painting.caption()));
    Ok(())
}

/// Checks what must be there, and draws a seed if there is none.
fn complete(args: &Generate, mut painting: Painting) -> Result<Painting> {
    if let Some(model) = &args.model {
        painting.model = model.display().to_string();
    }
    let missing = |what: &str, expected: &str| Error::Invalid {
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: "none".to_owned(),
    };
    if painting.model.is_empty() {
        let expected = "--model with a folder of diffusers or a .safetensors checkpoint, to paint from text";
        return Err(missing("model", expected).into());
    }
    if painting.settings.text.prompt.is_none() {
        return Err(missing("prompt", "--prompt with what to paint (it may be empty)").into());
    }
    if !args.labels.is_empty() {
        let expected = "none, as this model is told by --prompt".to_owned();
        let found = args.labels.join(" ");
        return Err(Error::Invalid { what: "labels".to_owned(), expected, found }.into());
    }
    painting.version = env!("CARGO_PKG_VERSION").to_owned();
    painting.settings.seed.get_or_insert_with(random_seed);
    Ok(painting)
}

/// The options of the painter, and the picture to begin with at their size.
fn options(
    args: &Generate,
    painting: &Painting,
    pipeline: &Pipeline,
) -> Result<(PaintOptions, Option<Begin>)> {
    let (settings, text) = (&painting.settings, &painting.settings.text);
    let own = PaintOptions::of(&pipeline.model);
    // An upscaler makes what it is given four times as large, whatever that is.
    let enlarges = pipeline.model.given()? == Given::Small;
    let multiple = if enlarges { 1 } else { pipeline.model.multiple() };
    let begin = text
        .init
        .as_ref()
        .map(|path| begin::read(path, text.mask.as_deref(), text.extend.as_deref()))
        .transpose()?;
    let [width, height] = match &begin {
        Some(begin) => [begin.picture.width(), begin.picture.height()].map(|side| side as usize),
        None => [own.width, own.height],
    };
    let (width, height) = (text.width.unwrap_or(width), text.height.unwrap_or(height));
    let rounded = [width, height].map(|side| {
        let side = side.clamp(multiple, MAX_SIDE);
        (side + multiple / 2) / multiple * multiple
    });
    if rounded != [width, height] {
        let [w, h] = rounded;
        say(&format!(
            "{width}×{height} is rounded to {w}×{h}: sides are multiples of {multiple}, up to {MAX_SIDE}"
        ));
    }
    let [width, height] = rounded;
    let begin = begin.map(|begin| begin::sized(begin, width as u32, height as u32));
    let masked = begin.as_ref().is_some_and(|b| b.mask.is_some());
    let options = PaintOptions {
        width,
        height,
        steps: settings.steps.unwrap_or(own.steps),
        sampler: settings.sampler.as_ref().map_or(Ok(own.sampler), |s| s.parse())?,
        sigmas: settings.sigmas.as_ref().map_or(Ok(own.sigmas), |s| s.parse())?,
        guidance: settings.guidance.unwrap_or(own.guidance),
        rescale: text.rescale.unwrap_or(own.rescale),
        strength: text.strength.unwrap_or(match (text.hires, &begin) {
            (Some(_), _) => 0.6,
            (None, Some(_)) if !masked => 0.75,
            _ => 1.0,
        }),
        noise_level: text.noise_level.unwrap_or(own.noise_level),
        noise: match text.rng.as_deref() {
            Some("cpu") => NoiseSource::Cpu,
            _ => NoiseSource::Cuda,
        },
        dtype: match text.precision.as_deref() {
            Some("f16") => DType::F16,
            _ => DType::F32,
        },
        weights: text.weights.as_deref().map(str::parse).transpose()?,
        memory_budget: args.memory_budget,
        ..own
    };
    Ok((options, begin))
}

/// The options of the small picture that comes before a large one.
fn smaller(options: &PaintOptions, factor: f32, multiple: usize) -> Result<PaintOptions> {
    if !(factor > 1.0 && factor <= 8.0) {
        let expected = "above 1, up to 8".to_owned();
        return Err(Error::Invalid { what: "--hires".to_owned(), expected, found: factor.to_string() }.into());
    }
    let side = |side: usize| ((side as f32 / factor) as usize / multiple).max(1) * multiple;
    let (width, height) = (side(options.width), side(options.height));
    Ok(PaintOptions { width, height, strength: 1.0, ..options.clone() })
}

/// `SEED:SHARE`.
fn variation(text: &str) -> Result<Variation> {
    let parts =
        text.split_once(':').and_then(|(seed, share)| Some((seed.parse().ok()?, share.parse().ok()?)));
    let Some((seed, share)) = parts else {
        let expected = "a seed and a share, as 7:0.2".to_owned();
        return Err(
            Error::Invalid { what: "--variation".to_owned(), expected, found: text.to_owned() }.into()
        );
    };
    Ok(Variation { seed, share })
}

/// Writes down what the model chose, so that the picture can be made again by a model with other habits.
fn resolve(painting: &mut Painting, options: &PaintOptions, begins: bool) {
    let settings = &mut painting.settings;
    settings.steps = Some(options.steps);
    settings.sampler = Some(options.sampler.to_string());
    settings.sigmas = Some(options.sigmas.to_string());
    settings.guidance = Some(options.guidance);
    let text = &mut settings.text;
    (text.width, text.height) = (Some(options.width), Some(options.height));
    text.strength = (begins || text.hires.is_some()).then_some(options.strength);
    text.rng = Some(if options.noise == NoiseSource::Cpu { "cpu" } else { "cuda" }.to_owned());
    text.precision = Some(if options.dtype == DType::F16 { "f16" } else { "f32" }.to_owned());
}

/// The painting that a saved run is of.
pub fn resumed(path: &Path) -> Result<Painting> {
    let state = SamplingState::load(path)?;
    serde_json::from_str(&state.note).map_err(|_| {
        Error::Format {
            path: path.to_owned(),
            message: "does not say what it is a run of; it was not saved by --pause-to".to_owned(),
        }
        .into()
    })
}

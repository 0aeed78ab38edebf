//! `aquatint generate --prompt`: pictures out of text, by a model of latent diffusion.

mod adapters;
mod batch;
mod begin;
mod controls;
mod options;
mod pieces;
mod refine;
mod setup;
mod super_resolve;
mod target;
mod upscale;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use aquatint::models::autoencoder_tiny::AutoencoderTinyConfig;
use aquatint::models::latent_diffusion::{Given, Part};
use aquatint::tasks::{Painter, Pipeline, SamplingState, StartFrom, Unsaid, Variation, Wish};
use aquatint::text::TextEncoders;
use aquatint::{AdapterOptions, DType, Error, Gpu, units};

use self::batch::{Batch, Run};
use self::begin::Begin;
use self::pieces::Piece;
use self::setup::Setup;
pub use self::super_resolve::is_at as is_without_text;
use self::target::Target;
use super::generate::{Generate, MAX_PICTURES, random_seed};
use super::painting::{Painting, TextSettings};
use super::preview::Preview;
use super::{model, progress};

/// Most pixels of a picture's side.
const MAX_SIDE: usize = 8192;

fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

pub fn run(args: &Generate, painting: Painting, device: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let mut saved = args.resume.as_ref().map(SamplingState::load).transpose()?;
    let mut painting = complete(args, painting)?;
    let path = model::locate(Path::new(&painting.model), args.offline)?;
    if super_resolve::is_at(&path) {
        return super_resolve::run(args, painting, &path, device, out);
    }
    prompted(&painting)?;
    options::check(args, &painting.settings.text)?;
    let text = &painting.settings.text;
    let unsaid =
        Unsaid { prediction: text.prediction.as_deref(), t5_tokenizer: text.t5_tokenizer.as_deref() };
    let mut pipeline = Pipeline::open_with(&path, &unsaid)?;
    if let Some(why) = pipeline.text.t5.as_ref().and_then(|t5| t5.left_out.as_ref()) {
        let model = path.display();
        say(&format!(
            "{model}: its T5 is not used: {why}; --t5-tokenizer names the folder of a tokenizer.json"
        ));
    }
    // A folder of the hub's cache is called by a checksum.
    if let Some(name) = Path::new(&painting.model).file_stem() {
        pipeline.model.name = name.display().to_string();
    }
    if painting.settings.text.zero_snr {
        pipeline.model.use_zero_terminal_snr()?;
    }
    pipeline.text.clip_skip = painting.settings.text.clip_skip.unwrap_or(0);
    adapters::apply(&mut pipeline, &painting.settings.text)?;

    let (mut options, begin) = options::of(args, &painting, &pipeline)?;
    options::resolve(&mut painting, &options, begin.is_some());
    let given = pipeline.model.given()?;
    let text = &painting.settings.text;
    let refiner = match &text.refiner {
        Some(path) => {
            let start = text.refiner_start;
            Some(refine::open(path, start, args.offline, &pipeline.model, &mut options)?)
        }
        None => None,
    };
    let count = args.count.unwrap_or(1);
    let variation = text.variation.as_deref().map(options::variation).transpose()?;
    let (pieces, target) = match args.to_seed {
        Some(last) => series(args, &painting, last)?,
        None => {
            let pieces = pieces(&painting, count, variation)?;
            let target = Target::new(args.out.as_deref(), count, "aquatint", &pieces[0].name)?;
            (pieces, target)
        }
    };

    let gpu = Gpu::with_options(device)?;
    let wish = told(&gpu, &pipeline.text, text, options.dtype)?;
    if given == Given::Small {
        let begin = begin.as_ref().map(|begin| &begin.picture);
        let what = (&painting, &pieces[..], &target);
        return upscale::run(&gpu, &pipeline.model, &wish, what, begin, &options, out);
    }
    let kind = match &begin {
        Some(begin) => begin.kind(),
        None if text.hires.is_some() => StartFrom::Latents,
        None => StartFrom::Noise,
    };
    let batch = args.batch.clamp(1, count);
    let (controls, pictures) = controls::open(text, &options)?;
    let tiny = match &args.preview_model {
        Some(tiny) => Some(Part::<AutoencoderTinyConfig>::open(model::locate(tiny, args.offline)?)?),
        None => None,
    };
    let setup = Setup {
        gpu: &gpu,
        model: &pipeline.model,
        batch,
        wish: &wish,
        kind,
        options,
        controls: &controls,
        pictures: &pictures,
        tiny: tiny.as_ref(),
    };
    let start = Instant::now();
    let mut run = Run {
        args,
        painting: &painting,
        target: &target,
        small: None,
        // As with --pause-to.
        keeps: args.to_seed.is_none(),
        bar: progress::steps(0),
        preview: Preview::new(args.preview),
    };
    let batches: Vec<Batch> = pieces
        .chunks(batch)
        .enumerate()
        .map(|(i, pieces)| Batch {
            pieces,
            canvas: begin.as_ref().map(Begin::canvas),
            latents: None,
            left: count - i * batch,
        })
        .collect();
    let mut done = |paths: Vec<PathBuf>| -> Result<()> {
        for path in paths {
            writeln!(out, "{}", path.display())?;
        }
        Ok(out.flush()?)
    };
    match refiner {
        Some((refiner, options)) => {
            let wish = told(&gpu, &refiner.text, text, options.dtype)?;
            let (model, controls, pictures) = (&refiner.model, &[][..], &[][..]);
            let second = Setup { model, wish: &wish, options, controls, pictures, ..setup };
            refine::paint(&mut run, [&setup, &second], &batches, saved, done)?;
        }
        None => {
            let mut painter = setup.painter()?;
            if let Some(factor) = text.hires {
                let options = options::smaller(&setup.options, factor, pipeline.model.multiple())?;
                let (kind, controls, pictures) = (StartFrom::Noise, &[][..], &[][..]);
                run.small = Some(Setup { kind, options, controls, pictures, ..setup }.painter()?);
            }
            let steps = painter.steps() + run.small.as_ref().map_or(0, Painter::steps);
            run.bar.set_length((batches.len() * steps) as u64);
            for batch in &batches {
                done(run.paint(&setup, &mut painter, batch, saved.take())?)?;
            }
        }
    }
    run.bar.finish_and_clear();
    let noun = if count == 1 { "picture" } else { "pictures" };
    let time = units::seconds(start.elapsed().as_secs_f64());
    say(&format!("{count} {noun} in {time} on {}: {}", gpu.info().name, painting.caption()));
    Ok(())
}

/// What a model is told.
fn told(gpu: &Gpu, encoders: &TextEncoders, text: &TextSettings, dtype: DType) -> Result<Wish> {
    let prompt = text.prompt.as_deref().unwrap_or_default();
    let mut wishes = encoders.encode(gpu, &[(prompt, text.negative.as_deref())], dtype)?;
    let [wanted, unwanted] = wishes.pop().expect("one text gives one embedding");
    let tokens = wanted.states.desc.shape[0];
    let chunk = encoders.encoders[0].tokenizer.length;
    if tokens > chunk && encoders.t5.is_none() {
        say(&format!("the prompt is longer than {} tokens: read in {} chunks", chunk - 2, tokens / chunk));
    }
    Ok(Wish { text: wanted, negative: Some(unwanted) })
}

/// The pictures that are to be painted.
fn pieces(painting: &Painting, count: usize, variation: Option<Variation>) -> Result<Vec<Piece>> {
    if !(1..=MAX_PICTURES).contains(&count) {
        return Err(Error::Invalid {
            what: "number of pictures".to_owned(),
            expected: format!("1 to {MAX_PICTURES}"),
            found: count.to_string(),
        }
        .into());
    }
    Ok(Piece::seeds(painting.settings.seed.unwrap_or(0), count, variation))
}

fn missing(what: &str, expected: &str) -> anyhow::Error {
    let (what, expected, found) = (what.to_owned(), expected.to_owned(), "none".to_owned());
    Error::Invalid { what, expected, found }.into()
}

fn prompted(painting: &Painting) -> Result<()> {
    match painting.settings.text.prompt {
        Some(_) => Ok(()),
        None => Err(missing("prompt", "--prompt with what to paint (it may be empty)")),
    }
}

/// The pictures of a series, and where they go.
fn series(args: &Generate, painting: &Painting, last: u64) -> Result<(Vec<Piece>, Target)> {
    let count = args.count.unwrap_or(1);
    if !(2..=MAX_PICTURES).contains(&count) {
        let (what, expected) = ("--count of a series to --to-seed", format!("2 to {MAX_PICTURES}"));
        return Err(Error::Invalid { what: what.to_owned(), expected, found: count.to_string() }.into());
    }
    let first = painting.settings.seed.unwrap_or(0);
    let pieces = Piece::series(first, last, count);
    let stem = format!("aquatint-{first}-to-{last}");
    let target = Target::new(args.out.as_deref(), count, &stem, &pieces[0].name)?;
    Ok((pieces, target))
}

/// Checks what must be there, and draws a seed if there is none.
fn complete(args: &Generate, mut painting: Painting) -> Result<Painting> {
    if let Some(model) = &args.model {
        painting.model = model.display().to_string();
    }
    if painting.model.is_empty() {
        let expected = "--model with a folder of diffusers or a .safetensors checkpoint, to paint from text";
        return Err(missing("model", expected));
    }
    // Only for a picture that is enlarged there needs to be no text; whether it is, the model tells.
    if painting.settings.text.init.is_none() && !is_without_text(Path::new(&painting.model)) {
        prompted(&painting)?;
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

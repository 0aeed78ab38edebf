//! `aquatint generate --prompt`: pictures out of text, by a model of latent diffusion.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use aquatint::formats::picture;
use aquatint::tasks::{
    Canvas, NoiseSource, PaintOptions, Painter, Pipeline, Sampling, SamplingState, StartFrom, Wish,
};
use aquatint::{AdapterOptions, DType, Error, Gpu, units};
use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};
use indicatif::ProgressBar;

use super::generate::{Generate, random_seed};
use super::painting::Painting;
use super::preview::Preview;
use super::{interrupt, make_folder_of, progress};

/// Most pixels of a picture's side.
const MAX_SIDE: usize = 8192;

/// A picture to begin with and where it is painted over.
struct Begin {
    picture: RgbImage,
    mask: Option<GrayImage>,
}

impl Begin {
    fn canvas(&self) -> Canvas<'_> {
        Canvas { picture: &self.picture, mask: self.mask.as_ref() }
    }
}

fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

pub fn run(args: &Generate, painting: Painting, device: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let saved = args.resume.as_ref().map(SamplingState::load).transpose()?;
    let painting = complete(args, painting)?;
    let settings = &painting.settings;
    let mut pipeline = Pipeline::open(&painting.model, settings.text.prediction.as_deref())?;
    pipeline.text.clip_skip = settings.text.clip_skip.unwrap_or(0);

    let (options, begin) = options(&painting, &pipeline)?;
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
    if tokens > chunk {
        say(&format!("the prompt is longer than {} tokens: read in {} chunks", chunk - 2, tokens / chunk));
    }
    let wish = Wish { text: wanted, negative: Some(unwanted) };
    let kind = match &begin {
        None => StartFrom::Noise,
        Some(Begin { mask: None, .. }) => StartFrom::Picture,
        Some(_) => StartFrom::Masked,
    };
    let batch = args.batch.clamp(1, count.max(1));
    let mut painter = Painter::new(&gpu, &pipeline.model, batch, tokens, kind, &options)?;

    let start = Instant::now();
    let steps = painter.steps();
    let bar = progress::steps((count.div_ceil(batch) * steps) as u64);
    let mut run = Run {
        args,
        painting: &painting,
        target: &target,
        bar,
        preview: Preview::new(args.preview),
        gpu: &gpu,
    };
    let first = painting.settings.seed.unwrap_or(0);
    let mut done = 0;
    while done < count {
        let seeds: Vec<u64> = (done..count.min(done + batch)).map(|i| first.wrapping_add(i as u64)).collect();
        let wishes = vec![wish.clone(); seeds.len()];
        let canvas = begin.as_ref().map(Begin::canvas);
        let mut sampling = match saved.as_ref().filter(|_| done == 0) {
            Some(state) => painter.resume(&wishes, canvas, state)?,
            None => painter.start(&wishes, &seeds, canvas)?,
        };
        for path in run.paint(&mut sampling, &seeds, count - done)? {
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
fn options(painting: &Painting, pipeline: &Pipeline) -> Result<(PaintOptions, Option<Begin>)> {
    let (settings, text) = (&painting.settings, &painting.settings.text);
    let own = PaintOptions::of(&pipeline.model);
    let multiple = pipeline.model.vae.config.factor();
    let begin = text
        .init
        .as_ref()
        .map(|path| begin(path, text.mask.as_deref(), text.extend.as_deref()))
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
    let begin = begin.map(|begin| sized(begin, width as u32, height as u32));
    let masked = begin.as_ref().is_some_and(|b| b.mask.is_some());
    let options = PaintOptions {
        width,
        height,
        steps: settings.steps.unwrap_or(own.steps),
        sampler: settings.sampler.as_ref().map_or(Ok(own.sampler), |s| s.parse())?,
        sigmas: settings.sigmas.as_ref().map_or(Ok(own.sigmas), |s| s.parse())?,
        guidance: settings.guidance.unwrap_or(own.guidance),
        rescale: text.rescale.unwrap_or(own.rescale),
        strength: text.strength.unwrap_or(if begin.is_none() || masked { 1.0 } else { 0.75 }),
        noise: match text.rng.as_deref() {
            Some("cpu") => NoiseSource::Cpu,
            _ => NoiseSource::Cuda,
        },
        dtype: match text.precision.as_deref() {
            Some("f16") => DType::F16,
            _ => DType::F32,
        },
        ..own
    };
    Ok((options, begin))
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
    text.strength = begins.then_some(options.strength);
    text.rng = Some(if options.noise == NoiseSource::Cpu { "cpu" } else { "cuda" }.to_owned());
    text.precision = Some(if options.dtype == DType::F16 { "f16" } else { "f32" }.to_owned());
}

/// Reads the picture to begin with and its mask; `extend` makes it larger, and a mask of what is new.
fn begin(picture: &Path, mask: Option<&Path>, extend: Option<&[u32]>) -> Result<Begin> {
    let whole = picture::open(picture)?;
    if let Some(sides) = extend {
        let &[left, top, right, bottom] = sides else {
            let found = format!("{} numbers", sides.len());
            let expected = "four: left, top, right, bottom".to_owned();
            return Err(Error::Invalid { what: "--extend".to_owned(), expected, found }.into());
        };
        let (w, h) = whole.dimensions();
        let size = |a: u32, b: u32, c: u32| a.saturating_add(b).saturating_add(c);
        let (width, height) = (size(w, left, right), size(h, top, bottom));
        if width.max(height) as usize > MAX_SIDE {
            let found = format!("{width}×{height}");
            let expected = format!("a picture of at most {MAX_SIDE} pixels a side");
            return Err(Error::Invalid { what: "--extend".to_owned(), expected, found }.into());
        }
        // What is new begins as the nearest edge.
        let near = |at: u32, before: u32, size: u32| at.saturating_sub(before).min(size - 1);
        let picture =
            RgbImage::from_fn(width, height, |x, y| *whole.get_pixel(near(x, left, w), near(y, top, h)));
        let inside = |x: u32, y: u32| (left..left + w).contains(&x) && (top..top + h).contains(&y);
        let mask =
            GrayImage::from_fn(width, height, |x, y| image::Luma([if inside(x, y) { 0 } else { 255 }]));
        return Ok(Begin { picture, mask: Some(mask) });
    }
    let mask = mask.map(|mask| Ok::<_, Error>(imageops::grayscale(&picture::open(mask)?))).transpose()?;
    Ok(Begin { picture: whole, mask })
}

fn sized(begin: Begin, width: u32, height: u32) -> Begin {
    let Begin { picture, mask } = begin;
    let is_size = |size: (u32, u32)| size == (width, height);
    Begin {
        picture: match is_size(picture.dimensions()) {
            true => picture,
            false => imageops::resize(&picture, width, height, FilterType::Lanczos3),
        },
        mask: mask.map(|mask| match is_size(mask.dimensions()) {
            true => mask,
            false => imageops::resize(&mask, width, height, FilterType::Nearest),
        }),
    }
}

/// Where the pictures go.
enum Target {
    One(PathBuf),
    /// A picture a seed, with this before its number.
    Many(PathBuf, String),
}

impl Target {
    fn new(out: Option<&Path>, count: usize, seed: u64) -> Result<Target> {
        if !(1..=super::generate::MAX_PICTURES).contains(&count) {
            let expected = format!("1 to {}", super::generate::MAX_PICTURES);
            return Err(Error::Invalid {
                what: "number of pictures".to_owned(),
                expected,
                found: count.to_string(),
            }
            .into());
        }
        let Some(out) = out else {
            return Ok(match count {
                1 => Target::One(format!("aquatint-{seed}.png").into()),
                _ => Target::Many(PathBuf::new(), "aquatint-".to_owned()),
            });
        };
        if out.as_os_str().to_string_lossy().ends_with(std::path::is_separator) || out.is_dir() {
            std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
            return Ok(Target::Many(out.to_owned(), String::new()));
        }
        if out.extension().is_none_or(|e| !e.eq_ignore_ascii_case("png")) {
            let expected = "a name that ends in .png, or a folder that ends in /".to_owned();
            return Err(Error::Invalid {
                what: "--out".to_owned(),
                expected,
                found: out.display().to_string(),
            }
            .into());
        }
        make_folder_of(out)?;
        let stem = out.file_stem().map_or(String::new(), |stem| stem.display().to_string());
        Ok(match count {
            1 => Target::One(out.to_owned()),
            _ => Target::Many(out.parent().unwrap_or(Path::new("")).to_owned(), format!("{stem}-")),
        })
    }

    fn path(&self, seed: u64) -> PathBuf {
        match self {
            Target::One(path) => path.clone(),
            Target::Many(folder, stem) => folder.join(format!("{stem}{seed}.png")),
        }
    }
}

/// What all batches of a call have in common.
struct Run<'a> {
    args: &'a Generate,
    painting: &'a Painting,
    target: &'a Target,
    bar: ProgressBar,
    preview: Option<Preview>,
    gpu: &'a Gpu,
}

impl Run<'_> {
    /// Paints a batch and writes its pictures. `left` counts its pictures and those that come after.
    fn paint(&mut self, sampling: &mut Sampling, seeds: &[u64], left: usize) -> Result<Vec<PathBuf>> {
        self.bar.inc(sampling.steps_done() as u64);
        let mut before = None;
        while !sampling.is_done() {
            if interrupt::asked() {
                self.bar.finish_and_clear();
                return Err(self.stopped(sampling, seeds, left)?);
            }
            // One step is under way while the next is recorded, so that the device never waits.
            let submitted = sampling.step()?;
            if let Some(before) = std::mem::replace(&mut before, submitted) {
                self.gpu.wait(before)?;
            }
            self.bar.inc(1);
            self.show(sampling, seeds)?;
        }
        let pictures = sampling.pictures()?;
        let mut paths = Vec::new();
        for (picture, &seed) in pictures.iter().zip(seeds) {
            let mut painting = self.painting.clone();
            painting.settings.seed = Some(seed);
            let path = self.target.path(seed);
            painting.save(&path, picture)?;
            paths.push(path);
        }
        Ok(paths)
    }

    /// What is there so far: on the terminal, or every so many steps in a file beside the picture.
    fn show(&mut self, sampling: &Sampling, seeds: &[u64]) -> Result<()> {
        let every = self.args.preview_every;
        let due = match every {
            Some(every) => every > 0 && sampling.steps_done().is_multiple_of(every) && !sampling.is_done(),
            None => self.preview.as_ref().is_some_and(Preview::due),
        };
        if !due {
            return Ok(());
        }
        let pictures = sampling.preview()?;
        match &mut self.preview {
            Some(preview) => self.bar.suspend(|| preview.show(&pictures[0])),
            None if every.is_some() => {
                let path = self.target.path(seeds[0]).with_extension("preview.png");
                picture::save_png(&path, &pictures[0].clone().into(), &[("Software", "aquatint")])?;
            }
            None => {}
        }
        Ok(())
    }

    /// Saves the run if that is wished, and says how to go on.
    fn stopped(&self, sampling: &Sampling, seeds: &[u64], left: usize) -> Result<anyhow::Error> {
        let done =
            format!("stopped by the user after {} of {} steps", sampling.steps_done(), sampling.steps());
        let message = match &self.args.pause_to {
            None => format!("{done}; this picture was not written (--pause-to FILE keeps the run)"),
            Some(path) => {
                let mut painting = self.painting.clone();
                painting.settings.seed = Some(seeds[0]);
                let mut state = sampling.state()?;
                state.note = painting.json();
                make_folder_of(path)?;
                state.save(path)?;
                let mut again = if left > 1 { format!(" --count {left}") } else { String::new() };
                if self.args.batch > 1 {
                    again = format!("{again} --batch {}", self.args.batch);
                }
                format!("{done}; go on with: aquatint generate --resume {}{again}", path.display())
            }
        };
        Ok(anyhow::Error::new(Error::Interrupted).context(message))
    }
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

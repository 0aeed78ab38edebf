//! `aquatint generate`: pictures out of noise.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use aquatint::formats::sheet::{self, Cell};
use aquatint::tasks::{DiffusionModel, GenerateOptions, Generator, Pipeline};
use aquatint::{AdapterOptions, Error, Gpu, units};
use image::{DynamicImage, RgbImage};
use indicatif::ProgressBar;

use super::painting::{Painting, Settings, TextSettings};
use super::preview::{Preview, When};
use super::recipe::Recipe;
use super::{interrupt, make_folder_of, model, paint, progress};

/// Most pictures of one call.
pub const MAX_PICTURES: usize = 10_000;

/// Most pictures that are drawn together.
const MAX_BATCH: usize = 36;

#[derive(clap::Args)]
pub struct Generate {
    /// Labels, or words to be drawn letter by letter [default: every label]
    #[arg(value_name = "LABEL|WORD")]
    pub labels: Vec<String>,
    /// How many of each [default: 1]
    #[arg(long)]
    pub count: Option<usize>,
    /// PNG to write, or a folder (ending in `/`) for a PNG of each picture [default: aquatint-SEED.png]
    #[arg(long, short, value_name = "FILE|FOLDER/")]
    pub out: Option<PathBuf>,
    /// Make the pictures of an earlier PNG again; other options change what they name
    #[arg(long, value_name = "PICTURE")]
    pub from: Option<PathBuf>,
    /// A model of one's own: latent diffusion as a folder of diffusers, a .safetensors checkpoint or a name on the Hugging
    /// Face hub, told by --prompt; an LDMSuperResolutionPipeline, which enlarges --init; or a folder with a UNet2DModel, its
    /// labels numbers
    #[arg(long, value_name = "FOLDER|FILE|NAME")]
    pub model: Option<PathBuf>,
    /// Take models of the hub from its cache alone
    #[arg(long)]
    pub offline: bool,
    /// Show the pictures on the terminal while they are made
    #[arg(long, value_enum, default_value_t = When::Auto)]
    pub preview: When,
    /// Show them every so many steps; where there is no terminal, in a file NAME.preview.png
    #[arg(long, value_name = "STEPS")]
    pub preview_every: Option<usize>,
    /// A tiny autoencoder for these pictures from text (TAESD): quicker, less exact
    #[arg(long, value_name = "FOLDER|FILE")]
    pub preview_model: Option<PathBuf>,
    /// Pictures from text that are painted together
    #[arg(long, value_name = "PICTURES", default_value_t = 1)]
    pub batch: usize,
    /// Paint a series of --count pictures from text, from that of --seed to that of another seed: between them the first
    /// noise goes along the arc from one to the other (what a sampler draws on the way is that of --seed)
    #[arg(long, value_name = "SEED")]
    pub to_seed: Option<u64>,
    /// Device memory that pictures from text may take, as 6GB or 900MiB [default: all]
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    pub memory_budget: Option<u64>,
    /// Where to keep a run from text that Ctrl-C stops
    #[arg(long, value_name = "FILE")]
    pub pause_to: Option<PathBuf>,
    /// Keep a run from text in memory every so many steps, to be saved if the device is lost, as --pause-to says or beside the
    /// picture; 0 for never [default: every few seconds]
    #[arg(long, value_name = "STEPS")]
    pub keep_every: Option<usize>,
    /// For tests: the device is lost so many calls after a run began
    #[arg(long, hide = true)]
    pub lose_device_after: Option<u64>,
    /// Go on with a run that was kept
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "model"])]
    pub resume: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

impl Generate {
    /// What is to be painted from text; `None` if it is labels that are to be drawn.
    fn painting(&self) -> Result<Option<Painting>> {
        let given = self.settings.clone();
        if let Some(path) = &self.resume {
            let Painting { settings, model, .. } = paint::resumed(path)?;
            return Ok(Some(Painting { settings: given.or(settings), model, ..Painting::default() }));
        }
        if let Some(base) = self.from.as_ref().map(|path| Painting::read(path)).transpose()?.flatten() {
            return Ok(Some(Painting { settings: given.or(base.settings), ..base }));
        }
        let told_by_text =
            self.model.as_ref().is_some_and(|path| Pipeline::is_at(path) || paint::is_without_text(path));
        if told_by_text || given.text != TextSettings::default() {
            return Ok(Some(Painting { settings: given, ..Painting::default() }));
        }
        Ok(None)
    }

    fn recipe(&self, model: &DiffusionModel) -> Result<Recipe> {
        let known = model.labels();
        let base = match &self.from {
            None => None,
            Some(path) => Some(Recipe::read(path)?.ok_or_else(|| Error::Format {
                path: path.clone(),
                message:
                    "holds no parameters: it is not by aquatint, or was saved again without them".to_owned(),
            })?),
        };
        if let Some(base) = base.as_ref().filter(|base| base.model != model.name()) {
            let (found, expected) = (base.model.clone(), model.name().to_owned());
            return Err(Error::Unknown { what: "model", found, expected }.into());
        }
        let own = model.options();
        let base = base.unwrap_or_else(|| Recipe {
            version: String::new(),
            model: model.name().to_owned(),
            // A model without labels draws one kind of picture.
            labels: if known.is_empty() { vec![String::new()] } else { known.to_vec() },
            count: 1,
            seed: random_seed(),
            steps: own.steps,
            sampler: own.sampler.to_string(),
            sigmas: own.sigmas.to_string(),
            guidance: own.guidance,
            sheet: None,
        });
        let labels = match self.labels.is_empty() {
            true => base.labels,
            false => spell(&self.labels, known)?,
        };
        // Those of a file are checked too.
        if !known.is_empty() {
            labels.iter().try_for_each(|label| find(label, known))?;
        }
        let given = &self.settings;
        let recipe = Recipe {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels,
            count: self.count.unwrap_or(base.count),
            seed: given.seed.unwrap_or(base.seed),
            steps: given.steps.unwrap_or(base.steps),
            sampler: given.sampler.clone().unwrap_or(base.sampler),
            sigmas: given.sigmas.clone().unwrap_or(base.sigmas),
            guidance: given.guidance.unwrap_or(base.guidance),
            sheet: None,
            ..base
        };
        let pictures = recipe.count.saturating_mul(recipe.labels.len());
        if pictures == 0 || pictures > MAX_PICTURES {
            return Err(Error::Invalid {
                what: "number of pictures".to_owned(),
                expected: format!("1 to {MAX_PICTURES}"),
                found: pictures.to_string(),
            }
            .into());
        }
        Ok(recipe)
    }
}

/// A seed that is short enough to be written down.
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 32
}

fn find(label: &str, known: &[String]) -> Result<(), Error> {
    match known.iter().any(|k| k == label) {
        true => Ok(()),
        false => Err(Error::Unknown { what: "label", found: label.to_owned(), expected: known.join(" ") }),
    }
}

/// Labels as given; what is no label is taken letter by letter, in capitals if need be.
fn spell(words: &[String], known: &[String]) -> Result<Vec<String>, Error> {
    let mut labels = Vec::new();
    for word in words {
        if known.contains(word) {
            labels.push(word.clone());
            continue;
        }
        let letter = |c: char| {
            let exact = c.to_string();
            if known.contains(&exact) { exact } else { c.to_uppercase().to_string() }
        };
        let letters: Vec<String> = word.chars().map(letter).collect();
        if letters.is_empty() || letters.iter().any(|l| !known.contains(l)) {
            find(word, known)?;
        }
        labels.extend(letters);
    }
    Ok(labels)
}

/// Where the pictures go.
enum Target {
    Sheet(PathBuf),
    Folder(PathBuf),
}

impl Target {
    fn new(out: Option<&Path>, seed: u64) -> Result<Target> {
        let Some(out) = out else {
            return Ok(Target::Sheet(format!("aquatint-{seed}.png").into()));
        };
        if out.as_os_str().to_string_lossy().ends_with(std::path::is_separator) || out.is_dir() {
            std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
            return Ok(Target::Folder(out.to_owned()));
        }
        make_folder_of(out)?;
        match out.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
            true => Ok(Target::Sheet(out.to_owned())),
            false => Err(Error::Invalid {
                what: "--out".to_owned(),
                expected: "a name that ends in .png, or a folder that ends in /".to_owned(),
                found: out.display().to_string(),
            }
            .into()),
        }
    }
}

pub fn run(args: &Generate, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    interrupt::listen()?;
    match args.painting()? {
        Some(painting) => paint::run(args, painting, options, out),
        None => letters(args, options, out),
    }
}

/// Letters, and what else a network draws that is told by labels.
fn letters(args: &Generate, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let model = match &args.model {
        None => DiffusionModel::letters()?,
        Some(folder) => DiffusionModel::open(model::locate(folder, args.offline)?)?,
    };
    let recipe = args.recipe(&model)?;
    let generate = GenerateOptions {
        steps: recipe.steps,
        sampler: recipe.sampler.parse()?,
        sigmas: recipe.sigmas.parse()?,
        guidance: recipe.guidance,
        ..model.options()
    };
    let target = Target::new(args.out.as_deref(), recipe.seed)?;
    let gpu = Gpu::with_options(options)?;

    let total = recipe.count * recipe.labels.len();
    // Batches of one size, none nearly empty.
    let batch = total.div_ceil(total.div_ceil(MAX_BATCH));
    let mut generator = Generator::new(&gpu, &model, batch, &generate)?;
    let start = Instant::now();
    let drawn = draw(&mut generator, &recipe, Preview::new(args.preview))?;
    let seconds = start.elapsed().as_secs_f64();

    for path in save(&recipe, &drawn, &target)? {
        writeln!(out, "{}", path.display())?;
    }
    out.flush()?;
    let noun = if total == 1 { "picture" } else { "pictures" };
    let (time, device, caption) = (units::seconds(seconds), &gpu.info().name, recipe.caption());
    let _ = writeln!(io::stderr(), "{total} {noun} in {time} on {device}: {caption}");
    Ok(())
}

/// Draws all pictures of a recipe, a batch at a time.
fn draw(generator: &mut Generator, recipe: &Recipe, mut preview: Option<Preview>) -> Result<Vec<RgbImage>> {
    let gpu = generator.gpu().clone();
    let batch = generator.batch();
    let labels: Vec<&String> =
        recipe.labels.iter().cycle().take(recipe.count * recipe.labels.len()).collect();
    let batches = labels.len().div_ceil(batch);
    let bar = progress::steps((batches * recipe.steps) as u64);
    let mut drawn = Vec::with_capacity(labels.len());
    for labels in labels.chunks(batch) {
        let seeds: Vec<u64> =
            (0..labels.len()).map(|i| recipe.seed.wrapping_add((drawn.len() + i) as u64)).collect();
        let mut sampling = generator.start(labels, &seeds)?;
        // One step is under way while the next is recorded, so that the device never waits.
        let mut before = None;
        while !sampling.is_done() {
            if interrupt::asked() {
                bar.finish_and_clear();
                return Err(stopped(&bar));
            }
            let submitted = sampling.step()?;
            if let Some(before) = std::mem::replace(&mut before, submitted) {
                gpu.wait(before)?;
            }
            bar.inc(1);
            if let Some(preview) = preview.as_mut().filter(|p| p.due() || sampling.is_done()) {
                let pictures = sampling.preview()?;
                bar.suspend(|| preview.show(&grid(&pictures, recipe.labels.len())));
            }
        }
        drawn.extend(sampling.pictures()?);
    }
    bar.finish_and_clear();
    Ok(drawn)
}

fn stopped(bar: &ProgressBar) -> anyhow::Error {
    let (done, all) = (bar.position(), bar.length().unwrap_or(0));
    let message = format!("stopped by the user after {done} of {all} steps; nothing was written");
    anyhow::Error::new(Error::Interrupted).context(message)
}

/// Pictures side by side, without labels.
fn grid(pictures: &[RgbImage], kinds: usize) -> RgbImage {
    let columns = sheet::columns(kinds, pictures.len()).min(pictures.len()) as u32;
    let (w, h) = pictures[0].dimensions();
    let mut grid = RgbImage::new(columns * w, (pictures.len() as u32).div_ceil(columns) * h);
    for (i, picture) in (0..).zip(pictures) {
        let [x, y] = [i % columns * w, i / columns * h];
        image::imageops::replace(&mut grid, picture, i64::from(x), i64::from(y));
    }
    grid
}

/// Grey pictures as grey.
fn native(picture: &RgbImage) -> DynamicImage {
    let grey = picture.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]);
    let picture = DynamicImage::from(picture.clone());
    if grey { picture.into_luma8().into() } else { picture }
}

/// Writes the pictures and returns the names of the files.
fn save(recipe: &Recipe, drawn: &[RgbImage], target: &Target) -> Result<Vec<PathBuf>> {
    match target {
        Target::Sheet(path) if drawn.len() == 1 => {
            recipe.save(path, &native(&drawn[0]))?;
            Ok(vec![path.clone()])
        }
        Target::Sheet(path) => {
            let labels = recipe.labels.iter().cycle();
            let cells: Vec<Cell> =
                drawn.iter().zip(labels).map(|(picture, label)| Cell { picture, label }).collect();
            let columns = sheet::columns(recipe.labels.len(), drawn.len());
            let (picture, layout) = sheet::draw(&cells, columns, &recipe.caption());
            Recipe { sheet: Some(layout), ..recipe.clone() }.save(path, &picture.into())?;
            Ok(vec![path.clone()])
        }
        Target::Folder(folder) => {
            let digits = (drawn.len() - 1).to_string().len().max(2);
            let labels = recipe.labels.iter().cycle();
            let mut paths = Vec::new();
            for (i, (picture, label)) in drawn.iter().zip(labels).enumerate() {
                let dash = if label.is_empty() { "" } else { "-" };
                let path = folder.join(format!("{i:0digits$}{dash}{label}.png"));
                let recipe = Recipe {
                    labels: vec![label.clone()],
                    count: 1,
                    seed: recipe.seed.wrapping_add(i as u64),
                    ..recipe.clone()
                };
                recipe.save(&path, &native(picture))?;
                paths.push(path);
            }
            Ok(paths)
        }
    }
}

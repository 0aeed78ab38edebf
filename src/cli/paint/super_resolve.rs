//! Small pictures to large ones by latent diffusion without a text.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use aquatint::formats::diffusers::Folder;
use aquatint::formats::picture;
use aquatint::models::super_resolution::SuperResolution;
use aquatint::tasks::{NoiseSource, SuperResolveOptions, SuperResolver};
use aquatint::{AdapterOptions, DType, Error, Gpu, units};
use image::RgbImage;
use image::imageops::{self, FilterType};

use super::pieces::Piece;
use super::target::Target;
use super::{MAX_SIDE, pieces, say};
use crate::cli::generate::Generate;
use crate::cli::painting::Painting;
use crate::cli::{interrupt, progress};

/// What a picture may be told to be made with, by the names of the settings.
const OPTIONS: [&str; 3] = ["init", "rng", "precision"];

/// Sides of the result over those of the picture.
const FACTOR: usize = 4;

/// Whether there is a model that enlarges pictures without a text at a path.
pub fn is_at(path: &Path) -> bool {
    path.is_dir() && Folder::open(path).is_ok_and(|folder| SuperResolution::is_in(&folder))
}

pub fn run(
    args: &Generate,
    mut painting: Painting,
    path: &Path,
    device: &AdapterOptions,
    out: &mut dyn Write,
) -> Result<()> {
    let mut model = SuperResolution::open(&Folder::open(path)?)?;
    if let Some(name) = Path::new(&painting.model).file_stem() {
        model.name = name.display().to_string();
    }
    refuse(args, &painting, &model.name)?;
    let picture = small(&painting, &model)?;
    let own = SuperResolveOptions::of(&model);
    let settings = &painting.settings;
    let options = SuperResolveOptions {
        height: picture.height() as usize,
        width: picture.width() as usize,
        steps: settings.steps.unwrap_or(own.steps),
        sampler: settings.sampler.as_ref().map_or(Ok(own.sampler), |s| s.parse())?,
        sigmas: settings.sigmas.as_ref().map_or(Ok(own.sigmas), |s| s.parse())?,
        noise: if settings.text.rng.as_deref() == Some("cpu") { NoiseSource::Cpu } else { NoiseSource::Cuda },
        dtype: if settings.text.precision.as_deref() == Some("f16") { DType::F16 } else { DType::F32 },
    };
    resolve(&mut painting, &options);
    let count = args.count.unwrap_or(1);
    let pieces = pieces(&painting, count, None)?;
    let target = Target::new(args.out.as_deref(), count, "aquatint", &pieces[0].name)?;
    let gpu = Gpu::with_options(device)?;
    let batch = args.batch.clamp(1, count);
    let mut resolver = SuperResolver::new(&gpu, &model, batch, &options)?;
    let start = Instant::now();
    let bar = progress::steps((count.div_ceil(batch) * options.steps) as u64);
    for pieces in pieces.chunks(batch) {
        for (piece, large) in pieces.iter().zip(enlarge(&mut resolver, &picture, pieces, &bar)?) {
            let path = target.path(&piece.name);
            piece.painting(&painting).save(&path, &large)?;
            writeln!(out, "{}", path.display())?;
        }
        out.flush()?;
    }
    bar.finish_and_clear();
    let noun = if count == 1 { "picture" } else { "pictures" };
    let time = units::seconds(start.elapsed().as_secs_f64());
    say(&format!("{count} {noun} in {time} on {}: {}", gpu.info().name, painting.caption()));
    Ok(())
}

/// A batch of pictures of one, each with noise of its own.
fn enlarge(
    resolver: &mut SuperResolver,
    picture: &RgbImage,
    pieces: &[Piece],
    bar: &indicatif::ProgressBar,
) -> Result<Vec<RgbImage>> {
    let seeds: Vec<u64> = pieces.iter().map(|piece| piece.seed).collect();
    let mut sampling = resolver.start(&vec![picture.clone(); seeds.len()], &seeds)?;
    let gpu = sampling.gpu().clone();
    // One step is under way while the next is recorded, so that the device never waits.
    let mut before = None;
    while !sampling.is_done() {
        if interrupt::asked() {
            bar.finish_and_clear();
            let (done, all) = (sampling.steps_done(), sampling.steps());
            let message = format!("stopped by the user after {done} of {all} steps");
            return Err(anyhow::Error::new(Error::Interrupted).context(message));
        }
        let submitted = sampling.step()?;
        if let Some(before) = std::mem::replace(&mut before, submitted) {
            gpu.wait(before)?;
        }
        bar.inc(1);
    }
    Ok(sampling.pictures()?)
}

/// Refuses options that mean nothing to such a model.
fn refuse(args: &Generate, painting: &Painting, name: &str) -> Result<()> {
    let text = serde_json::to_value(&painting.settings.text).expect("settings are plain data");
    let mut given: Vec<String> = text
        .as_object()
        .into_iter()
        .flat_map(|settings| settings.keys())
        .filter(|setting| !OPTIONS.contains(&setting.as_str()))
        .map(|setting| format!("--{}", setting.replace('_', "-")))
        .collect();
    let others = [
        ("--guidance", painting.settings.guidance.is_some()),
        ("--memory-budget", args.memory_budget.is_some()),
        ("--pause-to", args.pause_to.is_some()),
        ("--keep-every", args.keep_every.is_some()),
        ("--to-seed", args.to_seed.is_some()),
        ("--preview-every", args.preview_every.is_some()),
        ("--preview-model", args.preview_model.is_some()),
    ];
    given.extend(others.iter().filter(|(_, is_given)| *is_given).map(|(option, _)| (*option).to_owned()));
    match given.is_empty() {
        true => Ok(()),
        false => Err(Error::Invalid {
            what: format!("options of {name}, which enlarges pictures without a text"),
            expected: "--init, --steps, --sampler, --sigmas, --seed, --rng, --precision".to_owned(),
            found: given.join(", "),
        }
        .into()),
    }
}

/// The picture to enlarge, at a size that the model can halve.
fn small(painting: &Painting, model: &SuperResolution) -> Result<RgbImage> {
    let Some(path) = &painting.settings.text.init else {
        return Err(Error::Invalid {
            what: format!("picture for {}", model.name),
            expected: "--init with what to enlarge".to_owned(),
            found: "none".to_owned(),
        }
        .into());
    };
    let picture = picture::open(path)?;
    let multiple = model.multiple();
    let (most, size) = (MAX_SIDE / FACTOR, picture.dimensions());
    let rounded = [size.0, size.1].map(|side| {
        let side = (side as usize).clamp(multiple, most);
        ((side + multiple / 2) / multiple * multiple) as u32
    });
    if rounded == [size.0, size.1] {
        return Ok(picture);
    }
    let [w, h] = rounded;
    say(&format!(
        "{}×{} is made {w}×{h} first: sides are multiples of {multiple}, up to {most}",
        size.0, size.1
    ));
    Ok(imageops::resize(&picture, w, h, FilterType::Lanczos3))
}

/// Writes down what the model chose.
fn resolve(painting: &mut Painting, options: &SuperResolveOptions) {
    let settings = &mut painting.settings;
    settings.steps = Some(options.steps);
    settings.sampler = Some(options.sampler.to_string());
    settings.sigmas = Some(options.sigmas.to_string());
    let text = &mut settings.text;
    text.rng = Some(if options.noise == NoiseSource::Cpu { "cpu" } else { "cuda" }.to_owned());
    text.precision = Some(if options.dtype == DType::F16 { "f16" } else { "f32" }.to_owned());
}

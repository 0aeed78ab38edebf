//! What a call's options come to: those of a painter, with the model's habits where none are given.

use anyhow::Result;
use aquatint::models::latent_conditions::Micro;
use aquatint::models::latent_diffusion::Given;
use aquatint::tasks::{NoiseSource, Pag, PaintOptions, Pipeline, Variation};
use aquatint::{DType, Error};

use super::begin::{self, Begin};
use super::{MAX_SIDE, refine, say};
use crate::cli::generate::Generate;
use crate::cli::painting::{Painting, TextSettings};

/// Refuses options of which only one can be given, and those that say more of one that is not.
pub fn check(args: &Generate, text: &TextSettings) -> Result<()> {
    let refiner = ("--refiner", text.refiner.is_some());
    let series = ("--to-seed", args.to_seed.is_some());
    let init = ("--init", text.init.is_some());
    let hires = ("--hires", text.hires.is_some());
    let variation = ("--variation", text.variation.is_some());
    let pause = ("--pause-to", args.pause_to.is_some());
    let invalid = |what: String, expected: String, found: &str| {
        Err(Error::Invalid { what, expected, found: found.to_owned() }.into())
    };
    for [(one, first), (other, second)] in [
        [refiner, init],
        [refiner, hires],
        [series, init],
        [series, hires],
        [series, variation],
        [series, pause],
    ] {
        if first && second {
            return invalid(format!("{one} and {other}"), "one of them".to_owned(), "both");
        }
    }
    let pag = ("--pag", text.pag.is_some());
    let control = ("--control", !text.control.is_empty());
    for [(of, is_there), (option, is_given)] in [
        [refiner, ("--refiner-start", text.refiner_start.is_some())],
        [pag, ("--pag-layers", !text.pag_layers.is_empty())],
        [pag, ("--pag-adaptive", text.pag_adaptive.is_some())],
        [control, ("--guess", text.guess)],
    ] {
        if is_given && !is_there {
            return invalid(option.to_owned(), format!("{of} too"), "none");
        }
    }
    Ok(())
}

/// The options of the painter, and the picture to begin with at their size.
pub fn of(
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
        pag: text.pag.map(|scale| pag(scale, text)),
        strength: text.strength.unwrap_or(match (text.hires, &begin) {
            (Some(_), _) => 0.6,
            // A refiner changes details.
            (None, Some(_)) if pipeline.model.micro == Micro::Beauty => 0.3,
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

fn pag(scale: f32, text: &TextSettings) -> Pag {
    let own = Pag::of(scale);
    Pag {
        adaptive: text.pag_adaptive.unwrap_or(own.adaptive),
        layers: if text.pag_layers.is_empty() { own.layers } else { text.pag_layers.clone() },
        ..own
    }
}

/// The options of the small picture that comes before a large one.
pub fn smaller(options: &PaintOptions, factor: f32, multiple: usize) -> Result<PaintOptions> {
    if !(factor > 1.0 && factor <= 8.0) {
        let expected = "above 1, up to 8".to_owned();
        return Err(Error::Invalid { what: "--hires".to_owned(), expected, found: factor.to_string() }.into());
    }
    let side = |side: usize| ((side as f32 / factor) as usize / multiple).max(1) * multiple;
    let (width, height) = (side(options.width), side(options.height));
    Ok(PaintOptions { width, height, strength: 1.0, ..options.clone() })
}

/// `SEED:SHARE`.
pub fn variation(text: &str) -> Result<Variation> {
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
pub fn resolve(painting: &mut Painting, options: &PaintOptions, begins: bool) {
    let settings = &mut painting.settings;
    settings.steps = Some(options.steps);
    settings.sampler = Some(options.sampler.to_string());
    settings.sigmas = Some(options.sigmas.to_string());
    settings.guidance = Some(options.guidance);
    let text = &mut settings.text;
    (text.width, text.height) = (Some(options.width), Some(options.height));
    text.refiner_start = text.refiner.as_ref().map(|_| text.refiner_start.unwrap_or(refine::START));
    text.strength = (begins || text.hires.is_some()).then_some(options.strength);
    text.rng = Some(if options.noise == NoiseSource::Cpu { "cpu" } else { "cuda" }.to_owned());
    text.precision = Some(if options.dtype == DType::F16 { "f16" } else { "f32" }.to_owned());
}

//! A second model that goes on where the first one stops: SDXL's refiner, as an ensemble of experts (Podell et al. 2023,
//! arXiv:2307.01952, section 2.5).

use std::path::{Path, PathBuf};

use anyhow::Result;
use aquatint::models::latent_diffusion::{Given, LatentDiffusion};
use aquatint::tasks::{PaintOptions, Painter, Pipeline, SamplingState, Turns};
use aquatint::{Error, Tensor};

use super::batch::{Batch, Run};
use super::setup::Setup;
use crate::cli::model;

/// Where the refiner takes over, if it is not said.
pub const START: f64 = 0.8;

/// Most bytes of latents that wait for their refiner.
const MAX_WAITING: usize = 256 << 20;

/// Opens a refiner for the latents of `base`, and has that one's run end where the refiner's begins.
pub fn open(
    path: &Path,
    start: Option<f64>,
    offline: bool,
    base: &LatentDiffusion,
    options: &mut PaintOptions,
) -> Result<(Pipeline, PaintOptions)> {
    let start = start.unwrap_or(START);
    if !(start > 0.0 && start < 1.0) {
        return Err(Error::Invalid {
            what: "--refiner-start".to_owned(),
            expected: "above 0, below 1".to_owned(),
            found: start.to_string(),
        }
        .into());
    }
    let mut pipeline = Pipeline::open(model::locate(path, offline)?, None)?;
    if let Some(name) = path.file_stem() {
        pipeline.model.name = name.display().to_string();
    }
    let latents = |model: &LatentDiffusion| {
        let vae = &model.vae.config;
        let [scale, shift] = vae.scaling();
        Ok::<_, Error>(match model.given()? {
            Given::Text => format!(
                "text, and latents of {} channels for {} pixels a side, scaled by {scale}, shifted by {shift}",
                vae.latent_channels(),
                vae.factor()
            ),
            given => format!("{given:?}"),
        })
    };
    let [expected, found] = [latents(base)?, latents(&pipeline.model)?];
    if expected != found {
        return Err(Error::Invalid {
            what: format!("what the refiner {} is given", pipeline.model.name),
            expected: format!("{expected}, as {} has", base.name),
            found,
        }
        .into());
    }
    options.span = [0.0, start];
    let refining = PaintOptions { span: [start, 1.0], ..options.clone() };
    Ok((pipeline, refining))
}

/// Whether both models fit the device at once.
fn fit_together(first: &Setup, second: &Setup) -> Result<bool> {
    let Some(budget) = first.options.memory_budget else { return Ok(true) };
    let [first, second] = [first.memory()?, second.memory()?];
    let in_turn = [&first, &second].iter().any(|memory| memory.turns == Turns::OneAtATime);
    Ok(!in_turn && (first.held() + second.peak).max(first.peak + second.held()) <= budget)
}

/// Paints batches by two models. Where there is no room for both, they take turns: the first begins as many pictures as
/// can wait, the second ends them.
pub fn paint(
    run: &mut Run,
    [first, second]: [&Setup; 2],
    batches: &[Batch],
    mut saved: Option<SamplingState>,
    mut done: impl FnMut(Vec<PathBuf>) -> Result<()>,
) -> Result<()> {
    let together = fit_together(first, second)?;
    let PaintOptions { height, width, .. } = first.options;
    let vae = &first.model.vae.config;
    let bytes = 4 * first.batch * vae.latent_channels() * height * width / vae.factor().pow(2);
    // A run that may be kept is one batch.
    let round = match together || run.args.pause_to.is_some() {
        true => 1,
        false => (MAX_WAITING / bytes).max(1),
    };
    run.keeps &= round == 1;
    run.bar.set_length((batches.len() * first.options.steps) as u64);
    let (mut base, mut refiner): (Option<Painter>, Option<Painter>) = (None, None);
    for batches in batches.chunks(round) {
        let painter = place(&mut base, first)?;
        let mut of_base = saved.take_if(|state| painter.is_of(state));
        let mut begun: Vec<Option<Tensor>> = Vec::new();
        for batch in batches {
            // What the refiner was stopped in is begun already.
            let latents = match begun.is_empty() && saved.is_some() {
                true => None,
                false => Some(run.begin(first, painter, batch, of_base.take())?),
            };
            run.bar.inc(if latents.is_none() { painter.steps() as u64 } else { 0 });
            begun.push(latents);
        }
        if !together {
            base.take().map_or(Ok(()), Painter::release)?;
        }
        let painter = place(&mut refiner, second)?;
        for (batch, latents) in batches.iter().zip(begun) {
            let batch = Batch { latents, canvas: None, ..*batch };
            done(run.paint(second, painter, &batch, saved.take())?)?;
        }
        if !together {
            refiner.take().map_or(Ok(()), Painter::release)?;
        }
    }
    Ok(())
}

/// The painter in its place, made if there is none.
fn place<'p>(painter: &'p mut Option<Painter>, setup: &Setup) -> Result<&'p mut Painter> {
    if painter.is_none() {
        *painter = Some(setup.painter()?);
    }
    Ok(painter.as_mut().expect("just made"))
}

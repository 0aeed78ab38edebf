//! Painting a batch: progress, previews, Ctrl-C, and what to do about numbers that run out of range.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use aquatint::formats::picture;
use aquatint::tasks::{Canvas, Enlarge, PaintOptions, Painter, Sampling, SamplingState, Variation};
use aquatint::wgpu::SubmissionIndex;
use aquatint::{DType, Error, Gpu, Part, Tensor};
use image::RgbImage;
use indicatif::ProgressBar;

use super::pieces::Piece;
use super::say;
use super::setup::Setup;
use super::target::Target;
use crate::cli::generate::Generate;
use crate::cli::painting::Painting;
use crate::cli::preview::Preview;
use crate::cli::{interrupt, make_folder_of};

/// What a batch is painted from.
#[derive(Clone)]
pub struct Batch<'a> {
    pub pieces: &'a [Piece],
    pub canvas: Option<Canvas<'a>>,
    /// What another model left to go on with, instead of noise.
    pub latents: Option<Tensor>,
    /// Pictures of this batch and of those that come after.
    pub left: usize,
}

impl Batch<'_> {
    fn seeds(&self) -> Vec<u64> {
        self.pieces.iter().map(|piece| piece.seed).collect()
    }

    /// Where the noise lies between seeds, if any of it does.
    fn variations(&self) -> Option<Vec<Variation>> {
        let own = |piece: &Piece| piece.variation.unwrap_or(Variation { seed: piece.seed, share: 0.0 });
        let any = self.pieces.iter().any(|piece| piece.variation.is_some());
        any.then(|| self.pieces.iter().map(own).collect())
    }
}

/// How a run ended.
enum Outcome<T> {
    Done(T),
    /// What is no number came out of this part; the run as it was then.
    Fault(Part, SamplingState),
}

/// What all batches of a call have in common.
pub struct Run<'a> {
    pub args: &'a Generate,
    pub painting: &'a Painting,
    pub target: &'a Target,
    /// What paints the small pictures that come before large ones.
    pub small: Option<Painter>,
    /// Whether a run whose device is lost can go on by itself, without pictures before it being forgotten.
    pub keeps: bool,
    pub bar: ProgressBar,
    pub preview: Option<Preview>,
}

impl Run<'_> {
    /// Paints a batch, from where a run was stopped if it was, and writes its pictures.
    pub fn paint(
        &mut self,
        setup: &Setup,
        painter: &mut Painter,
        batch: &Batch,
        saved: Option<SamplingState>,
    ) -> Result<Vec<PathBuf>> {
        let pictures = self.complete(setup, painter, batch, saved, |sampling| sampling.pictures())?;
        self.save(&pictures, batch.pieces)
    }

    /// Does the part of a batch's run that is the painter's, for another to go on.
    pub fn begin(
        &mut self,
        setup: &Setup,
        painter: &mut Painter,
        batch: &Batch,
        saved: Option<SamplingState>,
    ) -> Result<Tensor> {
        self.complete(setup, painter, batch, saved, |sampling| {
            let latents = sampling.latents()?;
            match latents.to_f32().iter().all(|v| v.is_finite()) {
                true => Ok(latents),
                false => Err(Error::NotFinite { part: Part::Denoiser, first: None }),
            }
        })
    }

    /// Runs a batch to its end, `finish`. What runs out of range in 16 bits is computed again in 32.
    fn complete<T>(
        &mut self,
        setup: &Setup,
        painter: &mut Painter,
        batch: &Batch,
        mut saved: Option<SamplingState>,
        finish: impl Fn(&mut Sampling) -> aquatint::Result<T>,
    ) -> Result<T> {
        let mut given_up = Vec::new();
        let seeds = &batch.seeds()[..];
        let wishes = &vec![setup.wish.clone(); seeds.len()][..];
        loop {
            let mut sampling = match (&saved, &batch.latents, &mut self.small) {
                (Some(state), ..) => painter.resume(wishes, batch.canvas, state)?,
                (None, Some(latents), _) => painter.start_from(wishes, seeds, latents)?,
                (None, None, Some(small)) => {
                    let mut first = small.start(wishes, seeds, None)?;
                    while let Some(submitted) = first.step()? {
                        first.gpu().wait(submitted)?;
                        self.bar.inc(1);
                        if interrupt::asked() {
                            let message = "stopped by the user before the large picture was begun";
                            return Err(anyhow::Error::new(Error::Interrupted).context(message));
                        }
                    }
                    painter.start_larger(wishes, seeds, &mut first, Enlarge::default())?
                }
                (None, None, None) => match batch.variations() {
                    Some(variations) => painter.start_between(wishes, seeds, &variations)?,
                    None => painter.start(wishes, seeds, batch.canvas)?,
                },
            };
            let (part, state) = match self.run(&mut sampling, batch, &finish)? {
                Outcome::Done(result) => return Ok(result),
                Outcome::Fault(part, state) => (part, state),
            };
            // Not all runs can be repeated from the start; then it is not known.
            let first = painter.find_fault(part, wishes, seeds, batch.canvas).ok().flatten();
            let fault = Error::NotFinite { part, first: first.map(Box::new) };
            if painter.options().dtype != DType::F16 || given_up.contains(&part) {
                return Err(fault.into());
            }
            self.bar.suspend(|| say(&format!("{part}: {fault}; computing it again in f32")));
            given_up.push(part);
            match part {
                Part::Decoder => {
                    painter.decode_in_f32()?;
                    saved = Some(state);
                }
                Part::Denoiser => {
                    let options = PaintOptions { dtype: DType::F32, ..painter.options().clone() };
                    *painter = painter.again(&options)?;
                    setup.furnish(painter)?;
                    self.bar.set_position(self.bar.position().saturating_sub(painter.steps() as u64));
                    saved = None;
                }
            }
        }
    }

    fn run<T>(
        &mut self,
        sampling: &mut Sampling,
        batch: &Batch,
        finish: impl Fn(&mut Sampling) -> aquatint::Result<T>,
    ) -> Result<Outcome<T>> {
        let gpu = sampling.gpu().clone();
        self.bar.inc(sampling.steps_done() as u64);
        if let Some(places) = self.args.lose_device_after {
            gpu.plant_trouble(aquatint::gpu::Trouble::Loss, places);
        }
        let mut kept = Kept::new(if self.keeps { self.args.keep_every } else { Some(0) });
        let mut before = None;
        let result = loop {
            if sampling.is_done() {
                break finish(sampling).map(Outcome::Done).or_else(|error| faulty(error.into(), sampling));
            }
            if interrupt::asked() {
                self.bar.finish_and_clear();
                return Err(self.stopped(sampling, batch)?);
            }
            if let Err(error) = self.step(sampling, &gpu, &mut before, &mut kept) {
                break Err(error);
            }
            self.bar.inc(1);
            if let Err(error) = self.show(sampling, &batch.pieces[0]) {
                break faulty(error, sampling);
            }
        };
        match (result, kept.state) {
            (Err(error), Some(state)) if is_lost(&error) => Err(self.rescued(error, state, sampling, batch)),
            (result, _) => result,
        }
    }

    /// The next step. One is under way while the next is recorded, so that the device never waits, but where the run is kept.
    fn step(
        &self,
        sampling: &mut Sampling,
        gpu: &Gpu,
        before: &mut Option<SubmissionIndex>,
        kept: &mut Kept,
    ) -> Result<()> {
        let submitted = sampling.step()?;
        if let Some(before) = std::mem::replace(before, submitted) {
            gpu.wait(before)?;
        }
        if kept.is_due(sampling) {
            kept.keep(sampling)?;
        }
        Ok(())
    }

    fn save(&self, pictures: &[RgbImage], pieces: &[Piece]) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for (picture, piece) in pictures.iter().zip(pieces) {
            let path = self.target.path(&piece.name);
            if picture.iter().all(|&byte| byte == 0) {
                say(&format!("{} is all black, though all numbers are finite", path.display()));
            }
            piece.painting(self.painting).save(&path, picture)?;
            paths.push(path);
        }
        Ok(paths)
    }

    /// What is there so far: on the terminal, or every so many steps in a file beside the picture.
    fn show(&mut self, sampling: &Sampling, piece: &Piece) -> Result<()> {
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
                let path = self.target.path(&piece.name).with_extension("preview.png");
                picture::save_png(&path, &pictures[0].clone().into(), &[("Software", "aquatint")])?;
            }
            None => {}
        }
        Ok(())
    }

    /// Saves the run if that is wished, and says how to go on.
    fn stopped(&self, sampling: &Sampling, batch: &Batch) -> Result<anyhow::Error> {
        let done =
            format!("stopped by the user after {} of {} steps", sampling.steps_done(), sampling.steps());
        let message = match &self.args.pause_to {
            None => format!("{done}; this picture was not written (--pause-to FILE keeps the run)"),
            Some(path) => {
                format!("{done}; {}", self.keep(sampling.state()?, path, batch)?)
            }
        };
        Ok(anyhow::Error::new(Error::Interrupted).context(message))
    }

    /// Writes a run to a file, and says how to go on with it.
    fn keep(&self, mut state: SamplingState, path: &Path, batch: &Batch) -> Result<String> {
        make_folder_of(path)?;
        state.note = batch.pieces[0].painting(self.painting).json();
        state.save(path)?;
        let mut again = if batch.left > 1 { format!(" --count {}", batch.left) } else { String::new() };
        if self.args.batch > 1 {
            again = format!("{again} --batch {}", self.args.batch);
        }
        Ok(format!("go on with: aquatint generate --resume {}{again}", path.display()))
    }

    /// Saves what was kept of a run whose device is lost, beside its picture if nothing else is wished.
    fn rescued(
        &self,
        error: anyhow::Error,
        state: SamplingState,
        sampling: &Sampling,
        batch: &Batch,
    ) -> anyhow::Error {
        self.bar.finish_and_clear();
        let beside = || self.target.path(&batch.pieces[0].name).with_extension("run.safetensors");
        let path = self.args.pause_to.clone().unwrap_or_else(beside);
        let done = sampling.steps_of(state.rows_done());
        match self.keep(state, &path, batch) {
            Ok(go_on) => error
                .context(format!("the device was lost after {done} of {} steps; {go_on}", sampling.steps())),
            Err(failed) => error.context(format!("the run could not be kept ({failed})")),
        }
    }
}

/// What is kept of a run on the host, should its device be lost.
struct Kept {
    /// Steps between two states; by time if it is not said.
    every: Option<usize>,
    last: Instant,
    state: Option<SamplingState>,
}

impl Kept {
    /// Reading a state takes the device milliseconds in which it does nothing, so that this is a thousandth of a run.
    const INTERVAL: Duration = Duration::from_secs(5);

    fn new(every: Option<usize>) -> Self {
        Kept { every, last: Instant::now(), state: None }
    }

    fn is_due(&self, sampling: &Sampling) -> bool {
        match self.every {
            Some(every) => every > 0 && sampling.steps_done().is_multiple_of(every),
            None => self.last.elapsed() >= Self::INTERVAL,
        }
    }

    fn keep(&mut self, sampling: &Sampling) -> Result<()> {
        self.state = Some(sampling.state()?);
        self.last = Instant::now();
        Ok(())
    }
}

fn is_lost(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::DeviceLost { .. }))
}

fn faulty<T>(error: anyhow::Error, sampling: &Sampling) -> Result<Outcome<T>> {
    match error.downcast_ref() {
        Some(Error::NotFinite { part, .. }) => Ok(Outcome::Fault(*part, sampling.state()?)),
        _ => Err(error),
    }
}

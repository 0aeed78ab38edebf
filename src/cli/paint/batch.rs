//! Painting a batch: progress, previews, Ctrl-C, and what to do about numbers that run out of range.

use std::path::PathBuf;

use anyhow::Result;
use aquatint::formats::picture;
use aquatint::tasks::{Canvas, Enlarge, PaintOptions, Painter, Sampling, SamplingState, Variation, Wish};
use aquatint::{DType, Error, Part};
use image::RgbImage;
use indicatif::ProgressBar;

use super::say;
use super::target::Target;
use crate::cli::generate::Generate;
use crate::cli::painting::Painting;
use crate::cli::preview::Preview;
use crate::cli::{interrupt, make_folder_of};

/// What a batch is painted from.
pub struct Batch<'a> {
    pub wishes: &'a [Wish],
    pub seeds: &'a [u64],
    pub canvas: Option<Canvas<'a>>,
    /// Pictures of this batch and of those that come after.
    pub left: usize,
}

/// How a run ended.
enum Outcome {
    Done(Vec<RgbImage>),
    /// What is no number came out of this part; the run as it was then.
    Fault(Part, SamplingState),
}

/// What all batches of a call have in common.
pub struct Run<'a> {
    pub args: &'a Generate,
    pub painting: &'a Painting,
    pub target: &'a Target,
    /// What the controls look at.
    pub controls: &'a [RgbImage],
    /// What paints the small pictures that come before large ones.
    pub small: Option<Painter>,
    pub variation: Option<Variation>,
    pub bar: ProgressBar,
    pub preview: Option<Preview>,
}

impl Run<'_> {
    /// Paints a batch, from where a run was stopped if it was, and writes its pictures. What runs out of range in 16 bits is
    /// computed again in 32.
    pub fn paint(
        &mut self,
        painter: &mut Painter,
        batch: &Batch,
        mut saved: Option<SamplingState>,
    ) -> Result<Vec<PathBuf>> {
        let mut given_up = Vec::new();
        loop {
            let (wishes, seeds) = (batch.wishes, batch.seeds);
            let mut sampling = match (&saved, &mut self.small, self.variation) {
                (Some(state), ..) => painter.resume(wishes, batch.canvas, state)?,
                (None, Some(small), _) => {
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
                (None, None, Some(variation)) => {
                    painter.start_between(wishes, seeds, &vec![variation; seeds.len()])?
                }
                (None, None, None) => painter.start(wishes, seeds, batch.canvas)?,
            };
            let (part, state) = match self.run(&mut sampling, batch)? {
                Outcome::Done(pictures) => return self.save(&pictures, batch.seeds),
                Outcome::Fault(part, state) => (part, state),
            };
            // Not all runs can be repeated from the start; then it is not known.
            let first = painter.find_fault(part, batch.wishes, batch.seeds, batch.canvas).ok().flatten();
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
                    painter.control(&self.controls.iter().collect::<Vec<_>>())?;
                    self.bar.set_position(self.bar.position().saturating_sub(painter.steps() as u64));
                    saved = None;
                }
            }
        }
    }

    fn run(&mut self, sampling: &mut Sampling, batch: &Batch) -> Result<Outcome> {
        let gpu = sampling.gpu().clone();
        self.bar.inc(sampling.steps_done() as u64);
        let mut before = None;
        while !sampling.is_done() {
            if interrupt::asked() {
                self.bar.finish_and_clear();
                return Err(self.stopped(sampling, batch)?);
            }
            // One step is under way while the next is recorded, so that the device never waits.
            let submitted = sampling.step()?;
            if let Some(before) = std::mem::replace(&mut before, submitted) {
                gpu.wait(before)?;
            }
            self.bar.inc(1);
            if let Err(error) = self.show(sampling, batch.seeds) {
                return faulty(error, sampling);
            }
        }
        match sampling.pictures() {
            Ok(pictures) => Ok(Outcome::Done(pictures)),
            Err(error) => faulty(error.into(), sampling),
        }
    }

    fn save(&self, pictures: &[RgbImage], seeds: &[u64]) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for (picture, &seed) in pictures.iter().zip(seeds) {
            let mut painting = self.painting.clone();
            painting.settings.seed = Some(seed);
            let path = self.target.path(seed);
            if picture.iter().all(|&byte| byte == 0) {
                say(&format!("{} is all black, though all numbers are finite", path.display()));
            }
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
    fn stopped(&self, sampling: &Sampling, batch: &Batch) -> Result<anyhow::Error> {
        let done =
            format!("stopped by the user after {} of {} steps", sampling.steps_done(), sampling.steps());
        let message = match &self.args.pause_to {
            None => format!("{done}; this picture was not written (--pause-to FILE keeps the run)"),
            Some(path) => {
                let mut painting = self.painting.clone();
                painting.settings.seed = Some(batch.seeds[0]);
                let mut state = sampling.state()?;
                state.note = painting.json();
                make_folder_of(path)?;
                state.save(path)?;
                let mut again =
                    if batch.left > 1 { format!(" --count {}", batch.left) } else { String::new() };
                if self.args.batch > 1 {
                    again = format!("{again} --batch {}", self.args.batch);
                }
                format!("{done}; go on with: aquatint generate --resume {}{again}", path.display())
            }
        };
        Ok(anyhow::Error::new(Error::Interrupted).context(message))
    }
}

fn faulty(error: anyhow::Error, sampling: &Sampling) -> Result<Outcome> {
    match error.downcast_ref() {
        Some(Error::NotFinite { part, .. }) => Ok(Outcome::Fault(*part, sampling.state()?)),
        _ => Err(error),
    }
}

//! The table of a sampling run: everything the one step kernel needs to know.

use super::sampler::Sampler;
use super::schedule::{NoiseSchedule, invalid};
use super::sigmas::SigmaSchedule;
use crate::error::Result;

/// The most predictions that a row can look back on.
pub const MAX_HISTORY: usize = 4;

/// Length of a row as the kernel reads it, [`Row::to_f32`].
pub const ROW_FLOATS: usize = 32;

/// One model call and the step after it.
///
/// The model sees `in_scale · x` at `timestep` and answers m (after guidance).
/// With the history h (h\[0\] the newest) and fresh unit noise z, per element:
///
/// ```text
/// x0 = x0_x · x + x0_m · m                    clamped to ± clip, if clip > 0
/// x' = next_x · x + next_x0 · x0 + next_m · m + Σ next_h[k] · h[k] + noise · z
/// if push: h[k + 1] = h[k], then h[0] = hist_x · x + hist_x0 · x0 + hist_m · m
/// ```
///
/// where the x, x0 and m of the last line are those of the first two. In a row that corrects (`correct` r > 0), the m and
/// z of the second line alone are 2 q² · m and 2 q · z, with q = r · ‖z‖ / ‖m‖ of the picture's own norms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Row {
    /// In units of training timesteps; may lie between two of them.
    pub timestep: f64,
    pub in_scale: f64,
    pub x0_x: f64,
    pub x0_m: f64,
    /// Half-width of the range of x0, 0 for no clamp.
    pub clip: f64,
    pub next_x: f64,
    pub next_x0: f64,
    pub next_m: f64,
    pub next_h: [f64; MAX_HISTORY],
    pub noise: f64,
    pub push: bool,
    pub hist_x: f64,
    pub hist_x0: f64,
    pub hist_m: f64,
    /// Which draw of noise z is, counted as PyTorch would: 0 is the noise that
    /// the run starts from, so rows count from 1. 0 where `noise` is 0.
    pub draw: u32,
    /// r of a row that corrects, else 0.
    pub correct: f64,
    /// The latent x of this row is `signal` · picture + `sigma` · unit noise.
    pub signal: f64,
    pub sigma: f64,
}

impl Row {
    /// The row as the kernel reads it, in this order: `timestep`, `in_scale`,
    /// `x0_x`, `x0_m`, `clip`, `next_x`, `next_x0`, `next_m`, `next_h[0..4]`,
    /// `noise`, `push` (0 or 1), `hist_x`, `hist_x0`, `hist_m`, `draw`, `correct`; then zeros.
    #[must_use]
    pub fn to_f32(&self) -> [f32; ROW_FLOATS] {
        let [h0, h1, h2, h3] = self.next_h;
        let fields = [
            self.timestep,
            self.in_scale,
            self.x0_x,
            self.x0_m,
            self.clip,
            self.next_x,
            self.next_x0,
            self.next_m,
            h0,
            h1,
            h2,
            h3,
            self.noise,
            f64::from(u8::from(self.push)),
            self.hist_x,
            self.hist_x0,
            self.hist_m,
            f64::from(self.draw),
            self.correct,
        ];
        let mut floats = [0.0; ROW_FLOATS];
        for (float, field) in floats.iter_mut().zip(fields) {
            *float = field as f32;
        }
        floats
    }
}

/// A sampling run, ready to be uploaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// One a model call, in order.
    pub rows: Vec<Row>,
    /// How many slots of history the rows look back on, at most [`MAX_HISTORY`].
    pub history: usize,
    /// A run from nothing starts at this times unit noise.
    pub init_noise_scale: f64,
    /// Steps, of one row or (Heun, but for the last) two, or more (where each is corrected).
    pub steps: usize,
    origin: Box<Origin>,
}

/// What a table was made of.
#[derive(Clone, Debug, PartialEq)]
struct Origin {
    schedule: NoiseSchedule,
    sampler: Sampler,
    sigmas: SigmaSchedule,
    steps: usize,
}

/// How a run from a picture begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The first row of the whole table that is run.
    pub row: usize,
    /// The first latent is `clean` · picture + `noise` · unit noise (draw 0).
    pub clean: f64,
    pub noise: f64,
    /// The rows from `row` on, made to run with an empty history and with their
    /// noise draws counted from 1.
    pub table: Table,
}

impl Table {
    /// The table of `sampler` in `steps` steps, unless `sigmas` lists them, for a model trained with `schedule`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for a number of steps that the schedule cannot
    /// give and for combinations that do not exist: DDPM and DDIM run on whole
    /// timesteps, PLMS and the consistency samplers on their own, DDPM refuses learned variances.
    pub fn new(
        schedule: &NoiseSchedule,
        sampler: Sampler,
        sigmas: SigmaSchedule,
        steps: usize,
    ) -> Result<Self> {
        let (schedule, steps) = (schedule.clone(), sigmas.steps().unwrap_or(steps));
        Self::from(&Origin { schedule, sampler, sigmas, steps }, 0)
    }

    /// The table of the steps from `begin` on.
    fn from(origin: &Origin, begin: usize) -> Result<Self> {
        let Origin { schedule, sampler, sigmas, steps } = origin;
        let rows = sampler.rows(schedule, sigmas, *steps, begin)?;
        if !rows.iter().flat_map(Row::to_f32).all(f32::is_finite) {
            let what = format!("noise schedule for the sampler {sampler} in {steps} steps");
            return Err(invalid(what, "betas and levels that give numbers", "some that do not"));
        }
        Ok(Self {
            history: 0,
            init_noise_scale: sampler.init_noise_scale(schedule, &rows[0]),
            // The last step of Heun has one row only.
            steps: rows.len().div_ceil(sampler.calls_per_step(schedule)),
            origin: Box::new(origin.clone()),
            rows,
        }
        .finished())
    }

    /// Model calls in each step but the last, which may have fewer.
    pub(crate) fn calls_per_step(&self) -> usize {
        self.origin.sampler.calls_per_step(&self.origin.schedule)
    }

    /// The rows of a part of the run, from one share of the training timesteps to another: `[0.0, 1.0]` is all of it
    /// (diffusers' `denoising_start` and `denoising_end`).
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for shares that are none or leave no row.
    pub fn part(&self, [from, until]: [f64; 2]) -> Result<Self> {
        if !(0.0 <= from && from < until && until <= 1.0) {
            let found = format!("{from} to {until}");
            return Err(invalid("part of a run", "from a share to a larger one, 0 to 1", found));
        }
        if self.origin.schedule.score.is_some() && [from, until] != [0.0, 1.0] {
            return Err(invalid("part of a run of a score model", "all of it", format!("{from} to {until}")));
        }
        let trained = self.origin.schedule.num_train_timesteps() as f64;
        let before = |share: f64| {
            let cut = (trained - share * trained).round_ties_even();
            self.rows.iter().filter(|row| row.timestep >= cut).count()
        };
        // Whole steps are left out, however many calls they have.
        let calls = self.calls_per_step();
        let begin = if from > 0.0 { before(from) / calls } else { 0 };
        let end = if until < 1.0 { before(until) } else { self.rows.len() };
        if end <= begin * calls {
            let found = format!("{from} to {until} of {} steps", self.steps);
            return Err(invalid("part of a run", "one with a step in it", found));
        }
        let mut table = Self::from(&self.origin, begin)?;
        table.rows.truncate(end - begin * calls);
        table.steps = table.rows.len().div_ceil(calls);
        Ok(table.finished())
    }

    /// Where to begin when changing a picture rather than making one:
    /// `strength` 1 runs all steps, less runs the last ⌊steps · strength⌋ of
    /// them (diffusers' image-to-image pipelines), of flow models ⌈steps · strength⌉.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if `strength` is not in (0, 1] or so small that
    /// no step is left.
    pub fn start(&self, strength: f64) -> Result<Start> {
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(invalid("strength", "above 0, up to 1", strength));
        }
        let whole = self.origin.steps;
        let share = whole as f64 * strength;
        let begin = match self.origin.schedule.flow {
            // diffusers' pipelines of flow models run a broken step whole, the others not at all.
            Some(_) => (whole as f64 - share) as usize,
            None => whole - share as usize,
        };
        if begin >= self.steps {
            let what = format!("strength in a run of {whole} steps");
            let least = format!("at least {}", (whole - self.steps + 1) as f64 / whole as f64);
            return Err(invalid(what, least, strength));
        }
        let table = Self::from(&self.origin, begin)?;
        let Row { signal, sigma, .. } = table.rows[0];
        Ok(Start { row: self.rows.len() - table.rows.len(), clean: signal, noise: sigma, table })
    }

    /// Numbers the draws and counts the history.
    fn finished(mut self) -> Self {
        let mut draws = 0;
        self.history = 0;
        for row in &mut self.rows {
            let looks_back = row.next_h.iter().rposition(|h| *h != 0.0);
            self.history = self.history.max(looks_back.map_or(0, |k| k + 1));
            row.draw = 0;
            if row.noise != 0.0 {
                draws += 1;
                row.draw = draws;
            }
        }
        if self.history == 0 {
            // A run of one step: nothing will be read, so nothing is kept.
            for row in &mut self.rows {
                row.push = false;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{Prediction, ScheduleConfig};
    use super::*;

    fn schedule(zero_snr: bool, prediction: Prediction) -> NoiseSchedule {
        let config = ScheduleConfig {
            rescale_betas_zero_snr: Some(zero_snr),
            timestep_spacing: Some("trailing".into()),
            ..ScheduleConfig::stable_diffusion()
        };
        let schedule = NoiseSchedule::new(&config).unwrap();
        NoiseSchedule { prediction, ..schedule }
    }

    #[test]
    fn every_row_is_finite_and_the_last_lands_on_the_picture() {
        for prediction in [Prediction::Epsilon, Prediction::Sample, Prediction::V] {
            for &sampler in Sampler::ALL {
                if sampler == Sampler::Plms && prediction == Prediction::Sample
                    || matches!(sampler, Sampler::ReverseSde | Sampler::Pc)
                {
                    continue; // refused
                }
                for steps in [1, 2, 3, 20, 50] {
                    let schedule = schedule(true, prediction);
                    let table = Table::new(&schedule, sampler, SigmaSchedule::Model, steps).unwrap();
                    let floats = table.rows.iter().flat_map(Row::to_f32);
                    assert!(floats.clone().all(f32::is_finite), "{sampler}, {prediction:?}, {steps} steps");
                    // The model's answer m for a clean picture of 1 under noise of 1 (DDIM
                    // without set_alpha_to_one stops just short of the picture).
                    let row = table.rows.last().unwrap();
                    let (x, scale) = (row.signal + row.sigma, row.in_scale);
                    let m = match prediction {
                        Prediction::Epsilon => 1.0,
                        Prediction::Sample => 1.0,
                        Prediction::V => (row.signal - row.sigma) * scale,
                        Prediction::Flow | Prediction::Score => 0.0,
                    };
                    let x0 = row.x0_x * x + row.x0_m * m;
                    assert!((x0 - 1.0).abs() < 1e-3, "{sampler}, {prediction:?}, {steps}: {x0}");
                }
            }
        }
    }

    #[test]
    fn a_start_needs_a_step() {
        let schedule = schedule(false, Prediction::Epsilon);
        let table = Table::new(&schedule, Sampler::Heun, SigmaSchedule::Karras, 10).unwrap();
        let start = table.start(0.35).unwrap();
        assert_eq!((start.row, start.table.rows.len(), start.table.steps), (14, 5, 3));
        assert_eq!(table.start(1.0).unwrap().table, table);
        for strength in [0.05, 0.0, 1.5, f64::NAN] {
            assert!(table.start(strength).is_err(), "{strength}");
        }
    }

    #[test]
    fn impossible_runs_are_refused() {
        let schedule = schedule(false, Prediction::Epsilon);
        let new = |sampler, sigmas, steps| Table::new(&schedule, sampler, sigmas, steps);
        for &sampler in Sampler::ALL {
            assert!(new(sampler, SigmaSchedule::Model, 0).is_err(), "{sampler}");
            assert!(new(sampler, SigmaSchedule::Model, 1001).is_err(), "{sampler}");
        }
        assert!(new(Sampler::Ddpm, SigmaSchedule::Karras, 5).is_err());
        assert!(new(Sampler::Ddim { eta: 1.5 }, SigmaSchedule::Model, 5).is_err());
    }
}

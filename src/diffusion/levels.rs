//! Noise levels: at which timesteps, and under how much noise, a sampler calls the model.

use super::schedule::{
    BetaSchedule, FinalSigma, NoiseSchedule, Prediction, Spacing, TINY_ALPHA, interpolate, timestep_of,
};
use super::sigmas::SigmaSchedule;
use super::table::Row;
use crate::error::Result;

/// A point of the noise schedule: a latent is `signal` · (picture + `sigma` · noise), or that over
/// `signal` for the samplers that keep it so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub timestep: f64,
    pub sigma: f64,
    pub signal: f64,
}

impl Level {
    /// Of a variance-preserving process.
    pub fn preserving(timestep: f64, sigma: f64) -> Self {
        Self { timestep, sigma, signal: 1.0 / (sigma * sigma + 1.0).sqrt() }
    }

    /// Standard deviation of the noise where the picture is scaled by `signal`.
    pub fn noise(self) -> f64 {
        self.sigma * self.signal
    }

    /// A row for the latent that is scaled by `signal`, with its x0 filled in.
    pub fn scaled_row(self, prediction: Prediction) -> Row {
        row(prediction, self.timestep, self.signal, self.noise())
    }

    /// A row for the latent in which the picture is not scaled, with its x0 filled in: the model sees
    /// the latent scaled back.
    pub fn unscaled_row(self, prediction: Prediction) -> Row {
        let row = self.scaled_row(prediction);
        Row { in_scale: self.signal, x0_x: row.x0_x * self.signal, signal: 1.0, sigma: self.sigma, ..row }
    }
}

/// A row whose latent is `signal` · picture + `sigma` · noise, with its x0 filled in.
pub(super) fn row(prediction: Prediction, timestep: f64, signal: f64, sigma: f64) -> Row {
    let (x0_x, x0_m) = match prediction {
        Prediction::Epsilon => (1.0 / signal, -sigma / signal),
        Prediction::Sample => (0.0, 1.0),
        Prediction::V => (signal, -sigma),
        // Where signal + sigma = 1.
        Prediction::Flow => (1.0, -sigma),
        Prediction::Score => (1.0 / signal, sigma * sigma / signal),
    };
    Row { timestep, in_scale: 1.0, x0_x, x0_m, signal, sigma, ..Row::default() }
}

/// ᾱ at a whole timestep. Epsilon says nothing about x0 where no signal is
/// left, so there (and only there) a trace of it is assumed.
pub(super) fn alpha_at(schedule: &NoiseSchedule, timestep: f64) -> f64 {
    let alpha = schedule.alphas_cumprod[timestep as usize];
    if alpha == 0.0 && schedule.prediction == Prediction::Epsilon { TINY_ALPHA } else { alpha }
}

/// What is done to the timesteps of Karras and the other spread noise levels, which lie between
/// the trained ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    Keep,
    /// Karras' go to the nearest, the others stay.
    Karras,
    /// Karras' go to the nearest, the others down.
    Whole,
    /// As `Whole`, but those of a squared cosine schedule go down too.
    WholeUnlessCosine,
}

impl Rounding {
    fn apply(self, sigmas: &SigmaSchedule, betas: BetaSchedule, timestep: f64) -> f64 {
        let karras = *sigmas == SigmaSchedule::Karras;
        match self {
            Self::Keep => timestep,
            Self::Karras if !karras => timestep,
            // diffusers cuts these off. The slack is for a whole timestep missed by the rounding of
            // a logarithm, at which diffusers in float32 lands one too low at times.
            _ if matches!(sigmas, SigmaSchedule::Exponential | SigmaSchedule::Beta)
                || karras && self == Self::WholeUnlessCosine && betas == BetaSchedule::SquaredCosine =>
            {
                (timestep + 1e-6).floor()
            }
            _ => timestep.round_ties_even(),
        }
    }
}

/// The levels of a schedule that is made of timesteps, none for the others.
fn of_timesteps(
    schedule: &NoiseSchedule,
    sigmas: &SigmaSchedule,
    rounding: Rounding,
    steps: usize,
) -> Option<Vec<Level>> {
    let trained = schedule.sigmas();
    let logs: Vec<f64> = trained.iter().map(|sigma| sigma.ln()).collect();
    let level = |timestep: f64| match rounding {
        // Along the logarithm between the trained ones, as those who use such timesteps have it.
        Rounding::Keep | Rounding::Karras => Level::preserving(timestep, interpolate(&logs, timestep).exp()),
        Rounding::Whole | Rounding::WholeUnlessCosine => {
            let timestep = timestep.round_ties_even();
            Level::preserving(timestep, interpolate(&trained, timestep))
        }
    };
    Some(sigmas.timesteps(trained.len(), steps)?.into_iter().map(level).collect())
}

/// Levels of the samplers whose latent is not scaled: Karras, exponential and beta ones lie between the
/// first and the last of the model's at the chosen timesteps. The last level is `end`.
pub(super) fn of_sigma_samplers(
    schedule: &NoiseSchedule,
    spacing: Spacing,
    sigmas: &SigmaSchedule,
    rounding: Rounding,
    steps: usize,
    end: f64,
) -> Result<Vec<Level>> {
    let trained = schedule.sigmas();
    // Also checks the number of steps, whatever the levels.
    let mut levels: Vec<Level> = schedule
        .timesteps(spacing, steps)?
        .into_iter()
        .map(|timestep| Level::preserving(timestep, interpolate(&trained, timestep)))
        .collect();
    if let Some(of_timesteps) = of_timesteps(schedule, sigmas, rounding, steps) {
        levels = of_timesteps;
    } else if *sigmas != SigmaSchedule::Model {
        let (first, last) = (levels[0].sigma, levels[steps - 1].sigma);
        levels = sigmas
            .between(first, last, steps)
            .into_iter()
            .map(|sigma| {
                let timestep = rounding.apply(sigmas, schedule.betas, timestep_of(&trained, sigma));
                Level::preserving(timestep, sigma)
            })
            .collect();
    }
    levels.push(Level::preserving(0.0, end));
    Ok(levels)
}

/// Levels of the exponential integrators (DPM-Solver and its kin): whole timesteps, and Karras and
/// exponential levels lie between the ends of all that the model was trained on.
pub(super) fn of_solvers(
    schedule: &NoiseSchedule,
    spacing: Spacing,
    sigmas: &SigmaSchedule,
    rounding: Rounding,
    steps: usize,
    lambda_min: f64,
) -> Result<Vec<Level>> {
    let trained = schedule.sigmas();
    // Also checks the number of steps, whatever the levels.
    let timesteps = schedule.solver_timesteps(spacing, steps, lambda_min)?;
    if let Some(levels) = of_timesteps(schedule, sigmas, rounding, steps) {
        return Ok(levels);
    }
    Ok(match sigmas {
        SigmaSchedule::Model => timesteps
            .into_iter()
            .map(|timestep| Level::preserving(timestep, interpolate(&trained, timestep)))
            .collect(),
        _ => sigmas
            .between(trained[trained.len() - 1], trained[0], steps)
            .into_iter()
            .map(|sigma| {
                let timestep = rounding.apply(sigmas, schedule.betas, timestep_of(&trained, sigma));
                Level::preserving(timestep, sigma)
            })
            .collect(),
    })
}

/// The noise level after the last step, where the sampler leaves it to the configuration.
pub(super) fn final_sigma(schedule: &NoiseSchedule) -> f64 {
    match schedule.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::Min => schedule.sigmas()[0],
    }
}

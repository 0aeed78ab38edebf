//! Samplers of score models (Song et al. 2021, arXiv:2011.13456).

use super::super::form::{Form, M, NOISE, X};
use super::super::levels::Level;
use super::super::sampler::Sampler;
use super::super::schedule::invalid;
use super::super::score::{Score, Sde};
use super::super::sigmas::SigmaSchedule;
use super::super::table::Row;
use super::{euler, heun};
use crate::error::Result;

/// The rows of a run from step `begin` on.
pub(in super::super) fn rows(
    score: &Score,
    sampler: Sampler,
    sigmas: &SigmaSchedule,
    steps: usize,
    begin: usize,
) -> Result<Vec<Row>> {
    let prediction = score.prediction();
    let corrections = match sampler {
        // The probability-flow ODE, whose slope is the same noise in units of the picture.
        Sampler::Euler => return Ok(euler::rows(prediction, &score.levels(sigmas, steps)?, begin)),
        Sampler::Heun => return Ok(heun::rows(prediction, &score.levels(sigmas, steps)?, begin)),
        Sampler::ReverseSde => 0,
        Sampler::Pc => score.correct_steps,
        _ => {
            return Err(invalid(
                "sampler of a score model",
                "euler, heun, reverse-sde or pc",
                sampler.name(),
            ));
        }
    };
    sampler.on_own_sigmas(sigmas)?;
    let mut rows = Vec::with_capacity(steps * (corrections + 1));
    for (i, time) in score.times(steps)?.into_iter().enumerate().skip(begin) {
        let level = score.level(time);
        let row = level.scaled_row(prediction);
        rows.extend((0..corrections).map(|_| correction(score, time, level, row)));
        let (drift, noise) = reverse_step(score, time, level, steps);
        // The last noise would only be seen.
        rows.push(row.next(if i + 1 < steps { drift + noise * NOISE } else { drift }));
    }
    Ok(rows)
}

/// A step back along the reverse SDE (eq. 6), and the scale of its noise; as diffusers' `step_pred`.
fn reverse_step(score: &Score, time: f64, level: Level, steps: usize) -> (Form, f64) {
    match score.sde {
        Sde::Exploding { sigma: [low, high] } => {
            // g² integrated from level to level of a chain of so many (eq. 46), as the model was trained on such.
            let last = (steps - 1) as f64;
            // The slack is for whole numbers that are missed by rounding.
            let at = (time * last + 1e-9).floor();
            let sigma = |at: f64| low * (high / low).powf(at / last);
            let next = if at > 0.0 { sigma(at - 1.0) } else { 0.0 };
            let spread = sigma(at).powi(2) - next.powi(2);
            (X + spread * M, spread.sqrt())
        }
        Sde::Preserving { beta } => {
            // Euler–Maruyama, with −noise / σ for the score.
            let beta = (beta[0] + time * (beta[1] - beta[0])) / steps as f64;
            ((1.0 + 0.5 * beta) * X - beta / level.noise() * M, beta.sqrt())
        }
    }
}

/// A step of annealed Langevin dynamics at one level (algorithms 4 and 5; diffusers' `step_correct`): ε = 2 α (r ‖z‖ / ‖s‖)²
/// along the score s and √(2 ε) of noise z, see [`Row::correct`].
fn correction(score: &Score, time: f64, level: Level, row: Row) -> Row {
    match score.sde {
        Sde::Exploding { .. } => Row { correct: score.snr, ..row.next(X + M + NOISE) },
        Sde::Preserving { beta } => {
            // α of the chain that the model was trained as, whatever the steps of a run.
            let beta = (beta[0] + time * (beta[1] - beta[0])) / score.num_train_timesteps as f64;
            let sigma = level.noise();
            // s = −m / σ
            let correct = score.snr * (1.0 - beta).max(0.0).sqrt() * sigma;
            Row { correct, ..row.next(X - 1.0 / sigma * M + NOISE) }
        }
    }
}

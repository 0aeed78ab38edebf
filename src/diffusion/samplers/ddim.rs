//! Song et al. 2021, eq. 12 and 16. Clipping changes x0 alone: the direction
//! that points to the next latent keeps the epsilon of the model.

use super::super::form::{Form, M, NOISE, X, X0};
use super::super::levels::{alpha_at, row};
use super::super::schedule::{NoiseSchedule, Prediction, invalid};
use super::super::table::Row;
use crate::error::Result;

/// `stride` is how far below a timestep the latent goes next; without it to the next one of them.
pub(in super::super) fn rows(
    schedule: &NoiseSchedule,
    timesteps: &[f64],
    stride: Option<usize>,
    begin: usize,
    eta: f64,
) -> Result<Vec<Row>> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(invalid("eta of the sampler ddim", "a number from 0 to 1", eta));
    }
    let step = |(i, &t): (usize, &f64)| {
        let alpha = alpha_at(schedule, t);
        let below = match stride {
            Some(stride) => t - stride as f64,
            None => timesteps.get(i + 1).copied().unwrap_or(-1.0),
        };
        let next = alpha_before(schedule, below);
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let variance = (1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next);
        let noise = eta * variance.max(0.0).sqrt();
        let direction = (1.0 - next - noise * noise).max(0.0).sqrt();
        row(schedule.prediction, t, signal, sigma)
            .next(next.sqrt() * X0 + direction * epsilon(schedule.prediction, signal, sigma) + noise * NOISE)
    };
    Ok(timesteps.iter().enumerate().skip(begin).map(step).collect())
}

/// ᾱ at a timestep, or where a run ends if it is below 0.
pub(super) fn alpha_before(schedule: &NoiseSchedule, timestep: f64) -> f64 {
    if timestep >= 0.0 {
        alpha_at(schedule, timestep)
    } else if schedule.set_alpha_to_one {
        1.0
    } else {
        schedule.alphas_cumprod[0]
    }
}

/// The noise in a latent of `signal` · x0 + `sigma` · noise as the model has it.
pub(super) fn epsilon(prediction: Prediction, signal: f64, sigma: f64) -> Form {
    match prediction {
        Prediction::Epsilon => M,
        Prediction::Sample => 1.0 / sigma * (X - signal * M),
        Prediction::V => sigma * X + signal * M,
        Prediction::Flow => X + signal * M,
        Prediction::Score => -sigma * M,
    }
}

//! Samplers of consistency models: few steps, each to a clean picture and back under noise.

use super::super::form::{NOISE, X, X0};
use super::super::levels::{alpha_at, row};
use super::super::schedule::{NoiseSchedule, invalid};
use super::super::table::Row;
use super::ddim::epsilon;
use crate::error::Result;

/// The timesteps that consistency models were distilled on, thinned out.
pub(in super::super) fn timesteps(schedule: &NoiseSchedule, steps: usize) -> Result<Vec<f64>> {
    let trained = schedule.num_train_timesteps();
    let distilled = schedule.original_inference_steps;
    if !(1..=trained).contains(&distilled) {
        return Err(invalid("original_inference_steps", format!("1 to {trained}"), distilled));
    }
    if !(1..=distilled).contains(&steps) {
        return Err(invalid("number of steps", format!("1 to {distilled}"), steps));
    }
    let stride = trained / distilled;
    let at = |i: usize| {
        // As diffusers: ⌊i · distilled / steps⌋ in f64.
        let index = (i as f64 * (distilled as f64 / steps as f64)).floor() as usize;
        ((distilled - index) * stride - 1) as f64
    };
    Ok((0..steps).map(at).collect())
}

/// Latent consistency models (Luo et al. 2023, arXiv:2310.04378; diffusers' `LCMScheduler`).
pub(in super::super) fn lcm_rows(schedule: &NoiseSchedule, timesteps: &[f64], begin: usize) -> Vec<Row> {
    /// Standard deviation of the data in the boundary conditions, over the timestep's scale.
    const SIGMA_DATA: f64 = 0.5;
    let step = |(i, &t): (usize, &f64)| {
        let alpha = alpha_at(schedule, t);
        let scaled = t * schedule.timestep_scaling;
        let reach = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let clean = scaled / reach.sqrt() * X0 + SIGMA_DATA * SIGMA_DATA / reach * X;
        let next = match timesteps.get(i + 1) {
            None => clean,
            Some(&next) => {
                let next = alpha_at(schedule, next);
                next.sqrt() * clean + (1.0 - next).sqrt() * NOISE
            }
        };
        row(schedule.prediction, t, alpha.sqrt(), (1.0 - alpha).sqrt()).next(next)
    };
    timesteps.iter().enumerate().skip(begin).map(step).collect()
}

/// Trajectory consistency distillation, "strategic stochastic sampling" (Zheng et al. 2024,
/// arXiv:2402.19159; diffusers' `TCDScheduler`, which calls γ eta).
pub(in super::super) fn tcd_rows(
    schedule: &NoiseSchedule,
    timesteps: &[f64],
    begin: usize,
    gamma: f64,
) -> Result<Vec<Row>> {
    if !(0.0..=1.0).contains(&gamma) {
        return Err(invalid("gamma of the sampler tcd", "a number from 0 to 1", gamma));
    }
    let step = |(i, &t): (usize, &f64)| {
        let next = timesteps.get(i + 1).copied();
        let alpha = alpha_at(schedule, t);
        // Below the next timestep by γ, from where noise leads back up to it.
        let below = alpha_at(schedule, ((1.0 - gamma) * next.unwrap_or(0.0)).floor());
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let epsilon = epsilon(schedule.prediction, signal, sigma);
        let landed = below.sqrt() * X0 + (1.0 - below).sqrt() * epsilon;
        let next = match next {
            Some(next) if gamma > 0.0 => {
                let up = alpha_at(schedule, next) / below;
                up.sqrt() * landed + (1.0 - up).max(0.0).sqrt() * NOISE
            }
            _ => landed,
        };
        row(schedule.prediction, t, signal, sigma).next(next)
    };
    Ok(timesteps.iter().enumerate().skip(begin).map(step).collect())
}

//! Singlestep DPM-Solver++ with fresh noise: 2S ancestral (k-diffusion's `sample_dpmpp_2s_ancestral`) and the
//! SDE solver (`sample_dpmpp_sde` with r = ½, diffusers' `DPMSolverSDEScheduler`). Two calls a step, one for the last.

use super::super::form::{NOISE, X, X0, past};
use super::super::levels::Level;
use super::super::schedule::NoiseSchedule;
use super::super::table::Row;
use super::dpm2::middle;
use super::euler;

/// x' = (σ_down / σ) x + (1 − σ_down / σ) · x0 of the middle, reached without noise, and noise.
pub(in super::super) fn ancestral_rows(schedule: &NoiseSchedule, levels: &[Level], begin: usize) -> Vec<Row> {
    let trained = schedule.sigmas();
    let mut rows = Vec::with_capacity(2 * levels.len());
    for [from, to] in levels[begin..].array_windows() {
        let row = from.unscaled_row(schedule.prediction);
        if to.sigma == 0.0 {
            rows.push(row.next(euler::step(from.sigma, 0.0)));
            continue;
        }
        let (down, up) = euler::ancestral(from.sigma, to.sigma);
        let middle = middle(&trained, *from, down);
        rows.push(row.next(euler::step(from.sigma, middle.sigma)).keep(X));
        let ratio = down / from.sigma;
        let next = ratio * past(0) + (1.0 - ratio) * X0 + up * NOISE;
        rows.push(middle.unscaled_row(schedule.prediction).next(next));
    }
    rows
}

/// As above, but the middle is reached with noise too. Both noises are increments of one Brownian
/// motion over σ, which the noise of the step has seen since its beginning: of the part up to the middle
/// it has what the first row drew.
pub(in super::super) fn sde_rows(schedule: &NoiseSchedule, levels: &[Level], begin: usize) -> Vec<Row> {
    let trained = schedule.sigmas();
    let mut rows = Vec::with_capacity(2 * levels.len());
    for [from, to] in levels[begin..].array_windows() {
        let row = from.unscaled_row(schedule.prediction);
        if to.sigma == 0.0 {
            rows.push(row.next(euler::step(from.sigma, 0.0)));
            continue;
        }
        let middle = middle(&trained, *from, to.sigma);
        let (half_down, half_up) = euler::ancestral(from.sigma, middle.sigma);
        let half = euler::step(from.sigma, half_down);
        let (down, up) = euler::ancestral(from.sigma, to.sigma);
        let ratio = down / from.sigma;
        // Of the noise of the whole step, the shares drawn before and after the middle.
        let first = ((from.sigma - middle.sigma) / (from.sigma - to.sigma)).sqrt();
        let second = ((middle.sigma - to.sigma) / (from.sigma - to.sigma)).sqrt();
        // The first row's noise stays in the latent, scaled to what the whole step takes of it; what the
        // latent has too much or too little of the rest is kept beside it.
        let share = up * first / half_up;
        rows.push(row.next(half + half_up * NOISE).keep(ratio * X - share * half));
        let next = share * X + past(0) + (1.0 - ratio) * X0 + up * second * NOISE;
        rows.push(middle.unscaled_row(schedule.prediction).next(next));
    }
    rows
}

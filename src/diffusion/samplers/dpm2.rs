//! DPM-Solver-2 as k-diffusion has it (`sample_dpm_2`, diffusers' `KDPM2DiscreteScheduler`): an Euler step to
//! the middle in log σ, and the slope there for the whole step; and samplers of the same two calls.

use super::super::form::{NOISE, X, X0, past};
use super::super::levels::Level;
use super::super::schedule::{NoiseSchedule, timestep_of};
use super::super::table::Row;
use super::euler;

/// The level half-way to `sigma` in log σ.
pub(super) fn middle(trained: &[f64], from: Level, sigma: f64) -> Level {
    let sigma = (from.sigma * sigma).sqrt();
    Level::preserving(timestep_of(trained, sigma), sigma)
}

pub(in super::super) fn rows(
    schedule: &NoiseSchedule,
    levels: &[Level],
    begin: usize,
    ancestral: bool,
) -> Vec<Row> {
    let trained = schedule.sigmas();
    let mut rows = Vec::with_capacity(2 * levels.len());
    for [from, to] in levels[begin..].array_windows() {
        let row = from.unscaled_row(schedule.prediction);
        if to.sigma == 0.0 {
            rows.push(row.next(euler::step(from.sigma, 0.0)));
            continue;
        }
        let (down, up) = if ancestral { euler::ancestral(from.sigma, to.sigma) } else { (to.sigma, 0.0) };
        let middle = middle(&trained, *from, down);
        rows.push(row.next(euler::step(from.sigma, middle.sigma)).keep(X));
        let slope = 1.0 / middle.sigma * (X - X0);
        let next = past(0) + (down - from.sigma) * slope + up * NOISE;
        rows.push(middle.unscaled_row(schedule.prediction).next(next));
    }
    rows
}

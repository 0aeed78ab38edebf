//! Samplers of flow models, whose answer v is the slope dx / dσ itself (diffusers' `FlowMatchEulerDiscreteScheduler`
//! and `FlowMatchHeunDiscreteScheduler`).

use super::super::flow::Flow;
use super::super::form::{M, NOISE, X, X0, past};
use super::super::levels;
use super::super::sampler::Sampler;
use super::super::schedule::{Prediction, invalid};
use super::super::sigmas::SigmaSchedule;
use super::super::table::Row;
use crate::error::Result;

pub(in super::super) fn rows(
    flow: &Flow,
    sampler: Sampler,
    sigmas: &SigmaSchedule,
    steps: usize,
    begin: usize,
) -> Result<Vec<Row>> {
    let mut sigmas = flow.sigmas(sigmas, steps)?;
    sigmas.push(0.0);
    let row = |sigma: f64| {
        let timestep = sigma * flow.num_train_timesteps as f64;
        levels::row(Prediction::Flow, timestep, 1.0 - sigma, sigma)
    };
    let mut rows = Vec::new();
    for &[from, to] in sigmas[begin..].array_windows() {
        match sampler {
            Sampler::Euler if flow.stochastic => rows.push(row(from).next((1.0 - to) * X0 + to * NOISE)),
            Sampler::Euler => rows.push(row(from).next(X + (to - from) * M)),
            // No slope is asked for where the picture is clean.
            Sampler::Heun if to == 0.0 => rows.push(row(from).next(X + (to - from) * M)),
            Sampler::Heun => {
                rows.push(row(from).next(X + (to - from) * M).keep(M));
                rows.push(row(to).next(X + 0.5 * (to - from) * (M - past(0))));
            }
            _ => return Err(invalid("sampler of a flow model", "euler or heun", sampler.name())),
        }
    }
    Ok(rows)
}

//! Euler steps of the probability-flow ODE, x' = x + (x − x0) / σ · (σ' − σ), alone and with fresh noise.

use super::super::form::{Form, NOISE, X, X0};
use super::super::levels::Level;
use super::super::schedule::Prediction;
use super::super::table::Row;

/// An Euler step from σ to σ', sorted by x and x0.
pub(super) fn step(from: f64, to: f64) -> Form {
    to / from * X + (1.0 - to / from) * X0
}

pub(in super::super) fn rows(prediction: Prediction, levels: &[Level], begin: usize) -> Vec<Row> {
    let row = |[from, to]: &[Level; 2]| from.unscaled_row(prediction).next(step(from.sigma, to.sigma));
    levels[begin..].array_windows().map(row).collect()
}

/// The σ that a step goes down to, and the noise to come back to σ':
/// down² + up² = σ'², down = σ'² / σ (k-diffusion's `get_ancestral_step`, eta 1).
pub(super) fn ancestral(from: f64, to: f64) -> (f64, f64) {
    let down = to * to / from;
    (down, (to * to - down * down).max(0.0).sqrt())
}

/// Euler steps past σ', and noise to come back to it.
pub(in super::super) fn ancestral_rows(prediction: Prediction, levels: &[Level], begin: usize) -> Vec<Row> {
    let row = |[from, to]: &[Level; 2]| {
        let (down, up) = ancestral(from.sigma, to.sigma);
        from.unscaled_row(prediction).next(step(from.sigma, down) + up * NOISE)
    };
    levels[begin..].array_windows().map(row).collect()
}

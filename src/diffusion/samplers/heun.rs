//! Heun's method: an Euler step that remembers its slope d, then a second model call at its end,
//! whose slope d' corrects it: x'' = x' + (d' − d) / 2 · (σ' − σ).

use super::super::form::{X, X0, past};
use super::super::levels::Level;
use super::super::schedule::Prediction;
use super::super::table::Row;
use super::euler;

pub(in super::super) fn rows(prediction: Prediction, levels: &[Level], begin: usize) -> Vec<Row> {
    let mut rows = Vec::with_capacity(2 * levels.len());
    for [from, to] in levels[begin..].array_windows() {
        let predictor = from.unscaled_row(prediction).next(euler::step(from.sigma, to.sigma));
        if to.sigma == 0.0 {
            // No slope to be had at σ' = 0.
            rows.push(predictor);
            continue;
        }
        rows.push(predictor.keep(1.0 / from.sigma * (X - X0)));
        let slope = 1.0 / to.sigma * (X - X0);
        let half = (to.sigma - from.sigma) / 2.0;
        rows.push(to.unscaled_row(prediction).next(X + half * (slope - past(0))));
    }
    rows
}

//! Linear multistep (k-diffusion's `sample_lms`): ∫ dσ of the polynomial through the last slopes.

use super::super::form::{X, X0, past};
use super::super::levels::Level;
use super::super::schedule::Prediction;
use super::super::table::Row;

const ORDER: usize = 4;

pub(in super::super) fn rows(prediction: Prediction, levels: &[Level], begin: usize) -> Vec<Row> {
    let step = |i: usize| {
        let slope = 1.0 / levels[i].sigma * (X - X0);
        // diffusers counts the steps before a run that begins in the middle, of which no slopes are.
        let order = ORDER.min(i + 1);
        let nodes: Vec<f64> = (0..order).map(|k| levels[i - k].sigma).collect();
        let ends = [levels[i].sigma, levels[i + 1].sigma];
        let mut next = X;
        for k in 0..order.min(i - begin + 1) {
            next = next + integral(&nodes, k, ends) * if k == 0 { slope } else { past(k - 1) };
        }
        levels[i].unscaled_row(prediction).next(next).keep(slope)
    };
    (begin..levels.len() - 1).map(step).collect()
}

/// ∫ of the Lagrange polynomial that is 1 at node `k` and 0 at the others: Gauss's rule of two points,
/// exact for cubic ones.
fn integral(nodes: &[f64], k: usize, [from, to]: [f64; 2]) -> f64 {
    let lagrange = |x: f64| -> f64 {
        let others = nodes.iter().enumerate().filter(|(j, _)| *j != k);
        others.map(|(_, node)| (x - node) / (nodes[k] - node)).product()
    };
    let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
    let offset = half / 3.0_f64.sqrt();
    half * (lagrange(middle - offset) + lagrange(middle + offset))
}

//! DEIS in log ρ (Zhang & Chen 2022, arXiv:2204.13902): ∫ dρ of the polynomial in log ρ through the
//! last predictions of the noise, in the latent over √ᾱ, whose noise level is ρ.

use super::super::form::{X, past};
use super::super::levels::Level;
use super::super::schedule::NoiseSchedule;
use super::super::table::Row;
use super::ddim::epsilon;
use super::dpm_solver::order_at;

pub(in super::super) fn rows(
    schedule: &NoiseSchedule,
    levels: &[Level],
    begin: usize,
    most: usize,
) -> Vec<Row> {
    let steps = levels.len() - 1;
    let step = |i: usize| {
        let [from, to] = [levels[i], levels[i + 1]];
        let order = order_at(most, [i, begin, steps], schedule.multistep.lower_order_final);
        let slope = epsilon(schedule.prediction, from.signal, from.noise());
        let logs: Vec<f64> = (0..order).map(|k| levels[i - k].sigma.ln()).collect();
        let mut next = to.signal / from.signal * X;
        for k in 0..order {
            let weight = integral(&logs, k, to.sigma) - integral(&logs, k, from.sigma);
            next = next + to.signal * weight * if k == 0 { slope } else { past(k - 1) };
        }
        from.scaled_row(schedule.prediction).next(next).keep(slope)
    };
    (begin..steps).map(step).collect()
}

/// ∫ dρ, up to ρ, of the Lagrange polynomial in log ρ that is 1 at node `k` and 0 at the others.
fn integral(nodes: &[f64], k: usize, rho: f64) -> f64 {
    let log = rho.ln();
    let others: Vec<f64> = (0..nodes.len()).filter(|j| *j != k).map(|j| nodes[j]).collect();
    let scale: f64 = others.iter().map(|node| nodes[k] - node).product();
    // ∫ log ρ dρ = ρ (log ρ − 1), ∫ log² ρ dρ = ρ (log² ρ − 2 log ρ + 2)
    rho / scale
        * match others[..] {
            [] => 1.0,
            [a] => log - 1.0 - a,
            [a, b] => log * log - 2.0 * log + 2.0 - (a + b) * (log - 1.0) + a * b,
            _ => unreachable!("of order 3 at most"),
        }
}

//! Multistep DPM-Solver++ of order 1 to 3 (Lu et al. 2022, arXiv:2211.01095, algorithm 2) and its
//! SDE variants (section 6; k-diffusion's `dpmpp_2m_sde` and `dpmpp_3m_sde` at eta 1).

use super::super::form::{Form, NOISE, X, X0, past};
use super::super::levels::Level;
use super::super::schedule::{Multistep, NoiseSchedule};
use super::super::table::Row;

/// Below this many steps diffusers' `lower_order_final` lowers the order of the last ones.
const FEW_STEPS: usize = 15;

/// The order of step `i` of a run from `begin` on: it grows as there is more to look back on, and
/// falls to the end of a short run.
pub(super) fn order_at(most: usize, [i, begin, steps]: [usize; 3], lower_order_final: bool) -> usize {
    let left = if lower_order_final && steps < FEW_STEPS { steps - i } else { most };
    most.min(i - begin + 1).min(left)
}

/// With k = σ / √ᾱ in place of λ = −log k, e^(−h) is k' / k, finite down to k' = 0.
pub(in super::super) fn rows(
    schedule: &NoiseSchedule,
    levels: &[Level],
    begin: usize,
    order: usize,
    sde: bool,
) -> Vec<Row> {
    let steps = levels.len() - 1;
    let Multistep { heun, lower_order_final, euler_at_final } = schedule.multistep;
    let step = |i: usize| {
        let [from, to] = [levels[i], levels[i + 1]];
        let order = match order_at(order, [i, begin, steps], lower_order_final) {
            _ if i + 1 == steps && (to.sigma == 0.0 || euler_at_final) => 1,
            order => order,
        };
        let ratio = to.sigma / from.sigma;
        // The SDE solves for twice the length in λ, and draws what it overshoots.
        let (h, decay) = if sde { (-2.0 * ratio.ln(), ratio * ratio) } else { (-ratio.ln(), ratio) };
        let phi1 = 1.0 - decay;
        let mut next = to.signal / from.signal * decay * X + to.signal * phi1 * X0;
        if let Some([first, second]) = differences(levels, i, order) {
            let phi2 = 1.0 - phi1 / h;
            let phi3 = 0.5 - phi2 / h;
            next = match order {
                2 if !heun => next + to.signal * phi1 / 2.0 * first,
                2 => next + to.signal * phi2 * first,
                _ => next + to.signal * (phi2 * first + phi3 * second),
            };
        }
        if sde {
            next = next + to.noise() * phi1.sqrt() * NOISE;
        }
        from.scaled_row(schedule.prediction).next(next).keep(X0)
    };
    (begin..steps).map(step).collect()
}

/// First and second derivative of x0 by λ, times h and h², from the x0 of step `i` and
/// those before; `None` for a first-order step.
fn differences(levels: &[Level], i: usize, order: usize) -> Option<[Form; 2]> {
    let lambda = |i: usize| -levels[i].sigma.ln();
    let h = lambda(i + 1) - lambda(i);
    // Two steps of the same noise level hold no slope.
    if order < 2 || lambda(i) == lambda(i - 1) {
        return None;
    }
    let r0 = (lambda(i) - lambda(i - 1)) / h;
    let newer = 1.0 / r0 * (X0 - past(0));
    if order < 3 || lambda(i - 1) == lambda(i - 2) {
        return Some([newer, Form::default()]);
    }
    let r1 = (lambda(i - 1) - lambda(i - 2)) / h;
    let older = 1.0 / r1 * (past(0) - past(1));
    let bend = 1.0 / (r0 + r1) * (newer - older);
    Some([newer + r0 * bend, bend])
}

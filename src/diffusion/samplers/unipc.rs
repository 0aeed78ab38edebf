//! UniPC, B(h) variants, predicting x0 (Zhao et al. 2023, arXiv:2302.04867, algorithms 5 and 7).
//!
//! A step of order p corrects its own latent with the new x0 (UniC), then predicts the next one
//! (UniP). Of the step before, rows see only what it predicted; the latent that it predicted from is
//! that, less the x0 of the history.

use super::super::form::{Form, X, X0, past};
use super::super::levels::Level;
use super::super::schedule::NoiseSchedule;
use super::super::table::Row;

pub(in super::super) fn rows(
    schedule: &NoiseSchedule,
    levels: &[Level],
    begin: usize,
    most: usize,
) -> Vec<Row> {
    let steps = levels.len() - 1;
    let order_at = |i: usize| {
        let left = if schedule.multistep.lower_order_final { steps - i } else { most };
        // Nothing but x0 is left of a step to a clean picture.
        let left = if levels[i + 1].sigma == 0.0 { 1 } else { left };
        most.min(left).min(i - begin + 1)
    };
    let step = |i: usize| {
        let corrected = if i == begin || schedule.uncorrected.contains(&(i - 1)) {
            X
        } else {
            corrected(levels, i, order_at(i - 1), schedule.bh1)
        };
        // The newest x0 first.
        let x0 = |k: usize| if k == 0 { X0 } else { past(k - 1) };
        let next = prediction(levels, i, order_at(i), schedule.bh1, corrected, x0);
        levels[i].scaled_row(schedule.prediction).next(next).keep(X0)
    };
    (begin..steps).map(step).collect()
}

/// UniP: the latent of level `i + 1` from that of level `i`; `x0(k)` is the x0 of level `i − k`.
fn prediction(
    levels: &[Level],
    i: usize,
    order: usize,
    bh1: bool,
    latent: Form,
    x0: impl Fn(usize) -> Form,
) -> Form {
    let step = Integral::new(levels, i, order, bh1);
    let weights = match order {
        1 => vec![],
        2 => vec![0.5],
        _ => solve(&step.nodes, &step.moments[..order - 1]),
    };
    step.next(latent, &weights, x0, Form::default())
}

/// UniC: the latent of level `i` with the x0 that it turned out to have.
fn corrected(levels: &[Level], i: usize, order: usize, bh1: bool) -> Form {
    // Seen from the level before, whose x0 is the newest of the history.
    let x0 = past;
    let step = Integral::new(levels, i - 1, order, bh1);
    // Undoes UniP, which is linear in the latent that it began from.
    let of_rest = prediction(levels, i - 1, order, bh1, Form::default(), x0);
    let before = 1.0 / step.keep * (X - of_rest);
    let mut nodes = step.nodes.clone();
    nodes.push(1.0);
    let weights = if order == 1 { vec![0.5] } else { solve(&nodes, &step.moments) };
    let [rest @ .., last] = &weights[..] else { unreachable!("one weight a node") };
    step.next(before, rest, x0, *last * (X0 - x0(0)))
}

/// The exact integral of a step from level `i`, of which the solvers weigh differences of x0.
struct Integral {
    /// What of the latent is left.
    keep: f64,
    /// How much of the newest x0 enters.
    gain: f64,
    /// What the weighted differences enter with.
    scale: f64,
    /// Earlier levels: λ from this one, in units of the step.
    nodes: Vec<f64>,
    /// Right-hand sides of the order conditions.
    moments: Vec<f64>,
}

impl Integral {
    fn new(levels: &[Level], i: usize, order: usize, bh1: bool) -> Self {
        let [from, to] = [levels[i], levels[i + 1]];
        let ratio = to.sigma / from.sigma;
        // −h, of the paper's h = λ' − λ.
        let hh = ratio.ln();
        let phi1 = ratio - 1.0;
        let b = if bh1 { hh } else { phi1 };
        let nodes = (1..order).map(|k| (levels[i - k].sigma / from.sigma).ln() / hh).collect();
        let (mut phi, mut factorial) = (phi1 / hh - 1.0, 1.0);
        let moment = |k: usize| {
            let moment = phi * factorial / b;
            factorial *= (k + 1) as f64;
            phi = phi / hh - 1.0 / factorial;
            moment
        };
        Self {
            keep: to.signal / from.signal * ratio,
            gain: -to.signal * phi1,
            scale: -to.signal * b,
            nodes,
            moments: (1..=order).map(moment).collect(),
        }
    }

    /// The next latent, from weights of the differences to earlier x0 and what comes from later ones.
    fn next(&self, latent: Form, weights: &[f64], x0: impl Fn(usize) -> Form, later: Form) -> Form {
        let differences = weights.iter().zip(&self.nodes).enumerate();
        let sum =
            differences.fold(later, |sum, (k, (weight, node))| sum + weight / node * (x0(k + 1) - x0(0)));
        let exact = self.keep * latent + self.gain * x0(0);
        if self.scale.is_finite() { exact + self.scale * sum } else { exact }
    }
}

/// Weights ρ with Σ ρ_k · node_k^j = moment_j for each j: the order conditions (a Vandermonde system
/// of at most three unknowns, by elimination).
fn solve(nodes: &[f64], moments: &[f64]) -> Vec<f64> {
    let n = moments.len();
    let mut rows: Vec<Vec<f64>> =
        (0..n).map(|j| nodes.iter().map(|node| node.powi(j as i32)).chain([moments[j]]).collect()).collect();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let (pivots, others) = rows.split_at_mut(column + 1);
        let pivot = &pivots[column];
        for row in others {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).for_each(|(a, b)| *a -= factor * b);
        }
    }
    let mut weights = vec![0.0; n];
    for j in (0..n).rev() {
        let known: f64 = (j + 1..n).map(|k| rows[j][k] * weights[k]).sum();
        weights[j] = (rows[j][n] - known) / rows[j][j];
    }
    weights
}

//! Norms.

use super::approx::{Approx, U, growth, unary};
use super::{Element, Task, Values};
use crate::ops::norm::{Norm, Over};
use crate::parallel;

/// Mean and variance of some numbers, with what summing them in f32 may make of these.
#[derive(Clone, Copy)]
struct Moments {
    mean: Approx,
    variance: Approx,
}

impl Moments {
    fn of(numbers: impl Iterator<Item = f64> + Clone, count: usize, about_zero: bool) -> Self {
        let n = count as f64;
        let (sum, magnitude) = numbers.clone().fold((0.0, 0.0), |(s, m), x| (s + x, m + x.abs()));
        let mean = if about_zero { 0.0 } else { sum / n };
        let variance = numbers.map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        let off = if about_zero { 0.0 } else { (growth(count) + 4.0 * U) * magnitude / n };
        let error = (growth(count) + 8.0 * U) * variance + 2.0 * off * variance.sqrt() + off * off;
        Moments { mean: Approx { value: mean, error: off }, variance: Approx { value: variance, error } }
    }
}

pub fn norm<'v>(op: &'v Norm, task: &Task<'_, 'v>) -> Element<'v> {
    let x = task.inputs[0];
    let weight = op.weight.then(|| task.inputs[1]);
    let bias = op.bias.then(|| task.inputs[1 + usize::from(op.weight)]);
    let c = x.desc.shape.last();
    match op.over {
        Over::Groups(groups) => {
            let samples = task.shape(0)[0];
            let (pixels, each) = (x.elements() / samples / c, c / groups);
            let all: Vec<usize> = (0..samples * groups).collect();
            let moments = parallel::map(&all, |&at| {
                let (first, channel) = (at / groups * pixels * c, at % groups * each);
                let numbers = (0..pixels * each).map(|k| x.at(first + k / each * c + channel + k % each));
                Moments::of(numbers, pixels * each, false)
            });
            Box::new(move |i| {
                let moments = moments[i / (pixels * c) * groups + i % c / each];
                finish(op, x.at(i), moments, [weight, bias], i % c)
            })
        }
        Over::Row | Over::RootMeanSquare => Box::new(move |i| {
            let first = i / c * c;
            let numbers = (first..first + c).map(|k| x.at(k));
            let moments = Moments::of(numbers, c, op.over == Over::RootMeanSquare);
            finish(op, x.at(i), moments, [weight, bias], i % c)
        }),
    }
}

/// The result from what was found of its group.
fn finish(op: &Norm, x: f64, m: Moments, [weight, bias]: [Option<&Values>; 2], channel: usize) -> Approx {
    let spread = m.variance.value + f64::from(op.eps);
    let scale = 1.0 / spread.sqrt();
    let centred = x - m.mean.value;
    let value = centred * scale;
    let from_variance = if m.variance.error > 0.0 { (m.variance.error / spread / 2.0).min(1.0) } else { 0.0 };
    // Kernels may multiply out: then x and mean are rounded by themselves.
    let error = scale * (m.mean.error + 4.0 * U * (x.abs() + m.mean.value.abs()))
        + value.abs() * (from_variance + 8.0 * U);
    let at = |vector: Option<&Values>, none: f64| vector.map_or(none, |v| v.at(channel));
    let scaled = Approx { value, error }.times(Approx::exact(at(weight, 1.0)));
    let y = scaled.add(Approx::exact(at(bias, 0.0)));
    match op.activation {
        Some(f) => unary(f, y),
        None => y,
    }
}

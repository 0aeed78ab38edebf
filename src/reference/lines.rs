//! What is made of the numbers along an axis.

use super::approx::{Approx, Sum, U, exp_error, growth};
use super::{Element, Task};
use crate::ops::arg_reduce::ArgReduce;
use crate::ops::cumulate::{Cumulate, Running};
use crate::ops::reduce::{Reduce, Reduction};
use crate::ops::softmax::Softmax;
use crate::ops::top_k::TopK;
use crate::tensor::DType;

/// Outer, along, and inner extent of a shape round the axes `first..end`.
fn split(shape: &[usize], first: usize, end: usize) -> [usize; 3] {
    [&shape[..first], &shape[first..end], &shape[end..]].map(|dims| dims.iter().product())
}

pub fn reduce<'v>(op: &Reduce, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, reduction) = (task.inputs[0], op.reduction);
    let [_, size, inner] = split(task.shape(0), op.first, op.end);
    Box::new(move |i| {
        let first = i / inner * size * inner + i % inner;
        let numbers = (0..size).map(|k| x.at(first + k * inner));
        let sum = |f: fn(f64) -> f64| {
            let mut sum = Sum::default();
            numbers.clone().for_each(|x| sum.add(f(x)));
            sum.finish_alike()
        };
        match reduction {
            Reduction::Sum => sum(|x| x),
            Reduction::Mean => {
                let sum = sum(|x| x);
                let value = sum.value / size as f64;
                Approx { value, error: sum.error / size as f64 + 6.0 * U * value.abs() }
            }
            Reduction::Max => Approx::exact(numbers.fold(f64::NEG_INFINITY, f64::max)),
            Reduction::Min => Approx::exact(numbers.fold(f64::INFINITY, f64::min)),
            Reduction::Product => Approx::rounded(numbers.product(), size as f64),
            Reduction::L2 => {
                let sum = sum(|x| x * x);
                let value = sum.value.sqrt();
                let off = if value > 0.0 { sum.error / value / 2.0 } else { 0.0 };
                Approx { value, error: off + 6.0 * U * value }
            }
        }
    })
}

pub fn softmax<'v>(op: &Softmax, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, log) = (task.inputs[0], op.log);
    let [_, size, inner] = split(task.shape(0), op.axis, op.axis + 1);
    Box::new(move |i| {
        let first = i / (size * inner) * size * inner + i % inner;
        let numbers = (0..size).map(|k| x.at(first + k * inner));
        let most = numbers.clone().fold(f64::NEG_INFINITY, f64::max);
        let (mut total, mut doubt) = (0.0, 0.0);
        for x in numbers {
            let p = (x - most).exp();
            total += p;
            // What lies far below is zero, and exactly so.
            doubt += if p > 0.0 { p * (exp_error(x - most) * 2.0 + U * (x.abs() + most.abs())) } else { 0.0 };
        }
        let relative = doubt / total + growth(size) + 8.0 * U;
        let from = x.at(i) - most;
        match log {
            true => {
                let value = from - total.ln();
                let ln = 1.0 / (1 << 21) as f64 + 6.0 * U * total.ln();
                Approx { value, error: relative + ln + 4.0 * U * (from.abs() + value.abs()) }
            }
            false => {
                let value = from.exp() / total;
                let own = exp_error(from) * 2.0 + U * (x.at(i).abs() + most.abs());
                Approx { value, error: if value > 0.0 { value * (relative + own) } else { 0.0 } }
            }
        }
    })
}

pub fn arg_reduce<'v>(op: &ArgReduce, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, smallest, last) = (task.inputs[0], op.smallest, op.last);
    let [_, size, inner] = split(task.shape(0), op.axis, op.axis + 1);
    Box::new(move |i| {
        let first = i / inner * size * inner + i % inner;
        let at = |k: usize| x.at(first + k * inner) * if smallest { -1.0 } else { 1.0 };
        let better = |a: f64, b: f64| if last { a >= b } else { a > b };
        let best = (1..size).fold(0, |best, k| if better(at(k), at(best)) { k } else { best });
        Approx::exact(best as f64)
    })
}

pub fn top_k<'v>(op: &TopK, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, keep, smallest) = (task.inputs[0], op.keep, op.smallest);
    let [outer, size, inner] = split(task.shape(0), op.axis, op.axis + 1);
    // Sorted once a line.
    let lines: Vec<usize> = (0..outer * inner).collect();
    let orders: Vec<Vec<u32>> = crate::parallel::map(&lines, |&line| {
        let first = line / inner * size * inner + line % inner;
        let at = |k: u32| x.at(first + k as usize * inner);
        let mut order: Vec<u32> = (0..size as u32).collect();
        order.sort_by(|&a, &b| match smallest {
            // Of the two zeros none is the larger one.
            true => at(a).partial_cmp(&at(b)).unwrap_or(std::cmp::Ordering::Equal),
            false => at(b).partial_cmp(&at(a)).unwrap_or(std::cmp::Ordering::Equal),
        });
        order.truncate(keep);
        order
    });
    Box::new(move |i| {
        let line = i / (keep * inner) * inner + i % inner;
        Approx::exact(f64::from(orders[line][i / inner % keep]))
    })
}

pub fn cumulate<'v>(op: &'v Cumulate, task: &Task<'_, 'v>) -> Element<'v> {
    let x = task.inputs[0];
    let [_, size, inner] = split(task.shape(0), op.axis, op.axis + 1);
    let whole = x.desc.dtype == DType::I32;
    Box::new(move |i| {
        let (at, first) = (i / inner % size, i / (size * inner) * size * inner + i % inner);
        let steps = match (op.reverse, op.exclusive) {
            (false, exclusive) => 0..at + usize::from(!exclusive),
            (true, exclusive) => at + usize::from(exclusive)..size,
        };
        let numbers = steps.map(|k| x.at(first + k * inner));
        match (op.running, whole) {
            (Running::Sum, true) => {
                Approx::exact(f64::from(numbers.fold(0i32, |s, x| s.wrapping_add(x as i32))))
            }
            (Running::Product, true) => {
                Approx::exact(f64::from(numbers.fold(1i32, |s, x| s.wrapping_mul(x as i32))))
            }
            (Running::Sum, false) => {
                let mut sum = Sum::default();
                numbers.for_each(|x| sum.add(x));
                sum.finish_alike()
            }
            (Running::Product, false) => Approx::rounded(numbers.product(), size as f64),
        }
    })
}

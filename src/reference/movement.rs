//! Operations that move numbers and change none.

use super::approx::{Approx, U};
use super::{Element, Task};
use crate::ops::concat::Concat;
use crate::ops::gather::Gather;
use crate::ops::gather_elements::GatherElements;
use crate::ops::gather_nd::GatherNd;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::scatter::{Combine, Places, Scatter};
use crate::ops::strided::Strided;
use crate::tensor::{DType, Shape};

/// Coordinates of an element, outermost first.
fn coordinates(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for d in (0..shape.len()).rev() {
        index[d] = i % shape[d];
        i /= shape[d];
    }
    index
}

/// An index of an axis, negative ones from its end; `None` outside.
fn from_end(index: f64, size: usize) -> Option<usize> {
    let index = if index < 0.0 { index + size as f64 } else { index };
    (0.0..size as f64).contains(&index).then_some(index as usize)
}

pub fn concat<'v>(op: &Concat, task: &Task<'_, 'v>) -> Element<'v> {
    let (inputs, axis) = (task.inputs.to_vec(), op.axis);
    let inner: usize = task.output.shape[axis + 1..].iter().product();
    let total = task.output.shape[axis];
    Box::new(move |i| {
        let (k, outer) = (i % inner, i / inner / total);
        let mut at = i / inner % total;
        for input in &inputs {
            let own = input.desc.shape[axis];
            if at < own {
                return Approx::exact(input.at((outer * own + at) * inner + k));
            }
            at -= own;
        }
        unreachable!("the inputs make up the result")
    })
}

pub fn pad<'v>(op: &'v Pad, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, own, shape) = (task.inputs[0], task.shape(0), task.output.shape.to_vec());
    Box::new(move |i| {
        let mut at = 0;
        for (d, place) in coordinates(i, &shape).into_iter().enumerate() {
            let (n, place) = (own[d] as isize, place as isize - op.padding[d][0] as isize);
            let inside = match op.mode {
                PadMode::Constant(value) if !(0..n).contains(&place) => {
                    return Approx::exact(f64::from(value));
                }
                PadMode::Constant(_) => place,
                PadMode::Edge => place.clamp(0, n - 1),
                PadMode::Reflect if place < 0 => -place,
                PadMode::Reflect if place >= n => 2 * n - 2 - place,
                PadMode::Reflect => place,
            };
            at = at * own[d] + inside as usize;
        }
        Approx::exact(x.at(at))
    })
}

pub fn strided<'v>(op: &'v Strided, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, own, shape) = (task.inputs[0], task.shape(0), task.output.shape.to_vec());
    let strides = Shape::from(own).strides();
    Box::new(move |i| {
        let index = coordinates(i, &shape);
        let at = match op {
            Strided::Slice(ranges) => {
                let places = ranges.iter().zip(&index).map(|(r, &k)| r.start as isize + k as isize * r.step);
                places.zip(&strides).map(|(place, s)| place as usize * s).sum()
            }
            Strided::Transpose(axes) => axes.iter().zip(&index).map(|(&a, k)| k * strides[a]).sum(),
            Strided::Broadcast(_) => {
                let new = shape.len() - own.len();
                (0..own.len())
                    .map(|d| if own[d] == 1 { 0 } else { index[new + d] * strides[d] })
                    .sum::<usize>()
            }
        };
        Approx::exact(x.at(at))
    })
}

pub fn gather<'v>(op: &Gather, task: &Task<'_, 'v>) -> Element<'v> {
    let (table, indices) = (task.inputs[0], task.inputs[1]);
    let rows = task.shape(0)[op.axis];
    let inner: usize = task.shape(0)[op.axis + 1..].iter().product();
    let count = indices.elements();
    Box::new(move |i| {
        let row = (indices.word(i / inner % count) as usize).min(rows - 1);
        Approx::exact(table.at((i / (inner * count) * rows + row) * inner + i % inner))
    })
}

pub fn gather_elements<'v>(op: &GatherElements, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, indices, axis) = (task.inputs[0], task.inputs[1], op.axis);
    let (own, shape) = (task.shape(0), task.output.shape.to_vec());
    Box::new(move |i| {
        let mut index = coordinates(i, &shape);
        index[axis] = from_end(indices.at(i), own[axis]).unwrap_or(own[axis] - 1);
        Approx::exact(x.at(index.iter().zip(own).fold(0, |at, (k, n)| at * n + k)))
    })
}

pub fn gather_nd<'v>(op: &GatherNd, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, indices, batch) = (task.inputs[0], task.inputs[1], op.batch);
    let own = task.shape(0);
    let depth = indices.desc.shape.last();
    let inner: usize = own[batch + depth..].iter().product();
    let batches: usize = own[..batch].iter().product();
    let tuples = indices.elements() / depth / batches;
    Box::new(move |i| {
        let tuple = i / inner;
        let mut at = tuple / tuples;
        for d in 0..depth {
            let size = own[batch + d];
            at = at * size + from_end(indices.at(tuple * depth + d), size).unwrap_or(size - 1);
        }
        Approx::exact(x.at(at * inner + i % inner))
    })
}

pub fn scatter<'v>(op: &Scatter, task: &Task<'_, 'v>) -> Element<'v> {
    let [x, indices, updates] = [0, 1, 2].map(|k| task.inputs[k]);
    let own = task.shape(0);
    // In their order, as the definition has them; then each element is ready.
    let mut result: Vec<Approx> = (0..x.elements()).map(|i| Approx::exact(x.at(i))).collect();
    let depth = indices.desc.shape.last();
    let inner: usize = match op.places {
        Places::Along(_) => 1,
        Places::Tuples => own[depth..].iter().product(),
    };
    let dtype = x.desc.dtype;
    for u in 0..updates.elements() {
        let place = match op.places {
            Places::Along(axis) => {
                let mut index = coordinates(u, &updates.desc.shape);
                let Some(k) = from_end(indices.at(u), own[axis]) else { continue };
                index[axis] = k;
                Some(index.iter().zip(own).fold(0, |at, (k, n)| at * n + k))
            }
            Places::Tuples => (0..depth)
                .try_fold(0, |at, d| Some(at * own[d] + from_end(indices.at(u / inner * depth + d), own[d])?))
                .map(|slice| slice * inner + u % inner),
        };
        let Some(place) = place else { continue };
        result[place] = combined(op.combine, dtype, result[place], updates.at(u));
    }
    Box::new(move |i| result[i])
}

fn combined(combine: Combine, dtype: DType, was: Approx, given: f64) -> Approx {
    let (a, b) = (was.value, given);
    // Each is rounded to the type of the tensor.
    let last = if dtype == DType::F16 { 1.0 / 1024.0 } else { 2.0 * U };
    let whole = |sum: f64, signed: i64| match dtype {
        DType::I32 => f64::from(signed as i32),
        DType::U32 => f64::from(signed as u32),
        _ => sum,
    };
    let value = match combine {
        Combine::Replace => return Approx::exact(b),
        Combine::Add => whole(a + b, (a as i64).wrapping_add(b as i64)),
        Combine::Mul => whole(a * b, (a as i64).wrapping_mul(b as i64)),
        Combine::Min => a.min(b),
        Combine::Max => a.max(b),
    };
    let error = match (combine, dtype.is_float()) {
        (_, false) => 0.0,
        (Combine::Add, _) => was.error + last * value.abs(),
        (Combine::Mul, _) => was.error * b.abs() + last * value.abs(),
        _ => was.error,
    };
    Approx { value, error }
}

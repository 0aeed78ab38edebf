//! Arithmetic in integers, and between them and numbers.

use super::approx::Approx;
use super::{Element, Task, map, unravel};
use crate::ops::conv2d_integer::Conv2dInteger;
use crate::ops::dequantize::Dequantize;
use crate::ops::quantize::{Per, Quantize};
use crate::ops::unpack_bytes::UnpackBytes;

/// Which of the scales an element has.
fn place(per: Per, shape: &[usize]) -> impl Fn(usize) -> usize + Sync + use<> {
    let axis = match per {
        Per::Tensor => 0,
        Per::Axis(axis) | Per::Block { axis, .. } => axis,
    };
    let size = shape.get(axis).copied().unwrap_or(1);
    let inner: usize = shape.iter().skip(axis + 1).product();
    move |i| match per {
        Per::Tensor => 0,
        Per::Axis(_) => i / inner % size,
        Per::Block { size: block, .. } => {
            (i / (inner * size) * size.div_ceil(block) + i / inner % size / block) * inner + i % inner
        }
    }
}

pub fn quantize<'v>(op: &'v Quantize, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, scale, zero) = (task.inputs[0], task.inputs[1], task.inputs.get(2).copied());
    let place = place(op.per, task.shape(0));
    Box::new(move |i| {
        let k = place(i);
        // Defined by IEEE 754's f32: that is the exact answer.
        let (number, s) = (x.at(i) as f32, scale.at(k) as f32);
        let scaled = if op.times { number * s } else { number / s };
        let zero = zero.map_or(0.0, |z| z.at(k));
        let bound = f64::from(1 << 18);
        let rounded = f64::from(scaled).clamp(-bound, bound).round_ties_even();
        let q = (rounded + zero).clamp(f64::from(op.low), f64::from(op.high));
        if scaled.is_nan() {
            return Approx::undecided(0.0);
        }
        match op.back {
            true => Approx::rounded((q - zero) * f64::from(s), 0.5),
            false => Approx::exact(q),
        }
    })
}

pub fn dequantize<'v>(op: &Dequantize, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, scale, zero) = (task.inputs[0], task.inputs[1], task.inputs.get(2).copied());
    let place = place(op.per, task.shape(0));
    Box::new(move |i| {
        let k = place(i);
        let steps = (x.at(i) as i32).wrapping_sub(zero.map_or(0, |z| z.at(k) as i32));
        Approx::rounded(f64::from(steps) * scale.at(k), 1.0)
    })
}

pub fn conv2d<'v>(op: &Conv2dInteger, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, weight, o) = (task.inputs[0], task.inputs[1], op.options);
    let ([_, h, w, c], shape) = (task.map(0), map(task.output));
    let [kh, kw, each, outputs] = task.map(1);
    Box::new(move |i| {
        let [n, y, column, co] = unravel(i, shape);
        let first = co / (outputs / o.groups) * each;
        let mut sum = 0i32;
        for ky in 0..kh {
            let v = (y * o.stride[0] + ky * o.dilation[0]).wrapping_sub(o.padding[0]);
            for kx in 0..kw {
                let u = (column * o.stride[1] + kx * o.dilation[1]).wrapping_sub(o.padding[1]);
                if v < h && u < w {
                    for ci in 0..each {
                        let a = x.at(((n * h + v) * w + u) * c + first + ci) as i32;
                        let b = weight.at(((ky * kw + kx) * each + ci) * outputs + co) as i32;
                        sum = sum.wrapping_add(a.wrapping_mul(b));
                    }
                }
            }
        }
        Approx::exact(f64::from(sum))
    })
}

pub fn matmul<'v>(task: &Task<'_, 'v>) -> Element<'v> {
    let (a, b) = (task.inputs[0], task.inputs[1]);
    let (k, n) = (a.desc.shape.last(), b.desc.shape.last());
    let m = task.shape(0)[task.shape(0).len() - 2];
    Box::new(move |i| {
        let (j, row, batch) = (i % n, i / n, i / n / m);
        let product =
            |l: usize| (a.at(row * k + l) as i32).wrapping_mul(b.at((batch * k + l) * n + j) as i32);
        Approx::exact(f64::from((0..k).fold(0i32, |sum, l| sum.wrapping_add(product(l)))))
    })
}

pub fn unpack_bytes<'v>(op: &UnpackBytes, task: &Task<'_, 'v>) -> Element<'v> {
    let (words, signed) = (task.inputs[0], op.signed);
    Box::new(move |i| {
        let byte = words.word(i / 4).to_le_bytes()[i % 4];
        Approx::exact(if signed { f64::from(byte as i8) } else { f64::from(byte) })
    })
}

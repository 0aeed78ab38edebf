//! What diffusion models are fed with and what becomes of their answers.

use super::approx::{Approx, U};
use super::{Element, Task, unravel};
use crate::diffusion::philox_block;
use crate::ops::noise::{Distribution, Noise};
use crate::ops::timestep_embedding::TimestepEmbedding;
use crate::tensor::DType;

/// An element of a draw of standard normal noise, by Box and Muller from the words that the generator gives.
fn normal(seed: u64, draw: u32, index: u32) -> Approx {
    let [a, b, ..] = philox_block(seed, draw, index);
    let part = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    let (u, turn) = (part(a), part(b));
    let (log, angle) = (-2.0 * u.ln(), turn * std::f64::consts::TAU);
    let value = log.sqrt() * angle.sin();
    // The kernel has series of its own where WGSL's functions are coarse: log may be off by 2⁻²¹ between 1/2 and 2.
    let log_off = if u < 0.5 { 8.0 * U * log } else { 2.0 / (1 << 20) as f64 };
    let from_log = (log_off / (2.0 * log.sqrt())).min(log_off.sqrt()) * angle.sin().abs();
    // The word becomes an f32, which has 24 bits of it.
    let from_u = if u < 0.99 { U / (log.sqrt()) * 2.0 } else { 4.0 * U * log.sqrt() };
    Approx { value, error: from_log + from_u + log.sqrt() * 8.0 * U }
}

fn seed(words: &super::Values, picture: usize) -> u64 {
    u64::from(words.word(2 * picture)) | u64::from(words.word(2 * picture + 1)) << 32
}

pub fn noise<'v>(op: &'v Noise, task: &Task<'_, 'v>) -> Element<'v> {
    let seeds = task.inputs[0];
    let (area, channels) = (op.height * op.width, op.channels);
    let draw = op.draw.unwrap_or_else(|| task.inputs[1].at(17) as u32);
    Box::new(move |i| {
        let [picture, pixel, channel] = unravel(i, [usize::MAX, area, channels]);
        // Numbered channels first, as PyTorch has them.
        let index = (channel * area + pixel) as u32;
        match op.distribution {
            Distribution::Normal => normal(seed(seeds, picture), draw, index),
            Distribution::Bits { word } => {
                Approx::exact(f64::from(philox_block(seed(seeds, picture), draw, index)[word]))
            }
        }
    })
}

pub fn timestep_embedding<'v>(op: &'v TimestepEmbedding, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, stride) = (task.inputs[0], task.inputs[0].desc.shape.last());
    let (half, frequencies) = (op.dim / 2, op.frequencies());
    Box::new(move |i| {
        let (row, column) = (i / op.dim, i % op.dim);
        if column >= 2 * half {
            return Approx::exact(0.0);
        }
        // PyTorch too computes the angle in f32: that is the definition.
        let angle = f64::from(x.at(row * stride) as f32 * frequencies[column % half]);
        let cosine = (column < half) == op.cos_first;
        let value = if cosine { angle.cos() } else { angle.sin() };
        // Three parts of a quarter turn hold 33 bits or so.
        Approx { value, error: 8.0 * U * value.abs() + 4.0 * U + 1e-10 * angle.abs() }
    })
}

pub fn input<'v>(task: &Task<'_, 'v>) -> Element<'v> {
    let (sample, row) = (task.inputs[0], task.inputs[1]);
    let elements = sample.elements() / task.shape(0)[0];
    Box::new(move |i| Approx::rounded(row.at(1) * sample.at(i % elements), 0.5))
}

/// See [`crate::diffusion::Row`] for the formula and the places of its coefficients.
pub fn step<'v>(task: &Task<'_, 'v>) -> Element<'v> {
    let [sample, prediction, row, guidance] = [0, 1, 2, 3].map(|k| task.inputs[k]);
    let more = |words: bool| task.inputs[4..].iter().find(|x| (x.desc.dtype == DType::U32) == words).copied();
    let (seeds, rates) = (more(true), more(false));
    let [slots, n, h, w, c] = [0, 1, 2, 3, 4].map(|d| task.shape(0)[d]);
    let elements = n * h * w * c;
    let guided = prediction.desc.shape[0] == 2 * n;
    Box::new(move |i| {
        let (slot, at) = (i / elements, i % elements);
        let of = |slot: usize| Approx::exact(sample.at(slot * elements + at));
        let factor = |k: usize| Approx::exact(row.at(k));
        let term = |k: usize, x: Approx| factor(k).times(x);
        let m = match guided {
            true => {
                let without = Approx::exact(prediction.at(elements + at));
                let apart = Approx::exact(prediction.at(at)).add(Approx::exact(-without.value));
                without.add(Approx::exact(guidance.at(0)).times(apart))
            }
            false => Approx::exact(prediction.at(at)),
        };
        let mut x0 = term(2, of(0)).add(term(3, m));
        let clip = row.at(4);
        if clip > 0.0 {
            x0 = Approx { value: x0.value.clamp(-clip, clip), ..x0 };
        }
        match slot {
            0 => {
                let rate = |k: usize, x: Approx| match rates {
                    Some(rates) => Approx::exact(rates.at(2 * (at / (c * h * w)) + k)).times(x),
                    None => x,
                };
                let mut next = term(5, of(0)).add(term(6, x0)).add(term(7, rate(0, m)));
                for k in 0..slots - 2 {
                    next = next.add(term(8 + k, of(2 + k)));
                }
                match seeds {
                    Some(seeds) if row.at(12) != 0.0 => {
                        let (channel, pixel) = (at % c, at / c % (h * w));
                        let index = (channel * h * w + pixel) as u32;
                        let noise = normal(seed(seeds, at / (c * h * w)), row.at(17) as u32, index);
                        next.add(term(12, rate(1, noise)))
                    }
                    _ => next,
                }
            }
            1 => x0,
            _ if row.at(13) == 0.0 => of(slot),
            2 => term(14, of(0)).add(term(15, x0)).add(term(16, m)),
            _ => of(slot - 1),
        }
    })
}

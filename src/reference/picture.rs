//! Pictures of bytes, and what networks read and say of them.

use super::approx::{Approx, Sum, U};
use super::{Element, Task, Values, map, unravel};
use crate::ops::class_map::ClassMap;
use crate::ops::picture_crops::PictureCrops;
use crate::ops::picture_from_tensor::PictureFromTensor;
use crate::ops::picture_to_tensor::PictureToTensor;

/// Luma of ITU-R BT.601, or one of three channels.
fn colour([r, g, b]: [f64; 3], channels: usize, channel: usize) -> f64 {
    match channels {
        1 => 0.299 * r + 0.587 * g + 0.114 * b,
        _ => [r, g, b][channel],
    }
}

fn normalised(value: f64, (scale, shift): (f32, f32)) -> Approx {
    let (scale, shift) = (f64::from(scale), f64::from(shift));
    let product = value * scale;
    Approx { value: product + shift, error: 8.0 * U * product.abs() + 2.0 * U * shift.abs() }
}

/// A line of a table: the first pixel, and weights in units of 2⁻²².
fn resampled(table: &Values, at: usize, taps: usize, fill: u32, pixel: impl Fn(usize) -> u32) -> u32 {
    let line = at * (taps + 1);
    let first = table.word(line);
    if first == u32::MAX {
        return fill;
    }
    let mut sums = [1i64 << 21; 4];
    for k in 0..taps {
        let weight = i64::from(table.word(line + 1 + k) as i32);
        if weight != 0 {
            let bytes = pixel(first as usize + k).to_le_bytes();
            sums.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum += weight * i64::from(byte));
        }
    }
    u32::from_le_bytes(sums.map(|sum| (sum >> 22).clamp(0, 255) as u8))
}

pub fn to_tensor<'v>(op: &'v PictureToTensor, task: &Task<'_, 'v>) -> Element<'v> {
    let (words, rows, columns) = (task.inputs[0], task.inputs[1], task.inputs.get(2).copied());
    let [_, h, w] = [0, 1, 2].map(|d| task.shape(0)[d]);
    let shape = map(task.output);
    let fill = u32::from_le_bytes([op.fill, op.fill, op.fill, 255]);
    let taps = |table: &Values| table.desc.shape.last() - 1;
    Box::new(move |i| {
        let [n, y, x, channel] = unravel(i, shape);
        let pixel = |v: usize| {
            let line = (n * h + v) * w;
            match columns {
                Some(table) => resampled(table, x, taps(table), fill, |u| words.word(line + u)),
                None => words.word(line + x),
            }
        };
        let [r, g, b, _] = resampled(rows, y, taps(rows), fill, pixel).to_le_bytes().map(f64::from);
        normalised(colour([r, g, b], shape[3], channel) / 255.0, op.normalise[channel])
    })
}

pub fn from_tensor<'v>(op: &'v PictureFromTensor, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, pixels) = (task.inputs[0], task.output.shape.elements());
    let channels = x.desc.shape.last();
    Box::new(move |i| {
        let (mut bytes, mut decided) = ([255u8; 4], true);
        for (k, byte) in bytes.iter_mut().take(3).enumerate() {
            let value = x.at((op.slot * pixels + i) * channels + k.min(channels - 1));
            let shifted = value * f64::from(op.scale) + f64::from(op.shift);
            let scaled = shifted.clamp(0.0, 1.0) * 255.0;
            let off = 255.0 * 4.0 * U * (shifted.abs().min(2.0) + 1.0 + f64::from(op.shift).abs());
            decided &= ((scaled - scaled.floor()) - 0.5).abs() > off;
            *byte = (scaled + 0.5).floor() as u8;
        }
        let word = f64::from(u32::from_le_bytes(bytes));
        if decided { Approx::exact(word) } else { Approx::undecided(word) }
    })
}

pub fn crops<'v>(op: &'v PictureCrops, task: &Task<'_, 'v>) -> Element<'v> {
    let (words, boxes) = (task.inputs[0], task.inputs[1]);
    let [_, h, w] = [0, 1, 2].map(|d| task.shape(0)[d]);
    let [_, count, numbers] = [0, 1, 2].map(|d| task.shape(1)[d]);
    let shape = map(task.output);
    Box::new(move |i| {
        let [region, y, x, channel] = unravel(i, shape);
        let edge = |k: usize, most: usize| boxes.at(region * numbers + k).clamp(0.0, most as f64);
        let spans = [(edge(1, h), edge(3, h)), (edge(0, w), edge(2, w))];
        let mut extent = spans.map(|(low, high)| (high - low).max(1.0) * (1.0 + 2.0 * f64::from(op.margin)));
        if op.square {
            extent = [extent[0].max(extent[1]); 2];
        }
        // Pixels under the filter with their weights.
        let weights = |d: usize, at: usize, out: usize, most: usize| -> Vec<(usize, f64)> {
            let ratio = extent[d] / out as f64;
            let (low, high) = spans[d];
            let centre = (low + high - extent[d]) / 2.0 + (at as f64 + 0.5) * ratio;
            let (centre, reach) = (centre.clamp(0.5, most as f64 - 0.5), ratio.max(1.0));
            let first = (centre - reach - 1.0).max(0.0) as usize;
            (first..most.min((centre + reach + 1.0) as usize + 1))
                .map(|s| (s, (1.0 - (s as f64 + 0.5 - centre).abs() / reach).max(0.0)))
                .collect()
        };
        let (rows, columns) = (weights(0, y, shape[1], h), weights(1, x, shape[2], w));
        let (mut sums, mut total) = ([0.0; 3], 0.0);
        for &(v, wy) in &rows {
            for &(u, wx) in &columns {
                let bytes = words.word((region / count * h + v) * w + u).to_le_bytes();
                sums.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum += wy * wx * f64::from(byte) / 255.0);
                total += wy * wx;
            }
        }
        let scaled = normalised(colour(sums.map(|s| s / total), shape[3], channel), op.normalise[channel]);
        // Places in f32 are off, and weights so much.
        let off = 32.0 * U * (h.max(w) as f64 + 8.0) * f64::from(op.normalise[channel].0).abs();
        Approx { error: scaled.error + off, ..scaled }
    })
}

pub fn overlay<'v>(task: &Task<'_, 'v>) -> Element<'v> {
    let [pictures, classes, colours] = [0, 1, 2].map(|k| task.inputs[k]);
    Box::new(move |i| {
        let class = (classes.word(i) as usize).min(colours.elements() - 1);
        let (under, over) = (pictures.word(i).to_le_bytes(), colours.word(class).to_le_bytes());
        let share = f64::from(over[3]) / 255.0;
        let (mut bytes, mut decided) = ([255u8; 4], true);
        for k in 0..3 {
            let mixed = f64::from(under[k]) * (1.0 - share) + f64::from(over[k]) * share;
            decided &= ((mixed - mixed.floor()) - 0.5).abs() > 1e-3;
            bytes[k] = (mixed + 0.5).floor() as u8;
        }
        let word = f64::from(u32::from_le_bytes(bytes));
        if decided { Approx::exact(word) } else { Approx::undecided(word) }
    })
}

pub fn border_mean<'v>(task: &Task<'_, 'v>) -> Element<'v> {
    let (x, [_, h, w, c]) = (task.inputs[0], task.map(0));
    Box::new(move |i| {
        let mut sum = Sum::default();
        let mut count = 0.0;
        for y in 0..h {
            for column in 0..w {
                if y == 0 || column == 0 || y + 1 == h || column + 1 == w {
                    sum.add(x.at(((i / c * h + y) * w + column) * c + i % c));
                    count += 1.0;
                }
            }
        }
        let sum = sum.finish_alike();
        Approx { value: sum.value / count, error: sum.error / count + 6.0 * U * (sum.value / count).abs() }
    })
}

pub fn class_map<'v>(op: &'v ClassMap, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, [_, h, w, classes]) = (task.inputs[0], task.map(0));
    let [height, width] = op.size;
    Box::new(move |i| {
        let [n, y, column] = unravel(i, [usize::MAX, height, width]);
        // Two pixels of the map along an axis, the share of the second, and what f32 makes that off by.
        let place = |d: usize, at: usize, size: usize| {
            let [scale, shift] = op.place[d].map(f64::from);
            let at = (at as f64 + 0.5) * scale + shift - 0.5;
            let inside = at.clamp(0.0, size as f64 - 1.0);
            let low = inside as usize;
            (
                low,
                (low + 1).min(size - 1),
                inside - low as f64,
                8.0 * U * (size as f64 + at.abs() + shift.abs()),
            )
        };
        let (rows, columns) = (place(0, y, h), place(1, column, w));
        let mut size = 0f64;
        let mut score = |k: usize| {
            let mut at = |v: usize, u: usize| {
                let s = x.at(((n * h + v) * w + u) * classes + k);
                size = size.max(s.abs());
                s
            };
            let mut row = |v: usize| at(v, columns.0) * (1.0 - columns.2) + at(v, columns.1) * columns.2;
            row(rows.0) * (1.0 - rows.2) + row(rows.1) * rows.2
        };
        let scores: Vec<f64> = (0..classes).map(&mut score).collect();
        let off = size * (2.0 * rows.3 + 2.0 * columns.3 + 8.0 * U);
        if classes == 1 {
            let value = f64::from(u8::from(scores[0] > 0.0));
            return if scores[0].abs() <= off { Approx::undecided(value) } else { Approx::exact(value) };
        }
        let best = (1..classes).fold(0, |best, k| if scores[k] > scores[best] { k } else { best });
        let close = (0..classes).any(|k| k != best && scores[best] - scores[k] <= 2.0 * off);
        if close { Approx::undecided(best as f64) } else { Approx::exact(best as f64) }
    })
}

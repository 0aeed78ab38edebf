//! Feature maps read between their pixels.

use super::approx::{Approx, Sum, U};
use super::{Element, Task, map, unravel};
use crate::ops::deform_columns::DeformColumns;
use crate::ops::grid_sample::{GridSample, Outside};
use crate::ops::resize::{Coordinates, Interpolation, Resize};
use crate::ops::roi_align::{RoiAlign, Samples};

/// A place along an axis, and what f32 may make it off by.
#[derive(Clone, Copy)]
struct Place {
    at: f64,
    off: f64,
}

/// Pixels that are read for a place, with their weights; and what these may be off by in all.
fn taps(place: Place, interpolation: Interpolation) -> (Vec<(i64, f64)>, f64) {
    let (cell, f) = (place.at.floor() as i64, place.at - place.at.floor());
    match interpolation {
        Interpolation::Nearest => (vec![(cell, 1.0)], 0.0),
        Interpolation::Bilinear => (vec![(cell, 1.0 - f), (cell + 1, f)], 2.0 * place.off + 2.0 * U),
        Interpolation::Bicubic { a } => {
            let a = f64::from(a);
            let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
            let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
            let weights = [far(1.0 + f), near(f), near(1.0 - f), far(2.0 - f)];
            let taps = weights.into_iter().zip(cell - 1..).map(|(w, k)| (k, w)).collect();
            // Far taps are sums of terms of up to 12 |a|.
            (taps, 8.0 * place.off + 64.0 * U * a.abs().max(1.0))
        }
    }
}

/// A weighted sum of pixels; `at` gives none outside.
fn blend(
    rows: (Vec<(i64, f64)>, f64),
    columns: (Vec<(i64, f64)>, f64),
    at: impl Fn(i64, i64) -> Option<f64>,
) -> Approx {
    let (mut sum, mut most) = (Sum::default(), 0f64);
    for &(v, wy) in &rows.0 {
        for &(u, wx) in &columns.0 {
            let x = at(v, u).unwrap_or(0.0);
            most = most.max(x.abs());
            sum.add(wy * wx * x);
        }
    }
    let sum = sum.finish();
    Approx { value: sum.value, error: sum.error + 2.0 * (rows.1 + columns.1) * most + 8.0 * U * most }
}

pub fn resize<'v>(op: &'v Resize, task: &Task<'_, 'v>) -> Element<'v> {
    let x = task.inputs[0];
    let ([_, h, w, c], shape) = (task.map(0), map(task.output));
    let place = move |i: usize, n: usize, out: usize| {
        let (i_f, n_f, out_f) = (i as f64, n as f64, out as f64);
        let at = match op.coordinates {
            Coordinates::HalfPixel => (i_f + 0.5) * n_f / out_f - 0.5,
            Coordinates::AlignCorners if out == 1 => 0.0,
            Coordinates::AlignCorners => i_f * (n_f - 1.0) / (out_f - 1.0),
            Coordinates::Asymmetric => i_f * n_f / out_f,
        };
        if op.interpolation == Interpolation::Nearest {
            // In whole numbers: the floor, or the nearer of two with halves up.
            let pixel = match op.coordinates {
                Coordinates::Asymmetric => i * n / out,
                Coordinates::HalfPixel => (2 * i + 1) * n / (2 * out),
                Coordinates::AlignCorners if out == 1 => 0,
                Coordinates::AlignCorners => (2 * i * (n - 1) + out - 1) / (2 * (out - 1)),
            };
            return Place { at: pixel as f64, off: 0.0 };
        }
        Place { at, off: 4.0 * U * (1.0 + at.abs()) }
    };
    Box::new(move |i| {
        let [n, y, column, channel] = unravel(i, shape);
        let rows = taps(place(y, h, shape[1]), op.interpolation);
        let columns = taps(place(column, w, shape[2]), op.interpolation);
        if op.interpolation == Interpolation::Nearest {
            let (v, u) = (rows.0[0].0.clamp(0, h as i64 - 1), columns.0[0].0.clamp(0, w as i64 - 1));
            return Approx::exact(x.at(((n * h + v as usize) * w + u as usize) * c + channel));
        }
        blend(rows, columns, |v, u| {
            let (v, u) = (v.clamp(0, h as i64 - 1) as usize, u.clamp(0, w as i64 - 1) as usize);
            Some(x.at(((n * h + v) * w + u) * c + channel))
        })
    })
}

/// The pixel that is read for `i` of `n`, `None` for nothing.
fn outside(i: i64, n: usize, mode: Outside, corners: bool) -> Option<usize> {
    let n = n as i64;
    Some(match mode {
        Outside::Zeros => return (0..n).contains(&i).then_some(i as usize),
        Outside::Border => i.clamp(0, n - 1),
        Outside::Reflection if n == 1 => 0,
        // There and back is a period.
        Outside::Reflection if corners => {
            let k = i.rem_euclid(2 * n - 2);
            k.min(2 * n - 2 - k)
        }
        Outside::Reflection => {
            let k = i.rem_euclid(2 * n);
            k.min(2 * n - 1 - k)
        }
    } as usize)
}

pub fn grid_sample<'v>(op: &'v GridSample, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, grid) = (task.inputs[0], task.inputs[1]);
    let ([_, h, w, c], shape) = (task.map(0), map(task.output));
    let place = move |at: f64, n: usize| {
        let n = n as f64;
        let place = match op.align_corners {
            true => (at + 1.0) / 2.0 * (n - 1.0),
            false => ((at + 1.0) * n - 1.0) / 2.0,
        };
        Place { at: place, off: 4.0 * U * (1.0 + n * (at.abs() + 1.0)) }
    };
    Box::new(move |i| {
        let [n, y, column, channel] = unravel(i, shape);
        let at = ((n * shape[1] + y) * shape[2] + column) * 2;
        let (u, v) = (place(grid.at(at), w), place(grid.at(at + 1), h));
        let sensible = |p: Place| p.at.is_finite() && p.at.abs() < 1e9;
        if !sensible(u) || !sensible(v) {
            return Approx::undecided(0.0);
        }
        let pixel = |v: i64, u: i64| {
            let v = outside(v, h, op.outside, op.align_corners)?;
            let u = outside(u, w, op.outside, op.align_corners)?;
            Some(x.at(((n * h + v) * w + u) * c + channel))
        };
        if op.interpolation == Interpolation::Nearest {
            let value = pixel(v.at.round_ties_even() as i64, u.at.round_ties_even() as i64).unwrap_or(0.0);
            // A place between two pixels may go to either.
            let between = |p: Place| p.off > 0.0 && ((p.at - p.at.floor()) - 0.5).abs() <= p.off;
            return if between(u) || between(v) { Approx::undecided(value) } else { Approx::exact(value) };
        }
        blend(taps(v, op.interpolation), taps(u, op.interpolation), pixel)
    })
}

pub fn deform_columns<'v>(op: &'v DeformColumns, task: &Task<'_, 'v>) -> Element<'v> {
    let (x, offsets, mask) = (task.inputs[0], task.inputs[1], task.inputs.get(2).copied());
    let ([_, h, w, c], shape) = (task.map(0), map(task.output));
    let (o, count, each) = (op.options, op.kernel[0] * op.kernel[1], c / op.options.groups);
    Box::new(move |i| {
        let [n, y, column, at] = unravel(i, shape);
        let (group, k) = (at / (count * each), at / each % count);
        let channel = group * each + at % each;
        let tap = channel / (c / op.sets) * count + k;
        let pixel = (n * shape[1] + y) * shape[2] + column;
        let place = |d: usize, place: usize, cell: usize| {
            let whole = (place * o.stride[d] + cell * o.dilation[d]) as f64 - o.padding[d] as f64;
            let at = whole + offsets.at((pixel * op.sets * count + tap) * 2 + d);
            Place { at, off: 2.0 * U * at.abs() }
        };
        let (v, u) = (place(0, y, k / op.kernel[1]), place(1, column, k % op.kernel[1]));
        let value = blend(taps(v, Interpolation::Bilinear), taps(u, Interpolation::Bilinear), |v, u| {
            let inside = (0..h as i64).contains(&v) && (0..w as i64).contains(&u);
            inside.then(|| x.at(((n * h + v as usize) * w + u as usize) * c + channel))
        });
        match mask {
            Some(mask) => value.times(Approx::exact(mask.at(pixel * op.sets * count + tap))),
            None => value,
        }
    })
}

pub fn roi_align<'v>(op: &'v RoiAlign, task: &Task<'_, 'v>) -> Element<'v> {
    let [x, regions, pictures] = [0, 1, 2].map(|k| task.inputs[k]);
    let ([pictures_in, h, w, c], shape) = (task.map(0), map(task.output));
    // Places of the samples of a bin; none where rounding decides how many.
    let samples = move |low: f64, high: f64, i: usize, bins: usize| -> Option<Vec<Place>> {
        let (scale, offset) = (f64::from(op.scale), if op.half_pixel { 0.5 } else { 0.0 });
        let start = low * scale - offset;
        let mut extent = high * scale - offset - start;
        if !op.half_pixel {
            extent = extent.max(1.0);
        }
        let size = extent / bins as f64;
        let off = 8.0 * U * (start.abs() + extent.abs() + 1.0);
        let count = match op.samples {
            0 if (size - size.round()).abs() <= off && size.round() >= 0.0 => return None,
            0 => size.ceil().max(0.0) as usize,
            n => n,
        };
        let at = |s: usize| start + i as f64 * size + (s as f64 + 0.5) * size / count as f64;
        Some((0..count).map(|s| Place { at: at(s), off }).collect())
    };
    // The two pixels round a place, nothing more than a pixel outside.
    let corners = |p: Place, n: usize| {
        if p.at < -1.0 || p.at > n as f64 {
            return None;
        }
        let at = p.at.max(0.0);
        let low = at.floor() as usize;
        Some(match low >= n - 1 {
            true => [(n - 1, 1.0), (n - 1, 0.0)],
            false => [(low, 1.0 - (at - low as f64)), (low + 1, at - low as f64)],
        })
    };
    Box::new(move |i| {
        let [r, y, column, channel] = unravel(i, shape);
        let edge = |k: usize| regions.at(r * 4 + k);
        let rows = samples(edge(1), edge(3), y, shape[1]);
        let columns = samples(edge(0), edge(2), column, shape[2]);
        let (Some(rows), Some(columns)) = (rows, columns) else { return Approx::undecided(0.0) };
        let picture = (pictures.at(r).max(0.0) as usize).min(pictures_in - 1);
        let edge_of_map =
            |p: Place, n: usize| (p.at + 1.0).abs() <= p.off || (p.at - n as f64).abs() <= p.off;
        let mut sum = Sum::default();
        let (mut most, mut size, mut off) = (f64::NEG_INFINITY, 0f64, 0f64);
        for &v in &rows {
            for &u in &columns {
                if edge_of_map(v, h) || edge_of_map(u, w) {
                    return Approx::undecided(0.0);
                }
                off = off.max(v.off + u.off);
                let (Some(ys), Some(xs)) = (corners(v, h), corners(u, w)) else {
                    most = most.max(0.0);
                    continue;
                };
                for (v, wy) in ys {
                    for (u, wx) in xs {
                        let value = x.at(((picture * h + v) * w + u) * c + channel);
                        size = size.max(value.abs());
                        most = most.max(wy * wx * value);
                        sum.add(wy * wx * value);
                    }
                }
            }
        }
        let count = (rows.len() * columns.len()) as f64;
        let own = 2.0 * off * size + 8.0 * U * size;
        match op.reduce {
            _ if count == 0.0 => Approx::exact(0.0),
            Samples::Mean => {
                let sum = sum.finish_alike();
                Approx { value: sum.value / count, error: sum.error / count + 2.0 * own }
            }
            Samples::Max => Approx { value: most, error: own },
        }
    })
}

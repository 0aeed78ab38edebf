//! A sequence at twice its size: each frame's pixels are samples at places of their own (the camera is moved by a part of a
//! pixel from frame to frame), and those of many frames together are a picture of twice as many pixels a side. No weights.
//!
//! The fine picture is a history that each frame's samples are mixed into, each pixel by how near to it one fell, as in Karis
//! 2014 (High Quality Temporal Supersampling) and Yang et al. 2020 (A Survey of Temporal Antialiasing Techniques).

use super::path_denoise::channels;
use super::temporal::{self, CUBIC, LARGEST, Moved, around, finite, statistics};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::expr::{Expr, Unary};
use crate::ops::grid_sample::{GridSample, Outside};
use crate::ops::resize::Interpolation;
use crate::tensor::{DType, Tensor};

/// So many samples' weight is kept of the frames before.
pub const FRAMES: u32 = 32;

/// A sample counts by its distance from a pixel's middle: a Gaussian of this deviation in fine pixels.
const SPREAD: f32 = 0.4;

/// What is known of a pixel weighs at least this: what its frame lacks is interpolated.
const LEAST: f32 = 0.1;

/// The history may be so many standard deviations off the mean of 3×3 samples.
const DEVIATIONS: f32 = 2.0;

/// The offset of a frame's samples, in pixels to the right and down: a Halton sequence of bases 2 and 3, of period 16.
pub fn jitter(frame: u32) -> [f32; 2] {
    [2, 3].map(|base| {
        let (mut rest, mut part, mut sum) = (frame % 16 + 1, 1.0, 0.0);
        while rest > 0 {
            part /= base as f32;
            sum += part * (rest % base) as f32;
            rest /= base;
        }
        sum - 0.5
    })
}

/// A graph for sequences of frames of this size, any from one pixel up, that become twice as wide and high. A run is a frame; the graph's
/// states are what it remembers, at most `frames` samples of a pixel ([`FRAMES`] is a good number).
///
/// | name | | values |
/// |---|---|---|
/// | input `color` | `[1, height, width, 3]`, f32: as it is to be averaged, best as it is seen (sRGB, or the logarithm of light) | ±65504 |
/// | input `jitter` | `[2]`, f32: where in its pixel each sample was taken, off the middle, in pixels to the right and down; see [`jitter`](fn@jitter) | −½ to ½ |
/// | input `motion` | `[1, height, width, 3]`, f32: where what the pixel shows was in the frame before, less where it is, without jitter: pixels of this size to the right, pixels down, and depth | any |
/// | input `depth` | `[1, height, width, 1]`, f32: how far it is along the camera's axis, in any unit; 0 for the sky | 0 and up |
/// | input `reset` | `[1]`, f32: 0 goes on, any other number forgets all frames before, as after a cut | |
/// | output `upscaled` | `[1, 2 · height, 2 · width, 3]`, f32 | the input's, and a little beyond them at edges |
///
/// What is out of range counts as the nearest that is not, NaN as 0.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for a side of zero, and for `frames` of 0 or more than 1024;
/// [`Error::Graph`](crate::Error::Graph) for more pixels than the planner can count.
pub fn temporal_upscale(width: usize, height: usize, frames: u32) -> Result<Graph> {
    let size = [height, width];
    temporal::check(size, frames)?;
    let mut g = Graph::new();
    let color = g.input("color", [1, height, width, 3], DType::F32);
    let jitter = g.input("jitter", [2], DType::F32);
    let moved = Moved::input(&mut g, size)?;
    let color = finite(&mut g, color, -LARGEST, LARGEST)?;
    let jitter = finite(&mut g, jitter, -0.5, 0.5)?;
    let jitter = g.reshape(jitter, [1, 1, 1, 2])?;
    let fine = size.map(|side| 2 * side);

    let samples = g.scoped("samples", |g| Samples::of(g, color, jitter, fine))?;
    let past = g.scoped("past", |g| moved.past(g, fine))?;
    let (state, before) = past.of(&mut g, "history.color", [1, fine[0], fine[1], 4], CUBIC)?;
    let [x0, x1, x2, x3] = [0, 1, 2, 3].map(Expr::input);
    let count = channels(&mut g, before, 3, 1)?;
    let count = g.elementwise(Expr::clamp(x0.clone(), 0.0, frames as f32), &[count])?;
    let before = channels(&mut g, before, 0, 3)?;

    // The history within what the samples round bear out.
    let reach = x2 * DEVIATIONS;
    let clipped = x0.clone().max(x1.clone() - reach.clone()).min(x1.clone() + reach);
    let before = g.elementwise(clipped, &[before, samples.mean, samples.deviation])?;

    // The mean of the history and of this frame, which has a say where a sample is near or nothing else is known.
    let weight = x1.clone() + (Expr::Const(LEAST) - x0.clone()).max(0.0);
    let weight = g.elementwise(weight, &[count, samples.weight])?;
    let mixed = (x0.clone() * x1.clone() + Expr::input(2) * x3.clone()) / (x1 + x3);
    let upscaled = g.elementwise(mixed, &[before, count, samples.between, weight])?;
    let sum = (x0 + Expr::input(1)).min(frames as f32);
    let sum = g.elementwise(sum, &[count, weight])?;
    let next = g.concat(&[upscaled, sum], 3)?;
    g.update(state, next)?;
    g.output("upscaled", upscaled);
    Ok(g)
}

/// What a frame says of each fine pixel.
struct Samples {
    /// Interpolated, and what it counts by the distance of the nearest sample, `[1, h, w, 1]`.
    between: ValueId,
    weight: ValueId,
    /// Of the nine samples round.
    mean: ValueId,
    deviation: ValueId,
}

impl Samples {
    fn of(g: &mut Graph, color: ValueId, jitter: ValueId, fine: [usize; 2]) -> Result<Samples> {
        let [h, w] = [g.shape(color)[1], g.shape(color)[2]];
        let [x0, x1] = [Expr::input(0), Expr::input(1)];
        // Where a fine pixel's middle lies among the samples: in halves of the picture, and its weight along each axis.
        let (mut places, mut weights) = (Vec::new(), Vec::new());
        for (axis, shape, n) in [(0, [1, 1, fine[1], 1], w), (1, [1, fine[0], 1, 1], h)] {
            let middles: Vec<f32> = (0..2 * n).map(|i| (2 * i + 1) as f32 / 4.0 - 0.5).collect();
            let middles = g.weight("middles", Tensor::from_f32(shape, &middles));
            let off = channels(g, jitter, axis, 1)?;
            // In pixels, of which the first's sample is at 0.
            let place = g.elementwise(x0.clone() - x1.clone(), &[middles, off])?;
            let nearest = Expr::clamp(Expr::unary(Unary::Round, x0.clone()), 0.0, (n - 1) as f32);
            let square = Expr::unary(Unary::Square, (x0.clone() - nearest) * 2.0);
            let weight = Expr::unary(Unary::Exp, square * (-0.5 / (SPREAD * SPREAD)));
            weights.push(g.elementwise(weight, &[place])?);
            let halves = (x0.clone() + 0.5) * (2.0 / n as f32) - 1.0;
            let halves = g.elementwise(halves, &[place])?;
            places.push(g.broadcast_to(halves, [1, fine[0], fine[1], 1])?);
        }
        let weight = g.mul(weights[0], weights[1])?;
        let grid = g.concat(&places, 3)?;

        let read = |g: &mut Graph, x: ValueId, interpolation| {
            let options = GridSample { interpolation, outside: Outside::Border, align_corners: false };
            g.grid_sample(x, grid, options)
        };
        let negated = g.affine(color, -1.0, 0.0)?;
        let both = g.concat(&[color, negated], 3)?;
        let extremes = g.max_pool(both, around(3))?;
        let extremes = read(g, extremes, Interpolation::Nearest)?;
        let [most, least] = [0, 3].map(|first| channels(g, extremes, first, 3));
        let between = read(g, color, CUBIC)?;
        // A cubic goes beyond what it goes between.
        let within = x0.max(Expr::input(2) * -1.0).min(x1);
        let between = g.elementwise(within, &[between, most?, least?])?;

        let around = statistics(g, color, 3)?;
        let around = g.concat(&around, 3)?;
        let around = read(g, around, Interpolation::Bilinear)?;
        let [mean, deviation] = [0, 3].map(|first| channels(g, around, first, 3));
        Ok(Samples { between, weight, mean: mean?, deviation: deviation? })
    }
}

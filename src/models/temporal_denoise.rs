//! The bundled denoiser of path-traced frames for sequences: samples of the frames before are moved to where the current
//! frame has what they show and counted among its own, so that the network sees a frame of many samples.
//!
//! Accumulation and what makes a history invalid follow Schied et al. 2017 (Spatiotemporal Variance-Guided Filtering); the
//! short history that a long one is held to, Zhdan 2021 (ReBLUR, in Ray Tracing Gems II).

use super::path_denoise::{self, DARKEST, channels, within_range};
use super::temporal::{self, CUBIC, Moved, statistics};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::expr::Expr;
use crate::ops::reduce::Reduction;
use crate::ops::resize::Interpolation;
use crate::tensor::DType;

/// As many frames count where nothing moves.
pub const FRAMES: u32 = 32;

/// So many frames are in the short history.
const SHORT: f32 = 4.0;

/// Squares of this side of the short history tell how bright the long one may be: so many standard deviations off their mean.
const SQUARE: usize = 5;
const DEVIATIONS: f32 = 2.0;

/// Of so many frames the mean is shown as much as what the network makes of it.
const TRUSTED: f32 = 32.0;

/// A graph for sequences of frames of this size, any from one pixel up. A run is a frame; the graph's states are what it
/// remembers: a pixel's mean is over at most `frames` frames of it, then older ones fade ([`FRAMES`] is a good number; 1 remembers none).
///
/// | name | | values |
/// |---|---|---|
/// | inputs `color`, `albedo`, `normal` | those of [`path_denoise`](path_denoise::path_denoise); normals in the world's frame of reference | |
/// | input `motion` | `[1, height, width, 3]`, f32: where what the pixel shows was in the frame before, less where it is: pixels to the right, pixels down, and depth | any |
/// | input `depth` | `[1, height, width, 1]`, f32: how far it is along the camera's axis, in any unit; 0 for the sky | 0 and up |
/// | input `reset` | `[1]`, f32: 0 goes on, any other number forgets all frames before, as after a cut | |
/// | output `denoised` | `[1, height, width, 3]`, f32: without noise, linear, as bright as the input | 0 and up |
///
/// The third number of `motion` may be left at 0 while no depth changes by a tenth from one frame to the next. Frames are exposed
/// alike: a change of exposure fades in over some frames, unless it comes with a `reset`.
///
/// What is out of range counts as the nearest that is not, NaN as 0: the output is finite whatever the inputs, and whatever the
/// states were set to.
///
/// # Errors
/// Those of [`path_denoise`](path_denoise::path_denoise); [`Error::Invalid`](crate::Error::Invalid) for `frames` of 0 or more than
/// 1024.
pub fn temporal_denoise(width: usize, height: usize, frames: u32, dtype: DType) -> Result<Graph> {
    let size = [height, width];
    temporal::check(size, frames)?;
    let weights = path_denoise::weights()?;
    let mut g = Graph::new();
    let [color, albedo, normal] =
        ["color", "albedo", "normal"].map(|name| g.input(name, [1, height, width, 3], DType::F32));
    let moved = Moved::input(&mut g, size)?;
    let w = Source { weights: &weights, dtype };
    let past = g.scoped("past", |g| moved.past(g, size))?;

    let of = |channels| [1, height, width, channels];
    let [x0, x1, x2] = [0, 1, 2].map(Expr::input);
    let now = g.concat(&[color, albedo, normal], 3)?;
    let now = within_range(&mut g, now)?;

    // How many frames each pixel is the mean of, this one among them.
    let (state, count) = past.of(&mut g, "history.count", of(1), Interpolation::Bilinear)?;
    let more = (x0.clone().max(0.0) + 1.0).min(frames as f32);
    let new_count = g.elementwise(more, &[count])?;
    g.update(state, new_count)?;

    // (1 − 1/n) · history + 1/n · now
    let mixed = |n: Expr| x0.clone() + (x1.clone() - x0.clone()) / n;
    let (state, short) = past.of(&mut g, "history.light", of(1), Interpolation::Bilinear)?;
    let light = brightness(&mut g, now)?;
    let short = g.elementwise(mixed(x2.clone().min(SHORT)), &[short, light, new_count])?;
    g.update(state, short)?;

    let (state, before) = past.of(&mut g, "history.samples", of(9), CUBIC)?;
    let before = path_denoise::clipped(&mut g, before)?;
    let before = g.scoped("held", |g| held(g, before, short))?;
    let samples = g.elementwise(mixed(x2.clone()), &[before, now, new_count])?;
    g.update(state, samples)?;

    let [color, albedo, normal] = [0, 3, 6].map(|first| channels(&mut g, samples, first, 3));
    let color = color?;
    let denoised = path_denoise::frame(&mut g, w, color, albedo?, normal?)?;

    // The more frames a pixel's mean is of, the less the network can add.
    let more = x2 - 1.0;
    let shown = x0.clone() + (x1 - x0) * (more.clone() / (more + TRUSTED));
    let shown = g.elementwise(shown, &[denoised, color, new_count])?;
    g.output("denoised", shown);
    Ok(g)
}

/// The mean over the channels of the light without the surfaces' colours, of `[1, h, w, 9]`.
fn brightness(g: &mut Graph, frame: ValueId) -> Result<ValueId> {
    let [color, albedo] = [0, 3].map(|first| channels(g, frame, first, 3));
    let light = Expr::input(0) / (Expr::input(1) + DARKEST);
    let light = g.elementwise(light, &[color?, albedo?])?;
    g.reduce(light, Reduction::Mean, &[3], true)
}

/// Frames before whose light is no farther off than the short history's in the pixels round: shadows and lamps that moved.
fn held(g: &mut Graph, frame: ValueId, short: ValueId) -> Result<ValueId> {
    let light = brightness(g, frame)?;
    let [mean, deviation] = statistics(g, short, SQUARE)?;
    let [x0, x1, x2] = [0, 1, 2].map(Expr::input);
    let reach = x2 * DEVIATIONS;
    let within = x0.clone().max(x1.clone() - reach.clone()).min(x1 + reach);
    // Dark by dark is one.
    let factor = (within.max(0.0) + 1e-6) / (x0.max(0.0) + 1e-6);
    let factor = g.elementwise(factor, &[light, mean, deviation])?;
    let color = channels(g, frame, 0, 3)?;
    let color = g.mul(color, factor)?;
    let surfaces = channels(g, frame, 3, 6)?;
    g.concat(&[color, surfaces], 3)
}

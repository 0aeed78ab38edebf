//! The bundled denoiser for frames of a path tracer with few samples a pixel, 367 thousand parameters: linear colour
//! with albedo and normal in, linear colour out. How it was trained is in `training/`.

use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::pad::PadMode;
use crate::ops::pool::PoolOptions;
use crate::ops::resize::{Coordinates, Interpolation, Resize};
use crate::ops::strided::Range;
use crate::ops::typed::Function;
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

const WEIGHTS: &[u8] = include_bytes!("../../models/path-denoise/model.safetensors");
const WIDTHS: [usize; 4] = [32, 48, 64, 64];

/// Sides of the squares of which there are means, beside the pixels themselves.
const SQUARES: [usize; 4] = [2, 4, 8, 16];

/// The network works on frames whose sides are multiples of this; others are continued by their last pixels.
pub const MULTIPLE: usize = 16;

/// Is added to albedos, so that black can be divided by.
pub(super) const DARKEST: f32 = 1.0 / 16.0;

/// No colour is brighter: the largest number of f16.
pub(super) const BRIGHTEST: f32 = 65504.0;

/// No correction of a logarithm is larger.
const STEEPEST: f32 = 12.0;

/// A graph for frames of this size, any from one pixel up. All tensors `[1, height, width, 3]`, f32:
///
/// | name | | values |
/// |---|---|---|
/// | input `color` | mean of the samples, linear, exposed so that white is about 1 | 0 and up |
/// | input `albedo` | of the first surface that is neither mirror nor glass, mean of the same samples; lights and sky: what they shine, at most 1 | 0 to 1 |
/// | input `normal` | of that surface, in any frame of reference that does not change within the picture; 0 where there is none | −1 to 1 |
/// | output `denoised` | without noise, linear, as bright as the input | 0 and up |
///
/// What is out of range counts as the nearest that is not, NaN as 0: the output is finite whatever the inputs.
/// `dtype` is what feature maps are stored as.
///
/// # Errors
/// [`Error::Invalid`] for a side of zero or more than the planner can count, [`Error::Format`] if the bundled file
/// is not what it should be.
pub fn path_denoise(width: usize, height: usize, dtype: DType) -> Result<Graph> {
    if width == 0 || height == 0 {
        return Err(Error::Invalid {
            what: "size of a frame".to_owned(),
            expected: "at least one pixel".to_owned(),
            found: format!("{width} × {height}"),
        });
    }
    let weights = weights()?;
    let mut g = Graph::new();
    let [color, albedo, normal] =
        ["color", "albedo", "normal"].map(|name| g.input(name, [1, height, width, 3], DType::F32));
    let w = Source { weights: &weights, dtype };
    let result = frame(&mut g, w, color, albedo, normal)?;
    g.output("denoised", result);
    Ok(g)
}

/// Those that ship.
pub(super) fn weights() -> Result<Weights> {
    Weights::from_static("path-denoise", WEIGHTS)
}

/// A frame as [`path_denoise`] has them, `[n, h, w, 3]` each, f32 → `[n, h, w, 3]`, f32.
pub fn frame(g: &mut Graph, w: Source, color: ValueId, albedo: ValueId, normal: ValueId) -> Result<ValueId> {
    let [height, width] = [g.shape(color)[1], g.shape(color)[2]];
    let x = g.concat(&[color, albedo, normal], 3)?;
    let x = within_range(g, x)?;
    let missing = |side: usize| [0, side.next_multiple_of(MULTIPLE) - side];
    let x = g.pad(x, &[[0, 0], missing(height), missing(width), [0, 0]], PadMode::Edge)?;
    let [color, albedo] = [0, 3].map(|first| channels(g, x, first, 3));
    let (color, albedo) = (color?, albedo?);
    let surfaces = channels(g, x, 3, 6)?;

    // The light without the surfaces' colours, and its means over larger and larger squares.
    let [x0, x1, x2] = [Expr::input(0), Expr::input(1), Expr::input(2)];
    let plus = |x: &Expr, c: f32| Expr::binary(Binary::Add, x.clone(), Expr::Const(c));
    let light = g.elementwise(Expr::binary(Binary::Div, x0.clone(), plus(&x1, DARKEST)), &[color, albedo])?;
    let mut means = vec![light];
    for side in SQUARES {
        means.push(mean(g, light, side)?);
    }
    // Of three of them, ln(1 + light).
    let logarithm = Expr::unary(Unary::Log, plus(&x0, 1.0));
    let logarithms = [0, 2, 4].map(|i| g.elementwise(logarithm.clone(), &[means[i]]));
    let [a, b, c] = logarithms;
    let x = g.concat(&[a?, b?, c?, surfaces], 3)?;
    let x = g.cast(x, w.dtype)?;
    let y = network(g, w, x)?;
    let y = g.cast(y, DType::F32)?;

    let correction = channels(g, y, 0, 3)?;
    let recolouring = channels(g, y, 3, 3)?;
    let shares = channels(g, y, 6, means.len())?;
    let shares = g.softmax(shares, 3)?;
    let mut sum = None;
    for (i, &mean) in means.iter().enumerate() {
        let share = channels(g, shares, i, 1)?;
        sum = Some(match sum {
            None => g.mul(mean, share)?,
            Some(sum) => {
                let product = Expr::binary(Binary::Mul, x0.clone(), x1.clone());
                g.elementwise(Expr::binary(Binary::Add, product, x2.clone()), &[mean, share, sum])?
            }
        });
    }
    let sum = sum.expect("there are five means");
    // (sum + 1) · exp(correction) − 1, times clamp(albedo + recolouring, 0, 1) + DARKEST
    let factor = Expr::unary(Unary::Exp, Expr::clamp(x1, -STEEPEST, STEEPEST));
    let light = Expr::binary(Binary::Mul, plus(&x0, 1.0), factor);
    let surface = Expr::clamp(Expr::binary(Binary::Add, x2, Expr::input(3)), 0.0, 1.0);
    let color = Expr::binary(Binary::Mul, plus(&light, -1.0), plus(&surface, DARKEST));
    let color = Expr::clamp(color, 0.0, BRIGHTEST);
    let color = g.elementwise(color, &[sum, correction, albedo, recolouring])?;
    let part = |size| Range { start: 0, stop: Some(size), step: 1 };
    match [g.shape(color)[1], g.shape(color)[2]] == [height, width] {
        true => Ok(color),
        false => g.slice(color, &[Range::all(), part(height), part(width), Range::all()]),
    }
}

/// The nine numbers of a pixel within their ranges, and 0 for NaN, of which WGSL does not say what a minimum makes.
pub(super) fn within_range(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let zero = g.weight("zero", Tensor::from_f32([1], &[0.0]));
    let nan = g.typed(Function::IsNan, &[x])?;
    let x = g.choose(nan, zero, x)?;
    clipped(g, x)
}

/// The nine numbers of a pixel, none of them NaN, within their ranges.
pub(super) fn clipped(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let (b, r) = (BRIGHTEST, 1.0);
    let low = g.weight("low", Tensor::from_f32([9], &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -r, -r, -r]));
    let high = g.weight("high", Tensor::from_f32([9], &[b, b, b, r, r, r, r, r, r]));
    let x = g.binary(Binary::Max, x, low)?;
    g.binary(Binary::Min, x, high)
}

/// Some of the channels.
pub(super) fn channels(g: &mut Graph, x: ValueId, first: usize, count: usize) -> Result<ValueId> {
    let some = Range { start: first, stop: Some(first + count), step: 1 };
    g.slice(x, &[Range::all(), Range::all(), Range::all(), some])
}

/// Means over squares side by side, and between their middles bilinear.
fn mean(g: &mut Graph, x: ValueId, side: usize) -> Result<ValueId> {
    let size = [g.shape(x)[1], g.shape(x)[2]];
    let small = g.average_pool(x, PoolOptions::square(side), false)?;
    let (interpolation, coordinates) = (Interpolation::Bilinear, Coordinates::HalfPixel);
    g.push(Resize { size, interpolation, coordinates }, &[small])
}

/// A U-Net (Ronneberger et al. 2015) on squares of 2×2 pixels: `x` `[n, h, w, 15]`, sides multiples of [`MULTIPLE`] →
/// `[n, h, w, 11]`: what is to be added to the light's logarithm, and to the albedo, whose edges are as noisy as the
/// frame's; and shares of the means before their softmax.
pub fn network(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let [a, b, c, d] = WIDTHS;
    let h = g.pixel_unshuffle(x, 2)?;
    let h = layer(g, w, "head", h, a)?;
    let h1 = layer(g, w, "enc1", h, a)?;
    let h = g.max_pool(h1, PoolOptions::square(2))?;
    let h2 = layer(g, w, "enc2", h, b)?;
    let h = g.max_pool(h2, PoolOptions::square(2))?;
    let h3 = layer(g, w, "enc3", h, c)?;
    let h = g.max_pool(h3, PoolOptions::square(2))?;
    let h = layer(g, w, "enc4", h, d)?;
    let h = layer(g, w, "mid", h, d)?;
    let h = joined(g, h, h3)?;
    let h = layer(g, w, "dec3a", h, c)?;
    let h = layer(g, w, "dec3b", h, c)?;
    let h = joined(g, h, h2)?;
    let h = layer(g, w, "dec2a", h, b)?;
    let h = layer(g, w, "dec2b", h, b)?;
    let h = joined(g, h, h1)?;
    let h = layer(g, w, "dec1a", h, a)?;
    let h = layer(g, w, "dec1b", h, a)?;
    let h = w.conv(g, "tail", h, 44, 3, Conv2dOptions::padded(1))?;
    g.pixel_shuffle(h, 2)
}

/// A 3×3 convolution and ReLU.
fn layer(g: &mut Graph, w: Source, name: &str, x: ValueId, c_out: usize) -> Result<ValueId> {
    let h = w.conv(g, name, x, c_out, 3, Conv2dOptions::padded(1))?;
    g.relu(h)
}

/// `x` at twice its size, and what the encoder had there.
fn joined(g: &mut Graph, x: ValueId, skip: ValueId) -> Result<ValueId> {
    let large = g.upsample_nearest(x, 2)?;
    g.concat(&[large, skip], 3)
}

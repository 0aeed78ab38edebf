//! The bundled denoiser for frames of a path tracer with few samples a pixel, 354 thousand parameters: linear colour
//! with albedo and normal in, linear colour out. How it was trained is in `training/`.

use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::pad::PadMode;
use crate::ops::pool::PoolOptions;
use crate::ops::strided::Range;
use crate::ops::typed::Function;
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

const WEIGHTS: &[u8] = include_bytes!("../../models/path-denoise/model.safetensors");
const WIDTHS: [usize; 4] = [32, 48, 64, 64];

/// The network works on frames whose sides are multiples of this; others are continued by their last pixels.
pub const MULTIPLE: usize = 16;

/// Is added to albedos, so that black can be divided by.
const DARKEST: f32 = 1.0 / 16.0;

/// No colour is brighter: the largest number of f16.
const BRIGHTEST: f32 = 65504.0;

/// No logarithm of light is larger.
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
    let weights = Weights::from_static("path-denoise", WEIGHTS)?;
    let mut g = Graph::new();
    let [color, albedo, normal] =
        ["color", "albedo", "normal"].map(|name| g.input(name, [1, height, width, 3], DType::F32));
    let w = Source { weights: &weights, dtype };
    let result = frame(&mut g, w, color, albedo, normal)?;
    g.output("denoised", result);
    Ok(g)
}

/// A frame as [`path_denoise`] has them, `[n, h, w, 3]` each, f32 → `[n, h, w, 3]`, f32.
pub fn frame(g: &mut Graph, w: Source, color: ValueId, albedo: ValueId, normal: ValueId) -> Result<ValueId> {
    let color = within(g, color, 0.0, BRIGHTEST)?;
    let albedo = within(g, albedo, 0.0, 1.0)?;
    let normal = within(g, normal, -1.0, 1.0)?;
    // The light without the surfaces' colours, as a logarithm: ln(color / (albedo + DARKEST) + 1).
    let [x0, x1] = [Expr::input(0), Expr::input(1)];
    let surface = Expr::binary(Binary::Add, x1.clone(), Expr::Const(DARKEST));
    let light = Expr::binary(Binary::Div, x0.clone(), surface.clone());
    let light = Expr::unary(Unary::Log, Expr::binary(Binary::Add, light, Expr::Const(1.0)));
    let light = g.elementwise(light, &[color, albedo])?;
    let x = g.concat(&[light, albedo, normal], 3)?;
    let x = g.cast(x, w.dtype)?;

    let [height, width] = [g.shape(x)[1], g.shape(x)[2]];
    let missing = |side: usize| [0, side.next_multiple_of(MULTIPLE) - side];
    let x = g.pad(x, &[[0, 0], missing(height), missing(width), [0, 0]], PadMode::Edge)?;
    let y = network(g, w, x)?;
    let y = g.cast(y, DType::F32)?;
    let part = |first: usize| {
        let of = |start, size| Range { start, stop: Some(start + size), step: 1 };
        [Range::all(), of(0, height), of(0, width), of(first, 3)]
    };
    let logarithm = g.slice(y, &part(0))?;
    let correction = g.slice(y, &part(3))?;
    // max(exp(logarithm) − 1, 0) · (clamp(albedo + correction, 0, 1) + DARKEST)
    let light = Expr::unary(Unary::Exp, Expr::binary(Binary::Min, x0, Expr::Const(STEEPEST)));
    let light = Expr::unary(Unary::Relu, Expr::binary(Binary::Sub, light, Expr::Const(1.0)));
    let surface = Expr::clamp(Expr::binary(Binary::Add, x1, Expr::input(2)), 0.0, 1.0);
    let surface = Expr::binary(Binary::Add, surface, Expr::Const(DARKEST));
    g.elementwise(Expr::binary(Binary::Mul, light, surface), &[logarithm, albedo, correction])
}

/// `min(max(x, low), high)`, and 0 for NaN, of which WGSL does not say what a minimum makes.
fn within(g: &mut Graph, x: ValueId, low: f32, high: f32) -> Result<ValueId> {
    let nan = g.typed(Function::IsNan, &[x])?;
    let zero = g.weight("zero", Tensor::from_f32([1], &[0.0]));
    let x = g.choose(nan, zero, x)?;
    g.elementwise(Expr::clamp(Expr::input(0), low, high), &[x])
}

/// A U-Net (Ronneberger et al. 2015) on squares of 2×2 pixels: `x` `[n, h, w, 9]`, sides multiples of [`MULTIPLE`] →
/// `[n, h, w, 6]`: the light's logarithm, and what is to be added to the albedo, whose edges are as noisy as the frame's.
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
    let h = w.conv(g, "tail", h, 24, 3, Conv2dOptions::padded(1))?;
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

//! The operations that random graphs are made of, each on operands that suit it.

use aquatint::ops::attention::AttentionOptions;
use aquatint::ops::conv_transpose2d::ConvTranspose2dOptions;
use aquatint::ops::dequantize::Dequantize;
use aquatint::ops::expr::Expr;
use aquatint::ops::grid_sample::{GridSample, Outside};
use aquatint::ops::matmul::Matmul;
use aquatint::ops::pad::PadMode;
use aquatint::ops::quantize::{Per, Quantize};
use aquatint::ops::quantized::BlockFormat;
use aquatint::ops::reduce::Reduction;
use aquatint::ops::resize::{Coordinates, Interpolation};
use aquatint::ops::scatter::Combine;
use aquatint::ops::strided::Range;
use aquatint::{DType, Result, ValueId};

use super::build::{Builder, binary, convolution, option, pool, typed, windows};
use super::draw::Draw;

/// What was made.
pub fn append(b: &mut Builder, draw: &mut Draw) -> Result<Vec<ValueId>> {
    let made = match draw.below(40) {
        0 => {
            let shape = b.shape(draw);
            let dtype = if draw.one_in(6) { draw.of(&[DType::I32, DType::U32]) } else { b.float(draw) };
            b.leaf(draw, shape, dtype)
        }
        1..7 => return conv2d(b, draw).map(|id| vec![id]),
        7 => linear(b, draw)?,
        8 => conv_transpose2d(b, draw)?,
        9 | 10 => {
            let (f, x) = (b.function(draw), b.pick(draw));
            b.graph.unary(f, x)?
        }
        11 | 12 => {
            let (f, x) = (binary(draw), b.pick(draw));
            let y = partner(b, draw, x);
            b.graph.binary(f, x, y)?
        }
        13 => {
            let x = b.pick(draw);
            let inputs = [x, partner(b, draw, x), partner(b, draw, x)];
            let expr = b.expression(draw, 3, 4);
            b.graph.elementwise(expr, &inputs)?
        }
        14 => {
            let x = b.pick(draw);
            b.graph.affine(x, draw.number(), draw.number())?
        }
        15 | 16 => norm(b, draw)?,
        17 => batch_norm(b, draw)?,
        18 => {
            let x = b.ranked(draw, 4);
            match draw.below(4) {
                0 => b.graph.max_pool(x, windows(draw))?,
                1 => {
                    let include = draw.flag();
                    b.graph.average_pool(x, windows(draw), include)?
                }
                2 => {
                    let size = [b.size(draw), b.size(draw)];
                    b.graph.adaptive_pool(x, size, pool(draw))?
                }
                _ => b.graph.global_pool(x, pool(draw))?,
            }
        }
        19 | 20 => resize(b, draw)?,
        21 => matmul(b, draw)?,
        22 => attention(b, draw)?,
        23 | 24 => {
            let x = b.pick(draw);
            let axis = axis(b, draw, x);
            let mut shape = b.graph.shape(x).to_vec();
            if let Some(size) = shape.get_mut(axis) {
                *size = b.size(draw);
            }
            let other = if draw.flag() { b.leaf(draw, shape, b.dtype(x)) } else { b.pick(draw) };
            b.graph.concat(&[x, other], axis)?
        }
        25 => slice(b, draw)?,
        26 => {
            let x = b.pick(draw);
            let rank = b.graph.shape(x).len();
            let mut axes: Vec<usize> = (0..rank).collect();
            for i in 0..rank {
                axes.swap(i, draw.below(rank));
            }
            b.graph.transpose(x, &axes)?
        }
        27 => reshape(b, draw)?,
        28 => {
            let x = b.pick(draw);
            let mode = match draw.below(3) {
                0 => PadMode::Constant(draw.number()),
                1 => PadMode::Reflect,
                _ => PadMode::Edge,
            };
            let padding: Vec<[usize; 2]> = b
                .graph
                .shape(x)
                .iter()
                .map(|_| [option(draw, &[0, 1, 2]), option(draw, &[0, 1, 3])])
                .collect();
            b.graph.pad(x, &padding, mode)?
        }
        29 => {
            use Reduction::*;
            let x = b.pick(draw);
            let axes: Vec<usize> = (0..b.graph.shape(x).len()).filter(|_| draw.flag()).collect();
            let reduction = draw.of(&[Mean, Sum, Max, Min, L2, Product]);
            b.graph.reduce(x, reduction, &axes, draw.flag())?
        }
        30 => {
            let x = b.pick(draw);
            let axis = axis(b, draw, x);
            if draw.flag() { b.graph.softmax(x, axis)? } else { b.graph.log_softmax(x, axis)? }
        }
        31 => {
            b.jumps();
            let x = b.pick(draw);
            let axis = axis(b, draw, x);
            let keep = b.size(draw);
            match draw.below(4) {
                0 => b.graph.arg_max(x, axis)?,
                1 => b.graph.arg_min(x, axis)?,
                2 => b.graph.top_k(x, axis, keep)?,
                _ => {
                    let columns_first = draw.flag();
                    b.graph.max_pool_places(x, windows(draw), columns_first)?
                }
            }
        }
        32 => {
            let x = b.pick(draw);
            let axis = axis(b, draw, x);
            b.graph.cumulative_sum(x, axis)?
        }
        33 => gather(b, draw)?,
        34 => scatter(b, draw)?,
        35 => {
            b.jumps();
            let (f, x) = (typed(draw), b.pick(draw));
            let inputs = [x, partner(b, draw, x), partner(b, draw, x)];
            let count = draw.of(&[2, 1, 3]);
            b.graph.typed(f, &inputs[..count])?
        }
        36 => {
            let x = b.pick(draw);
            let dtype = draw.of(&[DType::F32, DType::I32, DType::U32, DType::F16, DType::BF16]);
            if !dtype.is_float() {
                b.jumps();
            }
            let dtype = if dtype == DType::F16 { b.float(draw) } else { dtype };
            if draw.flag() { b.graph.convert(x, dtype)? } else { b.graph.cast(x, dtype)? }
        }
        37 => quantize(b, draw)?,
        38 => {
            let x = b.ranked(draw, 4);
            let r = option(draw, &[2, 1, 3]);
            if draw.flag() { b.graph.pixel_shuffle(x, r)? } else { b.graph.pixel_unshuffle(x, r)? }
        }
        _ => grid_sample(b, draw)?,
    };
    Ok(vec![made])
}

/// Something that broadcasts with `x` in most cases.
fn partner(b: &mut Builder, draw: &mut Draw, x: ValueId) -> ValueId {
    let shape = b.graph.shape(x).to_vec();
    let dtype = b.dtype(x);
    match draw.below(6) {
        0 | 1 => b.pick(draw),
        2 => {
            let last = shape.last().copied().unwrap_or(1);
            b.leaf(draw, [last], dtype)
        }
        3 => b.leaf(draw, [1], dtype),
        4 => {
            let some: Vec<usize> = shape.iter().map(|&d| if draw.flag() { 1 } else { d }).collect();
            b.leaf(draw, some, dtype)
        }
        _ => b.leaf(draw, shape, dtype),
    }
}

fn axis(b: &Builder, draw: &mut Draw, x: ValueId) -> usize {
    let rank = b.graph.shape(x).len();
    if draw.one_in(50) { rank } else { draw.below(rank.max(1)) }
}

/// A convolution, often with what passes fuse into it: bias, enlargement before, activation and sum after.
fn conv2d(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let mut x = b.ranked(draw, 4);
    if draw.one_in(6) {
        x = b.graph.upsample_nearest(x, 2)?;
    }
    let c_in = b.graph.shape(x).last();
    let kernel = option(draw, &[3, 1, 3, 1, 5, 7, 2]);
    let mut options = convolution(draw, kernel / 2);
    let depthwise = draw.one_in(5);
    options.groups = if depthwise { c_in } else { draw.of(&[1, 1, 1, 1, 2, 4, 0]) };
    let c_out = if depthwise { c_in.saturating_mul(draw.of(&[1, 1, 2])) } else { b.size(draw) };
    let shape = [c_out, c_in / options.groups.max(1), kernel, if draw.one_in(10) { 1 } else { kernel }];
    let dtype = b.dtype(x);
    let mut weight = b.leaf(draw, shape, dtype);
    if draw.one_in(8) {
        b.jumps();
        weight = b.graph.quantized(weight, draw.of(&[BlockFormat::Q8_0, BlockFormat::Q4_0]))?;
    }
    let bias = b.maybe(draw, [c_out], dtype);
    let mut y = b.graph.conv2d(x, weight, bias, options)?;
    match draw.below(8) {
        0 => y = b.graph.relu(y)?,
        1 => y = b.graph.silu(y)?,
        2 => {
            let f = b.function(draw);
            y = b.graph.unary(f, y)?;
        }
        3 => y = b.graph.add(y, x)?,
        4 => {
            // As an embedding of the timestep is added.
            let n = b.graph.shape(y).first().copied().unwrap_or(1);
            let row = b.leaf(draw, [n, 1, 1, c_out], dtype);
            y = b.graph.add(y, row)?;
        }
        _ => {}
    }
    Ok(y)
}

fn linear(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let x = b.pick(draw);
    let (k, m) = (b.graph.shape(x).last(), b.size(draw));
    let dtype = b.dtype(x);
    let weight = b.leaf(draw, [m, k], dtype);
    let bias = b.maybe(draw, [m], dtype);
    b.graph.linear(x, weight, bias)
}

fn conv_transpose2d(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let x = b.ranked(draw, 4);
    let (c_in, c_out) = (b.graph.shape(x).last(), b.size(draw));
    let kernel = option(draw, &[2, 3, 4, 1]);
    let dtype = b.dtype(x);
    let options = ConvTranspose2dOptions {
        stride: [option(draw, &[2, 1, 3]); 2],
        padding: [option(draw, &[0, 1]); 4],
        output_padding: [option(draw, &[0, 1]); 2],
        dilation: [option(draw, &[1, 1, 2]); 2],
        groups: option(draw, &[1, 1, 2]),
    };
    let weight = b.leaf(draw, [c_in, c_out / options.groups.max(1), kernel, kernel], dtype);
    let bias = b.maybe(draw, [c_out], dtype);
    b.graph.conv_transpose2d(x, weight, bias, options)
}

fn norm(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let x = b.pick(draw);
    let (c, dtype) = (b.graph.shape(x).last(), b.dtype(x));
    let weight = b.maybe(draw, [c], dtype);
    let bias = b.maybe(draw, [c], dtype);
    let eps = draw.of(&[1e-5, 1e-6, 1e-3, 0.0]);
    let y = match draw.below(5) {
        0 => b.graph.layer_norm(x, weight, bias, eps)?,
        1 => b.graph.rms_norm(x, weight, eps)?,
        2 => b.graph.instance_norm(x, weight, bias, eps)?,
        _ => b.graph.group_norm(x, option(draw, &[1, 2, 4, 8, 32]), weight, bias, eps)?,
    };
    if draw.flag() { b.graph.silu(y) } else { Ok(y) }
}

fn batch_norm(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let x = if draw.flag() { conv2d(b, draw)? } else { b.pick(draw) };
    let (c, dtype) = (b.graph.shape(x).last(), b.dtype(x));
    let [weight, bias, mean, deviation] = [0; 4].map(|_| b.leaf(draw, [c], dtype));
    // A variance is not negative.
    let variance = b.graph.mul(deviation, deviation)?;
    b.graph.batch_norm(x, weight, bias, mean, variance, draw.of(&[1e-5, 1e-3]))
}

fn resize(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    use Coordinates::*;
    let x = b.ranked(draw, 4);
    if draw.flag() {
        return b.graph.upsample_nearest(x, option(draw, &[2, 3, 1]));
    }
    let size = [b.size(draw), b.size(draw)];
    let a = draw.of(&[-0.75, -0.5]);
    let interpolation =
        draw.of(&[Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic { a }]);
    b.graph.resize(x, size, interpolation, draw.of(&[HalfPixel, AlignCorners, Asymmetric]))
}

fn matmul(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let x = b.pick(draw);
    let options = Matmul { transpose_a: draw.flag(), transpose_b: draw.flag() };
    let mut shape = b.graph.shape(x).to_vec();
    let rank = shape.len();
    if rank < 2 || draw.one_in(6) {
        let y = b.pick(draw);
        return b.graph.matmul(x, y, options);
    }
    let k = if options.transpose_a { shape[rank - 2] } else { shape[rank - 1] };
    let n = b.size(draw);
    (shape[rank - 2], shape[rank - 1]) = if options.transpose_b { (n, k) } else { (k, n) };
    let first = draw.of(&[0, 0, rank - 2]);
    let y = b.leaf(draw, shape[first..].to_vec(), b.dtype(x));
    b.graph.matmul(x, y, options)
}

fn attention(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let q = b.ranked(draw, 3);
    let (n, lq, c) = match b.graph.shape(q)[..] {
        [n, lq, c] => (n, lq, c),
        // A feature map as a sequence of its pixels.
        [n, h, w, c] => (n, h.saturating_mul(w), c),
        _ => (1, 1, 1),
    };
    let q = b.graph.reshape(q, [n, lq, c])?;
    let heads = option(draw, &[1, 2, 4, 8]);
    let (lk, dtype) = (b.size(draw), b.dtype(q));
    let (k, v) = match draw.flag() {
        true => (q, q),
        false => (b.leaf(draw, [n, lk, c], dtype), b.leaf(draw, [n, lk, c], dtype)),
    };
    let keys = b.graph.shape(k).get(1).copied().unwrap_or(1);
    let mask = [draw.of(&[1, n]), draw.of(&[1, heads]), lq, keys];
    let mask = if draw.one_in(3) { Some(b.leaf(draw, mask, dtype)) } else { None };
    let options = AttentionOptions { scale: draw.flag().then(|| draw.number()), causal: draw.flag(), mask };
    let [q, k, v] = if draw.one_in(3) { projections(b, draw, [q, k, v])? } else { [q, k, v] };
    b.graph.attention(q, k, v, heads, options)
}

/// Queries, keys and values of tensors as wide as they are, mostly all with a bias or none.
fn projections(b: &mut Builder, draw: &mut Draw, from: [ValueId; 3]) -> Result<[ValueId; 3]> {
    let mut made = from;
    let (bias, alike) = (draw.flag(), !draw.one_in(4));
    for x in &mut made {
        let (c, dtype) = (b.graph.shape(*x).last(), b.dtype(*x));
        let weight = b.leaf(draw, [c, c], dtype);
        let bias = if alike { bias.then(|| b.leaf(draw, [c], dtype)) } else { b.maybe(draw, [c], dtype) };
        *x = b.graph.linear(*x, weight, bias)?;
    }
    Ok(made)
}

fn slice(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let x = b.pick(draw);
    let ranges: Vec<Range> = b
        .graph
        .shape(x)
        .to_vec()
        .iter()
        .map(|&size| match draw.below(4) {
            0 => {
                let start = draw.below(size.clamp(1, 256));
                let stop = draw.flag().then(|| start + draw.below(9));
                Range { start, stop, step: draw.of(&[1, 1, 2, 3, -1, isize::MAX]) }
            }
            1 => Range { start: size.saturating_sub(1), stop: None, step: draw.of(&[-1, -2, isize::MIN]) },
            _ => Range::all(),
        })
        .collect();
    b.graph.slice(x, &ranges)
}

fn reshape(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let x = b.pick(draw);
    let shape = b.graph.shape(x).to_vec();
    let elements = b.graph.shape(x).elements();
    match draw.below(6) {
        0 => b.graph.reshape(x, [elements]),
        1 => b.graph.reshape(x, [1, elements, 1]),
        2 if shape.len() > 1 => {
            let mut joined = shape[1..].to_vec();
            joined[0] = joined[0].saturating_mul(shape[0]);
            b.graph.reshape(x, joined)
        }
        3 => {
            let half = elements / 2;
            b.graph.reshape(x, [2, half])
        }
        4 => {
            let wide: Vec<usize> = std::iter::once(b.size(draw)).chain(shape).collect();
            b.graph.broadcast_to(x, wide)
        }
        _ => {
            let quads = elements / 4;
            b.graph.reshape(x, [1, 1, quads, 4])
        }
    }
}

fn gather(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let x = b.pick(draw);
    let axis = axis(b, draw, x);
    let mut shape = b.graph.shape(x).to_vec();
    let dtype = draw.of(&[DType::I32, DType::U32]);
    match draw.below(3) {
        0 => {
            let places = b.shape(draw);
            let indices = b.leaf(draw, places, dtype);
            b.graph.gather(x, indices, axis)
        }
        1 => {
            if let Some(size) = shape.get_mut(axis) {
                *size = b.size(draw);
            }
            let indices = b.leaf(draw, shape, dtype);
            b.graph.gather_elements(x, indices, axis)
        }
        _ => {
            let (rows, depth) = (b.size(draw), draw.below(4));
            let indices = b.leaf(draw, [rows, depth], dtype);
            b.graph.gather_nd(x, indices, draw.of(&[0, 0, 1, 9]))
        }
    }
}

fn scatter(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    use Combine::*;
    let x = b.pick(draw);
    let (mut shape, dtype) = (b.graph.shape(x).to_vec(), b.dtype(x));
    let combine = draw.of(&[Replace, Add, Mul, Min, Max]);
    if draw.flag() {
        let axis = axis(b, draw, x);
        if let Some(size) = shape.get_mut(axis) {
            *size = b.size(draw);
        }
        let (indices, updates) = (b.leaf(draw, shape.clone(), DType::I32), b.leaf(draw, shape, dtype));
        return b.graph.scatter_elements(x, indices, updates, axis, combine);
    }
    let (rows, depth) = (b.size(draw), draw.below(4).min(shape.len()));
    let indices = b.leaf(draw, [rows, depth], DType::I32);
    let places: Vec<usize> = std::iter::once(rows).chain(shape.drain(depth..)).collect();
    let updates = b.leaf(draw, places, dtype);
    b.graph.scatter_nd(x, indices, updates, combine)
}

fn quantize(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    b.jumps();
    let x = b.pick(draw);
    let shape = b.graph.shape(x).to_vec();
    let at = axis(b, draw, x);
    let along = shape.get(at).copied().unwrap_or(1);
    let (per, parameters) = match draw.below(3) {
        0 => (Per::Tensor, vec![1]),
        1 => (Per::Axis(at), vec![along]),
        _ => {
            let size = option(draw, &[2, 4, 32]);
            let mut blocks = shape;
            if let Some(blocks) = blocks.get_mut(at) {
                *blocks = along / size.max(1);
            }
            (Per::Block { axis: at, size }, blocks)
        }
    };
    let scale = b.leaf(draw, parameters.clone(), DType::F32);
    let zero = b.maybe(draw, parameters, DType::I32);
    if draw.one_in(3) {
        let inputs: Vec<ValueId> = [x, scale].into_iter().chain(zero).collect();
        return b.graph.push(Dequantize { per }, &inputs);
    }
    let [low, high] = draw.of(&[[-128, 127], [0, 255], [i32::MIN, i32::MAX], [1, 0]]);
    let options = Quantize { per, low, high, times: draw.flag(), back: draw.flag() };
    let y = b.graph.quantize(x, scale, zero, options)?;
    if b.dtype(y).is_float() { b.graph.elementwise(Expr::Input(0), &[y]) } else { Ok(y) }
}

fn grid_sample(b: &mut Builder, draw: &mut Draw) -> Result<ValueId> {
    let x = b.ranked(draw, 4);
    let n = b.graph.shape(x).first().copied().unwrap_or(1);
    let (rows, columns) = (b.size(draw), b.size(draw));
    let grid = b.leaf(draw, [n, rows, columns, 2], b.dtype(x));
    let interpolation = draw.of(&[Interpolation::Bilinear, Interpolation::Nearest]);
    if interpolation == Interpolation::Nearest {
        b.jumps();
    }
    let outside = draw.of(&[Outside::Zeros, Outside::Border, Outside::Reflection]);
    b.graph.grid_sample(x, grid, GridSample { interpolation, outside, align_corners: draw.flag() })
}

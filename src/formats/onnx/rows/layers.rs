//! Convolutions, norms, resizing and matrix products.

use super::super::elem::Elem;
use super::super::import::{Import, Node, Result, Value, axis, plain, size};
use super::{Row, resize};
use crate::graph::{Graph, ValueId};
use crate::ops::conv_transpose2d::ConvTranspose2dOptions;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::matmul::Matmul;
use crate::ops::pool::PoolOptions;

pub const ROWS: &[(&str, Row)] = &[
    ("Conv", conv),
    ("ConvTranspose", conv_transpose),
    ("Gemm", gemm),
    ("GroupNormalization", group_normalization),
    ("InstanceNormalization", instance_normalization),
    ("LRN", local_response_normalization),
    ("LayerNormalization", layer_normalization),
    ("MatMul", matmul),
    ("Resize", resize::resize),
    ("Upsample", resize::resize),
];

/// A map with one or two spatial axes as `[n, h, w, c]`; with one, the height is 1.
pub fn feature_map(import: &mut Import, value: &Value) -> Result<ValueId> {
    let x = import.channels_last(value)?;
    match import.graph.shape(x)[..] {
        [_, _, _, _] => Ok(x),
        [n, w, c] => import.graph.reshape(x, [n, 1, w, c]).map_err(plain),
        _ => Err(format!("wants one or two spatial axes, found shape {:?}", value.shape())),
    }
}

/// The way back, to as many axes as `like` has.
pub fn unmap(import: &mut Import, y: ValueId, like: &Value) -> Result<Value> {
    unmapped(import, y, like.rank(), like.elem())
}

/// A map `[n, h, w, c]` as a value with so many axes.
pub fn unmapped(import: &mut Import, y: ValueId, rank: usize, elem: Elem) -> Result<Value> {
    let y = match (rank, &import.graph.shape(y)[..]) {
        (3, &[n, _, w, c]) => import.graph.reshape(y, [n, w, c]).map_err(plain)?,
        _ => y,
    };
    Ok(import.channels_last_result(y, elem))
}

/// An attribute with a number for each spatial axis, as `[y, x]`.
pub fn pair(node: &Node, name: &str, default: usize, spatial: usize) -> Result<[usize; 2]> {
    match node.list(name).filter(|l| !l.is_empty()) {
        None => Ok([if spatial == 1 { 1 } else { default }, default]),
        Some(&[y, x]) if spatial == 2 => Ok([size(y)?, size(x)?]),
        Some(&[x]) if spatial == 1 => Ok([1, size(x)?]),
        Some(list) => Err(format!("{name} {list:?} is not for {spatial} spatial axes")),
    }
}

/// Explicit padding as `[top, left, bottom, right]`.
pub fn pads(node: &Node, spatial: usize) -> Result<[usize; 4]> {
    match node.list("pads").filter(|l| !l.is_empty()) {
        None => Ok([0; 4]),
        Some(&[a, b, c, d]) if spatial == 2 => Ok([size(a)?, size(b)?, size(c)?, size(d)?]),
        Some(&[a, b]) if spatial == 1 => Ok([0, size(a)?, 0, size(b)?]),
        Some(list) => Err(format!("pads {list:?} are not for {spatial} spatial axes")),
    }
}

/// Padding so that the result has `ceil(size / stride)` pixels; the odd one at the end or at the beginning.
fn same(input: usize, reach: usize, stride: usize, odd_first: bool) -> [usize; 2] {
    let total = ((input.div_ceil(stride) - 1) * stride + reach).saturating_sub(input);
    let half = total / 2;
    if odd_first { [total - half, half] } else { [half, total - half] }
}

/// Padding as the node wants it, `[top, left, bottom, right]`.
pub fn padding(
    node: &Node,
    spatial: usize,
    input: [usize; 2],
    reach: [usize; 2],
    stride: [usize; 2],
) -> Result<[usize; 4]> {
    match node.string("auto_pad", "NOTSET").as_str() {
        "NOTSET" | "" => pads(node, spatial),
        "VALID" => Ok([0; 4]),
        mode @ ("SAME_UPPER" | "SAME_LOWER") => {
            let first = mode == "SAME_LOWER";
            let [top, bottom] = same(input[0], reach[0], stride[0], first);
            let [left, right] = same(input[1], reach[1], stride[1], first);
            Ok([top, left, bottom, right])
        }
        other => Err(format!("auto_pad {other} is not known")),
    }
}

pub fn positive(values: &[usize]) -> Result<()> {
    match values.contains(&0) {
        true => Err("kernel, strides and dilations must be positive".to_owned()),
        false => Ok(()),
    }
}

/// The source of a convolution as `[n, h, w, c]`, and its options.
pub fn convolved(
    import: &mut Import,
    node: &Node,
    value: &Value,
    weight: &Value,
) -> Result<(ValueId, Conv2dOptions)> {
    let spatial = value.rank().saturating_sub(2);
    let x = feature_map(import, value)?;
    let kernel = match weight.shape() {
        &[_, _, kh, kw] if spatial == 2 => [kh, kw],
        &[_, _, kw] if spatial == 1 => [1, kw],
        other => return Err(format!("weight {other:?} is not for {spatial} spatial axes")),
    };
    let (stride, dilation) = (pair(node, "strides", 1, spatial)?, pair(node, "dilations", 1, spatial)?);
    positive(&[kernel, stride, dilation].concat())?;
    let shape = import.graph.shape(x);
    let input = [shape[1], shape[2]];
    let reach = [dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1];
    let padding = padding(node, spatial, input, reach, stride)?;
    let groups = size(node.int("group", 1))?;
    Ok((x, Conv2dOptions { stride, padding, dilation, groups }))
}

fn conv(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, weight) = (node.input(0)?, node.input(1)?);
    let (x, options) = convolved(import, node, value, weight)?;
    let mut w = import.plain(weight)?;
    if let &[outputs, each, width] = weight.shape() {
        w = import.graph.reshape(w, [outputs, each, 1, width]).map_err(plain)?;
    }
    let bias = node.optional(2).map(|b| import.plain(b)).transpose()?;
    let y = import.graph.conv2d(x, w, bias, options).map_err(plain)?;
    Ok(vec![unmap(import, y, value)?])
}

fn conv_transpose(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, weight) = (node.input(0)?, node.input(1)?);
    let spatial = value.rank().saturating_sub(2);
    let x = feature_map(import, value)?;
    let kernel = match weight.shape() {
        &[_, _, kh, kw] if spatial == 2 => [kh, kw],
        &[_, _, kw] if spatial == 1 => [1, kw],
        other => return Err(format!("weight {other:?} is not for {spatial} spatial axes")),
    };
    let (stride, dilation) = (pair(node, "strides", 1, spatial)?, pair(node, "dilations", 1, spatial)?);
    positive(&[kernel, stride, dilation].concat())?;
    let mut output_padding = match node.has("output_padding") {
        true => pair(node, "output_padding", 0, spatial)?,
        false => [0; 2],
    };
    if spatial == 1 {
        output_padding[0] = 0;
    }
    let shape = import.graph.shape(x);
    let input = [shape[1], shape[2]];
    // What the result would be without padding.
    let asked = output_padding;
    let full = |i: usize| (input[i] - 1) * stride[i] + asked[i] + dilation[i] * (kernel[i] - 1) + 1;
    let mode = node.string("auto_pad", "NOTSET");
    let wanted = match node.list("output_shape") {
        Some(&[.., h, w]) if spatial == 2 => Some([size(h)?, size(w)?]),
        Some(&[.., w]) => Some([1, size(w)?]),
        _ if mode.starts_with("SAME") => Some([input[0] * stride[0], input[1] * stride[1]]),
        _ => None,
    };
    let mut padding = pads(node, spatial)?;
    if let Some(wanted) = wanted {
        for i in 0..2 {
            if spatial == 1 && i == 0 {
                continue;
            }
            let total = match full(i).checked_sub(wanted[i]) {
                Some(total) => total,
                // The result is larger: the rest is padding of the result.
                None => {
                    output_padding[i] += wanted[i] - full(i);
                    0
                }
            };
            let half = total / 2;
            let (before, after) =
                if mode == "SAME_UPPER" { (half, total - half) } else { (total - half, half) };
            (padding[i], padding[i + 2]) = (before, after);
        }
    }
    let groups = size(node.int("group", 1))?;
    let weight_shape = weight.shape().to_vec();
    let mut w = import.plain(weight)?;
    if spatial == 1 {
        w = import.graph.reshape(w, [weight_shape[0], weight_shape[1], 1, kernel[1]]).map_err(plain)?;
    }
    let bias = node.optional(2).map(|b| import.plain(b)).transpose()?;
    let options = ConvTranspose2dOptions { stride, padding, output_padding, dilation, groups };
    let y = import.graph.conv_transpose2d(x, w, bias, options).map_err(plain)?;
    Ok(vec![unmap(import, y, value)?])
}

fn group_normalization(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let groups = size(node.int("num_groups", 1))?;
    let channels = *value.shape().get(1).ok_or("wants [n, c, …]")?;
    let x = import.channels_last(value)?;
    let mut vectors = Vec::new();
    for i in 1..3 {
        let input = node.input(i)?;
        let mut v = import.plain(input)?;
        // Before version 21 there is one number for each group.
        if input.elements() == groups && groups != channels {
            let each = channels / groups;
            v = import.graph.reshape(v, [groups, 1]).map_err(plain)?;
            v = import.graph.broadcast_to(v, [groups, each]).map_err(plain)?;
            v = import.graph.reshape(v, [channels]).map_err(plain)?;
        }
        vectors.push(v);
    }
    let eps = node.float("epsilon", 1e-5);
    let y = import.graph.group_norm(x, groups, Some(vectors[0]), Some(vectors[1]), eps).map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}

fn instance_normalization(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let x = import.channels_last(value)?;
    let (weight, bias) = (import.plain(node.input(1)?)?, import.plain(node.input(2)?)?);
    let eps = node.float("epsilon", 1e-5);
    let y = import.graph.instance_norm(x, Some(weight), Some(bias), eps).map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}

/// Over all axes from one on, which are made the last row.
fn layer_normalization(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if node.wants(1) || node.wants(2) {
        return layer_normalization_with_statistics(import, node);
    }
    let (rank, shape) = (value.rank(), value.shape().to_vec());
    let first = axis(node.int("axis", -1), rank)?;
    let x = import.plain(value)?;
    let (rows, row) = (shape[..first].iter().product::<usize>(), shape[first..].iter().product::<usize>());
    let x = import.graph.reshape(x, [rows, row]).map_err(plain)?;
    let vector = |import: &mut Import, i: usize| -> Result<Option<ValueId>> {
        let Some(input) = node.optional(i) else { return Ok(None) };
        let v = import.plain(input)?;
        let v = match input.elements() == row {
            true => v,
            false => import.graph.broadcast_to(v, shape[first..].to_vec()).map_err(plain)?,
        };
        import.graph.reshape(v, [row]).map_err(plain).map(Some)
    };
    let (weight, bias) = (vector(import, 1)?, vector(import, 2)?);
    let eps = node.float("epsilon", 1e-5);
    let y = import.graph.layer_norm(x, weight, bias, eps).map_err(plain)?;
    let y = import.graph.reshape(y, shape).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

/// The same from its definition, with mean and inverse deviation as further results.
fn layer_normalization_with_statistics(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    use crate::ops::expr::{Binary, Expr, Unary};
    use crate::ops::reduce::Reduction;
    let value = node.input(0)?;
    let rank = value.rank();
    let axes: Vec<usize> = (axis(node.int("axis", -1), rank)?..rank).collect();
    let x = import.plain(value)?;
    let g = &mut *import.graph;
    let mean = g.reduce(x, Reduction::Mean, &axes, true).map_err(plain)?;
    let centred = g.binary(Binary::Sub, x, mean).map_err(plain)?;
    let squares = g.unary(Unary::Square, centred).map_err(plain)?;
    let variance = g.reduce(squares, Reduction::Mean, &axes, true).map_err(plain)?;
    let moved = Expr::binary(Binary::Add, Expr::input(0), Expr::Const(node.float("epsilon", 1e-5)));
    let inverse = g.elementwise(Expr::unary(Unary::Rsqrt, moved), &[variance]).map_err(plain)?;
    let mut y = g.mul(centred, inverse).map_err(plain)?;
    let weight = import.plain(node.input(1)?)?;
    y = import.graph.mul(y, weight).map_err(plain)?;
    if let Some(bias) = node.optional(2) {
        let bias = import.plain(bias)?;
        y = import.graph.add(y, bias).map_err(plain)?;
    }
    let elem = value.elem();
    Ok([y, mean, inverse].map(|v| import.plain_result(v, elem)).to_vec())
}

/// `x / (bias + alpha / size · Σ x²)^beta` over `size` neighbouring channels (Krizhevsky et al. 2012).
fn local_response_normalization(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    use crate::ops::expr::{Binary, Expr, Unary};
    let value = node.input(0)?;
    let width = size(node.int("size", 1))?;
    positive(&[width])?;
    let (alpha, beta, bias) = (node.float("alpha", 1e-4), node.float("beta", 0.75), node.float("bias", 1.0));
    let x = import.channels_last(value)?;
    let g = &mut *import.graph;
    let dims = g.shape(x).to_vec();
    let (channels, pixels) = (dims[dims.len() - 1], dims[..dims.len() - 1].iter().product::<usize>());
    let squares = g.unary(Unary::Square, x).map_err(plain)?;
    // The channels of a pixel are a row whose windows a mean pool takes; what it pads counts as zero.
    let rows = g.reshape(squares, [1, pixels, channels, 1]).map_err(plain)?;
    let before = (width - 1) / 2;
    let options = PoolOptions {
        kernel: [1, width],
        stride: [1; 2],
        padding: [0, before, 0, width - 1 - before],
        dilation: [1; 2],
        ceil: false,
    };
    let mean = g.average_pool(rows, options, true).map_err(plain)?;
    let mean = g.reshape(mean, dims).map_err(plain)?;
    let scaled = Expr::binary(Binary::Mul, Expr::input(1), Expr::Const(alpha));
    let base = Expr::binary(Binary::Add, scaled, Expr::Const(bias));
    let power = Expr::binary(Binary::Pow, base, Expr::Const(-beta));
    let y = g.elementwise(Expr::binary(Binary::Mul, Expr::input(0), power), &[x, mean]).map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}

fn gemm(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    if a.rank() != 2 || b.rank() != 2 {
        return Err(format!("wants matrices, found {:?} and {:?}", a.shape(), b.shape()));
    }
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let (trans_a, trans_b) = (node.int("transA", 0) != 0, node.int("transB", 0) != 0);
    let elem = a.elem();
    let bias = node.optional(2);
    let n = b.shape()[if trans_b { 0 } else { 1 }];
    // A fully connected layer, which takes its bias along.
    if !trans_a
        && alpha == 1.0
        && beta == 1.0
        && bias.is_none_or(|c| c.elements() == n && c.shape().last() == Some(&n))
    {
        let x = import.plain(a)?;
        let w = import.ordered(b, if trans_b { &[0, 1] } else { &[1, 0] })?;
        let bias = bias.map(|c| import.plain(c)).transpose()?;
        let bias = bias.map(|c| import.graph.reshape(c, [n]).map_err(plain)).transpose()?;
        let y = import.graph.linear(x, w, bias).map_err(plain)?;
        return Ok(vec![import.plain_result(y, elem)]);
    }
    let (x, w) = (import.plain(a)?, import.plain(b)?);
    let options = Matmul { transpose_a: trans_a, transpose_b: trans_b };
    let mut y = import.graph.matmul(x, w, options).map_err(plain)?;
    if alpha != 1.0 {
        y = import.graph.affine(y, alpha, 0.0).map_err(plain)?;
    }
    if let Some(c) = bias.filter(|_| beta != 0.0) {
        let mut c = import.plain(c)?;
        if beta != 1.0 {
            c = import.graph.affine(c, beta, 0.0).map_err(plain)?;
        }
        y = import.graph.add(y, c).map_err(plain)?;
    }
    Ok(vec![import.plain_result(y, elem)])
}

fn matmul(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let elem = a.elem();
    if !elem.is_float() || !b.elem().is_float() {
        return Err(format!("{elem} is not supported"));
    }
    if a.rank() == 0 || b.rank() == 0 {
        return Err("a number is no matrix".to_owned());
    }
    // A matrix of weights: a fully connected layer on all rows.
    if b.rank() == 2 && a.rank() >= 2 {
        let (x, w) = (import.plain(a)?, import.ordered(b, &[1, 0])?);
        let y = import.graph.linear(x, w, None).map_err(plain)?;
        return Ok(vec![import.plain_result(y, elem)]);
    }
    let y = product(import, a, b, |g, x, y| g.matmul(x, y, Matmul::default()))?;
    Ok(vec![import.plain_result(y, elem)])
}

/// The matrix product of two values, whose batches broadcast, by `multiply` for matrices of one batch.
pub fn product(
    import: &mut Import,
    a: &Value,
    b: &Value,
    multiply: impl FnOnce(&mut Graph, ValueId, ValueId) -> crate::Result<ValueId>,
) -> Result<ValueId> {
    let (a_shape, b_shape) = (a.shape().to_vec(), b.shape().to_vec());
    let (mut x, mut y) = (import.plain(a)?, import.plain(b)?);
    let g = &mut *import.graph;
    // Vectors are a row on the left, a column on the right.
    let mut left = a_shape.clone();
    if left.len() == 1 {
        left.insert(0, 1);
    }
    let mut right = b_shape.clone();
    if right.len() == 1 {
        right.push(1);
    }
    let (la, lb) = (left.len() - 2, right.len() - 2);
    let batch = super::super::shape::broadcast(&left[..la], &right[..lb])?;
    let full = |tail: &[usize]| [&batch[..], tail].concat();
    x = g.reshape(x, left.clone()).map_err(plain)?;
    x = g.broadcast_to(x, full(&left[la..])).map_err(plain)?;
    y = g.reshape(y, right.clone()).map_err(plain)?;
    y = g.broadcast_to(y, full(&right[lb..])).map_err(plain)?;
    let z = multiply(g, x, y).map_err(plain)?;
    let mut shape = full(&[left[la], right[lb + 1]]);
    if b_shape.len() == 1 {
        shape.pop();
    }
    if a_shape.len() == 1 {
        let row = shape.len() - if b_shape.len() == 1 { 1 } else { 2 };
        shape.remove(row);
    }
    g.reshape(z, shape).map_err(plain)
}

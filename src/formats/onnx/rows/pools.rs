//! Pools, and the way back from one.

use super::super::elem::Elem;
use super::super::import::{Import, Node, Result, Value, ints, plain, size};
use super::layers::{feature_map, padding, pair, positive, unmap, unmapped};
use super::{Row, typed};
use crate::graph::ValueId;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::pool::{PoolKind, PoolOptions};
use crate::ops::scatter::Combine;
use crate::ops::typed::Function;
use crate::tensor::Tensor;

pub const ROWS: &[(&str, Row)] = &[
    ("AveragePool", |i, n| pool(i, n, PoolKind::Mean { include_pad: n.int("count_include_pad", 0) != 0 })),
    ("GlobalAveragePool", |i, n| global_pool(i, n, PoolKind::Mean { include_pad: false })),
    ("GlobalMaxPool", |i, n| global_pool(i, n, PoolKind::Max)),
    ("LpPool", norm_pool),
    ("MaxPool", |i, n| pool(i, n, PoolKind::Max)),
    ("MaxUnpool", max_unpool),
];

/// An operator that gives elements of its first input, 8-bit integers, which f32 holds as they are.
pub fn through_floats(
    import: &mut Import,
    node: &Node,
    row: impl FnOnce(&mut Import, &Node) -> Result<Vec<Value>>,
) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let elem = value.elem();
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(typed::cast(import, value, Elem::F32)?);
    let results = row(import, &Node { proto: node.proto, inputs })?;
    results.iter().take(1).map(|y| typed::cast(import, y, elem)).collect()
}

/// A pool's source as `[n, h, w, c]`, and its windows.
fn windows(import: &mut Import, node: &Node, value: &Value) -> Result<(ValueId, PoolOptions)> {
    let spatial = value.rank().saturating_sub(2);
    let x = feature_map(import, value)?;
    let kernel = pair(node, "kernel_shape", 1, spatial)?;
    let (stride, dilation) = (pair(node, "strides", 1, spatial)?, pair(node, "dilations", 1, spatial)?);
    positive(&[kernel, stride, dilation].concat())?;
    let shape = import.graph.shape(x);
    let input = [shape[1], shape[2]];
    let reach = [dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1];
    let padding = padding(node, spatial, input, reach, stride)?;
    let ceil = node.int("ceil_mode", 0) != 0;
    Ok((x, PoolOptions { kernel, stride, padding, dilation, ceil }))
}

fn pool(import: &mut Import, node: &Node, kind: PoolKind) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if kind == PoolKind::Max && matches!(value.elem(), Elem::I8 | Elem::U8) {
        return through_floats(import, node, |import, node| pool(import, node, kind));
    }
    if !value.elem().is_float() {
        return Err(format!("{} is not supported", value.elem()));
    }
    let (x, options) = windows(import, node, value)?;
    let y = match kind {
        PoolKind::Max => import.graph.max_pool(x, options),
        PoolKind::Mean { include_pad } => import.graph.average_pool(x, options, include_pad),
    };
    let y = y.map_err(plain)?;
    let mut results = vec![unmap(import, y, value)?];
    if node.wants(1) {
        results.push(max_places(import, node, value, x, options)?);
    }
    Ok(results)
}

/// Where the maxima are in the whole tensor, in ONNX's order of axes, or with columns before rows.
fn max_places(
    import: &mut Import,
    node: &Node,
    value: &Value,
    x: ValueId,
    options: PoolOptions,
) -> Result<Value> {
    let columns_first = node.int("storage_order", 0) != 0;
    let &[n, h, w, c] = &import.graph.shape(x)[..] else { unreachable!("a feature map") };
    if n * c * h * w > i32::MAX as usize {
        return Err("positions beyond 2^31 are not supported".to_owned());
    }
    let plane: Vec<i32> = (0..n * c).map(|p| (p * h * w) as i32).collect();
    let mut build = || {
        let g = &mut *import.graph;
        let places = g.max_pool_places(x, options, columns_first)?;
        let plane = g.weight("planes", Tensor::from_i32([n, 1, 1, c], &plane));
        g.typed(Function::Add, &[places, plane])
    };
    let y = build().map_err(plain)?;
    unmapped(import, y, value.rank(), Elem::I64)
}

/// Numbers back at the places where a pool found them, zeros elsewhere.
fn max_unpool(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, places) = (node.input(0)?, node.input(1)?);
    if value.shape() != places.shape() || !value.elem().is_float() || places.elem().is_float() {
        return Err(format!(
            "wants numbers and as many places, found {}{:?} and {}{:?}",
            value.elem(),
            value.shape(),
            places.elem(),
            places.shape()
        ));
    }
    let kernel = node.list("kernel_shape").ok_or("kernel_shape is missing")?;
    let count = kernel.len();
    let strides = node.list("strides").map_or_else(|| vec![1; count], <[i64]>::to_vec);
    let pads = node.list("pads").map_or_else(|| vec![0; 2 * count], <[i64]>::to_vec);
    if value.rank() != count + 2 || strides.len() != count || pads.len() != 2 * count {
        return Err(format!("kernel, strides and pads are not for {:?}", value.shape()));
    }
    // What the pool read; a larger result has zeros at the end.
    let mut dims = value.shape()[..2].to_vec();
    for d in 0..count {
        let reach = (value.shape()[d + 2] as i64 - 1).saturating_mul(strides[d]);
        let padded = reach.saturating_add(kernel[d]);
        dims.push(size(padded.saturating_sub(pads[d]).saturating_sub(pads[d + count]))?);
    }
    let elements = super::super::import::checked_elements(&dims)?;
    if elements == 0 {
        return Err(format!("a result of {dims:?} has no room"));
    }
    let (x, at) = (import.plain(value)?, import.plain(places)?);
    let mut build = || {
        let g = &mut *import.graph;
        let (x, at) = (g.reshape(x, [value.elements()])?, g.reshape(at, [value.elements()])?);
        let zero = g.weight("zero", Tensor::from_f32([1], &[0.0]));
        let zeros = g.broadcast_to(zero, [elements])?;
        let y = g.scatter_elements(zeros, at, x, 0, Combine::Replace)?;
        g.reshape(y, dims.clone())
    };
    let y = build().map_err(plain)?;
    let y = import.plain_result(y, value.elem());
    let Some(wanted) = node.optional_ints(2)? else { return Ok(vec![y]) };
    let after: Vec<i64> = wanted.iter().zip(&dims).map(|(&n, &d)| n.saturating_sub(d as i64)).collect();
    if wanted.len() != dims.len() || after.iter().any(|&n| n < 0) {
        return Err(format!("a pool of {dims:?} does not fit into {wanted:?}"));
    }
    let padding = [vec![0; dims.len()], after].concat();
    Ok(vec![import.call("Pad", &[&y, &ints(&padding)], vec![])?])
}

/// The p-norm of each window: the p-th root of the sum of the p-th powers, from their mean.
fn norm_pool(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if !value.elem().is_float() {
        return Err(format!("{} is not supported", value.elem()));
    }
    let p = node.int("p", 2) as f32;
    if p < 1.0 {
        return Err(format!("p {p} is not supported"));
    }
    let (x, options) = windows(import, node, value)?;
    // The mean of a window that is cut off at the end has another divisor.
    if options.ceil {
        return Err("ceil_mode is not supported".to_owned());
    }
    let count = (options.kernel[0] * options.kernel[1]) as f32;
    let power = |x: Expr, p: f32| Expr::binary(Binary::Pow, x, Expr::Const(p));
    let absolute = Expr::unary(Unary::Abs, Expr::input(0));
    let (up, down) = match p {
        1.0 => (absolute, Expr::input(0)),
        2.0 => (Expr::unary(Unary::Square, Expr::input(0)), Expr::unary(Unary::Sqrt, Expr::input(0))),
        p => (power(absolute, p), power(Expr::input(0), 1.0 / p)),
    };
    let build = || {
        let g = &mut *import.graph;
        let powers = g.elementwise(up, &[x])?;
        let mean = g.average_pool(powers, options, true)?;
        let sum = g.affine(mean, count, 0.0)?;
        g.elementwise(down, &[sum])
    };
    let y = build().map_err(plain)?;
    Ok(vec![unmap(import, y, value)?])
}

fn global_pool(import: &mut Import, node: &Node, kind: PoolKind) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let x = feature_map(import, value)?;
    let y = import.graph.global_pool(x, kind).map_err(plain)?;
    Ok(vec![unmap(import, y, value)?])
}

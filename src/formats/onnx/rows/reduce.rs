//! Reductions, softmax and the like: operators that run along axes.

use super::super::elem::Elem;
use super::super::host::Host;
use super::super::import::{Import, Node, Result, Value, axis, plain, with_int, with_ints};
use super::super::shape;
use super::Row;
use super::typed;
use crate::ops::arg_reduce::ArgReduce;
use crate::ops::expr::Unary;
use crate::ops::reduce::Reduction;

pub const ROWS: &[(&str, Row)] = &[
    ("ArgMax", |i, n| arg(i, n, false)),
    ("ArgMin", |i, n| arg(i, n, true)),
    ("LogSoftmax", |i, n| softmax(i, n, true)),
    ("ReduceL1", |i, n| reduce(i, n, Some(Unary::Abs), Reduction::Sum, None)),
    ("ReduceL2", |i, n| reduce(i, n, None, Reduction::L2, None)),
    ("ReduceLogSum", |i, n| reduce(i, n, None, Reduction::Sum, Some(Unary::Log))),
    ("ReduceMax", |i, n| reduce(i, n, None, Reduction::Max, None)),
    ("ReduceMean", |i, n| reduce(i, n, None, Reduction::Mean, None)),
    ("ReduceMin", |i, n| reduce(i, n, None, Reduction::Min, None)),
    ("ReduceProd", |i, n| reduce(i, n, None, Reduction::Product, None)),
    ("ReduceSum", |i, n| reduce(i, n, None, Reduction::Sum, None)),
    ("ReduceSumSquare", |i, n| reduce(i, n, Some(Unary::Square), Reduction::Sum, None)),
    ("Softmax", |i, n| softmax(i, n, false)),
];

fn reduce(
    import: &mut Import,
    node: &Node,
    before: Option<Unary>,
    reduction: Reduction,
    after: Option<Unary>,
) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let rank = value.rank();
    let axes = match shape::axes(node, 1, rank)? {
        Some(axes) if !axes.is_empty() => axes,
        _ if node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        _ => (0..rank).collect(),
    };
    if value.elements() == 0 {
        return reduce_nothing(import, node, value, &axes);
    }
    if value.elem() == Elem::Bool {
        // 0 and 1 keep their order as numbers.
        let numbers = typed::cast(import, value, Elem::F32)?;
        let list: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
        let keep = with_int("keepdims", node.int("keepdims", 1));
        let y = import.call(&node.proto.op_type, &[&numbers], vec![with_ints("axes", &list), keep])?;
        return Ok(vec![typed::cast(import, &y, Elem::Bool)?]);
    }
    if !value.elem().is_float() {
        return Err(format!("{} on the device is not supported", value.elem()));
    }
    let mut x = import.device(value)?;
    let g = &mut *import.graph;
    if let Some(f) = before {
        x.id = g.unary(f, x.id).map_err(plain)?;
    }
    let mut y = x.id;
    let (mut order, keep) = (x.axes.clone(), node.int("keepdims", 1) != 0);
    if !axes.is_empty() {
        let dims: Vec<usize> = (0..rank).filter(|&d| axes.contains(&x.axes[d])).collect();
        y = g.reduce(y, reduction, &dims, keep).map_err(plain)?;
        if !keep {
            order.retain(|a| !axes.contains(a));
            order = order.iter().map(|&a| a - axes.iter().filter(|&&g| g < a).count()).collect();
        }
    } else if reduction == Reduction::L2 {
        y = g.unary(Unary::Abs, y).map_err(plain)?;
    }
    if let Some(f) = after {
        y = import.graph.unary(f, y).map_err(plain)?;
    }
    Ok(vec![import.result(y, order, x.elem)])
}

/// What a reduction makes of no numbers at all.
fn reduce_nothing(import: &mut Import, node: &Node, value: &Value, axes: &[usize]) -> Result<Vec<Value>> {
    let (low, high) = match value.elem() {
        elem if elem.is_float() => (f64::NEG_INFINITY, f64::INFINITY),
        elem => (elem.range().0 as f64, elem.range().1 as f64),
    };
    let nothing = match node.proto.op_type.as_str() {
        "ReduceMax" => low,
        "ReduceMin" => high,
        "ReduceProd" => 1.0,
        "ReduceMean" => f64::NAN,
        "ReduceLogSum" | "ReduceLogSumExp" => f64::NEG_INFINITY,
        _ => 0.0,
    };
    let rank = value.rank();
    let keep = node.int("keepdims", 1) != 0;
    let dims: Vec<usize> = (0..rank)
        .filter(|d| keep || !axes.contains(d))
        .map(|d| if axes.contains(&d) { 1 } else { value.shape()[d] })
        .collect();
    import.room(&dims)?;
    let count = dims.iter().product();
    Ok(vec![match value.elem().is_float() {
        true => Host::floats(value.elem(), dims, vec![nothing; count]).into(),
        false => Host::ints(value.elem(), dims, vec![nothing as i64; count]).into(),
    }])
}

fn softmax(import: &mut Import, node: &Node, log: bool) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let rank = value.rank();
    // Before version 13 all axes from one on are taken together.
    if import.opset < 13 {
        let at = axis(node.int("axis", 1), rank)?;
        let x = import.plain(value)?;
        let shape = value.shape().to_vec();
        let rows = [shape[..at].iter().product::<usize>(), shape[at..].iter().product::<usize>()];
        let g = &mut *import.graph;
        let x = g.reshape(x, rows).map_err(plain)?;
        let y = if log { g.log_softmax(x, 1) } else { g.softmax(x, 1) }.map_err(plain)?;
        let y = g.reshape(y, shape).map_err(plain)?;
        return Ok(vec![import.plain_result(y, value.elem())]);
    }
    let at = axis(node.int("axis", -1), rank)?;
    let x = import.device(value)?;
    let dim = x.axes.iter().position(|&a| a == at).expect("an order of all axes");
    let g = &mut *import.graph;
    let y = if log { g.log_softmax(x.id, dim) } else { g.softmax(x.id, dim) }.map_err(plain)?;
    Ok(vec![import.result(y, x.axes, x.elem)])
}

fn arg(import: &mut Import, node: &Node, smallest: bool) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let at = axis(node.int("axis", 0), value.rank())?;
    let op = ArgReduce { axis: at, smallest, last: node.int("select_last_index", 0) != 0 };
    let x = import.plain(value)?;
    let g = &mut *import.graph;
    let y = g.push(op, &[x]).map_err(plain)?;
    let mut y = g.convert(y, Elem::I64.dtype()).map_err(plain)?;
    if node.int("keepdims", 1) != 0 {
        let mut dims = value.shape().to_vec();
        dims[at] = 1;
        y = g.reshape(y, dims).map_err(plain)?;
    }
    Ok(vec![import.plain_result(y, Elem::I64)])
}

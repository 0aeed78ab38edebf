//! Operators that choose, place and order elements by computed indices.
//!
//! Indices are i32 on the device. Negative ones count from the end where ONNX lets them. Known ones that are outside are
//! refused; computed ones read the last element of their axis, or write nothing: ONNX leaves that open, and kernels
//! must not go astray.

use super::super::counted::Counted;
use super::super::elem::Elem;
use super::super::host::Host;
use super::super::import::{
    Import, Node, Result, Value, axis, ints, number, plain, size, with_int, with_ints,
};
use super::{Row, typed};
use crate::graph::ValueId;
use crate::ops::cumulate::{Cumulate, Running};
use crate::ops::scatter::Combine;
use crate::ops::strided::Range;
use crate::ops::suppress::Suppress;
use crate::ops::top_k::TopK;
use crate::tensor::{DType, Tensor};

pub const ROWS: &[(&str, Row)] = &[
    ("CumProd", |i, n| cumulate(i, n, Running::Product)),
    ("CumSum", |i, n| cumulate(i, n, Running::Sum)),
    ("GatherElements", gather_elements),
    ("GatherND", gather_nd),
    ("NonMaxSuppression", non_max_suppression),
    ("ReverseSequence", reverse_sequence),
    ("Scatter", scatter_elements),
    ("ScatterElements", scatter_elements),
    ("ScatterND", scatter_nd),
    ("TopK", top_k),
];

/// The input `i`: indices of axes of these sizes, in turn.
fn indices<'n>(node: &'n Node, i: usize, sizes: &[usize]) -> Result<&'n Value> {
    let value = node.input(i)?;
    if value.elem().dtype() != DType::I32 {
        return Err(format!("indices must be integers, found {}", value.elem()));
    }
    if let Value::Host(host) = value {
        for (&index, &n) in host.as_ints().into_iter().flatten().zip(sizes.iter().cycle()) {
            axis(index, n).map_err(|_| format!("index {index} is outside an axis of {n}"))?;
        }
    }
    Ok(value)
}

/// The sizes of the axes of `from` that tuples of indices, along the last axis of `of`, address after `batch` others.
fn addressed<'s>(from: &'s Value, of: &Value, batch: usize) -> Result<&'s [usize]> {
    let depth = of.shape().last().copied().unwrap_or(0);
    from.shape().get(batch..batch + depth).filter(|sizes| !sizes.is_empty()).ok_or_else(|| {
        let (x, y) = (of.shape(), from.shape());
        format!("indices {x:?} do not address {y:?} with {batch} axes of batch")
    })
}

fn gather_elements(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let at = axis(node.int("axis", 0), value.rank())?;
    let indices = indices(node, 1, &value.shape()[at..=at])?;
    let (x, indices) = (import.plain(value)?, import.plain(indices)?);
    let y = import.graph.gather_elements(x, indices, at).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

fn gather_nd(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let batch = size(node.int("batch_dims", 0))?;
    let sizes = addressed(value, node.input(1)?, batch)?;
    let indices = indices(node, 1, sizes)?;
    let (x, indices) = (import.plain(value)?, import.plain(indices)?);
    let y = import.graph.gather_nd(x, indices, batch).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

fn combine(node: &Node, value: &Value) -> Result<Combine> {
    let name = node.string("reduction", "none");
    let combine = match name.as_str() {
        "none" => Combine::Replace,
        "add" => Combine::Add,
        "mul" => Combine::Mul,
        "min" => Combine::Min,
        "max" => Combine::Max,
        _ => return Err(format!("reduction \"{name}\" is not supported")),
    };
    match typed::narrow(value.elem()) {
        Some(_) if matches!(combine, Combine::Add | Combine::Mul) => {
            Err(format!("reduction \"{name}\" of {} is not supported", value.elem()))
        }
        _ => Ok(combine),
    }
}

fn scatter_elements(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, updates) = (node.input(0)?, node.input(2)?);
    let combine = combine(node, value)?;
    let at = axis(node.int("axis", 0), value.rank())?;
    let indices = indices(node, 1, &value.shape()[at..=at])?;
    let [x, indices, updates] = plain_inputs(import, [value, indices, updates])?;
    let y = import.graph.scatter_elements(x, indices, updates, at, combine).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

fn scatter_nd(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, updates) = (node.input(0)?, node.input(2)?);
    let combine = combine(node, value)?;
    let sizes = addressed(value, node.input(1)?, 0)?;
    let indices = indices(node, 1, sizes)?;
    if let (Value::Host(known), Combine::Replace) = (indices, combine) {
        return scatter_known(import, value, known, updates, sizes);
    }
    let [x, indices, updates] = plain_inputs(import, [value, indices, updates])?;
    let y = import.graph.scatter_nd(x, indices, updates, combine).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

/// Known places: each row of the result is one of the tensor or one of the updates, so all are chosen at once.
fn scatter_known(
    import: &mut Import,
    value: &Value,
    places: &Host,
    updates: &Value,
    sizes: &[usize],
) -> Result<Vec<Value>> {
    let depth = sizes.len();
    let front = &places.shape[..places.shape.len() - 1];
    let wanted = [front, &value.shape()[depth..]].concat();
    if updates.shape() != wanted || updates.elem() != value.elem() {
        return Err(format!(
            "updates must be {}{wanted:?}, found {}{:?}",
            value.elem(),
            updates.elem(),
            updates.shape()
        ));
    }
    if value.elements() == 0 || updates.elements() == 0 {
        return Ok(vec![value.clone()]);
    }
    let (rows, count): (usize, usize) = (sizes.iter().product(), front.iter().product());
    import.room(&[rows])?;
    let mut chosen: Vec<u32> = (0..rows as u32).collect();
    for (u, tuple) in places.as_ints().unwrap_or_default().chunks_exact(depth).enumerate() {
        let row = tuple.iter().zip(sizes).fold(0, |row, (&i, &n)| row * n + i.rem_euclid(n as i64) as usize);
        chosen[row] = (rows + u) as u32;
    }
    let inner = value.elements() / rows;
    let (x, updates) = (import.plain(value)?, import.plain(updates)?);
    let mut build = || {
        let g = &mut *import.graph;
        let (x, updates) = (g.reshape(x, [rows, inner])?, g.reshape(updates, [count, inner])?);
        let both = g.concat(&[x, updates], 0)?;
        let chosen = g.weight("places", Tensor::from_u32([rows], &chosen));
        let y = g.gather(both, chosen, 0)?;
        g.reshape(y, value.shape())
    };
    let y = build().map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

/// Values in ONNX's order of axes.
fn plain_inputs<const N: usize>(import: &mut Import, values: [&Value; N]) -> Result<[ValueId; N]> {
    let ids = values.into_iter().map(|v| import.plain(v)).collect::<Result<Vec<_>>>()?;
    Ok(ids.try_into().expect("as many as values"))
}

/// Refuses types that the device does not compute with.
pub fn computable(value: &Value) -> Result<()> {
    match value.elem() {
        Elem::F64 | Elem::U32 | Elem::U64 => Err(format!("{} on the device is not supported", value.elem())),
        _ => Ok(()),
    }
}

fn cumulate(import: &mut Import, node: &Node, running: Running) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    computable(value)?;
    let along = *node.ints(1)?.first().ok_or("no axis is given")?;
    let at = axis(along, value.rank())?;
    let x = import.device(value)?;
    let dim = x.axes.iter().position(|&a| a == at).expect("an order of all axes");
    let (exclusive, reverse) = (node.int("exclusive", 0) != 0, node.int("reverse", 0) != 0);
    let y = import.graph.push(Cumulate { running, axis: dim, exclusive, reverse }, &[x.id]).map_err(plain)?;
    Ok(vec![import.result(y, x.axes, x.elem)])
}

/// Of each sequence of a batch the first so many steps from the last to the first: a choice of steps.
fn reverse_sequence(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, lengths) = (node.input(0)?, node.input(1)?);
    let rank = value.rank();
    let (batch, time) = (axis(node.int("batch_axis", 1), rank)?, axis(node.int("time_axis", 0), rank)?);
    let (sequences, steps) = (value.shape()[batch], value.shape()[time]);
    if batch == time || lengths.shape() != [sequences] || lengths.elem() != Elem::I64 {
        let found = format!("{}{:?}", lengths.elem(), lengths.shape());
        return Err(format!(
            "wants an axis of steps, one of sequences and int64[{sequences}] lengths, found {found}"
        ));
    }
    if let Value::Host(known) = lengths {
        let within = |&&n: &&i64| !(0..=steps as i64).contains(&n);
        if let Some(n) = known.as_ints().unwrap_or_default().iter().find(within) {
            return Err(format!("a length of {n} is not one of {steps} steps"));
        }
    }
    import.room(&[steps])?;
    let step = Value::Host(Host::ints(Elem::I64, vec![1, steps], (0..steps as i64).collect()));
    let lengths = import.call("Unsqueeze", &[lengths, &ints(&[1])], vec![])?;
    let turned = import.call("Less", &[&step, &lengths], vec![])?;
    let last = import.call("Sub", &[&lengths, &number(Elem::I64, 1.0)], vec![])?;
    let mirrored = import.call("Sub", &[&last, &step], vec![])?;
    let from = import.call("Where", &[&turned, &mirrored, &step], vec![])?;
    let from = import.call("Unsqueeze", &[&from, &ints(&[2])], vec![])?;
    let order: Vec<usize> =
        [batch, time].into_iter().chain((0..rank).filter(|a| ![batch, time].contains(a))).collect();
    let back: Vec<i64> =
        (0..rank).map(|a| order.iter().position(|&b| a == b).expect("an order") as i64).collect();
    let order: Vec<i64> = order.into_iter().map(|a| a as i64).collect();
    let x = import.call("Transpose", &[value], vec![with_ints("perm", &order)])?;
    let y = import.call("GatherND", &[&x, &from], vec![with_int("batch_dims", 1)])?;
    Ok(vec![import.call("Transpose", &[&y], vec![with_ints("perm", &back)])?])
}

/// The numbers and where they are.
fn top_k(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    computable(value)?;
    let at = axis(node.int("axis", -1), value.rank())?;
    let keep = match node.has("k") {
        true => node.int("k", 1),
        false => *node.ints(1)?.first().ok_or("no number to keep is given")?,
    };
    let (keep, smallest) = (size(keep)?, node.int("largest", 1) == 0);
    let mut dims = value.shape().to_vec();
    if keep == 0 && dims[at] > 0 {
        dims[at] = 0;
        return Ok(vec![Host::empty(value.elem(), dims.clone()).into(), Host::empty(Elem::I64, dims).into()]);
    }
    let x = import.plain(value)?;
    let places = import.graph.push(TopK { axis: at, keep, smallest }, &[x]).map_err(plain)?;
    let y = import.graph.gather_elements(x, places, at).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem()), import.plain_result(places, Elem::I64)])
}

/// Rows (picture, class, candidate), as many as there may be, and their count.
fn non_max_suppression(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (boxes, scores) = (node.input(0)?, node.input(1)?);
    let &[_, _, candidates] = scores.shape() else {
        return Err(format!("wants scores [n, classes, candidates], found {:?}", scores.shape()));
    };
    let most = match node.optional_ints(2)? {
        Some(most) => most.first().copied().ok_or("the largest number of boxes is missing")?,
        None => 0,
    };
    let most = usize::try_from(most).unwrap_or(0).min(candidates);
    if most == 0 || boxes.elements() == 0 {
        return Ok(vec![Host::empty(Elem::I64, vec![0, 3]).into()]);
    }
    let zero = number(Elem::F32, 0.0);
    let overlap = node.optional(3).unwrap_or(&zero);
    let [boxes, scores, overlap] = plain_inputs(import, [boxes, scores, overlap])?;
    let least = node.optional(4).map(|least| import.plain(least)).transpose()?;
    let g = &mut *import.graph;
    let options = Suppress { most, centre: node.int("center_point_box", 0) != 0 };
    let found = g.suppress([boxes, scores], overlap, least, options).map_err(plain)?;
    let part = |start, stop| Range { start, stop, step: 1 };
    let count = g.slice(found, &[part(0, Some(1)), part(0, Some(1))]).map_err(plain)?;
    let rows = g.slice(found, &[part(1, None), Range::all()]).map_err(plain)?;
    let Value::Device(mut rows) = import.plain_result(rows, Elem::I64) else {
        unreachable!("a result of the graph")
    };
    rows.counted = Some(Counted { count, axis: 0 });
    Ok(vec![rows.into()])
}

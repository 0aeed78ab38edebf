//! Operators that move, repeat or choose elements.

use super::super::elem::Elem;
use super::super::host::Host;
use super::super::import::{
    Device, Import, Node, Result, Value, axis, checked_elements, ints, number, plain, size, with_int,
};
use super::super::shape;
use super::Row;
use crate::graph::ValueId;
use crate::ops::pad::PadMode;
use crate::ops::strided::Range;
use crate::ops::typed::{Function, Typed};
use crate::tensor::DType;

pub const ROWS: &[(&str, Row)] = &[
    ("CenterCropPad", center_crop_pad),
    ("Concat", concat),
    ("DepthToSpace", depth_to_space),
    ("Expand", expand),
    ("Flatten", |i, n| reshaped(i, n, shape::flatten)),
    ("Gather", gather),
    ("Pad", pad),
    ("Reshape", |i, n| reshaped(i, n, shape::reshape)),
    ("Slice", slice),
    ("SpaceToDepth", space_to_depth),
    ("Split", split),
    ("Squeeze", squeeze),
    ("Tile", tile),
    ("Transpose", transpose),
    ("Unsqueeze", unsqueeze),
];

/// Each input as it lies, and the order of its axes, for operators that work on any axis.
fn as_it_lies(import: &mut Import, value: &Value) -> Result<Device> {
    import.device(value)
}

/// A list for ONNX's axes as one for the graph's dimensions.
fn permuted<T: Clone>(axes: &[usize], list: &[T]) -> Vec<T> {
    axes.iter().map(|&a| list[a].clone()).collect()
}

fn reshaped(
    import: &mut Import,
    node: &Node,
    target: fn(&Node, &[usize]) -> Result<Vec<usize>>,
) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let shape = target(node, value.shape())?;
    if shape == value.shape() {
        return Ok(vec![value.clone()]);
    }
    let x = import.plain(value)?;
    let y = import.graph.reshape(x, shape).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

/// Takes axes of size one away, wherever they lie.
fn squeeze(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let gone = shape::squeeze(node, value.shape())?;
    let x = as_it_lies(import, value)?;
    let kept: Vec<usize> = x.axes.iter().copied().filter(|a| !gone.contains(a)).collect();
    let dims: Vec<usize> = kept.iter().map(|&a| x.shape[a]).collect();
    let y = import.graph.reshape(x.id, dims).map_err(plain)?;
    let renamed = kept.iter().map(|&a| a - gone.iter().filter(|&&g| g < a).count()).collect();
    Ok(vec![import.result(y, renamed, x.elem)])
}

fn unsqueeze(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let new = shape::unsqueeze(node, value.shape())?;
    let target = shape::with_ones(value.shape(), &new);
    let x = as_it_lies(import, value)?;
    // The axes that were there, under their new numbers, and the new ones in front.
    let kept: Vec<usize> = (0..target.len()).filter(|a| !new.contains(a)).collect();
    let axes: Vec<usize> = new.iter().copied().chain(x.axes.iter().map(|&a| kept[a])).collect();
    let dims = permuted(&axes, &target);
    let y = import.graph.reshape(x.id, dims).map_err(plain)?;
    Ok(vec![import.result(y, axes, x.elem)])
}

/// A note on the order of axes; nothing moves.
fn transpose(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let order = shape::transpose(node, value.rank())?;
    let x = as_it_lies(import, value)?;
    let axes = x.axes.iter().map(|a| order.iter().position(|b| a == b).expect("an order")).collect();
    Ok(vec![import.result(x.id, axes, x.elem)])
}

fn slice(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let parts = shape::slice(node, value.shape())?;
    Ok(vec![taken(import, value, &parts)?])
}

fn taken(import: &mut Import, value: &Value, parts: &[shape::Part]) -> Result<Value> {
    if parts.iter().any(|p| p.count == 0) {
        return Ok(empty(value, parts.iter().map(|p| p.count).collect()));
    }
    let x = as_it_lies(import, value)?;
    let ranges: Vec<Range> = permuted(&x.axes, parts)
        .into_iter()
        .map(|p| {
            let after = p.start as i64 + p.count as i64 * p.step;
            // One past the last element in the direction of the step.
            let stop = match p.step {
                1.. => Some((after - p.step + 1) as usize),
                _ => usize::try_from(after - p.step - 1).ok(),
            };
            Range { start: p.start, stop, step: p.step as isize }
        })
        .collect();
    let whole = parts.iter().zip(&x.shape).all(|(p, &n)| p.step == 1 && p.count == n);
    let y = if whole { x.id } else { import.graph.slice(x.id, &ranges).map_err(plain)? };
    Ok(import.result(y, x.axes, x.elem))
}

fn split(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let along = axis(node.int("axis", 0), value.rank())?;
    let mut start = 0;
    shape::split(node, value.shape()[along])?
        .into_iter()
        .map(|count| {
            let mut parts: Vec<shape::Part> =
                value.shape().iter().map(|&n| shape::Part { start: 0, step: 1, count: n }).collect();
            parts[along] = shape::Part { start, step: 1, count };
            start += count;
            taken(import, value, &parts)
        })
        .collect()
}

/// A tensor without elements needs no device.
fn empty(like: &Value, dims: Vec<usize>) -> Value {
    Host::empty(like.elem(), dims).into()
}

fn concat(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let inputs: Vec<&Value> = node.inputs.iter().flatten().filter(|v| v.elements() > 0).collect();
    let first = *inputs.first().ok_or("nothing to join")?;
    let along = axis(node.int("axis", 1), first.rank())?;
    let computed = |v: &&&Value| matches!(v, Value::Device(_));
    let lead = inputs.iter().filter(computed).max_by_key(|v| v.elements());
    let axes = match lead {
        Some(Value::Device(d)) => d.axes.clone(),
        _ => (0..first.rank()).collect(),
    };
    let mut ids = Vec::with_capacity(inputs.len());
    for value in &inputs {
        if value.rank() != first.rank() || value.elem().dtype() != first.elem().dtype() {
            return Err(format!("{:?} does not join {:?}", value.shape(), first.shape()));
        }
        ids.push(import.ordered(value, &axes)?);
    }
    let at = axes.iter().position(|&a| a == along).expect("an order of all axes");
    let y = import.graph.concat(&ids, at).map_err(plain)?;
    Ok(vec![import.result(y, axes, first.elem())])
}

fn expand(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let wanted = node.ints(1)?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
    let target = shape::broadcast(value.shape(), &wanted)?;
    let x = import.plain(value)?;
    let y = import.graph.broadcast_to(x, target).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

fn tile(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let repeats = node.ints(1)?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
    if repeats.len() != value.rank() {
        return Err(format!("{} repeats given for {:?}", repeats.len(), value.shape()));
    }
    let mut x = import.plain(value)?;
    // Axis by axis, so that no more axes than one are added at a time.
    for (d, &times) in repeats.iter().enumerate().filter(|(_, times)| **times != 1) {
        let dims = import.graph.shape(x).to_vec();
        let (outer, row) = (dims[..d].iter().product::<usize>(), dims[d..].iter().product::<usize>());
        let g = &mut *import.graph;
        x = g.reshape(x, [outer, 1, row]).map_err(plain)?;
        x = g.broadcast_to(x, [outer, times, row]).map_err(plain)?;
        let mut target = dims;
        target[d] *= times;
        x = g.reshape(x, target).map_err(plain)?;
    }
    Ok(vec![import.plain_result(x, value.elem())])
}

fn pad(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let rank = value.rank();
    let pads = match node.list("pads").or(node.list("paddings")) {
        Some(list) => list.to_vec(),
        None => node.ints(1)?,
    };
    let axes = match node.optional_ints(3)? {
        Some(list) => list.into_iter().map(|a| axis(a, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads given for {} axes", pads.len(), axes.len()));
    }
    let mut before_after = vec![[0i64; 2]; rank];
    for (i, &a) in axes.iter().enumerate() {
        before_after[a] = [pads[i], pads[i + axes.len()]];
    }
    let wide: Vec<[usize; 2]> =
        before_after.iter().map(|p| Ok([size(p[0].max(0))?, size(p[1].max(0))?])).collect::<Result<_>>()?;
    let mode = node.string("mode", "constant");
    // Negative padding takes away.
    let parts: Vec<shape::Part> = value
        .shape()
        .iter()
        .zip(&before_after)
        .map(|(&n, p)| {
            let (start, end) = ((-p[0]).max(0), n as i64 + p[1].min(0));
            shape::Part { start: start as usize, step: 1, count: (end - start).max(0) as usize }
        })
        .collect();
    let value = taken(import, value, &parts)?;
    if value.elements() == 0 {
        return Err("an empty tensor cannot be padded".to_owned());
    }
    let target: Vec<usize> = value.shape().iter().zip(&wide).map(|(n, p)| n + p[0] + p[1]).collect();
    checked_elements(&target)?;
    let constant = match node.optional(2) {
        Some(Value::Host(host)) => host.to_floats().first().copied(),
        Some(Value::Device(_)) => None,
        None => Some(f64::from(node.float("value", 0.0))),
    };
    let kernel = match (mode.as_str(), constant) {
        ("constant", Some(c)) => Some(PadMode::Constant(c as f32)),
        ("reflect", _) => Some(PadMode::Reflect),
        ("edge", _) => Some(PadMode::Edge),
        _ => None,
    };
    let reflects = mode == "reflect" && wide.iter().zip(value.shape()).any(|(p, &n)| p[0].max(p[1]) >= n);
    match kernel {
        Some(kernel) if value.elem().is_float() && !reflects => {
            let x = as_it_lies(import, &value)?;
            let y = import.graph.pad(x.id, &permuted(&x.axes, &wide), kernel).map_err(plain)?;
            Ok(vec![import.result(y, x.axes, x.elem)])
        }
        _ => pad_by_index(import, node, &value, &wide, &mode),
    }
}

/// Padding of any type and with a computed number: each axis by known indices, then the number where these lie outside.
fn pad_by_index(
    import: &mut Import,
    node: &Node,
    value: &Value,
    wide: &[[usize; 2]],
    mode: &str,
) -> Result<Vec<Value>> {
    let mut result = value.clone();
    let mut dims = value.shape().to_vec();
    for (a, &[before, after]) in wide.iter().enumerate().filter(|(_, p)| **p != [0, 0]) {
        let n = dims[a] as i64;
        let place = |i: i64| match mode {
            "reflect" if n == 1 => Ok(0),
            "reflect" => {
                let period = 2 * (n - 1);
                let i = i.rem_euclid(period);
                Ok(if i < n { i } else { period - i })
            }
            "wrap" => Ok(i.rem_euclid(n)),
            "edge" | "constant" => Ok(i.clamp(0, n - 1)),
            other => Err(format!("mode {other} is not supported")),
        };
        dims[a] += before + after;
        import.room(&dims[a..=a])?;
        let places = (-(before as i64)..n + after as i64).map(place).collect::<Result<Vec<_>>>()?;
        result = import.call("Gather", &[&result, &ints(&places)], vec![with_int("axis", a as i64)])?;
    }
    if mode == "constant" {
        import.room(&dims)?;
        let mut inside = vec![0; dims.iter().product()];
        for (flat, inside) in inside.iter_mut().enumerate() {
            let mut rest = flat;
            *inside = 1;
            for d in (0..dims.len()).rev() {
                let i = rest % dims[d];
                rest /= dims[d];
                if i < wide[d][0] || i >= wide[d][0] + value.shape()[d] {
                    *inside = 0;
                }
            }
        }
        let inside = Value::Host(Host::ints(Elem::Bool, dims, inside));
        let fill = match node.optional(2) {
            Some(fill) => import.call("Reshape", &[fill, &ints(&[])], vec![])?,
            None => number(value.elem(), 0.0),
        };
        result = import.call("Where", &[&inside, &result, &fill], vec![])?;
    }
    Ok(vec![result])
}

/// Known indices, which become slices where there are few, or a table of rows.
fn gather(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, indices) = (node.input(0)?, node.input(1)?);
    let along = axis(node.int("axis", 0), value.rank())?;
    let n = value.shape()[along];
    let Value::Host(host) = indices else {
        return gather_computed(import, value, indices, along);
    };
    let list = host.as_ints().ok_or("indices must be integers")?;
    let at: Vec<usize> = list
        .iter()
        .map(|&i| axis(i, n).map_err(|_| format!("index {i} is outside an axis of {n}")))
        .collect::<Result<_>>()?;
    if let ([one], true) = (&at[..], host.shape.is_empty()) {
        let mut parts: Vec<shape::Part> =
            value.shape().iter().map(|&n| shape::Part { start: 0, step: 1, count: n }).collect();
        parts[along] = shape::Part { start: *one, step: 1, count: 1 };
        let Value::Device(x) = taken(import, value, &parts)? else { unreachable!("taken on the device") };
        let kept: Vec<usize> = x.axes.iter().copied().filter(|&a| a != along).collect();
        let dims: Vec<usize> = kept.iter().map(|&a| x.shape[a]).collect();
        let y = import.graph.reshape(x.id, dims).map_err(plain)?;
        let renamed = kept.iter().map(|&a| a - usize::from(a > along)).collect();
        return Ok(vec![import.result(y, renamed, x.elem)]);
    }
    let x = import.plain(value)?;
    let words: Vec<u32> = at.iter().map(|&i| i as u32).collect();
    let table = crate::tensor::Tensor::from_u32(host.shape.clone(), &words);
    let table = import.graph.weight("indices", table);
    let y = import.graph.gather(x, table, along).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

fn gather_computed(import: &mut Import, value: &Value, indices: &Value, along: usize) -> Result<Vec<Value>> {
    if indices.elem().is_float() {
        return Err("indices must be integers".to_owned());
    }
    let at = row_numbers(import, indices, value.shape()[along])?;
    let x = import.plain(value)?;
    let y = import.graph.gather(x, at, along).map_err(plain)?;
    Ok(vec![import.plain_result(y, value.elem())])
}

/// Computed indices of an axis of `n`, negative ones counted from its end, as u32.
pub fn row_numbers(import: &mut Import, indices: &Value, n: usize) -> Result<ValueId> {
    let zero = number(indices.elem(), 0.0);
    let negative = import.call("Less", &[indices, &zero], vec![])?;
    let wrapped = import.call("Add", &[indices, &number(indices.elem(), n as f64)], vec![])?;
    let at = import.call("Where", &[&negative, &wrapped, indices], vec![])?;
    let at = import.plain(&at)?;
    // As a number of 32 bits what is still negative lies past the end, where kernels clamp.
    import.graph.push(Typed { function: Function::Bits, dtype: DType::U32 }, &[at]).map_err(plain)
}

fn depth_to_space(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let r = size(node.int("blocksize", 1))?;
    let x = import.channels_last(value)?;
    let g = &mut *import.graph;
    let [n, h, w, c] = g.shape(x)[..] else { return Err("wants [n, c, h, w]".to_owned()) };
    if r == 0 || !c.is_multiple_of(r * r) {
        return Err(format!("wants a multiple of {r}² channels, found {c}"));
    }
    let y = match node.string("mode", "DCR").as_str() {
        "CRD" => g.pixel_shuffle(x, r),
        _ => {
            let k = c / (r * r);
            let x = g.reshape(x, [n, h, w, r, r, k]).map_err(plain)?;
            let x = g.transpose(x, &[0, 1, 3, 2, 4, 5]).map_err(plain)?;
            g.reshape(x, [n, h * r, w * r, k])
        }
    };
    let y = y.map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}

fn space_to_depth(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let r = size(node.int("blocksize", 1))?;
    let x = import.channels_last(value)?;
    let g = &mut *import.graph;
    let [n, h, w, c] = g.shape(x)[..] else { return Err("wants [n, c, h, w]".to_owned()) };
    if r == 0 || !h.is_multiple_of(r) || !w.is_multiple_of(r) {
        return Err(format!("wants a multiple of {r} pixels, found {h} by {w}"));
    }
    let x = g.reshape(x, [n, h / r, r, w / r, r, c]).map_err(plain)?;
    // The order of channels within a block: by place first ("DCR", the only one before version 28), or by channel.
    let order: &[usize] =
        if node.string("mode", "DCR") == "CRD" { &[0, 1, 3, 5, 2, 4] } else { &[0, 1, 3, 2, 4, 5] };
    let x = g.transpose(x, order).map_err(plain)?;
    let y = g.reshape(x, [n, h / r, w / r, r * r * c]).map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}

/// The middle of a tensor, or a tensor in the middle of zeros; an odd element more is cut off, or put, at the end.
fn center_crop_pad(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, wanted) = (node.input(0)?, node.ints(1)?);
    let rank = value.rank();
    let axes: Vec<usize> = match node.list("axes") {
        Some(list) => list.iter().map(|&a| axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    if axes.len() != wanted.len() {
        return Err(format!("{wanted:?} are not sizes of axes {axes:?}"));
    }
    let mut stop: Vec<i64> = value.shape().iter().map(|&n| n as i64).collect();
    let (mut start, mut before, mut after) = (vec![0; rank], vec![0; rank], vec![0; rank]);
    for (&a, &n) in axes.iter().zip(&wanted) {
        let (room, n) = (value.shape()[a] as i64, size(n)? as i64);
        match n < room {
            true => (start[a], stop[a]) = ((room - n) / 2, (room - n) / 2 + n),
            false => (before[a], after[a]) = ((n - room) / 2, n - room - (n - room) / 2),
        }
    }
    let cropped = import.call("Slice", &[value, &ints(&start), &ints(&stop)], vec![])?;
    let padding = [before, after].concat();
    match padding.iter().all(|&n| n == 0) {
        true => Ok(vec![cropped]),
        false => Ok(vec![import.call("Pad", &[&cropped, &ints(&padding)], vec![])?]),
    }
}

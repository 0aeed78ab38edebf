//! Operators on values that are known: evaluated here, so that the shape arithmetic of
//! exporters vanishes before there is a graph.

use super::elem::Elem;
use super::host::{Data, Host, elements_below, round};
use super::import::{Node, Result, Value, axis, size};
use super::shape::{self, Part};

/// Most elements of tensors of floating-point numbers or packed integers that are worked on here; larger ones are
/// weights, which the device computes with when the network is loaded.
const MOST_FLOATS: usize = 1 << 10;

/// Most elements that a folded result may have.
const MOST_ELEMENTS: usize = 1 << 24;

/// The results, if everything that they depend on is known here; `None` if the device must compute them.
pub fn fold(node: &Node) -> Result<Option<Vec<Value>>> {
    let op = node.proto.op_type.as_str();
    // The shape of a tensor is known even where its values are not.
    match op {
        "Shape" => return shape_of(node).map(one),
        "Size" => {
            let count = node.input(0)?.elements() as i64;
            return Ok(one(Host::ints(Elem::I64, vec![], vec![count])));
        }
        "Constant" => return constant(node).map(one),
        _ => {}
    }
    let mut hosts = Vec::new();
    for input in &node.inputs {
        match input {
            Some(Value::Host(host)) => hosts.push(host),
            Some(Value::Device(_)) => return Ok(None),
            None => {}
        }
    }
    let weights = |h: &Host| h.elem.is_float() || matches!(h.data, Data::Raw(_));
    let large = |h: &&Host| weights(h) && h.elements() > MOST_FLOATS;
    if hosts.iter().any(large) && !moves_only(op) {
        return Ok(None);
    }
    let result = match op {
        "Identity" => node.host(0)?.clone(),
        "Cast" => cast(node.host(0)?, Elem::from_code(node.int("to", 1) as i32)?),
        "CastLike" => cast(node.host(0)?, node.input(1)?.elem()),
        "Reshape" => node.host(0)?.reshaped(shape::reshape(node, node.input(0)?.shape())?),
        "Flatten" => node.host(0)?.reshaped(shape::flatten(node, node.input(0)?.shape())?),
        "Squeeze" => {
            let (host, gone) = (node.host(0)?, shape::squeeze(node, node.input(0)?.shape())?);
            let kept = (0..host.shape.len()).filter(|d| !gone.contains(d)).map(|d| host.shape[d]);
            host.reshaped(kept.collect())
        }
        "Unsqueeze" => {
            let host = node.host(0)?;
            host.reshaped(shape::with_ones(&host.shape, &shape::unsqueeze(node, &host.shape)?))
        }
        "Transpose" => {
            let host = node.host(0)?;
            let order = shape::transpose(node, host.shape.len())?;
            let dims: Vec<usize> = order.iter().map(|&a| host.shape[a]).collect();
            pick(host, dims, |at, strides| order.iter().zip(at).map(|(&a, i)| i * strides[a]).sum())?
        }
        "Slice" => parts(node.host(0)?, &shape::slice(node, node.input(0)?.shape())?)?,
        "Split" => return split(node).map(Some),
        "Concat" => concat(node, &hosts)?,
        "Gather" => gather(node)?,
        "Expand" => {
            let host = node.host(0)?;
            let wanted = node.ints(1)?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
            expand(host, shape::broadcast(&host.shape, &wanted)?)?
        }
        "Tile" => {
            let host = node.host(0)?;
            let repeats = node.ints(1)?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
            if repeats.len() != host.shape.len() {
                return Err(format!("{} repeats given for {:?}", repeats.len(), host.shape));
            }
            let dims: Vec<usize> =
                host.shape.iter().zip(&repeats).map(|(&n, &r)| n.saturating_mul(r)).collect();
            pick(host, dims, |at, strides| {
                at.iter().zip(&host.shape).zip(strides).map(|((i, n), stride)| i % n * stride).sum()
            })?
        }
        "Range" => range(node)?,
        "ConstantOfShape" => {
            let dims = node.ints(0)?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
            let value = match node.tensor("value") {
                Some(tensor) => Host::from_proto(tensor, None)?,
                None => Host::floats(Elem::F32, vec![1], vec![0.0]),
            };
            if value.elements() != 1 {
                return Err("the value to fill with must be one number".to_owned());
            }
            let all_ones = vec![1; dims.len()];
            expand(&value.reshaped(all_ones), dims)?
        }
        "Where" => {
            let (condition, a, b) = (node.host(0)?, node.host(1)?, node.host(2)?);
            let dims = shape::broadcast(&shape::broadcast(&condition.shape, &a.shape)?, &b.shape)?;
            let condition = expand(condition, dims.clone())?;
            let (a, b) = (expand(a, dims.clone())?, expand(b, dims.clone())?);
            let choose = condition.as_ints().ok_or("the condition must be boolean")?;
            match (a.as_ints(), b.as_ints()) {
                (Some(x), Some(y)) => {
                    Host::ints(a.elem, dims, each(choose.len(), |i| if choose[i] != 0 { x[i] } else { y[i] }))
                }
                _ => {
                    let (x, y) = (a.to_floats(), b.to_floats());
                    Host::floats(
                        a.elem,
                        dims,
                        each(choose.len(), |i| if choose[i] != 0 { x[i] } else { y[i] }),
                    )
                }
            }
        }
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceMean" => match reduce(node, op)? {
            Some(host) => host,
            None => return Ok(None),
        },
        "NonZero" => non_zero(node.host(0)?),
        _ => match (unary(op, node)?, binary(op, node, &hosts)?) {
            (Some(host), _) | (_, Some(host)) => host,
            _ => return Ok(None),
        },
    };
    Ok(one(result))
}

fn one(host: Host) -> Option<Vec<Value>> {
    Some(vec![Value::Host(host)])
}

fn each<T>(count: usize, f: impl Fn(usize) -> T) -> Vec<T> {
    (0..count).map(f).collect()
}

/// Operators that keep a weight's bytes as they are.
fn moves_only(op: &str) -> bool {
    matches!(op, "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze")
}

fn shape_of(node: &Node) -> Result<Host> {
    let dims = node.input(0)?.shape();
    let rank = dims.len() as i64;
    let clamp = |v: i64| (if v < 0 { v + rank } else { v }).clamp(0, rank) as usize;
    let (start, end) = (clamp(node.int("start", 0)), clamp(node.int("end", rank)));
    let dims: Vec<i64> = dims[start..end.max(start)].iter().map(|&d| d as i64).collect();
    Ok(Host::ints(Elem::I64, vec![dims.len()], dims))
}

fn constant(node: &Node) -> Result<Host> {
    if let Some(tensor) = node.tensor("value") {
        return Host::from_proto(tensor, None);
    }
    if node.has("value_float") {
        return Ok(Host::floats(Elem::F32, vec![], vec![f64::from(node.float("value_float", 0.0))]));
    }
    if node.has("value_int") {
        return Ok(Host::ints(Elem::I64, vec![], vec![node.int("value_int", 0)]));
    }
    if let (true, Some(list)) = (node.has("value_floats"), node.floats("value_floats")) {
        let values: Vec<f64> = list.iter().map(|&v| f64::from(v)).collect();
        return Ok(Host::floats(Elem::F32, vec![values.len()], values));
    }
    match (node.has("value_ints"), node.list("value_ints")) {
        (true, Some(list)) => Ok(Host::ints(Elem::I64, vec![list.len()], list.to_vec())),
        _ => Err("constants of this kind (sparse or text) are not supported".to_owned()),
    }
}

/// Element by element: of the coordinates of each in the result and the strides of `host`, `from` makes its place there.
fn pick(host: &Host, dims: Vec<usize>, from: impl Fn(&[usize], &[usize]) -> usize) -> Result<Host> {
    let count = elements_below(&dims, MOST_ELEMENTS);
    let count = count.ok_or_else(|| format!("a constant of shape {dims:?} is too large"))?;
    let mut strides = vec![1; host.shape.len()];
    for d in (0..host.shape.len().saturating_sub(1)).rev() {
        strides[d] = strides[d + 1] * host.shape[d + 1];
    }
    let mut at = vec![0; dims.len()];
    let mut indices = Vec::with_capacity(count);
    for _ in 0..count {
        indices.push(from(&at, &strides));
        for d in (0..dims.len()).rev() {
            at[d] += 1;
            if at[d] < dims[d] {
                break;
            }
            at[d] = 0;
        }
    }
    Ok(match host.as_ints() {
        Some(values) => Host::ints(host.elem, dims, indices.into_iter().map(|i| values[i]).collect()),
        None => {
            let values = host.to_floats();
            Host::floats(host.elem, dims, indices.into_iter().map(|i| values[i]).collect())
        }
    })
}

fn expand(host: &Host, dims: Vec<usize>) -> Result<Host> {
    if dims == host.shape {
        return Ok(host.clone());
    }
    if host.elements() == 1 {
        let too_large = || format!("a constant of shape {dims:?} is too large");
        let count = elements_below(&dims, MOST_ELEMENTS).ok_or_else(too_large)?;
        return Ok(match host.as_ints() {
            Some(values) => Host::ints(host.elem, dims, vec![values[0]; count]),
            None => Host::floats(host.elem, dims, vec![host.to_floats()[0]; count]),
        });
    }
    let skip = dims.len() - host.shape.len();
    pick(host, dims, |at, strides| {
        let own = at[skip..].iter().zip(&host.shape).zip(strides);
        own.map(|((i, &n), stride)| if n == 1 { 0 } else { i * stride }).sum()
    })
}

fn parts(host: &Host, parts: &[Part]) -> Result<Host> {
    let dims = parts.iter().map(|p| p.count).collect();
    pick(host, dims, |at, strides| {
        let place = |(&i, p): (&usize, &Part)| (p.start as i64 + i as i64 * p.step) as usize;
        at.iter().zip(parts).map(place).zip(strides).map(|(i, stride)| i * stride).sum()
    })
}

fn split(node: &Node) -> Result<Vec<Value>> {
    let host = node.host(0)?;
    let along = axis(node.int("axis", 0), host.shape.len())?;
    let mut start = 0;
    shape::split(node, host.shape[along])?
        .into_iter()
        .map(|count| {
            let mut all: Vec<Part> =
                host.shape.iter().map(|&n| Part { start: 0, step: 1, count: n }).collect();
            all[along] = Part { start, step: 1, count };
            start += count;
            Ok(Value::Host(parts(host, &all)?))
        })
        .collect()
}

fn concat(node: &Node, hosts: &[&Host]) -> Result<Host> {
    let first = hosts.first().ok_or("nothing to join")?;
    let rank = first.shape.len();
    let along = axis(node.int("axis", 1), rank)?;
    let mut dims = first.shape.clone();
    dims[along] = 0;
    for host in hosts {
        let fits =
            host.shape.len() == rank && (0..rank).all(|d| d == along || host.shape[d] == first.shape[d]);
        if !fits || host.elem != first.elem {
            return Err(format!("{:?} does not join {:?} along axis {along}", host.shape, first.shape));
        }
        dims[along] += host.shape[along];
    }
    elements_below(&dims, MOST_ELEMENTS)
        .ok_or_else(|| format!("a constant of shape {dims:?} is too large"))?;
    let outer: usize = dims[..along].iter().product();
    let rows: Vec<usize> = hosts.iter().map(|h| h.shape[along..].iter().product()).collect();
    Ok(match first.as_ints() {
        Some(_) => {
            let mut values = Vec::new();
            for o in 0..outer {
                for (host, row) in hosts.iter().zip(&rows) {
                    values.extend_from_slice(&host.as_ints().expect("of one type")[o * row..(o + 1) * row]);
                }
            }
            Host::ints(first.elem, dims, values)
        }
        None => {
            let all: Vec<Vec<f64>> = hosts.iter().map(|h| h.to_floats()).collect();
            let mut values = Vec::new();
            for o in 0..outer {
                for (host, row) in all.iter().zip(&rows) {
                    values.extend_from_slice(&host[o * row..(o + 1) * row]);
                }
            }
            Host::floats(first.elem, dims, values)
        }
    })
}

fn gather(node: &Node) -> Result<Host> {
    let (host, indices) = (node.host(0)?, node.host(1)?);
    let along = axis(node.int("axis", 0), host.shape.len())?;
    let n = host.shape[along];
    let wrap = |&i: &i64| axis(i, n).map_err(|_| format!("index {i} is outside an axis of {n}"));
    let at: Vec<usize> = node.ints(1)?.iter().map(wrap).collect::<Result<_>>()?;
    let dims = [&host.shape[..along], &indices.shape, &host.shape[along + 1..]].concat();
    let rank = indices.shape.len();
    pick(host, dims, |index, strides| {
        let middle = &index[along..along + rank];
        let flat = middle.iter().zip(&indices.shape).fold(0, |flat, (&i, &n)| flat * n + i);
        let own = index[..along].iter().chain([&at[flat]]).chain(&index[along + rank..]);
        own.zip(strides).map(|(i, stride)| i * stride).sum()
    })
}

fn range(node: &Node) -> Result<Host> {
    let (start, limit, delta) = (node.host(0)?, node.host(1)?, node.host(2)?);
    let scalar = |h: &Host| h.to_floats().first().copied().ok_or("a limit is empty".to_owned());
    let (a, b, d) = (scalar(start)?, scalar(limit)?, scalar(delta)?);
    let count = ((b - a) / d).ceil().max(0.0);
    if d == 0.0 || count.is_nan() || count > MOST_ELEMENTS as f64 {
        return Err(format!("a range from {a} to {b} by {d} is endless or too long"));
    }
    let count = count as usize;
    Ok(match (start.as_ints(), delta.as_ints()) {
        (Some(a), Some(d)) => Host::ints(
            start.elem,
            vec![count],
            each(count, |i| a[0].wrapping_add(d[0].wrapping_mul(i as i64))),
        ),
        _ => Host::floats(start.elem, vec![count], each(count, |i| a + i as f64 * d)),
    })
}

fn reduce(node: &Node, op: &str) -> Result<Option<Host>> {
    let host = node.host(0)?;
    let rank = host.shape.len();
    let axes = match shape::axes(node, 1, rank)? {
        Some(axes) if !axes.is_empty() => axes,
        _ if node.int("noop_with_empty_axes", 0) != 0 => return Ok(Some(host.clone())),
        _ => (0..rank).collect(),
    };
    let Some(values) = host.as_ints() else { return Ok(None) };
    if values.is_empty() {
        return Ok(None);
    }
    let kept: Vec<usize> = (0..rank).map(|d| if axes.contains(&d) { 1 } else { host.shape[d] }).collect();
    let count = kept.iter().product();
    let mut groups: Vec<Vec<i64>> = vec![Vec::new(); count];
    for (i, &v) in values.iter().enumerate() {
        let (mut rest, mut to, mut stride) = (i, 0, 1);
        for d in (0..rank).rev() {
            let at = rest % host.shape[d];
            rest /= host.shape[d];
            if !axes.contains(&d) {
                to += at * stride;
                stride *= host.shape[d];
            }
        }
        groups[to].push(v);
    }
    let result = |g: &Vec<i64>| match op {
        "ReduceProd" => g.iter().fold(1i64, |a, &b| a.wrapping_mul(b)),
        "ReduceSum" => g.iter().fold(0i64, |a, &b| a.wrapping_add(b)),
        "ReduceMax" => g.iter().copied().max().unwrap_or(i64::MIN),
        "ReduceMin" => g.iter().copied().min().unwrap_or(i64::MAX),
        _ => g.iter().fold(0i64, |a, &b| a.wrapping_add(b)) / g.len().max(1) as i64,
    };
    let values = groups.iter().map(result).collect();
    let dims = match node.int("keepdims", 1) {
        0 => (0..rank).filter(|d| !axes.contains(d)).map(|d| host.shape[d]).collect(),
        _ => kept,
    };
    Ok(Some(Host::ints(host.elem, dims, values)))
}

fn non_zero(host: &Host) -> Host {
    let rank = host.shape.len();
    let found: Vec<usize> =
        host.to_floats().iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| i).collect();
    let mut values = vec![0; rank * found.len()];
    for (j, &i) in found.iter().enumerate() {
        let mut rest = i;
        for d in (0..rank).rev() {
            values[d * found.len() + j] = (rest % host.shape[d]) as i64;
            rest /= host.shape[d];
        }
    }
    Host::ints(Elem::I64, vec![rank, found.len()], values)
}

fn cast(host: &Host, to: Elem) -> Host {
    let shape = host.shape.clone();
    match (&host.data, to) {
        _ if host.elem == to => host.clone(),
        (Data::Ints(values), Elem::Bool) => {
            Host::ints(to, shape, values.iter().map(|&v| i64::from(v != 0)).collect())
        }
        (_, Elem::Bool) => {
            Host::ints(to, shape, host.to_floats().iter().map(|&v| i64::from(v != 0.0)).collect())
        }
        (Data::Ints(values), _) if !to.is_float() => {
            Host::ints(to, shape, values.iter().map(|&v| wrapped(to, v)).collect())
        }
        (_, _) if to.is_float() => Host::floats(to, shape, host.to_floats()),
        _ => Host::ints(to, shape, host.to_floats().iter().map(|&v| wrapped(to, v as i64)).collect()),
    }
}

/// `v` in as many bits as the type has.
fn wrapped(elem: Elem, v: i64) -> i64 {
    match elem {
        Elem::I8 => i64::from(v as i8),
        Elem::I16 => i64::from(v as i16),
        Elem::I32 => i64::from(v as i32),
        Elem::U8 => i64::from(v as u8),
        Elem::U16 => i64::from(v as u16),
        Elem::U32 => i64::from(v as u32),
        _ => v,
    }
}

fn unary(op: &str, node: &Node) -> Result<Option<Host>> {
    let ints: Option<fn(i64) -> i64> = match op {
        "Neg" => Some(i64::wrapping_neg),
        "Abs" => Some(i64::wrapping_abs),
        "Sign" => Some(i64::signum),
        "Not" => Some(|v| i64::from(v == 0)),
        "Floor" | "Ceil" | "Round" => Some(|v| v),
        "Relu" => Some(|v| v.max(0)),
        _ => None,
    };
    let floats: Option<fn(f64) -> f64> = match op {
        "Neg" => Some(|v| -v),
        "Abs" => Some(f64::abs),
        "Sign" => Some(|v| if v == 0.0 { 0.0 } else { v.signum() }),
        "Floor" => Some(f64::floor),
        "Ceil" => Some(f64::ceil),
        "Round" => Some(f64::round_ties_even),
        "Sqrt" => Some(f64::sqrt),
        "Exp" => Some(f64::exp),
        "Log" => Some(f64::ln),
        "Reciprocal" => Some(f64::recip),
        "Relu" => Some(|v| v.max(0.0)),
        _ => None,
    };
    let host = match node.optional(0) {
        Some(Value::Host(host)) => host,
        _ => return Ok(None),
    };
    Ok(match (host.as_ints(), ints, floats) {
        (Some(values), Some(f), _) => {
            let shape = host.shape.clone();
            Some(Host::ints(host.elem, shape, values.iter().map(|&v| wrapped(host.elem, f(v))).collect()))
        }
        (None, _, Some(f)) => {
            Some(Host::floats(host.elem, host.shape.clone(), host.to_floats().into_iter().map(f).collect()))
        }
        _ => None,
    })
}

/// Functions of two numbers, and those of any number of inputs that fold from left to right.
fn binary(op: &str, node: &Node, hosts: &[&Host]) -> Result<Option<Host>> {
    let truth = matches!(op, "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual");
    let logic = matches!(op, "And" | "Or" | "Xor");
    let modulo_of_c = node.int("fmod", 0) != 0;
    let Some(first) = hosts.first() else { return Ok(None) };
    let mut total = (*first).clone();
    let known = matches!(op, "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Min" | "Max" | "Sum");
    if !(known || truth || logic) || hosts.is_empty() {
        return Ok(None);
    }
    for host in &hosts[1..] {
        let dims = shape::broadcast(&total.shape, &host.shape)?;
        let (a, b) = (expand(&total, dims.clone())?, expand(host, dims.clone())?);
        let elem = if truth || logic { Elem::Bool } else { total.elem };
        total = match (a.as_ints(), b.as_ints()) {
            (Some(x), Some(y)) => {
                let mut values = Vec::with_capacity(x.len());
                for (&x, &y) in x.iter().zip(y) {
                    let v = integer(op, x, y, modulo_of_c);
                    let v = v.ok_or_else(|| format!("{op} of {x} and {y} has no value"))?;
                    values.push(wrapped(elem, v));
                }
                Host::ints(elem, dims, values)
            }
            _ => {
                let (x, y) = (a.to_floats(), b.to_floats());
                let values: Vec<f64> = x.iter().zip(&y).map(|(&x, &y)| real(op, x, y, modulo_of_c)).collect();
                match elem.is_float() {
                    true => Host::floats(elem, dims, values.into_iter().map(|v| round(elem, v)).collect()),
                    false => {
                        Host::ints(elem, dims, values.into_iter().map(|v| wrapped(elem, v as i64)).collect())
                    }
                }
            }
        };
    }
    Ok(Some(total))
}

fn integer(op: &str, x: i64, y: i64, modulo_of_c: bool) -> Option<i64> {
    Some(match op {
        "Add" | "Sum" => x.wrapping_add(y),
        "Sub" => x.wrapping_sub(y),
        "Mul" => x.wrapping_mul(y),
        "Div" => x.checked_div(y)?,
        "Mod" if modulo_of_c => x.checked_rem(y)?,
        "Mod" => {
            let rest = x.checked_rem(y)?;
            if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
        }
        "Pow" => x.wrapping_pow(u32::try_from(y).ok()?),
        "Min" => x.min(y),
        "Max" => x.max(y),
        "And" => i64::from(x != 0 && y != 0),
        "Or" => i64::from(x != 0 || y != 0),
        "Xor" => i64::from((x != 0) != (y != 0)),
        "Equal" => i64::from(x == y),
        "Greater" => i64::from(x > y),
        "Less" => i64::from(x < y),
        "GreaterOrEqual" => i64::from(x >= y),
        _ => i64::from(x <= y),
    })
}

fn real(op: &str, x: f64, y: f64, modulo_of_c: bool) -> f64 {
    let truth = |t: bool| f64::from(u8::from(t));
    match op {
        "Add" | "Sum" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Mod" if modulo_of_c => x % y,
        "Mod" => x - y * (x / y).floor(),
        "Pow" => x.powf(y),
        "Min" => x.min(y),
        "Max" => x.max(y),
        "Equal" => truth(x == y),
        "Greater" => truth(x > y),
        "Less" => truth(x < y),
        "GreaterOrEqual" => truth(x >= y),
        _ => truth(x <= y),
    }
}

//! What operators that only move or rename elements do to a shape, worked out from their
//! attributes and constant inputs in the forms of all versions.

use super::host::elements_below;
use super::import::{Node, Result, axis, size};

/// The shape that `Reshape` asks for.
pub fn reshape(node: &Node, from: &[usize]) -> Result<Vec<usize>> {
    let wanted = match node.list("shape") {
        Some(list) => list.to_vec(),
        None => node.ints(1)?,
    };
    let zero_is_zero = node.int("allowzero", 0) != 0;
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, &d) in wanted.iter().enumerate() {
        match d {
            -1 if open.is_none() => {
                open = Some(i);
                shape.push(1);
            }
            0 if !zero_is_zero => {
                shape.push(*from.get(i).ok_or_else(|| format!("dimension {i} to keep is not in {from:?}"))?);
            }
            d => shape.push(size(d)?),
        }
    }
    let elements: usize = from.iter().product();
    let product = |shape: &[usize]| shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
    if let Some(i) = open {
        let rest = product(&shape).filter(|&n| n > 0 && elements.is_multiple_of(n));
        shape[i] = elements / rest.ok_or_else(|| format!("{from:?} does not divide into {wanted:?}"))?;
    }
    match elements_below(&shape, 1 << 36) == Some(elements) {
        true => Ok(shape),
        false => Err(format!("{from:?} does not reshape to {wanted:?}")),
    }
}

/// The shape that `Flatten` gives.
pub fn flatten(node: &Node, from: &[usize]) -> Result<Vec<usize>> {
    let at = node.int("axis", 1);
    let at = if at == from.len() as i64 { from.len() } else { axis(at, from.len())? };
    Ok(vec![from[..at].iter().product(), from[at..].iter().product()])
}

/// Axes given as an attribute in older versions and as input `i` in newer ones.
pub fn axes(node: &Node, i: usize, rank: usize) -> Result<Option<Vec<usize>>> {
    let given = match node.list("axes") {
        Some(list) => Some(list.to_vec()),
        None => node.optional_ints(i)?,
    };
    let Some(given) = given else { return Ok(None) };
    let axes: Vec<usize> = given.into_iter().map(|a| axis(a, rank)).collect::<Result<_>>()?;
    match (1..axes.len()).find(|&i| axes[..i].contains(&axes[i])) {
        Some(i) => Err(format!("axis {} is given twice", axes[i])),
        None => Ok(Some(axes)),
    }
}

/// Which axes `Squeeze` takes away.
pub fn squeeze(node: &Node, from: &[usize]) -> Result<Vec<usize>> {
    match axes(node, 1, from.len())? {
        Some(axes) => match axes.iter().find(|&&a| from[a] != 1) {
            Some(a) => Err(format!("axis {a} of {from:?} is not of size one")),
            None => Ok(axes),
        },
        None => Ok((0..from.len()).filter(|&d| from[d] == 1).collect()),
    }
}

/// Which axes of the result `Unsqueeze` puts in.
pub fn unsqueeze(node: &Node, from: &[usize]) -> Result<Vec<usize>> {
    let given = node.list("axes").map_or_else(|| node.ints(1), |list| Ok(list.to_vec()))?;
    let rank = from.len() + given.len();
    let mut axes: Vec<usize> = given.into_iter().map(|a| axis(a, rank)).collect::<Result<_>>()?;
    axes.sort_unstable();
    axes.dedup();
    match from.len() + axes.len() == rank {
        true => Ok(axes),
        false => Err("the same axis is put in twice".to_owned()),
    }
}

/// `from` with axes of size one put in.
pub fn with_ones(from: &[usize], axes: &[usize]) -> Vec<usize> {
    let mut rest = from.iter();
    let rank = from.len() + axes.len();
    (0..rank).map(|d| if axes.contains(&d) { 1 } else { *rest.next().expect("counted") }).collect()
}

/// The order of axes that `Transpose` gives.
pub fn transpose(node: &Node, rank: usize) -> Result<Vec<usize>> {
    let order: Vec<usize> = match node.list("perm") {
        Some(list) => list.iter().map(|&a| axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    match sorted.into_iter().eq(0..rank) {
        true => Ok(order),
        false => Err(format!("{order:?} is not an order of {rank} axes")),
    }
}

/// Of one axis the elements `start, start + step, …`, so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub start: usize,
    pub step: i64,
    pub count: usize,
}

/// What `Slice` takes of each axis.
pub fn slice(node: &Node, from: &[usize]) -> Result<Vec<Part>> {
    let rank = from.len();
    let (starts, ends) = match (node.list("starts"), node.list("ends")) {
        (Some(starts), Some(ends)) => (starts.to_vec(), ends.to_vec()),
        _ => (node.ints(1)?, node.ints(2)?),
    };
    let axes = match axes(node, 3, rank)? {
        Some(axes) => axes,
        None => (0..starts.len()).collect(),
    };
    let steps = node.optional_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || axes.iter().any(|&a| a >= rank) {
        return Err("starts, ends, axes and steps differ in length".to_owned());
    }
    let mut parts: Vec<Part> = from.iter().map(|&n| Part { start: 0, step: 1, count: n }).collect();
    for (i, &a) in axes.iter().enumerate() {
        let n = from[a] as i64;
        // A longer step than the axis takes no other elements.
        let step = steps[i].clamp(-n - 1, n + 1);
        let wrap = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
        let (start, end) = (wrap(starts[i]), wrap(ends[i]));
        let (start, distance) = match step {
            0 => return Err("a slice's step must not be 0".to_owned()),
            1.. => {
                let start = start.clamp(0, n);
                (start, end.clamp(0, n) - start)
            }
            _ if n == 0 => (0, 0),
            _ => {
                let start = start.clamp(0, n - 1);
                (start, start - end.clamp(-1, n - 1))
            }
        };
        let count = (distance.max(0) as u64).div_ceil(step.unsigned_abs()) as usize;
        parts[a] = Part { start: start.max(0) as usize, step, count };
    }
    Ok(parts)
}

/// The sizes that `Split` cuts an axis into.
pub fn split(node: &Node, from: usize) -> Result<Vec<usize>> {
    let given = match node.list("split") {
        Some(list) => Some(list.to_vec()),
        None => node.optional_ints(1)?,
    };
    let sizes = match given {
        Some(list) => list.into_iter().map(size).collect::<Result<Vec<_>>>()?,
        None => {
            let outputs = node.outputs() as i64;
            let parts = size(node.int("num_outputs", outputs).min(outputs))?.max(1);
            let part = from.div_ceil(parts);
            (0..parts).map(|i| part.min(from.saturating_sub(i * part))).collect()
        }
    };
    match sizes.iter().sum::<usize>() == from {
        true => Ok(sizes),
        false => Err(format!("an axis of {from} does not split into {sizes:?}")),
    }
}

/// The shape that two shapes broadcast to.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |s: &[usize], d: usize| (d + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|d| match (dim(a, d), dim(b, d)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

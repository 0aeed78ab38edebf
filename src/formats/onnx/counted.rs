//! Tensors whose length is only known after a run, such as what a detector found. On the device they have all the
//! room that they may need, with filler at the end, and their count beside them. Operators that keep elements in
//! their places carry the count on; any other is refused, as it would take the filler for values.

use super::import::{Device, Node, Result, Value, axis};
use super::shape;
use crate::graph::ValueId;

/// How much of a tensor counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The number of elements along the axis that count, i32, one number.
    pub count: ValueId,
    /// In ONNX's order.
    pub axis: usize,
}

/// Operators that work element by element, operands broadcast.
const ELEMENTWISE: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "Cast",
    "CastLike",
    "Ceil",
    "Clip",
    "Cos",
    "Div",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Sqrt",
    "Sub",
    "Sum",
    "Tanh",
    "Where",
    "Xor",
];

fn counted(value: &Value) -> Option<Counted> {
    match value {
        Value::Device(Device { counted, .. }) => *counted,
        Value::Host(_) => None,
    }
}

/// Which part of a node's results counts; `None` if all inputs are whole.
///
/// # Errors
/// Operators that would read filler, or need to know the count.
pub fn results(node: &Node) -> Result<Option<Counted>> {
    let inputs = || node.inputs.iter().flatten();
    let Some(first) = inputs().find_map(counted) else { return Ok(None) };
    let refused = || "works on a tensor whose length is only known in a run".to_owned();
    let value = node.input(0)?;
    let of_value = counted(value);
    let op = node.proto.op_type.as_str();
    let at = match (op, of_value) {
        (op, _) if ELEMENTWISE.contains(&op) => elementwise(node, first),
        ("Gather", None) => match counted(node.input(1)?) {
            Some(c) => Some(axis(node.int("axis", 0), value.rank())? + c.axis),
            None => None,
        },
        ("GatherElements", None) => counted(node.input(1)?).map(|c| c.axis),
        ("GatherND", None) if node.int("batch_dims", 0) == 0 => {
            let indices = node.input(1)?;
            counted(indices).map(|c| c.axis).filter(|&a| a + 1 < indices.rank())
        }
        ("Gather", Some(c)) if counted(node.input(1)?).is_none() => {
            let along = axis(node.int("axis", 0), value.rank())?;
            match c.axis.cmp(&along) {
                std::cmp::Ordering::Less => Some(c.axis),
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Greater => Some(c.axis + node.input(1)?.rank() - 1),
            }
        }
        ("Concat", Some(c)) => {
            let along = axis(node.int("axis", 1), value.rank())?;
            (along != c.axis && inputs().all(|v| counted(v) == Some(c))).then_some(c.axis)
        }
        ("Split", Some(c)) => (axis(node.int("axis", 0), value.rank())? != c.axis).then_some(c.axis),
        ("Slice", Some(c)) => {
            let part = shape::slice(node, value.shape())?[c.axis];
            let whole = shape::Part { start: 0, step: 1, count: value.shape()[c.axis] };
            (part == whole && !ends_early(node, c.axis, value.rank())?).then_some(c.axis)
        }
        ("Transpose", Some(c)) => shape::transpose(node, value.rank())?.iter().position(|&a| a == c.axis),
        ("Squeeze", Some(c)) => match shape::axes(node, 1, value.rank())? {
            Some(gone) if !gone.contains(&c.axis) => {
                Some(c.axis - gone.iter().filter(|&&a| a < c.axis).count())
            }
            _ => None,
        },
        ("Unsqueeze", Some(c)) => {
            let new = shape::unsqueeze(node, value.shape())?;
            (0..value.rank() + new.len()).filter(|a| !new.contains(a)).nth(c.axis)
        }
        ("Reshape", Some(c)) => {
            // All up to the axis stay, and it is not asked to have a length of its own.
            let (from, to) = (value.shape(), shape::reshape(node, value.shape())?);
            let wanted = node.list("shape").map_or_else(|| node.ints(1), |list| Ok(list.to_vec()))?;
            let open = matches!(wanted.get(c.axis), Some(-1))
                || (wanted.get(c.axis) == Some(&0) && node.int("allowzero", 0) == 0);
            (open && to.len() > c.axis && to[..=c.axis] == from[..=c.axis]).then_some(c.axis)
        }
        _ => None,
    };
    match at {
        Some(axis) if inputs().filter_map(counted).all(|c| c.count == first.count) => {
            Ok(Some(Counted { count: first.count, axis }))
        }
        _ => Err(refused()),
    }
}

/// Where the counted axis of broadcast operands lies: the same from the end in all that are not one element long there.
fn elementwise(node: &Node, first: Counted) -> Option<usize> {
    let values = || node.inputs.iter().flatten();
    let rank = values().map(Value::rank).max()?;
    let lead = values().find(|v| counted(v) == Some(first))?;
    let at = rank - lead.rank() + first.axis;
    let size = lead.shape()[first.axis];
    let fits = |v: &Value| {
        let own = (at + v.rank()).checked_sub(rank);
        match (counted(v), own) {
            (Some(c), Some(own)) => c.axis == own && v.shape()[own] == size,
            (Some(_), None) => false,
            (None, Some(own)) => v.shape()[own] == 1,
            (None, None) => true,
        }
    };
    values().all(fits).then_some(at)
}

/// Whether a slice's end counts from the end of this axis, or lies within.
fn ends_early(node: &Node, at: usize, rank: usize) -> Result<bool> {
    let ends = node.list("ends").map_or_else(|| node.ints(2), |list| Ok(list.to_vec()))?;
    let axes = shape::axes(node, 3, rank)?.unwrap_or_else(|| (0..ends.len()).collect());
    Ok(axes.iter().zip(&ends).any(|(&a, &end)| a == at && end < 0))
}

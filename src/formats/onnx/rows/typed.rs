//! Conversions, comparisons, logic, choices and integer arithmetic.

use super::super::elem::Elem;
use super::super::import::{Import, Node, Result, Value, plain};
use super::super::shape;
use super::Row;
use super::elementwise::aligned;
use crate::ops::typed::Function;

pub const ROWS: &[(&str, Row)] = &[
    ("And", |i, n| logic(i, n, Function::And)),
    ("BitwiseAnd", |i, n| bits(i, n, Function::And)),
    ("BitwiseNot", |i, n| bits(i, n, Function::BitNot)),
    ("BitwiseOr", |i, n| bits(i, n, Function::Or)),
    ("BitwiseXor", |i, n| bits(i, n, Function::Xor)),
    ("Cast", |i, n| {
        let to = Elem::from_code(n.int("to", 1) as i32)?;
        Ok(vec![cast(i, n.input(0)?, to)?])
    }),
    ("CastLike", |i, n| Ok(vec![cast(i, n.input(0)?, n.input(1)?.elem())?])),
    ("Equal", |i, n| compare(i, n, Function::Equal, false)),
    ("Greater", |i, n| compare(i, n, Function::Less, true)),
    ("GreaterOrEqual", |i, n| compare(i, n, Function::LessOrEqual, true)),
    ("IsInf", |i, n| {
        let positive = n.int("detect_positive", 1) != 0;
        let negative = n.int("detect_negative", 1) != 0;
        Ok(vec![apply(i, Function::IsInfinite { positive, negative }, &[n.input(0)?], Elem::Bool)?])
    }),
    ("IsNaN", |i, n| Ok(vec![apply(i, Function::IsNan, &[n.input(0)?], Elem::Bool)?])),
    ("Less", |i, n| compare(i, n, Function::Less, false)),
    ("LessOrEqual", |i, n| compare(i, n, Function::LessOrEqual, false)),
    ("Mod", modulo),
    ("Not", |i, n| logic(i, n, Function::Not)),
    ("Or", |i, n| logic(i, n, Function::Or)),
    ("Where", |i, n| {
        let (condition, a, b) = (n.input(0)?, n.input(1)?, n.input(2)?);
        Ok(vec![apply(i, Function::Where, &[condition, a, b], a.elem())?])
    }),
    ("Xor", |i, n| logic(i, n, Function::Xor)),
];

/// `function` of values, broadcast; integers narrower than the device's wrap as their type does.
pub fn apply(import: &mut Import, function: Function, values: &[&Value], elem: Elem) -> Result<Value> {
    let mut dims = Vec::new();
    for value in values {
        dims = shape::broadcast(&dims, value.shape())?;
        if matches!(value.elem(), Elem::F64 | Elem::U32 | Elem::U64) && matches!(value, Value::Device(_)) {
            return Err(format!("{} on the device is not supported", value.elem()));
        }
    }
    let (ids, axes) = aligned(import, values, dims.len())?;
    let mut y = import.graph.typed(function, &ids).map_err(plain)?;
    let moves = matches!(function, Function::Where | Function::Min | Function::Max);
    if let (Some((bits, signed)), false) = (narrow(elem), moves) {
        y = import.graph.typed(Function::Wrap { bits, signed }, &[y]).map_err(plain)?;
    }
    Ok(import.result(y, axes, elem))
}

/// Bits and sign of integers that are narrower than the device's.
pub fn narrow(elem: Elem) -> Option<(u32, bool)> {
    match elem {
        Elem::I8 => Some((8, true)),
        Elem::U8 => Some((8, false)),
        Elem::I16 => Some((16, true)),
        Elem::U16 => Some((16, false)),
        _ => None,
    }
}

/// A value in another type.
pub fn cast(import: &mut Import, value: &Value, to: Elem) -> Result<Value> {
    let from = value.elem();
    if from == to {
        return Ok(value.clone());
    }
    let held = |elem: Elem| !matches!(elem, Elem::F64 | Elem::U32 | Elem::U64);
    if !held(from) || !held(to) {
        return Err(format!("{from} to {to} on the device is not supported"));
    }
    let rounds = |elem: Elem| matches!(elem, Elem::F16 | Elem::BF16);
    if rounds(to) {
        return Err(format!("rounding to {to} on the device is not supported"));
    }
    let x = import.device(value)?;
    let mut y = import.graph.convert(x.id, to.dtype()).map_err(plain)?;
    if let (Some((bits, signed)), false) = (narrow(to), from == Elem::Bool) {
        y = import.graph.typed(Function::Wrap { bits, signed }, &[y]).map_err(plain)?;
    }
    Ok(import.result(y, x.axes, to))
}

fn logic(import: &mut Import, node: &Node, function: Function) -> Result<Vec<Value>> {
    let inputs: Vec<&Value> = node.inputs.iter().flatten().collect();
    match inputs.iter().find(|v| v.elem() != Elem::Bool) {
        Some(v) => Err(format!("wants booleans, found {}", v.elem())),
        None => Ok(vec![apply(import, function, &inputs, Elem::Bool)?]),
    }
}

fn bits(import: &mut Import, node: &Node, function: Function) -> Result<Vec<Value>> {
    let inputs: Vec<&Value> = node.inputs.iter().flatten().collect();
    Ok(vec![apply(import, function, &inputs, node.input(0)?.elem())?])
}

fn compare(import: &mut Import, node: &Node, function: Function, swapped: bool) -> Result<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let pair = if swapped { [b, a] } else { [a, b] };
    Ok(vec![apply(import, function, &pair, Elem::Bool)?])
}

fn modulo(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let function = match (node.int("fmod", 0) != 0, a.elem().is_float()) {
        (true, _) => Function::Remainder,
        (false, false) => Function::Modulo,
        (false, true) => return Err("floating-point numbers want fmod = 1".to_owned()),
    };
    Ok(vec![apply(import, function, &[a, b], a.elem())?])
}

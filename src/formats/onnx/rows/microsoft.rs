//! Operators of ONNX Runtime's own domain, com.microsoft, that its quantiser writes.
//!
//! But for `QGemm` they are float operators between two grids: read as numbers, computed in f32 and rounded to the grid
//! of the result.

use super::super::elem::Elem;
use super::super::import::{Import, Node, Result, Value, with_int};
use super::super::proto;
use super::quantized::{self, Grid};
use super::{Row, find};

pub const ROWS: &[(&str, Row)] = &[
    ("DequantizeLinear", |i, n| find("", "DequantizeLinear")?(i, n)),
    ("QGemm", gemm),
    ("QLinearAdd", |i, n| pair(i, n, "Add")),
    ("QLinearAveragePool", |i, n| pool(i, n, "AveragePool")),
    ("QLinearConcat", concat),
    ("QLinearGlobalAveragePool", |i, n| pool(i, n, "GlobalAveragePool")),
    ("QLinearLeakyRelu", |i, n| one(i, n, "LeakyRelu", attributes(n))),
    ("QLinearMul", |i, n| pair(i, n, "Mul")),
    ("QLinearSigmoid", |i, n| one(i, n, "Sigmoid", vec![])),
    ("QuantizeLinear", |i, n| find("", "QuantizeLinear")?(i, n)),
];

fn attributes(node: &Node) -> Vec<proto::Attribute> {
    node.proto.attribute.clone()
}

/// `op` of one value: x, its scale and zero point, the result's scale and zero point.
fn one(import: &mut Import, node: &Node, op: &str, attributes: Vec<proto::Attribute>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let x = quantized::numbers(import, value, Grid::of(node, 1)?)?;
    let y = import.call(op, &[&x], attributes)?;
    Ok(vec![quantized::integers(import, &y, Grid::of(node, 3)?, value.elem())?])
}

/// `op` of two values, each with scale and zero point after it, then those of the result.
fn pair(import: &mut Import, node: &Node, op: &str) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let a = quantized::numbers(import, value, Grid::of(node, 1)?)?;
    let b = quantized::numbers(import, node.input(3)?, Grid::of(node, 4)?)?;
    let y = import.call(op, &[&a, &b], vec![])?;
    Ok(vec![quantized::integers(import, &y, Grid::of(node, 6)?, value.elem())?])
}

fn pool(import: &mut Import, node: &Node, op: &str) -> Result<Vec<Value>> {
    if node.int("channels_last", 0) != 0 {
        return Err("channels that lie last are not supported".to_owned());
    }
    one(import, node, op, attributes(node))
}

/// The result's scale and zero point, then each part with its own.
fn concat(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let mut parts = Vec::new();
    for i in (2..node.inputs.len()).step_by(3) {
        parts.push(quantized::numbers(import, node.input(i)?, Grid::of(node, i + 1)?)?);
    }
    let parts: Vec<&Value> = parts.iter().collect();
    let y = import.call("Concat", &parts, attributes(node))?;
    Ok(vec![quantized::integers(import, &y, Grid::of(node, 0)?, node.input(2)?.elem())?])
}

/// `alpha · a · b + c`, exact sums of integers; numbers, if there is no scale for the result.
fn gemm(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.input(3)?);
    if a.rank() != 2 || b.rank() != 2 {
        return Err(format!("wants matrices, found {:?} and {:?}", a.shape(), b.shape()));
    }
    let alpha = node.float("alpha", 1.0);
    if alpha != 1.0 {
        return Err(format!("alpha {alpha} is not supported"));
    }
    let mut side = |value: &Value, name: &str| match node.int(name, 0) {
        0 => Ok(value.clone()),
        _ => import.call("Transpose", &[value], vec![]),
    };
    let (left, right) = (side(a, "transA")?, side(b, "transB")?);
    let sums = quantized::multiplied(import, [(&left, node.optional(2)), (&right, node.optional(5))])?;
    let sums = quantized::with_bias(import, sums, node.optional(6))?;
    let (x, w) = (node.input(1)?, node.input(4)?);
    match node.optional(7) {
        Some(scale) => {
            let elem = node.optional(8).map_or(a.elem(), Value::elem);
            let y = quantized::requantized(import, sums, [x, w, scale], node.optional(8), elem)?;
            Ok(vec![import.plain_result(y, elem)])
        }
        None => {
            let scale = import.call("Mul", &[x, w], vec![])?;
            let sums = import.plain_result(sums, Elem::I32);
            Ok(vec![import.call("DequantizeLinear", &[&sums, &scale], vec![with_int("axis", 1)])?])
        }
    }
}

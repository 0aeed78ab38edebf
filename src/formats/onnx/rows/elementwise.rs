//! Operators that work element by element, operands broadcast.

use super::super::elem::Elem;
use super::super::host::Host;
use super::super::import::{Import, Node, Result, Value, ints, plain};
use super::super::shape;
use super::Row;
use super::typed;
use crate::graph::ValueId;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::typed::Function;

pub const ROWS: &[(&str, Row)] = &[
    ("Abs", |i, n| signed(i, n, Unary::Abs, Function::Abs)),
    ("Add", |i, n| binary(i, n, Binary::Add)),
    ("BatchNormalization", batch_normalization),
    ("Ceil", |i, n| unary(i, n, Unary::Ceil)),
    ("Clip", clip),
    ("Cos", |i, n| unary(i, n, Unary::Cos)),
    ("Div", |i, n| binary(i, n, Binary::Div)),
    ("Dropout", dropout),
    ("Elu", |i, n| unary(i, n, Unary::Elu(n.float("alpha", 1.0)))),
    ("Erf", |i, n| unary(i, n, Unary::Erf)),
    ("Exp", |i, n| unary(i, n, Unary::Exp)),
    ("Floor", |i, n| unary(i, n, Unary::Floor)),
    ("Gelu", |i, n| {
        let tanh = n.string("approximate", "none") == "tanh";
        unary(i, n, if tanh { Unary::GeluTanh } else { Unary::Gelu })
    }),
    ("HardSigmoid", hard_sigmoid),
    ("HardSwish", |i, n| unary(i, n, Unary::HardSwish)),
    ("Identity", |_, n| Ok(vec![n.input(0)?.clone()])),
    ("LeakyRelu", |i, n| unary(i, n, Unary::LeakyRelu(n.float("alpha", 0.01)))),
    ("Log", |i, n| unary(i, n, Unary::Log)),
    ("Max", |i, n| binary(i, n, Binary::Max)),
    ("Min", |i, n| binary(i, n, Binary::Min)),
    ("Mish", |i, n| unary(i, n, Unary::Mish)),
    ("Mul", |i, n| binary(i, n, Binary::Mul)),
    ("Neg", |i, n| signed(i, n, Unary::Neg, Function::Neg)),
    ("PRelu", prelu),
    ("Pow", pow),
    ("Reciprocal", |i, n| unary(i, n, Unary::Reciprocal)),
    ("Relu", |i, n| unary(i, n, Unary::Relu)),
    ("Round", |i, n| unary(i, n, Unary::Round)),
    ("Sigmoid", |i, n| unary(i, n, Unary::Sigmoid)),
    ("Sign", |i, n| signed(i, n, Unary::Sign, Function::Sign)),
    ("Sin", |i, n| unary(i, n, Unary::Sin)),
    ("Softplus", |i, n| unary(i, n, Unary::Softplus)),
    ("Sqrt", |i, n| unary(i, n, Unary::Sqrt)),
    ("Sub", |i, n| binary(i, n, Binary::Sub)),
    ("Sum", |i, n| binary(i, n, Binary::Add)),
    ("Swish", swish),
    ("Tanh", |i, n| unary(i, n, Unary::Tanh)),
];

/// Refuses what would be computed in f32 although it is not.
fn floats(values: &[&Value]) -> Result<()> {
    match values.iter().find(|v| !v.elem().is_float()) {
        Some(v) => Err(format!("{} on the device is not supported", v.elem())),
        None => Ok(()),
    }
}

fn unary(import: &mut Import, node: &Node, f: Unary) -> Result<Vec<Value>> {
    map(import, node, Expr::unary(f, Expr::input(0)))
}

/// `expr` of the first input, whose order of axes stays.
fn map(import: &mut Import, node: &Node, expr: Expr) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    floats(&[value])?;
    let x = import.device(value)?;
    let y = import.graph.elementwise(expr, &[x.id]).map_err(plain)?;
    Ok(vec![import.result(y, x.axes, x.elem)])
}

/// `expr` of several values, broadcast.
pub fn broadcast(import: &mut Import, values: &[&Value], expr: Expr, elem: Elem) -> Result<Value> {
    let mut dims = Vec::new();
    for value in values {
        dims = shape::broadcast(&dims, value.shape())?;
    }
    let (ids, axes) = aligned(import, values, dims.len())?;
    let y = import.graph.elementwise(expr, &ids).map_err(plain)?;
    Ok(import.result(y, axes, elem))
}

/// Values on the device with as many axes as the widest, all in the order of the largest of those that have them all.
pub fn aligned(import: &mut Import, values: &[&Value], rank: usize) -> Result<(Vec<ValueId>, Vec<usize>)> {
    let computed = |v: &&&Value| matches!(v, Value::Device(_)) && v.rank() == rank;
    let lead = values.iter().filter(computed).max_by_key(|v| v.elements());
    let axes: Vec<usize> = match lead {
        Some(Value::Device(d)) => d.axes.clone(),
        _ => (0..rank).collect(),
    };
    let mut ids = Vec::with_capacity(values.len());
    for value in values {
        let missing = rank - value.rank();
        // The order of the axes that it has; those that it lacks are of size one.
        let own: Vec<usize> = axes.iter().filter(|&&a| a >= missing).map(|a| a - missing).collect();
        let mut id = import.ordered(value, &own)?;
        if missing > 0 && value.elements() > 1 {
            let at = |a: usize| if a < missing { 1 } else { value.shape()[a - missing] };
            let dims: Vec<usize> = axes.iter().map(|&a| at(a)).collect();
            id = import.graph.reshape(id, dims).map_err(plain)?;
        }
        ids.push(id);
    }
    Ok((ids, axes))
}

fn binary(import: &mut Import, node: &Node, f: Binary) -> Result<Vec<Value>> {
    let inputs: Vec<&Value> = node.inputs.iter().flatten().collect();
    let (first, rest) = inputs.split_first().ok_or("it has no inputs")?;
    if !first.elem().is_float() {
        let function = match f {
            Binary::Add => Function::Add,
            Binary::Sub => Function::Sub,
            Binary::Mul => Function::Mul,
            Binary::Div => Function::Div,
            Binary::Min => Function::Min,
            Binary::Max => Function::Max,
            Binary::Pow => Function::Power,
        };
        let mut total = (*first).clone();
        for value in rest {
            total = typed::apply(import, function, &[&total, value], first.elem())?;
        }
        return Ok(vec![total]);
    }
    floats(&inputs)?;
    let mut total = (*first).clone();
    for value in rest {
        let expr = Expr::binary(f, Expr::input(0), Expr::input(1));
        // A number that is known goes into the formula.
        let known = match value {
            Value::Host(host) if host.elements() == 1 && value.rank() <= total.rank() => {
                Some(host.to_floats()[0])
            }
            _ => None,
        };
        total = match (known, &total) {
            (Some(c), Value::Device(x)) => {
                let expr = Expr::binary(f, Expr::input(0), Expr::Const(c as f32));
                let y = import.graph.elementwise(expr, &[x.id]).map_err(plain)?;
                import.result(y, x.axes.clone(), x.elem)
            }
            _ => broadcast(import, &[&total, value], expr, first.elem())?,
        };
    }
    Ok(vec![total])
}

fn signed(import: &mut Import, node: &Node, f: Unary, of_integers: Function) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    match value.elem().is_float() {
        true => unary(import, node, f),
        false => Ok(vec![typed::apply(import, of_integers, &[value], value.elem())?]),
    }
}

fn pow(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (base, exponent) = (node.input(0)?, node.input(1)?);
    match (base.elem(), exponent.elem()) {
        (a, b) if a.is_float() && !b.is_float() => {
            let exponent = typed::cast(import, exponent, a)?;
            let expr = Expr::binary(Binary::Pow, Expr::input(0), Expr::input(1));
            return Ok(vec![broadcast(import, &[base, &exponent], expr, a)?]);
        }
        (a, b) if !a.is_float() && b.is_float() => {
            return Err(format!("{a} to a power of {b} is not supported"));
        }
        _ => {}
    }
    match node.optional(1) {
        Some(Value::Host(host)) if host.elements() == 1 && node.input(0)?.elem().is_float() => {
            let exponent = host.to_floats()[0];
            match exponent {
                2.0 => unary(import, node, Unary::Square),
                0.5 => unary(import, node, Unary::Sqrt),
                _ => {
                    map(import, node, Expr::binary(Binary::Pow, Expr::input(0), Expr::Const(exponent as f32)))
                }
            }
        }
        _ => binary(import, node, Binary::Pow),
    }
}

fn clip(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let bound = |i: usize, name: &str| -> Result<Option<Value>> {
        match node.has(name) {
            true => {
                let value = f64::from(node.float(name, 0.0));
                Ok(Some(Host::floats(Elem::F32, vec![], vec![value]).into()))
            }
            false => Ok(node.optional(i).cloned()),
        }
    };
    let (low, high) = (bound(1, "min")?, bound(2, "max")?);
    let mut value = node.input(0)?.clone();
    floats(&[&value])?;
    for (bound, f) in [(low, Binary::Max), (high, Binary::Min)] {
        let Some(bound) = bound else { continue };
        value = match (&bound, &value) {
            (Value::Host(host), Value::Device(x)) => {
                let bound = host.to_floats().first().copied().ok_or("its bound is empty")?;
                let expr = Expr::binary(f, Expr::input(0), Expr::Const(bound as f32));
                let y = import.graph.elementwise(expr, &[x.id]).map_err(plain)?;
                import.result(y, x.axes.clone(), x.elem)
            }
            _ => {
                let expr = Expr::binary(f, Expr::input(0), Expr::input(1));
                broadcast(import, &[&value, &bound], expr, value.elem())?
            }
        };
    }
    Ok(vec![value])
}

fn prelu(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (x, slope) = (node.input(0)?, node.input(1)?);
    floats(&[x, slope])?;
    // Before version 9 a vector is one number a channel.
    let slope = &match (slope.shape(), x.rank()) {
        (&[c], rank) if rank > 2 && c > 1 && import.opset < 9 => {
            let dims = [&[c as i64][..], &vec![1; rank - 2]].concat();
            import.call("Reshape", &[slope, &ints(&dims)], vec![])?
        }
        _ => slope.clone(),
    };
    let zero = || Expr::Const(0.0);
    let positive = Expr::binary(Binary::Max, Expr::input(0), zero());
    let negative =
        Expr::binary(Binary::Mul, Expr::binary(Binary::Min, Expr::input(0), zero()), Expr::input(1));
    Ok(vec![broadcast(import, &[x, slope], Expr::binary(Binary::Add, positive, negative), x.elem())?])
}

fn hard_sigmoid(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
    let scaled = Expr::binary(Binary::Mul, Expr::input(0), Expr::Const(alpha));
    map(import, node, Expr::clamp(Expr::binary(Binary::Add, scaled, Expr::Const(beta)), 0.0, 1.0))
}

fn swish(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let alpha = node.float("alpha", 1.0);
    if alpha == 1.0 {
        return unary(import, node, Unary::Silu);
    }
    let scaled = Expr::binary(Binary::Mul, Expr::input(0), Expr::Const(alpha));
    map(import, node, Expr::binary(Binary::Mul, Expr::input(0), Expr::unary(Unary::Sigmoid, scaled)))
}

fn dropout(_: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let training = match node.optional(2) {
        Some(Value::Host(host)) => host.as_ints().is_some_and(|v| v.iter().any(|&v| v != 0)),
        Some(Value::Device(_)) => return Err("whether it trains must be known".to_owned()),
        None => false,
    };
    if training {
        return Err("training is not supported".to_owned());
    }
    // All is kept.
    let value = node.input(0)?;
    let mask = match node.wants(1) {
        true => vec![Host::ints(Elem::Bool, value.shape().to_vec(), vec![1; value.elements()]).into()],
        false => vec![],
    };
    Ok([vec![value.clone()], mask].concat())
}

fn batch_normalization(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    if node.int("training_mode", 0) != 0 || (import.opset < 14 && import.opset >= 7 && node.wants(1)) {
        return Err("training is not supported".to_owned());
    }
    let value = node.input(0)?;
    floats(&[value])?;
    if value.rank() < 2 {
        return Err(format!("wants [n, c, …], found {:?}", value.shape()));
    }
    let x = import.channels_last(value)?;
    let mut vectors = Vec::with_capacity(4);
    for i in 1..5 {
        vectors.push(import.plain(node.input(i)?)?);
    }
    let [weight, bias, mean, variance] = vectors[..] else { unreachable!("four were pushed") };
    let eps = node.float("epsilon", 1e-5);
    let y = import.graph.batch_norm(x, weight, bias, mean, variance, eps).map_err(plain)?;
    Ok(vec![import.channels_last_result(y, value.elem())])
}

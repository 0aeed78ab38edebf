//! Operators that are formulas over others.

use super::super::elem::Elem;
use super::super::host::Host;
use super::super::import::{
    Import, Node, Result, Value, axis, ints, number, plain, size, with_int, with_ints,
};
use super::Row;
use super::typed;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::typed::Function;

pub const ROWS: &[(&str, Row)] = &[
    ("Acos", |i, n| map(i, n, |x| Expr::unary(Unary::Acos, x))),
    ("Acosh", |i, n| map(i, n, |x| Expr::unary(Unary::Acosh, x))),
    ("Asin", |i, n| map(i, n, |x| Expr::unary(Unary::Asin, x))),
    ("Asinh", |i, n| map(i, n, |x| Expr::unary(Unary::Asinh, x))),
    ("Atan", |i, n| map(i, n, |x| Expr::unary(Unary::Atan, x))),
    ("Atanh", |i, n| map(i, n, |x| Expr::unary(Unary::Atanh, x))),
    ("Cosh", |i, n| map(i, n, |x| Expr::unary(Unary::Cosh, x))),
    ("Sinh", |i, n| map(i, n, |x| Expr::unary(Unary::Sinh, x))),
    ("Tan", |i, n| map(i, n, |x| Expr::unary(Unary::Tan, x))),
    ("Celu", |i, n| {
        let alpha = n.float("alpha", 1.0);
        map(i, n, |x| {
            x.clone().max(0.0).plus((x.times(1.0 / alpha).exp().plus_number(-1.0)).times(alpha).min(0.0))
        })
    }),
    ("EyeLike", eye_like),
    ("Hardmax", hardmax),
    ("LpNormalization", lp_normalization),
    ("Mean", mean),
    ("MeanVarianceNormalization", mean_variance_normalization),
    ("OneHot", one_hot),
    ("RMSNormalization", rms_normalization),
    ("ReduceLogSumExp", reduce_log_sum_exp),
    ("RotaryEmbedding", rotary_embedding),
    ("Selu", |i, n| {
        let (alpha, gamma) = (n.float("alpha", 1.673_263_2), n.float("gamma", 1.050_701));
        map(i, n, |x| x.clone().max(0.0).plus(x.min(0.0).exp().plus_number(-1.0).times(alpha)).times(gamma))
    }),
    ("Shrink", shrink),
    ("Softsign", |i, n| {
        map(i, n, |x| Expr::binary(Binary::Div, x.clone(), Expr::unary(Unary::Abs, x).plus_number(1.0)))
    }),
    ("SwiGLU", |i, n| {
        let gate = i.call("Swish", &[n.input(0)?], n.proto.attribute.clone())?;
        Ok(vec![i.call("Mul", &[&gate, n.input(1)?], vec![])?])
    }),
    ("ThresholdedRelu", thresholded_relu),
    ("Trilu", trilu),
];

/// Formulas of one value, written in the order in which they are read.
trait Formula {
    fn plus(self, other: Expr) -> Expr;
    fn plus_number(self, c: f32) -> Expr;
    fn times(self, c: f32) -> Expr;
    fn exp(self) -> Expr;
}

impl Formula for Expr {
    fn plus(self, other: Expr) -> Expr {
        Expr::binary(Binary::Add, self, other)
    }
    fn plus_number(self, c: f32) -> Expr {
        Expr::binary(Binary::Add, self, Expr::Const(c))
    }
    fn times(self, c: f32) -> Expr {
        Expr::binary(Binary::Mul, self, Expr::Const(c))
    }
    fn exp(self) -> Expr {
        Expr::unary(Unary::Exp, self)
    }
}

fn map(import: &mut Import, node: &Node, formula: impl FnOnce(Expr) -> Expr) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if !value.elem().is_float() {
        return Err(format!("{} is not supported", value.elem()));
    }
    let x = import.device(value)?;
    let y = import.graph.elementwise(formula(Expr::input(0)), &[x.id]).map_err(plain)?;
    Ok(vec![import.result(y, x.axes, x.elem)])
}

fn hardmax(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let rank = value.rank();
    let (value, shape) = match import.opset < 13 {
        // Before version 13 all axes from one on are taken together.
        true => {
            let at = axis(node.int("axis", 1), rank)?;
            let rows =
                [&value.shape()[..at], &value.shape()[at..]].map(|s| s.iter().product::<usize>() as i64);
            (import.call("Reshape", &[value, &ints(&rows)], vec![])?, value.shape().to_vec())
        }
        false => (value.clone(), value.shape().to_vec()),
    };
    let at = if import.opset < 13 { 1 } else { axis(node.int("axis", -1), rank)? };
    let best = import.call("ArgMax", &[&value], vec![with_int("axis", at as i64)])?;
    let n = value.shape()[at];
    let mut dims = vec![1; value.rank()];
    dims[at] = n;
    import.room(&dims)?;
    let count = Value::Host(Host::ints(Elem::I64, dims, (0..n as i64).collect()));
    let same = import.call("Equal", &[&best, &count], vec![])?;
    let y = typed::cast(import, &same, value.elem())?;
    let dims: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    Ok(vec![import.call("Reshape", &[&y, &ints(&dims)], vec![])?])
}

fn lp_normalization(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let at = axis(node.int("axis", -1), value.rank())? as i64;
    let op = match node.int("p", 2) {
        1 => "ReduceL1",
        2 => "ReduceL2",
        p => return Err(format!("p = {p} is not supported")),
    };
    let norm = import.call(op, &[value], vec![with_ints("axes", &[at])])?;
    // A line of zeros stays one.
    let none = import.call("Equal", &[&norm, &number(value.elem(), 0.0)], vec![])?;
    let norm = import.call("Where", &[&none, &number(value.elem(), 1.0), &norm], vec![])?;
    Ok(vec![import.call("Div", &[value, &norm], vec![])?])
}

fn mean(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let inputs: Vec<&Value> = node.inputs.iter().flatten().collect();
    let sum = import.call("Sum", &inputs, vec![])?;
    Ok(vec![import.call("Div", &[&sum, &number(sum.elem(), inputs.len() as f64)], vec![])?])
}

fn mean_variance_normalization(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let axes = node.list("axes").map_or(vec![0, 2, 3], <[i64]>::to_vec);
    let mean = import.call("ReduceMean", &[value], vec![with_ints("axes", &axes)])?;
    let centred = import.call("Sub", &[value, &mean], vec![])?;
    let squares = import.call("Mul", &[&centred, &centred], vec![])?;
    let variance = import.call("ReduceMean", &[&squares], vec![with_ints("axes", &axes)])?;
    let deviation = import.call("Sqrt", &[&variance], vec![])?;
    let deviation = import.call("Add", &[&deviation, &number(value.elem(), 1e-9)], vec![])?;
    Ok(vec![import.call("Div", &[&centred, &deviation], vec![])?])
}

fn one_hot(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (indices, values) = (node.input(0)?, node.input(2)?);
    let depth = *node.host(1)?.to_floats().first().ok_or("no depth is given")? as i64;
    let rank = indices.rank() + 1;
    let at = axis(node.int("axis", -1), rank)?;
    let depth = size(depth)?;
    import.room(&[depth])?;
    let whole = typed::cast(import, indices, Elem::I64)?;
    let whole = import.call("Unsqueeze", &[&whole, &ints(&[at as i64])], vec![])?;
    // Negative indices count from the end; others outside are nowhere.
    let below = import.call("Less", &[&whole, &number(Elem::I64, 0.0)], vec![])?;
    let wrapped = import.call("Add", &[&whole, &number(Elem::I64, depth as f64)], vec![])?;
    let whole = import.call("Where", &[&below, &wrapped, &whole], vec![])?;
    let mut dims = vec![1; rank];
    dims[at] = depth;
    let count = Value::Host(Host::ints(Elem::I64, dims, (0..depth as i64).collect()));
    let hot = import.call("Equal", &[&whole, &count], vec![])?;
    let off = import.call("Gather", &[values, &number(Elem::I64, 0.0)], vec![])?;
    let on = import.call("Gather", &[values, &number(Elem::I64, 1.0)], vec![])?;
    Ok(vec![import.call("Where", &[&hot, &on, &off], vec![])?])
}

fn rms_normalization(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, scale) = (node.input(0)?, node.input(1)?);
    let rank = value.rank();
    let first = axis(node.int("axis", -1), rank)?;
    let row: usize = value.shape()[first..].iter().product();
    let eps = node.float("epsilon", 1e-5);
    let shape = value.shape().to_vec();
    let x = import.plain(value)?;
    let g = &mut *import.graph;
    let x = g.reshape(x, [x_rows(&shape, first), row]).map_err(plain)?;
    let y = g.rms_norm(x, None, eps).map_err(plain)?;
    let y = g.reshape(y, shape).map_err(plain)?;
    let y = import.plain_result(y, value.elem());
    Ok(vec![import.call("Mul", &[&y, scale], vec![])?])
}

fn x_rows(shape: &[usize], first: usize) -> usize {
    shape[..first].iter().product()
}

fn reduce_log_sum_exp(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let rank = value.rank();
    let axes = match super::super::shape::axes(node, 1, rank)? {
        Some(axes) if !axes.is_empty() => axes,
        _ if node.int("noop_with_empty_axes", 0) != 0 => return Ok(vec![value.clone()]),
        _ => (0..rank).collect(),
    };
    let axes: Vec<i64> = axes.into_iter().map(|a| a as i64).collect();
    // The largest is taken out so that nothing overflows.
    let most = import.call("ReduceMax", &[value], vec![with_ints("axes", &axes)])?;
    let rest = import.call("Sub", &[value, &most], vec![])?;
    let rest = import.call("Exp", &[&rest], vec![])?;
    let sum = import.call("ReduceSum", &[&rest], vec![with_ints("axes", &axes)])?;
    let log = import.call("Log", &[&sum], vec![])?;
    let y = import.call("Add", &[&log, &most], vec![])?;
    match node.int("keepdims", 1) {
        0 => Ok(vec![import.call("Squeeze", &[&y, &ints(&axes)], vec![])?]),
        _ => Ok(vec![y]),
    }
}

/// Pairs of numbers turned by angles that depend on the position (Su et al. 2021, "RoFormer").
fn rotary_embedding(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let perm = [with_ints("perm", &[0, 2, 1, 3])];
    // As [batch, sequence, heads, size].
    let x = match *value.shape() {
        [_, _, _, _] => import.call("Transpose", &[value], perm.to_vec())?,
        [batch, sequence, width] => {
            let heads = size(node.int("num_heads", 0))?;
            if heads == 0 || !width.is_multiple_of(heads) {
                return Err(format!("{width} numbers are not those of {heads} heads"));
            }
            let dims = [batch, sequence, heads, width / heads].map(|d| d as i64);
            import.call("Reshape", &[value, &ints(&dims)], vec![])?
        }
        _ => return Err(format!("wants three or four axes, found {:?}", value.shape())),
    };
    let width = x.shape()[3];
    let turned = match size(node.int("rotary_embedding_dim", 0))? {
        0 => width,
        n => n,
    };
    if turned > width || !turned.is_multiple_of(2) || turned == 0 {
        return Err(format!("of {width} numbers {turned} cannot be turned in pairs"));
    }
    let mut angle = |i: usize| -> Result<Value> {
        let cache = node.input(i)?;
        let cache = match node.optional(3) {
            Some(positions) => import.call("Gather", &[cache, positions], vec![])?,
            None => cache.clone(),
        };
        if cache.shape() != [x.shape()[0], x.shape()[1], turned / 2] {
            return Err(format!("angles {:?} are not those of {:?}", cache.shape(), x.shape()));
        }
        import.call("Unsqueeze", &[&cache, &ints(&[2])], vec![])
    };
    let (cos, sin) = (angle(1)?, angle(2)?);
    let mut part = |start: usize, stop: usize, step: i64| {
        let [start, stop] = [start, stop].map(|v| ints(&[v as i64]));
        import.call("Slice", &[&x, &start, &stop, &ints(&[3]), &ints(&[step])], vec![])
    };
    let interleaved = node.int("interleaved", 0) != 0;
    let (a, b) = match interleaved {
        true => (part(0, turned, 2)?, part(1, turned, 2)?),
        false => (part(0, turned / 2, 1)?, part(turned / 2, turned, 1)?),
    };
    let rest = if turned < width { Some(part(turned, width, 1)?) } else { None };
    let mut turn = |p: &Value, q: &Value, op: &str| -> Result<Value> {
        let p = import.call("Mul", &[&cos, p], vec![])?;
        let q = import.call("Mul", &[&sin, q], vec![])?;
        import.call(op, &[&p, &q], vec![])
    };
    let (real, imaginary) = (turn(&a, &b, "Sub")?, turn(&b, &a, "Add")?);
    let mut y = match interleaved {
        true => {
            let real = import.call("Unsqueeze", &[&real, &ints(&[4])], vec![])?;
            let imaginary = import.call("Unsqueeze", &[&imaginary, &ints(&[4])], vec![])?;
            let both = import.call("Concat", &[&real, &imaginary], vec![with_int("axis", 4)])?;
            let dims = [&x.shape()[..3], &[turned]].concat();
            let dims: Vec<i64> = dims.into_iter().map(|d| d as i64).collect();
            import.call("Reshape", &[&both, &ints(&dims)], vec![])?
        }
        false => import.call("Concat", &[&real, &imaginary], vec![with_int("axis", 3)])?,
    };
    if let Some(rest) = rest {
        y = import.call("Concat", &[&y, &rest], vec![with_int("axis", 3)])?;
    }
    Ok(vec![match value.rank() {
        4 => import.call("Transpose", &[&y], perm.to_vec())?,
        _ => {
            let dims: Vec<i64> = value.shape().iter().map(|&d| d as i64).collect();
            import.call("Reshape", &[&y, &ints(&dims)], vec![])?
        }
    }])
}

fn trilu(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let rank = value.rank();
    if rank < 2 {
        return Err(format!("wants matrices, found {:?}", value.shape()));
    }
    let k = node.optional_ints(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let upper = node.int("upper", 1) != 0;
    let (rows, columns) = (value.shape()[rank - 2], value.shape()[rank - 1]);
    if value.elements() == 0 {
        return Ok(vec![value.clone()]);
    }
    import.room(&[rows, columns])?;
    let keep = (0..rows * columns).map(|i| {
        let distance = (i % columns) as i64 - (i / columns) as i64;
        i64::from(if upper { distance >= k } else { distance <= k })
    });
    let mask = Value::Host(Host::ints(Elem::Bool, vec![rows, columns], keep.collect()));
    let zero = number(value.elem(), 0.0);
    Ok(vec![typed::apply(import, Function::Where, &[&mask, value, &zero], value.elem())?])
}

fn eye_like(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let &[rows, columns] = value.shape() else {
        return Err(format!("wants a matrix, found {:?}", value.shape()));
    };
    let elem = match node.has("dtype") {
        true => Elem::from_code(node.int("dtype", 1) as i32)?,
        false => value.elem(),
    };
    let k = node.int("k", 0);
    import.room(&[rows, columns])?;
    let one = |i: usize| (i % columns) as i64 - (i / columns) as i64 == k;
    let ones: Vec<i64> = (0..rows * columns).map(|i| i64::from(one(i))).collect();
    Ok(vec![match elem.is_float() {
        true => Host::floats(elem, vec![rows, columns], ones.into_iter().map(|v| v as f64).collect()).into(),
        false => Host::ints(elem, vec![rows, columns], ones).into(),
    }])
}

fn shrink(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let elem = value.elem();
    let (bias, lambda) = (f64::from(node.float("bias", 0.0)), f64::from(node.float("lambd", 0.5)));
    let low = import.call("Less", &[value, &number(elem, -lambda)], vec![])?;
    let high = import.call("Greater", &[value, &number(elem, lambda)], vec![])?;
    let up = import.call("Add", &[value, &number(elem, bias)], vec![])?;
    let down = import.call("Sub", &[value, &number(elem, bias)], vec![])?;
    let rest = import.call("Where", &[&high, &down, &number(elem, 0.0)], vec![])?;
    Ok(vec![import.call("Where", &[&low, &up, &rest], vec![])?])
}

fn thresholded_relu(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let alpha = number(value.elem(), f64::from(node.float("alpha", 1.0)));
    let above = import.call("Greater", &[value, &alpha], vec![])?;
    Ok(vec![import.call("Where", &[&above, value, &number(value.elem(), 0.0)], vec![])?])
}

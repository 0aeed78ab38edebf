//! Quantised operators: numbers as 8- or 16-bit integers with a scale and a zero point.
//!
//! On the device these integers are i32, and sums of their products are exact. Weights stay bytes until the network is
//! loaded. What the standard defines by integers comes out as it says; a sum is brought to the result's scale in f32 by
//! one factor, the product of the scales of both sides over that of the result, as ONNX Runtime does it.

use super::super::elem::Elem;
use super::super::import::{Import, Node, Result, Value, axis, ints, number, plain, size, with_int};
use super::{Row, layers, typed};
use crate::graph::{Source, ValueId};
use crate::ops::Op;
use crate::ops::expr::Binary;
use crate::ops::quantize::{Per, Quantize};
use crate::ops::reduce::Reduction;
use crate::ops::typed::Function;

pub const ROWS: &[(&str, Row)] = &[
    ("ConvInteger", conv_integer),
    ("DequantizeLinear", dequantize_linear),
    ("DynamicQuantizeLinear", dynamic_quantize_linear),
    ("MatMulInteger", matmul_integer),
    ("QLinearConv", qlinear_conv),
    ("QLinearMatMul", qlinear_matmul),
    ("QuantizeLinear", quantize_linear),
];

/// A tensor's scale and zero point.
#[derive(Clone, Copy)]
pub struct Grid<'v> {
    pub scale: &'v Value,
    pub zero: Option<&'v Value>,
}

impl<'v> Grid<'v> {
    /// Of the inputs `i` and `i + 1`.
    pub fn of(node: &'v Node, i: usize) -> Result<Self> {
        Ok(Grid { scale: node.input(i)?, zero: node.optional(i + 1) })
    }

    /// The scale, one number, and the zero point, on the device.
    fn one(self, import: &mut Import) -> Result<(ValueId, Option<ValueId>)> {
        if self.scale.elements() != 1 || self.zero.is_some_and(|z| z.elements() != 1) {
            return Err(format!("wants one scale and zero point, found {:?}", self.scale.shape()));
        }
        let scale = import.plain(self.scale)?;
        let scale = import.graph.reshape(scale, [1]).map_err(plain)?;
        let Some(zero) = self.zero.filter(|z| !nothing(z)) else { return Ok((scale, None)) };
        let zero = import.plain(zero)?;
        Ok((scale, Some(import.graph.reshape(zero, [1]).map_err(plain)?)))
    }
}

/// Whether a zero point is known to be zero.
fn nothing(zero: &Value) -> bool {
    let Value::Host(host) = zero else { return false };
    host.as_ints().is_some_and(|values| values.iter().all(|&v| v == 0))
}

/// The range of an integer type that numbers are quantised to.
fn range(elem: Elem) -> Result<(i32, i32)> {
    match typed::narrow(elem) {
        Some(_) => Ok((elem.range().0 as i32, elem.range().1 as i32)),
        None => Err(format!("{elem} is no type to quantise to")),
    }
}

/// What has a scale of its own, with axes as in ONNX.
fn per(node: &Node, value: &Value, scale: &Value) -> Result<Per> {
    let block = size(node.int("block_size", 0))?;
    if block == 0 && scale.elements() == 1 {
        return Ok(Per::Tensor);
    }
    let at = axis(node.int("axis", 1), value.rank())?;
    match block {
        0 if scale.shape() == &value.shape()[at..=at] => Ok(Per::Axis(at)),
        0 => Err(format!("scales {:?} are not for axis {at} of {:?}", scale.shape(), value.shape())),
        size => Ok(Per::Block { axis: at, size }),
    }
}

/// A value, its scale and its zero point on the device, and the order of its axes there.
struct Placed {
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    per: Per,
    axes: Vec<usize>,
}

fn placed(import: &mut Import, node: &Node, value: &Value) -> Result<Placed> {
    let Grid { scale, zero } = Grid::of(node, 1)?;
    if !scale.elem().is_float() || scale.elem() == Elem::F64 {
        return Err(format!("scales of {} are not supported", scale.elem()));
    }
    if let Some(zero) = zero.filter(|z| z.shape() != scale.shape() && z.elements() != 1) {
        return Err(format!("scales are {:?}, zero points {:?}", scale.shape(), zero.shape()));
    }
    let per = per(node, value, scale)?;
    let (x, axes) = match per {
        Per::Block { .. } => (import.plain(value)?, (0..value.rank()).collect()),
        _ => import.device(value).map(|d| (d.id, d.axes))?,
    };
    let per = match per {
        Per::Axis(at) => Per::Axis(axes.iter().position(|&a| a == at).expect("an order of all axes")),
        other => other,
    };
    let zero = zero.filter(|z| !nothing(z)).map(|z| import.plain(z)).transpose()?;
    Ok(Placed { x, scale: import.plain(scale)?, zero, per, axes })
}

fn quantize_linear(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let elem = match (node.optional(2), node.int("output_dtype", 0)) {
        (Some(zero), _) => zero.elem(),
        (None, 0) => Elem::U8,
        (None, code) => Elem::from_code(code as i32)?,
    };
    let (low, high) = range(elem)?;
    if !value.elem().is_float() || value.elem() == Elem::F64 {
        return Err(format!("{} is not supported", value.elem()));
    }
    // Their quotient is to be rounded to their own type first.
    let precision = node.int("precision", 0);
    if node.input(1)?.elem() != Elem::F32 && precision != 1 || !matches!(precision, 0 | 1) {
        return Err(format!("division of {} by {} is not supported", value.elem(), node.input(1)?.elem()));
    }
    let p = placed(import, node, value)?;
    let options = Quantize { per: p.per, low, high, times: false, back: false };
    let y = import.graph.quantize(p.x, p.scale, p.zero, options).map_err(plain)?;
    Ok(vec![import.result(y, p.axes, elem)])
}

/// Numbers that were brought to this very grid just before, which one operation rounds to it; what brought them there goes
/// if nothing else reads it.
fn on_same_grid(import: &Import, p: &Placed) -> Option<(ValueId, Quantize)> {
    let Source::Op { op: Op::Quantize(options), inputs } = &import.graph.value(p.x).source else {
        return None;
    };
    let alike = |a: ValueId, b: ValueId| match (&import.graph.value(a).source, &import.graph.value(b).source)
    {
        (Source::Weight(x), Source::Weight(y)) => x.desc == y.desc && x.bytes[..] == y.bytes[..],
        _ => a == b,
    };
    let points = match (inputs.get(2), p.zero) {
        (Some(&a), Some(b)) => alike(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    (points && alike(inputs[1], p.scale) && options.per == p.per && !options.times)
        .then(|| (inputs[0], Quantize { back: true, ..options.clone() }))
}

fn dequantize_linear(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if typed::narrow(value.elem()).is_none() && value.elem() != Elem::I32 {
        return Err(format!("{} is not supported", value.elem()));
    }
    if let Some(zero) = node.optional(2).filter(|z| z.elem() != value.elem()) {
        return Err(format!("zero points of {} are {}", value.elem(), zero.elem()));
    }
    let elem = match node.int("output_dtype", 0) {
        0 => node.input(1)?.elem(),
        code => Elem::from_code(code as i32)?,
    };
    if !elem.is_float() {
        return Err(format!("numbers of type {elem} are not supported"));
    }
    let p = placed(import, node, value)?;
    let y = match on_same_grid(import, &p) {
        Some((x, options)) => import.graph.quantize(x, p.scale, p.zero, options),
        None => import.graph.dequantize(p.x, p.scale, p.zero, p.per),
    };
    Ok(vec![import.result(y.map_err(plain)?, p.axes, elem)])
}

/// The largest or smallest number of a tensor, `[1]`, in two steps so that many threads look for it.
fn extreme(import: &mut Import, x: ValueId, reduction: Reduction) -> crate::Result<ValueId> {
    let g = &mut *import.graph;
    let count = g.shape(x).elements();
    let rows = (1..=count.isqrt()).rev().find(|&r| count.is_multiple_of(r)).unwrap_or(1);
    let flat = g.reshape(x, [rows, count / rows])?;
    let lines = g.reduce(flat, reduction, &[0], false)?;
    g.reduce(lines, reduction, &[0], true)
}

/// Scale and zero point from the range of the numbers, zero among them.
fn dynamic_quantize_linear(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if value.elem() != Elem::F32 {
        return Err(format!("{} is not supported", value.elem()));
    }
    let x = import.device(value)?;
    let constants = [0.0, 1.0, 255.0].map(|v| number(Elem::F32, v));
    let [zero, one, steps] = constants.each_ref().map(|v| import.plain(v));
    let (zero, one, steps) = (zero?, one?, steps?);
    let (low, high) = (extreme(import, x.id, Reduction::Min), extreme(import, x.id, Reduction::Max));
    let build = || {
        let (low, high) = (low?, high?);
        let g = &mut *import.graph;
        let (low, high) = (g.binary(Binary::Min, low, zero)?, g.binary(Binary::Max, high, zero)?);
        let width = g.binary(Binary::Sub, high, low)?;
        let scale = g.typed(Function::Quotient, &[width, steps])?;
        // Nothing but zeros: ONNX Runtime's choice of a scale.
        let none = g.typed(Function::Equal, &[width, zero])?;
        let scale = g.choose(none, one, scale)?;
        let below = g.binary(Binary::Sub, zero, low)?;
        let options = Quantize { per: Per::Tensor, low: 0, high: 255, times: false, back: false };
        let point = g.quantize(below, scale, None, options.clone())?;
        let y = g.quantize(x.id, scale, Some(point), options)?;
        Ok([y, g.reshape(scale, [0; 0])?, g.reshape(point, [0; 0])?])
    };
    let [y, scale, point] = build().map_err(plain)?;
    Ok(vec![
        import.result(y, x.axes, Elem::U8),
        import.plain_result(scale, Elem::F32),
        import.plain_result(point, Elem::U8),
    ])
}

/// A value less its zero point, which broadcasts, in i32.
fn centred(import: &mut Import, value: &Value, zero: Option<&Value>) -> Result<Value> {
    if !matches!(value.elem(), Elem::I8 | Elem::U8) {
        return Err(format!("{} is not supported", value.elem()));
    }
    let x = typed::cast(import, value, Elem::I32)?;
    let Some(zero) = zero.filter(|z| !nothing(z)) else { return Ok(x) };
    let zero = typed::cast(import, zero, Elem::I32)?;
    typed::apply(import, Function::Sub, &[&x, &zero], Elem::I32)
}

/// A zero point for each index of the first axis, or one for all, so that it broadcasts with `rank` axes.
fn upright(import: &mut Import, zero: Option<&Value>, rank: usize) -> Result<Option<Value>> {
    let Some(zero) = zero.filter(|z| !nothing(z) && rank > 0) else { return Ok(None) };
    let dims = [vec![zero.elements() as i64], vec![1; rank - 1]].concat();
    import.call("Reshape", &[zero, &ints(&dims)], vec![]).map(Some)
}

/// Exact sums `[n, h, w, c]` of a convolution of integers.
fn convolved(import: &mut Import, node: &Node, [x, w]: [(&Value, Option<&Value>); 2]) -> Result<ValueId> {
    let (value, weight) = (x.0, w.0);
    if x.1.is_some_and(|z| z.elements() != 1) {
        return Err("zero points for each channel of the input are not supported".to_owned());
    }
    let point = upright(import, x.1, value.rank())?;
    let points = upright(import, w.1, weight.rank())?;
    let (x, w) = (centred(import, value, point.as_ref())?, centred(import, weight, points.as_ref())?);
    let (source, options) = layers::convolved(import, node, &x, &w)?;
    let w = match w.rank() {
        3 => {
            let w = import.ordered(&w, &[2, 1, 0])?;
            let dims = [&[1], &import.graph.shape(w)[..]].concat();
            import.graph.reshape(w, dims).map_err(plain)?
        }
        _ => import.ordered(&w, &[2, 3, 1, 0])?,
    };
    import.graph.conv2d_integer(source, w, options).map_err(plain)
}

fn conv_integer(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, weight) = (node.input(0)?, node.input(1)?);
    let sums = convolved(import, node, [(value, node.optional(2)), (weight, node.optional(3))])?;
    Ok(vec![layers::unmapped(import, sums, value.rank(), Elem::I32)?])
}

/// The factor from sums of products to a grid: `left · right / result` for one scale on the left, one or several on
/// the right.
fn factor(import: &mut Import, [left, right, result]: [ValueId; 3]) -> Result<ValueId> {
    let both = import.graph.mul(left, right).map_err(plain)?;
    import.graph.typed(Function::Quotient, &[both, result]).map_err(plain)
}

/// Sums of products, their last axis the right side's, on a grid of the type `elem`.
pub fn requantized(
    import: &mut Import,
    sums: ValueId,
    [left, right, result]: [&Value; 3],
    zero: Option<&Value>,
    elem: Elem,
) -> Result<ValueId> {
    let (low, high) = range(elem)?;
    if let Some(other) = [left, right, result].into_iter().find(|s| !s.elem().is_float()) {
        return Err(format!("a scale must be a number, found {}", other.elem()));
    }
    let (left, _) = Grid { scale: left, zero: None }.one(import)?;
    let (result, mut point) = Grid { scale: result, zero }.one(import)?;
    let columns = import.graph.shape(sums).last();
    let per = match right.elements() {
        1 => Per::Tensor,
        n if n == columns => Per::Axis(import.graph.shape(sums).len() - 1),
        _ => return Err(format!("scales {:?} are not for {columns} columns", right.shape())),
    };
    let right_scales = import.plain(right)?;
    let right_scales = import.graph.reshape(right_scales, [right.elements()]).map_err(plain)?;
    let scale = factor(import, [left, right_scales, result])?;
    if let (Some(id), Per::Axis(_)) = (point, per) {
        point = Some(import.graph.broadcast_to(id, [columns]).map_err(plain)?);
    }
    let options = Quantize { per, low, high, times: true, back: false };
    import.graph.quantize(sums, scale, point, options).map_err(plain)
}

/// Sums and a bias for each column, both i32.
pub fn with_bias(import: &mut Import, sums: ValueId, bias: Option<&Value>) -> Result<ValueId> {
    let Some(bias) = bias else { return Ok(sums) };
    if bias.elem() != Elem::I32 {
        return Err(format!("a bias must be int32, found {}", bias.elem()));
    }
    let bias = import.plain(bias)?;
    import.graph.typed(Function::Add, &[sums, bias]).map_err(plain)
}

fn qlinear_conv(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (value, weight, zero) = (node.input(0)?, node.input(3)?, node.input(7)?);
    let sums = convolved(import, node, [(value, node.optional(2)), (weight, node.optional(5))])?;
    let sums = with_bias(import, sums, node.optional(8))?;
    let scales = [node.input(1)?, node.input(4)?, node.input(6)?];
    let y = requantized(import, sums, scales, Some(zero), zero.elem())?;
    Ok(vec![layers::unmapped(import, y, value.rank(), zero.elem())?])
}

/// Exact sums of a matrix product of integers, in ONNX's order of axes.
pub fn multiplied(import: &mut Import, [a, b]: [(&Value, Option<&Value>); 2]) -> Result<ValueId> {
    let (left, right) = (a.0, b.0);
    if left.rank() == 0 || right.rank() == 0 {
        return Err("a number is no matrix".to_owned());
    }
    // A list of zero points on the left is one of rows.
    let rows = match a.1 {
        Some(zero) if zero.rank() == 1 && zero.elements() > 1 => {
            Some(import.call("Unsqueeze", &[zero, &ints(&[1])], vec![])?)
        }
        other => other.cloned(),
    };
    let (x, y) = (centred(import, left, rows.as_ref())?, centred(import, right, b.1)?);
    if (x.shape(), y.shape()) != (left.shape(), right.shape()) {
        return Err("zero points are not of the shape of what they belong to".to_owned());
    }
    layers::product(import, &x, &y, |g, x, y| g.matmul_integer(x, y))
}

fn matmul_integer(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let sides = [(node.input(0)?, node.optional(2)), (node.input(1)?, node.optional(3))];
    let sums = multiplied(import, sides)?;
    Ok(vec![import.plain_result(sums, Elem::I32)])
}

fn qlinear_matmul(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (a, b, zero) = (node.input(0)?, node.input(3)?, node.input(7)?);
    let scales = [node.input(1)?, node.input(4)?, node.input(6)?];
    if scales[1].elements() > 1 && b.rank() < 2 {
        return Err("scales for each element of a vector are not supported".to_owned());
    }
    let sums = multiplied(import, [(a, node.optional(2)), (b, node.optional(5))])?;
    let y = requantized(import, sums, scales, Some(zero), zero.elem())?;
    Ok(vec![import.plain_result(y, zero.elem())])
}

/// The numbers that a quantised value stands for, by one scale and zero point.
pub fn numbers(import: &mut Import, value: &Value, grid: Grid) -> Result<Value> {
    let mut inputs = vec![value, grid.scale];
    inputs.extend(grid.zero);
    import.call("DequantizeLinear", &inputs, vec![])
}

/// Numbers as integers of the type of the grid's zero point, or of `elem` if there is none.
pub fn integers(import: &mut Import, value: &Value, grid: Grid, elem: Elem) -> Result<Value> {
    let mut inputs = vec![value, grid.scale];
    inputs.extend(grid.zero);
    let code = if elem == Elem::I8 { 3 } else { 2 };
    let output = if grid.zero.is_none() { vec![with_int("output_dtype", code)] } else { vec![] };
    import.call("QuantizeLinear", &inputs, output)
}

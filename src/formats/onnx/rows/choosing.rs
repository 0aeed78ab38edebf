//! Operators that keep what a condition chooses. How much that is only a run tells: results have room for all, and their
//! count beside them.

use super::super::counted::Counted;
use super::super::elem::Elem;
use super::super::host::Host;
use super::super::import::{Import, Node, Result, Value, axis, ints, plain, with_int};
use super::Row;
use crate::graph::ValueId;
use crate::ops::reduce::Reduction;
use crate::ops::top_k::TopK;
use crate::ops::typed::{Function, Typed};
use crate::tensor::{DType, Tensor};

pub const ROWS: &[(&str, Row)] = &[("Compress", compress), ("NonZero", non_zero)];

/// Most elements that are chosen from: f32 counts them, and one workgroup puts them in order.
const MOST: usize = 1 << 20;

/// Where `truth` (u32, `[n]`) is true, in order, then where it is not, i32 `[n]`; and how often it is true, i32 `[1]`.
fn chosen(import: &mut Import, truth: ValueId) -> Result<[ValueId; 2]> {
    let g = &mut *import.graph;
    let count = g.shape(truth).elements();
    if count > MOST {
        return Err(format!("a choice from {count} elements is not supported, {MOST} are"));
    }
    let mut build = || {
        let numbers = g.convert(truth, DType::F32)?;
        let places = g.push(TopK { axis: 0, keep: count, smallest: false }, &[numbers])?;
        let sum = g.reduce(numbers, Reduction::Sum, &[0], true)?;
        Ok([places, g.convert(sum, DType::I32)?])
    };
    build().map_err(plain)
}

fn counted(value: Value, count: ValueId, axis: usize) -> Vec<Value> {
    let Value::Device(mut device) = value else { unreachable!("a result of the graph") };
    device.counted = Some(Counted { count, axis });
    vec![device.into()]
}

/// The slices along an axis, or the elements, for which the condition is true.
fn compress(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let condition = node.input(1)?;
    let flat = match node.has("axis") {
        true => node.input(0)?.clone(),
        false => import.call("Reshape", &[node.input(0)?, &ints(&[-1])], vec![])?,
    };
    let at = axis(node.int("axis", 0), flat.rank())?;
    let n = condition.elements();
    if condition.elem() != Elem::Bool || condition.rank() != 1 || n > flat.shape()[at] {
        let (elem, found, wanted) = (condition.elem(), condition.shape(), flat.shape()[at]);
        return Err(format!("wants up to {wanted} booleans, found {elem}{found:?}"));
    }
    if let Value::Host(known) = condition {
        let truth = known.as_ints().unwrap_or_default().iter().enumerate();
        let places: Vec<i64> = truth.filter(|(_, v)| **v != 0).map(|(i, _)| i as i64).collect();
        if places.is_empty() {
            let mut dims = flat.shape().to_vec();
            dims[at] = 0;
            return Ok(vec![Host::empty(flat.elem(), dims).into()]);
        }
        return Ok(vec![import.call(
            "Gather",
            &[&flat, &ints(&places)],
            vec![with_int("axis", at as i64)],
        )?]);
    }
    let truth = import.plain(condition)?;
    let [places, count] = chosen(import, truth)?;
    let x = import.plain(&flat)?;
    let g = &mut *import.graph;
    let places = g.push(Typed { function: Function::Bits, dtype: DType::U32 }, &[places]).map_err(plain)?;
    let y = g.gather(x, places, at).map_err(plain)?;
    Ok(counted(import.plain_result(y, flat.elem()), count, at))
}

/// The indices of what is not zero, an axis a row.
fn non_zero(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if value.rank() == 0 {
        return Err("a number has no indices".to_owned());
    }
    let (x, n) = (import.plain(value)?, value.elements());
    let truth = import.graph.convert(x, DType::U32).map_err(plain)?;
    let truth = import.graph.reshape(truth, [n]).map_err(plain)?;
    let [places, count] = chosen(import, truth)?;
    let g = &mut *import.graph;
    let mut rows = Vec::new();
    let mut stride = n;
    for &size in value.shape() {
        stride /= size;
        let mut part = |function, by: usize, x| {
            let by = g.weight("size", Tensor::from_i32([1], &[by as i32]));
            g.typed(function, &[x, by])
        };
        let index = part(Function::Div, stride, places).and_then(|i| part(Function::Modulo, size, i));
        rows.push(index.and_then(|i| g.reshape(i, [1, n])).map_err(plain)?);
    }
    let y = match rows[..] {
        [row] => row,
        _ => g.concat(&rows, 0).map_err(plain)?,
    };
    Ok(counted(import.plain_result(y, Elem::I64), count, 1))
}

//! Cumulate: running sums and products.

use super::gather_nd::unit;
use super::lines::split;
use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// What is made of the numbers so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    Sum,
    Product,
}

/// The sum or product of the numbers along `axis` up to each, f32, f16 (computed in f32) or i32.
#[derive(Clone, Debug)]
pub struct Cumulate {
    pub running: Running,
    pub axis: usize,
    /// Without the number itself: the first result is 0 or 1.
    pub exclusive: bool,
    /// From the last to the first.
    pub reverse: bool,
}

impl Operator for Cumulate {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        if !matches!(inputs[0].dtype, DType::F32 | DType::F16 | DType::I32) {
            return Err(format!("input must be f32, f16 or i32, found {}", inputs[0].dtype));
        }
        match self.axis < inputs[0].shape.len() {
            true => Ok(inputs[0].clone()),
            false => Err(format!("no axis {} in {}", self.axis, inputs[0].shape)),
        }
    }

    fn detail(&self) -> String {
        format!("{:?}", self.running)
    }

    fn lower(&self, cx: &mut Lower) {
        let desc = cx.desc(0);
        let [outer, size, inner] = split(&desc.shape, self.axis, self.axis + 1);
        let (elem, width) = unit(inner, desc.dtype);
        let number = if desc.dtype.is_float() { DType::F32 } else { desc.dtype };
        let (start, fold) = match self.running {
            Running::Sum => ("V(0)", "total + x"),
            Running::Product => ("V(1)", "total * x"),
        };
        cx.dispatch(
            Kernel::new("cumulate")
                .alias("V", unit(inner, number).0)
                .alias("Elem", elem)
                .constant("EXCLUSIVE", self.exclusive)
                .constant("REVERSE", self.reverse)
                .function("start", format!("fn start() -> V {{ return {start}; }}"))
                .function("fold", format!("fn fold(total: V, x: V) -> V {{ return {fold}; }}")),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("lines", (outer * inner / width).into()),
                ("size", size.into()),
                ("inner", (inner / width).into()),
            ],
            Grid::Threads(outer * inner / width),
        );
    }
}

impl Graph {
    /// The sum of the numbers of `x` along `axis` up to each of them, itself included.
    pub fn cumulative_sum(&mut self, x: ValueId, axis: usize) -> Result<ValueId> {
        self.push(Cumulate { running: Running::Sum, axis, exclusive: false, reverse: false }, &[x])
    }
}

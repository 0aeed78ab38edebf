//! Reduce: sums, means, extremes, products and norms over dimensions.

use super::lines::{packed, split};
use super::{Operator, arity, float};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::TensorDesc;

/// What is made of the numbers along a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Product,
    /// Square root of the sum of squares.
    L2,
}

/// Reduces the neighbouring dimensions `first..end` to size one.
#[derive(Clone, Debug)]
pub struct Reduce {
    pub reduction: Reduction,
    pub first: usize,
    pub end: usize,
}

impl Operator for Reduce {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        if self.first >= self.end || self.end > inputs[0].shape.len() {
            return Err(format!("no dimensions {}..{} in {}", self.first, self.end, inputs[0].shape));
        }
        let mut shape = inputs[0].shape.to_vec();
        shape[self.first..self.end].fill(1);
        Ok(TensorDesc::new(shape, inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let desc = cx.desc(0);
        let [outer, size, inner] = split(&desc.shape, self.first, self.end);
        let (v, elem, unit) = packed(inner, desc.dtype);
        let (start, fold, finish) = match self.reduction {
            Reduction::Sum => ("V(0.0)", "sum + x", "sum"),
            Reduction::Mean => ("V(0.0)", "sum + x", "sum / f32(P.size)"),
            Reduction::Max => ("V(src[first])", "max(sum, x)", "sum"),
            Reduction::Min => ("V(src[first])", "min(sum, x)", "sum"),
            Reduction::Product => ("V(1.0)", "sum * x", "sum"),
            Reduction::L2 => ("V(0.0)", "sum + x * x", "sqrt(sum)"),
        };
        cx.dispatch(
            Kernel::new("reduce")
                .alias("V", v)
                .alias("Elem", elem)
                .function("start", format!("fn start(first: u32) -> V {{ return {start}; }}"))
                .function("fold", format!("fn fold(sum: V, x: V) -> V {{ return {fold}; }}"))
                .function("finish", format!("fn finish(sum: V) -> V {{ return {finish}; }}")),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("lines", (outer * inner / unit).into()),
                ("size", size.into()),
                ("inner", (inner / unit).into()),
            ],
            Grid::Threads(outer * inner / unit),
        );
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        inputs[0].shape.elements() as u64
    }
}

impl Graph {
    /// `x` reduced over `axes`; these stay as dimensions of size one if `keep`, else they go.
    pub fn reduce(&mut self, x: ValueId, reduction: Reduction, axes: &[usize], keep: bool) -> Result<ValueId> {
        let shape = self.shape(x).clone();
        if let Some(axis) = axes.iter().find(|&&a| a >= shape.len()) {
            let message = format!("no axis {axis} in {shape}");
            return Err(Error::Graph { op: "Reduce", node: self.value(x).name.clone(), message });
        }
        // One reduction for each run of neighbouring axes: a mean of means of as many, a norm of norms.
        let mut y = x;
        let mut d = 0;
        while d < shape.len() {
            let end = d + (d..shape.len()).take_while(|a| axes.contains(a)).count();
            if end > d {
                y = self.push(Reduce { reduction, first: d, end }, &[y])?;
            }
            d = end + 1;
        }
        let kept = (0..shape.len()).filter(|d| !axes.contains(d)).map(|d| shape[d]).collect::<Vec<_>>();
        if keep { Ok(y) } else { self.reshape(y, kept) }
    }
}

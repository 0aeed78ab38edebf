//! ArgReduce: where the largest or smallest number of a line is.

use super::lines::{Team, split};
use super::{Operator, arity, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::target::DeviceClass;
use crate::tensor::{DType, TensorDesc};

/// Numbers in a line from which on several threads of a GPU do it.
const LONG: usize = 16;

/// Index (u32) of the largest or smallest number along `axis`, the first of equals unless `last`. The axis goes.
#[derive(Clone, Debug)]
pub struct ArgReduce {
    pub axis: usize,
    pub smallest: bool,
    /// The last of equals.
    pub last: bool,
}

impl Operator for ArgReduce {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        let mut shape = inputs[0].shape.to_vec();
        if self.axis >= shape.len() {
            return Err(format!("no axis {} in {}", self.axis, inputs[0].shape));
        }
        shape.remove(self.axis);
        Ok(TensorDesc::new(shape, DType::U32))
    }

    fn lower(&self, cx: &mut Lower) {
        let [outer, size, inner] = split(&cx.desc(0).shape, self.axis, self.axis + 1);
        if cx.target().class != DeviceClass::Cpu && size >= LONG {
            return self.lower_threads(outer, size, inner, cx);
        }
        let mut kernel = Kernel::new("arg_reduce").alias("Elem", elem(cx.desc(0)));
        let better = match (self.smallest, self.last) {
            (false, false) => None,
            (true, false) => Some("<"),
            (false, true) => Some(">="),
            (true, true) => Some("<="),
        };
        if let Some(sign) = better {
            let text = format!("fn better(x: f32, best: f32) -> bool {{\n    return x {sign} best;\n}}");
            kernel = kernel.function("better", text);
        }
        cx.dispatch(
            kernel,
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[("lines", (outer * inner).into()), ("size", size.into()), ("inner", inner.into())],
            Grid::Threads(outer * inner),
        );
    }
}

impl ArgReduce {
    /// With several threads a line.
    fn lower_threads(&self, outer: usize, size: usize, inner: usize, cx: &mut Lower) {
        let team = if inner == 1 { Team::along(size, 8) } else { Team::across(size, 8) };
        let mut kernel = team.kernel("arg_reduce_threads").alias("Elem", elem(cx.desc(0)));
        if self.smallest {
            let text = "fn better(x: f32, best: f32) -> bool {\n    return x < best;\n}";
            kernel = kernel.function("better", text);
        }
        if self.last {
            let text = "fn nearer(i: u32, at: u32) -> bool {\n    return i > at;\n}";
            kernel = kernel.function("nearer", text);
        }
        cx.dispatch(
            kernel,
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[("lines", (outer * inner).into()), ("size", size.into()), ("inner", inner.into())],
            team.grid(outer * inner),
        );
    }
}

impl Graph {
    /// Index of the largest number of `x` along `axis`, u32; the first of equals.
    pub fn arg_max(&mut self, x: ValueId, axis: usize) -> Result<ValueId> {
        self.push(ArgReduce { axis, smallest: false, last: false }, &[x])
    }

    /// Index of the smallest number of `x` along `axis`, u32; the first of equals.
    pub fn arg_min(&mut self, x: ValueId, axis: usize) -> Result<ValueId> {
        self.push(ArgReduce { axis, smallest: true, last: false }, &[x])
    }
}

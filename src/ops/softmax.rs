//! Softmax and log-softmax over one dimension.

use super::lines::{Team, packed, quad, split};
use super::{Operator, arity, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::target::DeviceClass;
use crate::tensor::TensorDesc;

/// `exp(x) / Σ exp(x)` along `axis`, or its logarithm.
#[derive(Clone, Debug)]
pub struct Softmax {
    pub axis: usize,
    pub log: bool,
}

impl Operator for Softmax {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        match self.axis < inputs[0].shape.len() {
            true => Ok(inputs[0].clone()),
            false => Err(format!("no axis {} in {}", self.axis, inputs[0].shape)),
        }
    }

    fn lower(&self, cx: &mut Lower) {
        let [outer, size, inner] = split(&cx.output_desc().shape, self.axis, self.axis + 1);
        if cx.target().class == DeviceClass::Cpu && inner == 1 && size.is_multiple_of(4) {
            return self.lower_rows(outer, size / 4, cx);
        }
        if cx.target().class != DeviceClass::Cpu && inner == 1 {
            return self.lower_threads(outer, size, cx);
        }
        let mut kernel = Kernel::new("softmax").alias("Elem", elem(cx.output_desc()));
        if self.log {
            kernel = kernel.function("result", "fn result(x: f32, sum: f32) -> f32 {\n    return x - log(sum);\n}");
        }
        cx.dispatch(
            kernel,
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[("lines", (outer * inner).into()), ("size", size.into()), ("inner", inner.into())],
            Grid::Threads(outer * inner),
        );
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        5 * output.shape.elements() as u64
    }
}

impl Softmax {
    /// Over neighbouring numbers, with several threads a row.
    fn lower_threads(&self, rows: usize, size: usize, cx: &mut Lower) {
        let (v, elem, unit) = packed(size, cx.output_desc().dtype);
        let units = size / unit;
        let team = Team::along(units, 4);
        let mut kernel = team.kernel("softmax_threads").constant("HELD", format!("{}u", team.held(units, 8)));
        kernel = kernel.alias("V", v).alias("Elem", elem);
        if unit == 1 {
            kernel = kernel
                .function("highest_of", "fn highest_of(v: V) -> f32 {\n    return v;\n}")
                .function("sum", "fn sum(v: V) -> f32 {\n    return v;\n}");
        }
        kernel = kernel.constant("LOG", self.log);
        let params = [("rows", rows.into()), ("units", units.into())];
        cx.dispatch(kernel, &[("src", cx.input(0)), ("dst", cx.output())], &params, team.grid(rows));
    }

    /// Over neighbouring numbers, four at a time.
    fn lower_rows(&self, rows: usize, quads: usize, cx: &mut Lower) {
        let mut kernel = Kernel::new("softmax_rows").alias("Quad", quad(cx.output_desc().dtype));
        if self.log {
            kernel = kernel.function("result", "fn result(x: V, sum: f32) -> V {\n    return x - log(sum);\n}");
        }
        let params = [("rows", rows.into()), ("quads", quads.into())];
        cx.dispatch(kernel, &[("src", cx.input(0)), ("dst", cx.output())], &params, Grid::Threads(rows));
    }
}

impl Graph {
    /// Softmax of `x` along `axis`.
    pub fn softmax(&mut self, x: ValueId, axis: usize) -> Result<ValueId> {
        self.push(Softmax { axis, log: false }, &[x])
    }

    /// Logarithm of the softmax of `x` along `axis`.
    pub fn log_softmax(&mut self, x: ValueId, axis: usize) -> Result<ValueId> {
        self.push(Softmax { axis, log: true }, &[x])
    }
}

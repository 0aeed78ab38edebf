//! Gather: rows of a table by index, as in an embedding.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Slices of the first input along `axis`, chosen by the second, `u32` indices of
/// any shape, which takes the place of the axis. An index past the end reads the last slice.
#[derive(Clone, Debug)]
pub struct Gather {
    pub axis: usize,
}

impl Operator for Gather {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=2)?;
        let [table, indices] = [inputs[0], inputs[1]];
        if self.axis >= table.shape.len() {
            return Err(format!("axis {} is not in the table, {}", self.axis, table.shape));
        }
        if table.dtype == DType::BF16 {
            return Err("bf16 must be unpacked first".to_owned());
        }
        if indices.dtype != DType::U32 {
            return Err(format!("indices must be u32, found {}", indices.dtype));
        }
        let (before, after) = (&table.shape[..self.axis], &table.shape[self.axis + 1..]);
        Ok(TensorDesc::new([before, &indices.shape[..], after].concat(), table.dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let table = cx.desc(0);
        let inner: usize = table.shape[self.axis + 1..].iter().product();
        let quads = inner.is_multiple_of(4);
        let unit = if quads { 4 } else { 1 };
        let elem = match (quads, table.dtype) {
            (true, DType::F32) => "vec4<f32>",
            (true, DType::F16) => "vec4<f16>",
            (true, _) => "vec4<u32>",
            (false, dtype) => dtype.wgsl(),
        };
        let count = cx.output_desc().shape.elements() / unit;
        cx.dispatch(
            Kernel::new("gather").alias("Elem", elem),
            &[("table", cx.input(0)), ("indices", cx.input(1)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("rows", table.shape[self.axis].into()),
                ("indices", cx.desc(1).shape.elements().into()),
                ("inner", (inner / unit).into()),
            ],
            Grid::Threads(count),
        );
    }

    fn flops(&self, _: &[&TensorDesc], _: &TensorDesc) -> u64 {
        0
    }
}

impl Graph {
    /// Slices of `table` along `axis` by `indices` (`u32`, any shape): for a table
    /// `[rows, width]` and axis 0, an embedding, `[...indices, width]`. An index past
    /// the end reads the last slice.
    pub fn gather(&mut self, table: ValueId, indices: ValueId, axis: usize) -> Result<ValueId> {
        self.push(Gather { axis }, &[table, indices])
    }
}

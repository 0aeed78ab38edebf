//! Matmul: batched matrix product of two activations. A product with a constant is a
//! linear layer, [`Graph::linear`].

use super::elementwise::broadcast;
use super::{Operator, arity, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::target::DeviceClass;
use crate::tensor::{DType, Shape, TensorDesc};

/// `a` `[..., m, k]` times `b` `[..., k, n]`; the batch dimensions broadcast as in NumPy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Matmul {
    /// `a` is stored as `[..., k, m]`.
    pub transpose_a: bool,
    /// `b` is stored as `[..., n, k]`.
    pub transpose_b: bool,
}

/// Batch dimensions, rows and columns of an operand.
fn parts(desc: &TensorDesc, transposed: bool) -> Result<(Shape, usize, usize), String> {
    let rank = desc.shape.len();
    if rank < 2 {
        return Err(format!("wants matrices, found {desc}"));
    }
    let (batch, matrix) = desc.shape.split_at(rank - 2);
    Ok(match transposed {
        false => (batch.into(), matrix[0], matrix[1]),
        true => (batch.into(), matrix[1], matrix[0]),
    })
}

impl Operator for Matmul {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=2)?;
        float("left side", inputs[0])?;
        let (batch_a, m, k) = parts(inputs[0], self.transpose_a)?;
        let (batch_b, k_b, n) = parts(inputs[1], self.transpose_b)?;
        if k != k_b || inputs[0].dtype != inputs[1].dtype {
            return Err(format!("left side has {k} columns of {}, right side is {}", inputs[0].dtype, inputs[1]));
        }
        let mut shape = broadcast(&batch_a, &batch_b)?.to_vec();
        shape.extend([m, n]);
        Ok(TensorDesc::new(shape, inputs[0].dtype))
    }

    fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
        let k = parts(inputs[0], self.transpose_a).map_or(0, |p| p.2);
        2 * (output.shape.elements() * k) as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let output = cx.output_desc();
        let (batch_a, m, k) = parts(cx.desc(0), self.transpose_a).expect("checked by infer");
        let (batch_b, _, n) = parts(cx.desc(1), self.transpose_b).expect("checked by infer");
        let batch = Shape::from(&output.shape[..output.shape.len() - 2]);
        let strides = |own: &Shape| -> Vec<u32> {
            let skip = batch.len() - own.len();
            let own_strides = own.strides();
            (0..batch.len())
                .map(|d| if d < skip || own[d - skip] == 1 { 0 } else { own_strides[d - skip] as u32 })
                .collect()
        };
        let (tile_rows, tile_quads) = match cx.target().class {
            DeviceClass::Cpu => (8, 4),
            _ => (4, 2),
        };
        let quads_n = n.div_ceil(4);
        let (rows, quads) = (m.min(tile_rows), quads_n.min(tile_quads));
        let (tiles_m, tiles_n) = (m.div_ceil(rows), quads_n.div_ceil(quads));
        let scalar = output.dtype.wgsl();
        let quad = if output.dtype == DType::F16 { "vec4<f16>" } else { "vec4<f32>" };
        let mut kernel = Kernel::new("matmul")
            .constant("ROWS", format!("{rows}u"))
            .constant("QUADS", format!("{quads}u"));
        kernel = match (self.transpose_a, k.is_multiple_of(4)) {
            (false, true) => kernel.alias("A", quad),
            (false, false) => kernel.alias("A", scalar).function("load_a", load("load_a", "a", "i", "l", "m", "k")),
            (true, _) => kernel.alias("A", scalar).function("load_a", load_transposed("load_a", "a", "i", "l", "m", "k")),
        };
        kernel = match (self.transpose_b, n.is_multiple_of(4)) {
            (false, true) => kernel.alias("B", quad),
            (false, false) => kernel.alias("B", scalar).function("load_b", load("load_b", "b", "l", "j", "k", "n")),
            (true, _) => kernel.alias("B", scalar).function("load_b", load_transposed("load_b", "b", "l", "j", "k", "n")),
        };
        kernel = match n.is_multiple_of(4) {
            true => kernel.alias("Dst", quad),
            false => kernel.alias("Dst", scalar).function("store", STORE_SCALARS),
        };
        let batches = batch.elements();
        cx.dispatch(
            kernel,
            &[("a", cx.input(0)), ("b", cx.input(1)), ("dst", cx.output())],
            &[
                ("m", m.into()),
                ("n", n.into()),
                ("k", k.into()),
                ("batches", batches.into()),
                ("tiles_m", tiles_m.into()),
                ("tiles_n", tiles_n.into()),
                ("rank", batch.len().into()),
                ("shape", batch.iter().map(|&d| d as u32).collect::<Vec<_>>().into()),
                ("a_strides", strides(&batch_a).into()),
                ("b_strides", strides(&batch_b).into()),
            ],
            Grid::Threads(batches * tiles_m * tiles_n),
        );
    }
}

/// Four numbers along the second index, `rows` × `columns` stored row by row, zero past the end.
fn load(name: &str, buffer: &str, i: &str, j: &str, rows: &str, columns: &str) -> String {
    format!(
        "fn {name}(matrix: u32, {i}: u32, {j}: u32) -> V {{
    var v = V(0.0);
    for (var t = 0u; t < min(4u, P.{columns} - {j} * 4u); t++) {{
        v[t] = f32({buffer}[(matrix * P.{rows} + {i}) * P.{columns} + {j} * 4u + t]);
    }}
    return v;
}}"
    )
}

/// The same of a matrix stored column by column.
fn load_transposed(name: &str, buffer: &str, i: &str, j: &str, rows: &str, columns: &str) -> String {
    format!(
        "fn {name}(matrix: u32, {i}: u32, {j}: u32) -> V {{
    var v = V(0.0);
    for (var t = 0u; t < min(4u, P.{columns} - {j} * 4u); t++) {{
        v[t] = f32({buffer}[(matrix * P.{columns} + {j} * 4u + t) * P.{rows} + {i}]);
    }}
    return v;
}}"
    )
}

const STORE_SCALARS: &str = "fn store(batch: u32, i: u32, j: u32, value: V) {
    for (var t = 0u; t < min(4u, P.n - j * 4u); t++) {
        dst[(batch * P.m + i) * P.n + j * 4u + t] = Dst(value[t]);
    }
}";

impl Graph {
    /// Matrix product of `a` `[..., m, k]` and `b` `[..., k, n]`, either of them transposed.
    pub fn matmul(&mut self, a: ValueId, b: ValueId, options: Matmul) -> Result<ValueId> {
        self.push(options, &[a, b])
    }
}

//! Concat: tensors one after another along an axis.

use super::Operator;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, Slot};
use crate::shader::{Kernel, Param};
use crate::target::DeviceClass;
use crate::tensor::{DType, TensorDesc};

/// Inputs joined along `axis`; all other dimensions are equal.
#[derive(Clone, Debug)]
pub struct Concat {
    pub axis: usize,
}

/// Inputs that one dispatch copies.
const INPUTS: usize = 4;
const LOADS: [&str; INPUTS] = ["load0", "load1", "load2", "load3"];
const TEXTURES: [&str; INPUTS] = ["texture0", "texture1", "texture2", "texture3"];

/// Reads input `k` as a texture.
fn load_texel(k: usize) -> String {
    format!(
        "fn load{k}(o: u32, j: u32) -> Elem {{
    return textureLoad(texture{k}, texel(o * P.rows[0][{k}] + j));
}}"
    )
}

impl Operator for Concat {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        let first = *inputs.first().ok_or("wants at least 1 input, found 0")?;
        if self.axis >= first.shape.len() {
            return Err(format!("axis {} is not in input 0, {}", self.axis, first.shape));
        }
        if first.dtype == DType::BF16 {
            return Err("bf16 must be unpacked first".to_owned());
        }
        let mut shape = first.shape.to_vec();
        for (i, input) in inputs.iter().enumerate().skip(1) {
            let fits = input.shape.len() == shape.len()
                && (0..shape.len()).all(|d| d == self.axis || input.shape[d] == shape[d]);
            if !fits || input.dtype != first.dtype {
                return Err(format!("input {i} is {input}, which does not join {first} along axis {}", self.axis));
            }
            shape[self.axis] += input.shape[self.axis];
        }
        Ok(TensorDesc::new(shape, first.dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let output = cx.output_desc();
        let outer: usize = output.shape[..self.axis].iter().product();
        let rows: Vec<usize> =
            (0..cx.inputs()).map(|i| cx.desc(i).shape[self.axis..].iter().product()).collect();
        let quads = rows.iter().all(|row| row.is_multiple_of(4));
        let unit = if quads { 4 } else { 1 };
        let elem = match (quads, output.dtype) {
            (true, DType::F32) => "vec4<f32>",
            (true, DType::F16) => "vec4<f16>",
            (true, _) => "vec4<u32>",
            (false, dtype) => dtype.wgsl(),
        };
        let total = rows.iter().sum::<usize>() / unit;
        let mut base = 0;
        for first in (0..rows.len()).step_by(INPUTS) {
            let chunk = &rows[first..rows.len().min(first + INPUTS)];
            // A missing input has an empty row and is never read.
            let slots: Vec<Slot> =
                (0..INPUTS).map(|k| cx.input(if k < chunk.len() { first + k } else { first })).collect();
            let src = |k: usize| slots[k];
            let buffers = [
                ("src0", src(0)),
                ("src1", src(1)),
                ("src2", src(2)),
                ("src3", src(3)),
                ("dst", cx.output()),
            ];
            let width = chunk.iter().sum::<usize>() / unit;
            // A thread of a software adapter takes as long to start as to copy a quad or two.
            let cpu = cx.target().class == DeviceClass::Cpu;
            let lines = if cpu && outer >= 8 && outer * width >= 1 << 13 { 8 } else { 1 };
            let threads = outer.div_ceil(lines) * width;
            let mut kernel = Kernel::new("concat")
                .constant("INPUTS", format!("{}u", chunk.len()))
                .constant("LINES", format!("{lines}u"))
                .alias("Elem", elem);
            for k in (0..chunk.len()).filter(|_| quads) {
                let desc = cx.desc(first + k);
                if cx.finds_texels(first + k) {
                    cx.texels(TEXTURES[k], src(k), desc);
                    kernel = kernel.function(LOADS[k], load_texel(k));
                }
            }
            cx.dispatch(
                kernel,
                &buffers,
                &[
                    ("count", threads.into()),
                    ("outer", outer.into()),
                    ("width", width.into()),
                    ("base", base.into()),
                    ("total", total.into()),
                    ("rows", Param::Array(chunk.iter().map(|row| (row / unit) as u32).collect())),
                ],
                Grid::Threads(threads),
            );
            base += width;
        }
    }

    fn flops(&self, _: &[&TensorDesc], _: &TensorDesc) -> u64 {
        0
    }
}

impl Graph {
    /// `inputs` one after another along `axis`; they may differ in size only there.
    pub fn concat(&mut self, inputs: &[ValueId], axis: usize) -> Result<ValueId> {
        match inputs {
            [x] if axis < self.shape(*x).len() => Ok(*x),
            _ => self.push(Concat { axis }, inputs),
        }
    }
}

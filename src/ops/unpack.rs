//! Unpack: 16-bit weights as they lie in a file → numbers that kernels read.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Converts `f16` or `bf16` storage to `dtype`; works on devices without 16-bit types.
#[derive(Clone, Debug)]
pub struct Unpack {
    pub dtype: DType,
}

impl Operator for Unpack {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        match inputs[0].dtype {
            DType::F16 | DType::BF16 => Ok(TensorDesc::new(inputs[0].shape.clone(), self.dtype)),
            other => Err(format!("wants f16 or bf16, input is {other}")),
        }
    }

    fn lower(&self, cx: &mut Lower) {
        let count = cx.output_desc().shape.elements();
        let kernel = Kernel::new("unpack").alias("Elem", elem(cx.output_desc()));
        let kernel = match cx.desc(0).dtype {
            DType::BF16 => kernel.function(
                "halves",
                "fn halves(word: u32) -> vec2<f32> {\n    return bitcast<vec2<f32>>(vec2<u32>(word << 16u, word & 0xffff0000u));\n}",
            ),
            _ => kernel,
        };
        cx.dispatch(
            kernel,
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[("count", count.into())],
            Grid::Threads(count.div_ceil(2)),
        );
    }
}

impl Graph {
    /// A weight in the type that kernels compute with, whatever the file's type.
    pub fn unpacked(&mut self, weight: ValueId, dtype: DType) -> Result<ValueId> {
        let stored = self.desc(weight).dtype;
        match stored {
            DType::BF16 | DType::F16 if stored != dtype => self.push(Unpack { dtype }, &[weight]),
            _ => self.cast(weight, dtype),
        }
    }
}

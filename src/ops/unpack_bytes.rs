//! Unpack bytes: 8-bit weights as they lie in a file → integers that kernels read.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, Shape, TensorDesc};

/// The bytes of u32 words, the lowest first, as an i32 tensor of this shape; the last word may have bytes to spare.
#[derive(Clone, Debug)]
pub struct UnpackBytes {
    pub shape: Shape,
    pub signed: bool,
}

impl Operator for UnpackBytes {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        let words = self.shape.elements().div_ceil(4);
        match inputs[0].dtype == DType::U32 && inputs[0].shape[..] == [words] {
            true => Ok(TensorDesc::new(self.shape.clone(), DType::I32)),
            false => Err(format!("bytes of {} are u32[{words}], found {}", self.shape, inputs[0])),
        }
    }

    fn lower(&self, cx: &mut Lower) {
        let count = self.shape.elements();
        cx.dispatch(
            Kernel::new("unpack_bytes").constant("SIGNED", self.signed),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[("count", count.into())],
            Grid::Threads(count.div_ceil(4)),
        );
    }

    fn flops(&self, _: &[&TensorDesc], _: &TensorDesc) -> u64 {
        0
    }
}

impl Graph {
    /// The bytes of `words` (u32) as integers: see [`UnpackBytes`].
    pub fn unpack_bytes(
        &mut self,
        words: ValueId,
        shape: impl Into<Shape>,
        signed: bool,
    ) -> Result<ValueId> {
        self.push(UnpackBytes { shape: shape.into(), signed }, &[words])
    }
}

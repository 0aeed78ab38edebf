//! Dequantize: the numbers that integers on a grid stand for.

use super::quantize::{Per, dispatch};
use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::Lower;
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// `(x - zero) · scale`. Inputs: x (i32), scale (f32), zero (i32, may be left out).
#[derive(Clone, Debug)]
pub struct Dequantize {
    pub per: Per,
}

impl Operator for Dequantize {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=3)?;
        if inputs[0].dtype != DType::I32 {
            return Err(format!("input must be i32, found {}", inputs[0]));
        }
        self.per.check(&inputs[0].shape, &inputs[1..])?;
        Ok(TensorDesc::new(inputs[0].shape.clone(), DType::F32))
    }

    fn detail(&self) -> String {
        format!("{:?}", self.per)
    }

    fn lower(&self, cx: &mut Lower) {
        let kernel = Kernel::new("dequantize").alias("Elem", cx.output_desc().dtype.wgsl());
        dispatch(kernel, self.per, &[], cx);
    }
}

impl Graph {
    /// The numbers that the integers `x` stand for: see [`Dequantize`].
    pub fn dequantize(
        &mut self,
        x: ValueId,
        scale: ValueId,
        zero: Option<ValueId>,
        per: Per,
    ) -> Result<ValueId> {
        let inputs: Vec<ValueId> = [x, scale].into_iter().chain(zero).collect();
        self.push(Dequantize { per }, &inputs)
    }
}

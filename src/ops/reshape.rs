//! Reshape: another shape for the same memory.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::Lower;
use crate::tensor::{Shape, TensorDesc};

/// The same elements in the same order under another shape.
#[derive(Clone, Debug)]
pub struct Reshape {
    pub shape: Shape,
}

impl Operator for Reshape {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        match inputs[0].shape.elements() == self.shape.elements() {
            true => Ok(TensorDesc::new(self.shape.clone(), inputs[0].dtype)),
            false => Err(format!(
                "{} elements wanted by {}, input {} has {}",
                self.shape.elements(),
                self.shape,
                inputs[0].shape,
                inputs[0].shape.elements()
            )),
        }
    }

    fn is_view(&self) -> bool {
        true
    }

    fn lower(&self, _: &mut Lower) {}

    fn flops(&self, _: &[&TensorDesc], _: &TensorDesc) -> u64 {
        0
    }
}

impl Graph {
    /// `x` under another shape of as many elements; costs nothing.
    pub fn reshape(&mut self, x: ValueId, shape: impl Into<Shape>) -> Result<ValueId> {
        let shape = shape.into();
        match *self.shape(x) == shape {
            true => Ok(x),
            false => self.push(Reshape { shape }, &[x]),
        }
    }
}

//! Matrix products of integers, exact, as quantised networks are defined by.

use super::Operator;
use super::conv2d_integer::integers;
use super::matmul::Matmul;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::Lower;
use crate::tensor::{DType, TensorDesc};

/// `[…, m, k]` times `[…, k, n]` of the same batch, all i32, sums wrapping.
#[derive(Clone, Debug)]
pub struct MatmulInteger;

impl Operator for MatmulInteger {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        integers(inputs)?;
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        let rank = a.len();
        if rank < 2 || b.len() != rank || a[..rank - 2] != b[..rank - 2] || a[rank - 1] != b[rank - 2] {
            return Err(format!("wants […, m, k] and […, k, n], found {a} and {b}"));
        }
        Ok(TensorDesc::new([&a[..rank - 1], &b[rank - 1..]].concat(), DType::I32))
    }

    fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
        2 * (output.shape.elements() * inputs[0].shape.last()) as u64
    }

    /// The same kernels with another type of numbers.
    fn lower(&self, cx: &mut Lower) {
        Matmul::default().lower(cx);
    }
}

impl Graph {
    /// Matrix products of integers, `a` `[…, m, k]` with `b` `[…, k, n]`.
    pub fn matmul_integer(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push(MatmulInteger, &[a, b])
    }
}

//! Diffusion input: what the model sees of a latent.

use super::{Operator, arity};
use crate::diffusion::ROW_FLOATS;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// The latent of a sample, scaled, `copies` times. Inputs: the sample
/// `[2 + history, n, h, w, c]` (see [`super::DiffusionStep`]) and the step's row `[1, 32]`.
#[derive(Clone, Debug)]
pub struct DiffusionInput {
    pub copies: usize,
}

/// Checks a sample; returns `[slots, n, h, w, c]`.
pub(super) fn sample(desc: &TensorDesc) -> Result<[usize; 5], String> {
    match (<[usize; 5]>::try_from(&desc.shape[..]), desc.dtype) {
        (Ok(shape), DType::F32) if shape[0] >= 2 => Ok(shape),
        _ => Err(format!("sample must be f32[2 + history, n, h, w, c], found {desc}")),
    }
}

/// Checks a row of a sampler's table.
pub(super) fn row(desc: &TensorDesc) -> Result<(), String> {
    match (desc.shape.elements(), desc.dtype) {
        (ROW_FLOATS, DType::F32) => Ok(()),
        _ => Err(format!("row must be f32[1, {ROW_FLOATS}], found {desc}")),
    }
}

impl Operator for DiffusionInput {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=2)?;
        let [_, n, h, w, c] = sample(inputs[0])?;
        row(inputs[1])?;
        Ok(TensorDesc::new([self.copies * n, h, w, c], DType::F32))
    }

    fn lower(&self, cx: &mut Lower) {
        let count = cx.output_desc().shape.elements();
        cx.dispatch(
            Kernel::new("diffusion_input").alias("Elem", elem(cx.output_desc())),
            &[("sample", cx.input(0)), ("row", cx.input(1)), ("dst", cx.output())],
            &[("count", count.into()), ("elements", (count / self.copies).into())],
            Grid::Threads(count),
        );
    }
}

impl Graph {
    /// The model's input `[copies · n, h, w, c]`, f32, for a sample and the step's row.
    pub fn diffusion_input(&mut self, sample: ValueId, row: ValueId, copies: usize) -> Result<ValueId> {
        self.push(DiffusionInput { copies }, &[sample, row])
    }
}

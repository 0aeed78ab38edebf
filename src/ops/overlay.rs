//! Overlay: classes over pictures, in colours.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Mixes each pixel with its class's colour. Inputs, all u32: pictures `[n, h, w]`, red in the lowest byte; classes of the
/// same shape; colours `[classes]`, their share in the highest byte. A class past the last has the last colour.
#[derive(Clone, Debug)]
pub struct Overlay;

impl Operator for Overlay {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 3..=3)?;
        if let Some(other) = inputs.iter().find(|d| d.dtype != DType::U32) {
            return Err(format!("pictures, classes and colours must be u32, found {other}"));
        }
        if inputs[0].shape != inputs[1].shape || inputs[2].shape.len() != 1 {
            let [pictures, classes, colours] = [0, 1, 2].map(|i| &inputs[i].shape);
            return Err(format!("pictures are {pictures}, classes {classes}, colours {colours}"));
        }
        Ok(inputs[0].clone())
    }

    fn lower(&self, cx: &mut Lower) {
        let pixels = cx.output_desc().shape.elements();
        cx.dispatch(
            Kernel::new("overlay"),
            &[("src", cx.input(0)), ("classes", cx.input(1)), ("palette", cx.input(2)), ("dst", cx.output())],
            &[("pixels", pixels.into()), ("colours", cx.desc(2).shape.elements().into())],
            Grid::Threads(pixels),
        );
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        9 * output.shape.elements() as u64
    }
}

impl Graph {
    /// `pictures` `[n, h, w]` with `classes` of the same shape in `colours` `[classes]`: all u32, red in the lowest byte,
    /// and in the highest of a colour how much of it is seen.
    pub fn overlay(&mut self, pictures: ValueId, classes: ValueId, colours: ValueId) -> Result<ValueId> {
        self.push(Overlay, &[pictures, classes, colours])
    }
}

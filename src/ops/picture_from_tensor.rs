//! Feature maps → pictures of 8-bit sRGB bytes.

use super::{Operator, arity, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// A feature map as words of bytes. Input: `[n, h, w, c]` or `[slots, n, h, w, c]`, `c` 1 or 3.
#[derive(Clone, Debug)]
pub struct PictureFromTensor {
    /// Which of the slots.
    pub slot: usize,
    /// `x · scale + shift` is 0 for black and 1 for white.
    pub scale: f32,
    pub shift: f32,
}

impl Operator for PictureFromTensor {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        let (slots, [n, h, w, c]) = match inputs[0].shape[..] {
            [n, h, w, c] => (1, [n, h, w, c]),
            [slots, n, h, w, c] => (slots, [n, h, w, c]),
            _ => return Err(format!("input must be [n, h, w, c] or [slots, n, h, w, c], found {}", inputs[0].shape)),
        };
        if self.slot >= slots || !matches!(c, 1 | 3) {
            return Err(format!("slot {} of one or three channels, input is {}", self.slot, inputs[0].shape));
        }
        Ok(TensorDesc::new([n, h, w], DType::U32))
    }

    fn lower(&self, cx: &mut Lower) {
        let pixels = cx.output_desc().shape.elements();
        let channels = cx.desc(0).shape.last();
        cx.dispatch(
            Kernel::new("picture_from_tensor")
                .constant("CHANNELS", format!("{channels}u"))
                .alias("Elem", elem(cx.desc(0))),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("pixels", pixels.into()),
                ("first", (self.slot * pixels * channels).into()),
                ("scale", self.scale.into()),
                ("shift", self.shift.into()),
            ],
            Grid::Threads(pixels),
        );
    }
}

impl Graph {
    /// `x · scale + shift` in 0..1 as bytes: `[n, h, w]`, u32, red in the lowest byte. `x` is `[n, h, w, c]`,
    /// or `[slots, n, h, w, c]` of which `slot` is shown.
    pub fn picture_from_tensor(&mut self, x: ValueId, slot: usize, scale: f32, shift: f32) -> Result<ValueId> {
        self.push(PictureFromTensor { slot, scale, shift }, &[x])
    }
}

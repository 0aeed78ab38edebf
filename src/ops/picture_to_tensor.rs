//! Pictures of 8-bit sRGB bytes → feature maps.

use super::{Operator, arity, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Resizes and normalises. Input: `[n, h, w]` words, red in the lowest byte.
#[derive(Clone, Debug)]
pub struct PictureToTensor {
    pub height: usize,
    pub width: usize,
    /// A channel is `x / 255 · scale + shift`; one channel (luma) or three.
    pub normalise: Vec<(f32, f32)>,
    pub dtype: DType,
}

impl Operator for PictureToTensor {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        let (&[n, _, _], DType::U32) = (&inputs[0].shape[..], inputs[0].dtype) else {
            return Err(format!("pictures must be u32[n, h, w], found {}", inputs[0]));
        };
        if !matches!(self.normalise.len(), 1 | 3) {
            return Err(format!("one or three channels, found {}", self.normalise.len()));
        }
        let desc = TensorDesc::new([n, self.height, self.width, self.normalise.len()], self.dtype);
        float("result", &desc)?;
        Ok(desc)
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        // The filter's windows overlap by half in both directions.
        32 * inputs[0].shape.elements() as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let output = cx.output_desc();
        let pixels = output.shape[..3].iter().product::<usize>();
        let of = |c: usize| self.normalise[c.min(self.normalise.len() - 1)];
        cx.dispatch(
            Kernel::new("picture_to_tensor")
                .constant("CHANNELS", format!("{}u", self.normalise.len()))
                .alias("Elem", elem(output)),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("pixels_out", pixels.into()),
                ("height", cx.desc(0).shape[1].into()),
                ("width", cx.desc(0).shape[2].into()),
                ("height_out", self.height.into()),
                ("width_out", self.width.into()),
                ("scale0", of(0).0.into()),
                ("scale1", of(1).0.into()),
                ("scale2", of(2).0.into()),
                ("shift0", of(0).1.into()),
                ("shift1", of(1).1.into()),
                ("shift2", of(2).1.into()),
            ],
            Grid::Threads(pixels),
        );
    }
}

impl Graph {
    /// `pictures` `[n, h, w]` (u32, red in the lowest byte) resized to `[height, width]` with an antialiased
    /// triangle filter: `[n, height, width, c]`, `x / 255 · scale + shift` for the `(scale, shift)` of each of
    /// three channels, or of luma (BT.601) if there is one.
    pub fn picture_to_tensor(
        &mut self,
        pictures: ValueId,
        [height, width]: [usize; 2],
        normalise: &[(f32, f32)],
        dtype: DType,
    ) -> Result<ValueId> {
        self.push(PictureToTensor { height, width, normalise: normalise.to_vec(), dtype }, &[pictures])
    }
}

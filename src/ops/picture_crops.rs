//! Parts of pictures, chosen on the device, as feature maps.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Cuts out, resizes and normalises. Inputs: pictures `[n, h, w]` of words with red in the lowest byte; boxes
/// `[n, boxes, 4 or more]`, f32: left, top, right, bottom in pixels. Result: f32 `[n · boxes, height, width, c]`.
#[derive(Clone, Debug)]
pub struct PictureCrops {
    /// Height and width of the result.
    pub size: [usize; 2],
    /// Added on each side of a box, as a share of its own.
    pub margin: f32,
    /// The shorter side of a box is made as long as the other.
    pub square: bool,
    /// A channel is `x / 255 · scale + shift`; one channel (luma) or three.
    pub normalise: Vec<(f32, f32)>,
}

impl Operator for PictureCrops {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=2)?;
        let (&[n, _, _], DType::U32) = (&inputs[0].shape[..], inputs[0].dtype) else {
            return Err(format!("pictures must be u32[n, h, w], found {}", inputs[0]));
        };
        let (m, boxes) = match (&inputs[1].shape[..], inputs[1].dtype) {
            (&[m, boxes, numbers], DType::F32) if numbers >= 4 => (m, boxes),
            _ => return Err(format!("boxes must be f32[n, boxes, 4 or more], found {}", inputs[1])),
        };
        if n != m {
            return Err(format!("{n} pictures, boxes of {m}"));
        }
        if !matches!(self.normalise.len(), 1 | 3) {
            return Err(format!("one or three channels, found {}", self.normalise.len()));
        }
        if !(0.0..=16.0).contains(&self.margin) {
            return Err(format!("margin must be 0 to 16, found {}", self.margin));
        }
        Ok(TensorDesc::new([n * boxes, self.size[0], self.size[1], self.normalise.len()], DType::F32))
    }

    fn lower(&self, cx: &mut Lower) {
        let pixels = cx.output_desc().shape[..3].iter().product::<usize>();
        let of = |c: usize| self.normalise[c.min(self.normalise.len() - 1)];
        cx.dispatch(
            Kernel::new("picture_crops")
                .constant("CHANNELS", format!("{}u", self.normalise.len()))
                .constant("SQUARE", self.square),
            &[("src", cx.input(0)), ("boxes", cx.input(1)), ("dst", cx.output())],
            &[
                ("pixels_out", pixels.into()),
                ("height", cx.desc(0).shape[1].into()),
                ("width", cx.desc(0).shape[2].into()),
                ("height_out", self.size[0].into()),
                ("width_out", self.size[1].into()),
                ("boxes", cx.desc(1).shape[1].into()),
                ("stride", cx.desc(1).shape[2].into()),
                ("margin", self.margin.into()),
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
    /// The parts `boxes` `[n, boxes, 4 or more]` (left, top, right, bottom in pixels) of `pictures` `[n, h, w]`, see
    /// [`PictureCrops`]: `[n · boxes, height, width, c]`. Boxes may come from the same graph.
    pub fn picture_crops(&mut self, pictures: ValueId, boxes: ValueId, crops: PictureCrops) -> Result<ValueId> {
        self.push(crops, &[pictures, boxes])
    }
}

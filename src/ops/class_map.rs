//! Class map: which class each pixel of a picture is, from a network's scores.

use super::picture_to_tensor::Axis;
use super::{Operator, arity, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// The class with the highest score, u32 `[n, height, width]`, of scores `[n, h, w, classes]` laid over the picture.
#[derive(Clone, Debug)]
pub struct ClassMap {
    /// Height and width of the result.
    pub size: [usize; 2],
    /// For rows and columns `[a, b]`: place `p` of the picture, from its upper or left end, is `a · p + b` in the map.
    pub place: [[f32; 2]; 2],
}

impl Operator for ClassMap {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        let [n, ..] = nhwc("scores", inputs[0])?;
        if inputs[0].dtype != DType::F32 {
            return Err(format!("scores must be f32, found {}", inputs[0].dtype));
        }
        Ok(TensorDesc::new([n, self.size[0], self.size[1]], DType::U32))
    }

    fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
        (output.shape.elements() * inputs[0].shape.last() * 9) as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let [_, h, w, classes] = nhwc("scores", cx.desc(0)).expect("checked by infer");
        let count = cx.output_desc().shape.elements();
        cx.dispatch(
            Kernel::new("class_map").constant("CLASSES", format!("{classes}u")),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("height", h.into()),
                ("width", w.into()),
                ("height_out", self.size[0].into()),
                ("width_out", self.size[1].into()),
                ("scale_y", self.place[0][0].into()),
                ("shift_y", self.place[0][1].into()),
                ("scale_x", self.place[1][0].into()),
                ("shift_x", self.place[1][1].into()),
            ],
            Grid::Threads(count),
        );
    }
}

impl Graph {
    /// Classes (u32) of the pixels of the pictures that a network read as `rows` and `columns`, from its scores `[n, h, w,
    /// classes]`, bilinear between them: `[n, height, width]` of the picture. With one class, 1 where its score is above 0.
    pub fn class_map(&mut self, scores: ValueId, [rows, columns]: [&Axis; 2]) -> Result<ValueId> {
        let shape = self.shape(scores).clone();
        let place = |axis: &Axis, d: usize| {
            let length = shape.get(d).copied().unwrap_or(1) as f64 / axis.out as f64;
            let scale = length / axis.ratio();
            [scale as f32, (-axis.part[0] * scale - axis.first as f64 * length) as f32]
        };
        let place = [place(rows, 1), place(columns, 2)];
        self.push(ClassMap { size: [rows.source, columns.source], place }, &[scores])
    }
}

//! Grid sample: a feature map read at computed places (Jaderberg et al. 2015, "Spatial Transformer Networks").

use super::resize::Interpolation;
use super::{Operator, arity, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// What is read outside the feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    Zeros,
    /// The nearest pixel of the edge.
    Border,
    /// The map mirrored at its edges, again and again.
    Reflection,
}

/// Samples `[n, h, w, c]` at the places of a grid `[n, oh, ow, 2]`, pairs `(x, y)` of which -1 and 1 are the edges of
/// the map; the result is `[n, oh, ow, c]`. With nearest, halves go to the even pixel.
#[derive(Clone, Debug)]
pub struct GridSample {
    pub interpolation: Interpolation,
    pub outside: Outside,
    /// Whether -1 and 1 are the centres of the outermost pixels instead.
    pub align_corners: bool,
}

impl Operator for GridSample {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=2)?;
        float("input", inputs[0])?;
        float("grid", inputs[1])?;
        let [n, h, w, c] = nhwc("input", inputs[0])?;
        let &[m, oh, ow, 2] = &inputs[1].shape[..] else {
            return Err(format!("grid must be [n, oh, ow, 2], found {}", inputs[1].shape));
        };
        if n != m {
            return Err(format!("{n} maps cannot be read with {m} grids"));
        }
        if h.max(w) > 1 << 24 {
            return Err(format!("sizes must be at most 2^24, found {h} by {w}"));
        }
        Ok(TensorDesc::new([n, oh, ow, c], inputs[0].dtype))
    }

    fn detail(&self) -> String {
        format!("{:?} {:?}", self.interpolation, self.outside)
    }

    fn lower(&self, cx: &mut Lower) {
        let [_, h, w, c] = nhwc("input", cx.desc(0)).expect("checked by infer");
        let [_, oh, ow, _] = nhwc("result", cx.output_desc()).expect("made by infer");
        let (unit, v, elem) = match (c.is_multiple_of(4), cx.desc(0).dtype) {
            (true, DType::F16) => (4, "vec4<f32>", "vec4<f16>"),
            (true, _) => (4, "vec4<f32>", "vec4<f32>"),
            (false, dtype) => (1, "f32", dtype.wgsl()),
        };
        let (taps, cubic) = match self.interpolation {
            Interpolation::Nearest => ("1u", 0.0),
            Interpolation::Bilinear => ("2u", 0.0),
            Interpolation::Bicubic { a } => ("4u", a),
        };
        let padding = match self.outside {
            Outside::Zeros => "0u",
            Outside::Border => "BORDER",
            Outside::Reflection => "REFLECTION",
        };
        let count = cx.output_desc().shape.elements() / unit;
        cx.dispatch(
            Kernel::new("grid_sample")
                .constant("TAPS", taps)
                .constant("PADDING", padding)
                .constant("CORNERS", self.align_corners)
                .alias("V", v)
                .alias("Elem", elem)
                .alias("Place", cx.desc(1).dtype.wgsl()),
            &[("src", cx.input(0)), ("grid", cx.input(1)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("h", h.into()),
                ("w", w.into()),
                ("c", (c / unit).into()),
                ("pixels", (oh * ow).into()),
                ("cubic", cubic.into()),
            ],
            Grid::Threads(count),
        );
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        let taps = match self.interpolation {
            Interpolation::Nearest => return 0,
            Interpolation::Bilinear => 2,
            Interpolation::Bicubic { .. } => 4,
        };
        output.shape.elements() as u64 * 2 * taps * (taps + 1)
    }
}

impl Graph {
    /// `x` `[n, h, w, c]` at the places of `grid` `[n, oh, ow, 2]`: see [`GridSample`].
    pub fn grid_sample(&mut self, x: ValueId, grid: ValueId, options: GridSample) -> Result<ValueId> {
        self.push(options, &[x, grid])
    }
}

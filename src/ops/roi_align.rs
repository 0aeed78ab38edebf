//! RoI align: regions of a feature map at one size each (He et al. 2017, "Mask R-CNN").

use super::{Operator, arity, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// What is taken of the samples of a bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    Mean,
    /// Of the four neighbours of all samples, each times its weight, as ONNX has it.
    Max,
}

/// Most samples of a bin along an axis that can be asked for.
const MOST_SAMPLES: usize = 256;

/// Of a feature map `[n, h, w, c]` the regions `[r, 4]`, each (left, top, right, bottom), in the pictures `[r]`, i32, as bins
/// `[r, oh, ow, c]`. Samples between pixels are bilinear; more than a pixel outside the map they are zero.
#[derive(Clone, Debug)]
pub struct RoiAlign {
    /// Rows and columns of bins.
    pub size: [usize; 2],
    /// Samples of a bin along each axis; 0 for as many as pixels begun in it.
    pub samples: usize,
    /// Pixels of the map in a unit of the regions.
    pub scale: f32,
    /// Whether pixel centres lie at halves. If not, regions are at least one pixel wide and high.
    pub half_pixel: bool,
    pub reduce: Samples,
}

impl Operator for RoiAlign {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 3..=3)?;
        let [map, regions, pictures] = [inputs[0], inputs[1], inputs[2]];
        float("input", map)?;
        float("regions", regions)?;
        let [_, h, w, c] = nhwc("input", map)?;
        let &[r, 4] = &regions.shape[..] else {
            return Err(format!("regions must be [r, 4], found {}", regions.shape));
        };
        if pictures.dtype != DType::I32 || pictures.shape[..] != [r] {
            return Err(format!("pictures must be i32[{r}], found {pictures}"));
        }
        if h.max(w) > 1 << 24 || self.samples > MOST_SAMPLES {
            return Err(format!(
                "sizes must be at most 2^24 and samples at most {MOST_SAMPLES}, found {h} by {w} and {}",
                self.samples
            ));
        }
        let [oh, ow] = self.size;
        Ok(TensorDesc::new([r, oh, ow, c], map.dtype))
    }

    fn detail(&self) -> String {
        format!("{:?} {:?}", self.reduce, self.size)
    }

    fn lower(&self, cx: &mut Lower) {
        let [n, h, w, c] = nhwc("input", cx.desc(0)).expect("checked by infer");
        let (unit, v, elem) = match (c.is_multiple_of(4), cx.desc(0).dtype) {
            (true, DType::F16) => (4, "vec4<f32>", "vec4<f16>"),
            (true, _) => (4, "vec4<f32>", "vec4<f32>"),
            (false, dtype) => (1, "f32", dtype.wgsl()),
        };
        let count = cx.output_desc().shape.elements() / unit;
        let (offset, least) = if self.half_pixel { (0.5, f32::MIN) } else { (0.0, 1.0) };
        cx.dispatch(
            Kernel::new("roi_align")
                .constant("MAX", self.reduce == Samples::Max)
                .alias("V", v)
                .alias("Elem", elem)
                .alias("Place", cx.desc(1).dtype.wgsl()),
            &[
                ("src", cx.input(0)),
                ("regions", cx.input(1)),
                ("pictures", cx.input(2)),
                ("dst", cx.output()),
            ],
            &[
                ("count", count.into()),
                ("n", n.into()),
                ("h", h.into()),
                ("w", w.into()),
                ("c", (c / unit).into()),
                ("oh", self.size[0].into()),
                ("ow", self.size[1].into()),
                ("ratio", self.samples.into()),
                ("scale", self.scale.into()),
                ("offset", offset.into()),
                ("least", least.into()),
            ],
            Grid::Threads(count),
        );
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        let samples = self.samples.max(1).pow(2) as u64;
        output.shape.elements() as u64 * samples * 12
    }
}

impl Graph {
    /// Regions of `x` `[n, h, w, c]` as bins: see [`RoiAlign`].
    pub fn roi_align(
        &mut self,
        x: ValueId,
        regions: ValueId,
        pictures: ValueId,
        options: RoiAlign,
    ) -> Result<ValueId> {
        self.push(options, &[x, regions, pictures])
    }
}

//! Deform columns: what the taps of a deformable convolution read (Dai et al. 2017, "Deformable Convolutional Networks"; with
//! a mask, Zhu et al. 2019, "Deformable ConvNets v2"). The convolution is then a product with the weights.

use super::conv2d::Conv2dOptions;
use super::{Operator, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Of `[n, h, w, c]` the pixels under each tap of a kernel, moved by offsets, bilinear, zero outside: `[n, oh, ow, groups · taps ·
/// c / groups]`. Inputs: the map, offsets `[n, oh, ow, sets · taps · 2]` (y before x), and, if there is one, a mask `[n, oh, ow,
/// sets · taps]` that multiplies what is read; a set of channels shares them.
#[derive(Clone, Debug)]
pub struct DeformColumns {
    pub options: Conv2dOptions,
    pub kernel: [usize; 2],
    /// Sets of channels with offsets of their own.
    pub sets: usize,
}

impl Operator for DeformColumns {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        super::arity(inputs, 2..=3)?;
        let [n, h, w, c] = nhwc("source", inputs[0])?;
        float("source", inputs[0])?;
        let o = &self.options;
        let counts = [o.stride, o.dilation, self.kernel].concat();
        if counts.iter().any(|&n| n == 0 || n > 1 << 15) || o.padding.iter().any(|&n| n > 1 << 15) {
            return Err(format!(
                "kernel, stride and dilation must be 1 to 32768, and padding at most that, found {self:?}"
            ));
        }
        if o.groups == 0 || self.sets == 0 || !c.is_multiple_of(o.groups) || !c.is_multiple_of(self.sets) {
            return Err(format!("{c} channels are no {} groups and {} sets", o.groups, self.sets));
        }
        let extent = |i: usize, size: usize| {
            let (padded, reach) =
                (size + o.padding[i] + o.padding[i + 2], o.dilation[i] * (self.kernel[i] - 1) + 1);
            match padded >= reach && padded < 1 << 24 {
                true => Ok((padded - reach) / o.stride[i] + 1),
                false => Err(format!("kernel reaches over {reach}, padded source has {padded}")),
            }
        };
        let (oh, ow) = (extent(0, h)?, extent(1, w)?);
        let taps = self.kernel[0] * self.kernel[1];
        for (input, (what, each)) in inputs[1..].iter().zip([("offsets", 2), ("mask", 1)]) {
            float(what, input)?;
            let wanted = [n, oh, ow, self.sets * taps * each];
            if input.shape[..] != wanted || input.dtype != inputs[1].dtype {
                return Err(format!("{what} must be {}{wanted:?}, found {input}", inputs[1].dtype));
            }
        }
        Ok(TensorDesc::new([n, oh, ow, taps * c], inputs[0].dtype))
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        9 * output.shape.elements() as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let [_, h, w, c] = nhwc("source", cx.desc(0)).expect("checked by infer");
        let [_, oh, ow, _] = nhwc("result", cx.output_desc()).expect("made by infer");
        let o = self.options;
        let (each, set) = (c / o.groups, c / self.sets);
        let quads = each.is_multiple_of(4) && set.is_multiple_of(4);
        let (unit, v, elem) = match (quads, cx.desc(0).dtype) {
            (true, DType::F16) => (4, "vec4<f32>", "vec4<f16>"),
            (true, _) => (4, "vec4<f32>", "vec4<f32>"),
            (false, dtype) => (1, "f32", dtype.wgsl()),
        };
        let mut kernel = Kernel::new("deform_columns")
            .alias("V", v)
            .alias("Elem", elem)
            .alias("Place", cx.desc(1).dtype.wgsl());
        let mut buffers = vec![("src", cx.input(0)), ("offset", cx.input(1)), ("dst", cx.output())];
        match cx.inputs() {
            3 => buffers.push(("mask", cx.input(2))),
            _ => kernel = kernel.function("part", "fn part(tap: u32) -> f32 {\n    return 1.0;\n}"),
        }
        let count = cx.output_desc().shape.elements() / unit;
        cx.dispatch(
            kernel,
            &buffers,
            &[
                ("count", count.into()),
                ("h", h.into()),
                ("w", w.into()),
                ("channels", (c / unit).into()),
                ("each", (each / unit).into()),
                ("shared_by", (set / unit).into()),
                ("sets", self.sets.into()),
                ("oh", oh.into()),
                ("ow", ow.into()),
                ("kernel_y", self.kernel[0].into()),
                ("kernel_x", self.kernel[1].into()),
                ("stride_y", o.stride[0].into()),
                ("stride_x", o.stride[1].into()),
                ("dilation_y", o.dilation[0].into()),
                ("dilation_x", o.dilation[1].into()),
                ("top", o.padding[0].into()),
                ("left", o.padding[1].into()),
            ],
            Grid::Threads(count),
        );
    }
}

impl Graph {
    /// What the taps of a deformable convolution read of `x` `[n, h, w, c]`: see [`DeformColumns`].
    pub fn deform_columns(
        &mut self,
        x: ValueId,
        offsets: ValueId,
        mask: Option<ValueId>,
        options: DeformColumns,
    ) -> Result<ValueId> {
        let inputs: Vec<ValueId> = [x, offsets].into_iter().chain(mask).collect();
        self.push(options, &inputs)
    }
}

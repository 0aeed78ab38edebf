//! 2-D convolution of integers, exact, as quantised networks are defined by.

use super::conv2d::{Conv2dOptions, even_part};
use super::{Operator, arity, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::target::DeviceClass;
use crate::tensor::{DType, TensorDesc};

/// Cross-correlation of `[n, h, w, c]` with `[kh, kw, c / groups, outputs]`, all i32, sums wrapping.
#[derive(Clone, Debug)]
pub struct Conv2dInteger {
    pub options: Conv2dOptions,
}

/// Checks that both inputs are integers.
pub(super) fn integers(inputs: &[&TensorDesc]) -> Result<(), String> {
    arity(inputs, 2..=2)?;
    match inputs.iter().find(|d| d.dtype != DType::I32) {
        Some(other) => Err(format!("inputs must be i32, found {other}")),
        None => Ok(()),
    }
}

/// Four neighbouring results at once where their number allows it: how many, and their type.
fn unit(n: usize) -> (usize, &'static str) {
    if n.is_multiple_of(4) { (4, "vec4<i32>") } else { (1, "i32") }
}

impl Operator for Conv2dInteger {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        integers(inputs)?;
        let [n, h, w, c] = nhwc("source", inputs[0])?;
        let &[kh, kw, each, outputs] = &inputs[1].shape[..] else {
            return Err(format!("weight must be [kh, kw, c / groups, outputs], found {}", inputs[1]));
        };
        let o = &self.options;
        if o.stride.contains(&0) || o.dilation.contains(&0) || o.groups == 0 {
            return Err(format!("stride, dilation and groups must be positive, found {o:?}"));
        }
        if each * o.groups != c || !outputs.is_multiple_of(o.groups) {
            return Err(format!(
                "weight wants {} groups of {each} channels and makes {outputs}, source has {c}",
                o.groups
            ));
        }
        let [top, left, bottom, right] = o.padding;
        let extent = |i: usize, size: usize, kernel: usize, before: usize, after: usize| {
            let reach = o.dilation[i] * (kernel - 1) + 1;
            let padded = size + before + after;
            match padded >= reach && padded < 1 << 30 {
                true => Ok((padded - reach) / o.stride[i] + 1),
                false => Err(format!("kernel reaches over {reach}, padded source has {padded}")),
            }
        };
        let size = [extent(0, h, kh, top, bottom)?, extent(1, w, kw, left, right)?];
        Ok(TensorDesc::new([n, size[0], size[1], outputs], DType::I32))
    }

    fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
        let products: usize = inputs[1].shape[..3].iter().product();
        2 * (output.shape.elements() * products) as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let [n, h, w, c] = nhwc("source", cx.desc(0)).expect("checked by infer");
        let [_, oh, ow, channels] = nhwc("result", cx.output_desc()).expect("made by infer");
        let [kh, kw, each] = [0, 1, 2].map(|d| cx.desc(1).shape[d]);
        let o = self.options;
        // Without neighbours all pixels are one row.
        let pointwise = kh * kw == 1 && o.stride == [1, 1] && o.padding == [0; 4];
        let [n, h, w, oh, ow] = if pointwise { [1, 1, n * h * w, 1, n * h * w] } else { [n, h, w, oh, ow] };
        let (unit, v) = unit(channels / o.groups);
        let outputs = channels / o.groups / unit;
        let (most_pixels, most_units) = match cx.target().class {
            DeviceClass::Cpu => (8, 4),
            // Small tiles where there are few, so that threads fill a GPU.
            _ if n * oh * ow * channels < 1 << 20 => (4, 1),
            _ => (4, 2),
        };
        let (pixels, units) = (even_part(ow, most_pixels), even_part(outputs, most_units));
        let (tiles_x, tiles_group) = (ow.div_ceil(pixels), outputs.div_ceil(units));
        let mut kernel = Kernel::new("conv2d_integer")
            .constant("PIXELS", format!("{pixels}u"))
            .constant("UNITS", format!("{units}u"))
            .alias("V", v);
        if !each.is_multiple_of(4) {
            kernel = kernel.alias("Src", "i32").function("load", LOAD_NUMBERS);
        }
        cx.dispatch(
            kernel,
            &[("src", cx.input(0)), ("weight", cx.input(1)), ("dst", cx.output())],
            &[
                ("h", h.into()),
                ("w", w.into()),
                ("c", c.into()),
                ("oh", oh.into()),
                ("ow", ow.into()),
                ("samples", n.into()),
                ("channels", (channels / unit).into()),
                ("outputs", outputs.into()),
                ("each", each.into()),
                ("tiles_x", tiles_x.into()),
                ("tiles_group", tiles_group.into()),
                ("tiles", (o.groups * tiles_group).into()),
                ("kernel_y", kh.into()),
                ("kernel_x", kw.into()),
                ("stride_y", o.stride[0].into()),
                ("stride_x", o.stride[1].into()),
                ("dilation_y", o.dilation[0].into()),
                ("dilation_x", o.dilation[1].into()),
                ("top", o.padding[0].into()),
                ("left", o.padding[1].into()),
            ],
            Grid::Threads(n * oh * tiles_x * o.groups * tiles_group),
        );
    }
}

/// For channels of a group that are no multiple of four: zeros past the end.
const LOAD_NUMBERS: &str = "fn load(start: u32, c: u32) -> vec4<i32> {
    var s = vec4<i32>();
    for (var t = 0u; t < min(4u, P.each - c); t++) {
        s[t] = src[start + c + t];
    }
    return s;
}";

impl Graph {
    /// Cross-correlation of integers, `x` `[n, h, w, c]` with `weight` `[kh, kw, c / groups, outputs]`.
    pub fn conv2d_integer(&mut self, x: ValueId, weight: ValueId, options: Conv2dOptions) -> Result<ValueId> {
        self.push(Conv2dInteger { options }, &[x, weight])
    }
}

//! ConvTranspose2d: the transposed (fractionally strided) convolution.

use super::matmul::{ALIKE, Matmul};
use super::{Operator, arity, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Attributes of a transposed convolution, each pair as `[y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose2dOptions {
    pub stride: [usize; 2],
    /// Pixels cut off at the top, left, bottom and right of the full result.
    pub padding: [usize; 4],
    /// Pixels added at the bottom and right; less than stride or dilation.
    pub output_padding: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl Default for ConvTranspose2dOptions {
    fn default() -> Self {
        ConvTranspose2dOptions {
            stride: [1; 2],
            padding: [0; 4],
            output_padding: [0; 2],
            dilation: [1; 2],
            groups: 1,
        }
    }
}

/// Transposed convolution of `[n, h, w, c_in]`, as PyTorch's `ConvTranspose2d`. Inputs: source,
/// weight repacked to `[c_in, kh, kw, c_out / groups]`, and a bias `[c_out]` or none.
#[derive(Clone, Debug)]
pub struct ConvTranspose2d {
    pub options: ConvTranspose2dOptions,
}

impl Operator for ConvTranspose2d {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=3)?;
        let o = &self.options;
        let [n, h, w, c_in] = nhwc("input", inputs[0])?;
        for (what, desc) in ["input", "weight", "bias"].iter().zip(inputs) {
            float(what, desc)?;
            if desc.dtype != inputs[0].dtype {
                return Err(format!("{what} is {}, input is {}", desc.dtype, inputs[0].dtype));
            }
        }
        let [weight_in, kh, kw, group_out] = inputs[1].shape[..] else {
            return Err(format!("weight must have 4 dimensions, found {}", inputs[1].shape));
        };
        if weight_in != c_in {
            return Err(format!("weight wants {weight_in} channels, input has {c_in}"));
        }
        if o.groups == 0 || !c_in.is_multiple_of(o.groups) {
            return Err(format!("{c_in} channels do not divide into {} groups", o.groups));
        }
        let c_out = group_out * o.groups;
        if let Some(bias) = inputs.get(2).filter(|b| b.shape[..] != [c_out]) {
            return Err(format!("bias must be [{c_out}], found {}", bias.shape));
        }
        let extent = |axis: usize, size: usize, kernel: usize| {
            let (stride, dilation, more) = (o.stride[axis], o.dilation[axis], o.output_padding[axis]);
            let (before, after) = (o.padding[axis], o.padding[axis + 2]);
            let values = [size, kernel, stride, dilation];
            if values.contains(&0) || values.into_iter().chain([before, after, more]).any(|x| x > 1 << 15) {
                return Err(format!("sizes, strides and dilations must be 1 to 32768, found {o:?}"));
            }
            if more > 0 && more >= stride.max(dilation) {
                return Err(format!(
                    "output padding must be below stride {stride} or dilation {dilation}, found {more}"
                ));
            }
            let full = (size - 1) * stride + dilation * (kernel - 1) + 1 + more;
            match full.checked_sub(before + after) {
                Some(n) if n > 0 => Ok(n),
                _ => Err(format!("padding {before} and {after} leaves nothing of {full} pixels")),
            }
        };
        Ok(TensorDesc::new([n, extent(0, h, kh)?, extent(1, w, kw)?, c_out], inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        match self.products(cx) {
            Some(products) => self.lower_as_product(&products, cx),
            None => self.lower_gathered(cx),
        }
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        let weight = &inputs[1].shape;
        2 * (inputs[0].shape.elements() * weight[1] * weight[2] * weight[3]) as u64
    }
}

/// Fewer channels of the source than this are gathered.
const LEAST_CHANNELS: usize = 8;

/// Most products of taps for each result.
const MOST_PRODUCTS: usize = 4;

impl ConvTranspose2d {
    /// The tensor of each source pixel times each tap, where the convolution is worth to be one product and a binding holds it. Else
    /// the size of the picture has no say, so that its tiles come out to the bit as it does.
    fn products(&self, cx: &Lower) -> Option<TensorDesc> {
        let (o, target) = (&self.options, cx.target());
        let [n, h, w, c_in] = nhwc("input", cx.desc(0)).expect("checked by infer");
        let [_, kh, kw, c_out] = cx.desc(1).shape[..] else { unreachable!("checked by infer") };
        let quads = c_in.is_multiple_of(4) && c_out.is_multiple_of(4) && c_in >= LEAST_CHANNELS;
        let few = kh * kw <= MOST_PRODUCTS * o.stride[0] * o.stride[1];
        // In f32, so that a result is rounded once.
        let products = TensorDesc::new([n * h * w, kh * kw * c_out], DType::F32);
        let fits = products.bytes() <= target.max_binding.min(target.max_buffer);
        (o.groups == 1 && o.dilation == [1, 1] && quads && few && fits).then_some(products)
    }

    /// One product, of which the taps are then put together.
    fn lower_as_product(&self, products: &TensorDesc, cx: &mut Lower) {
        let o = &self.options;
        let [n, h, w, c_in] = nhwc("input", cx.desc(0)).expect("checked by infer");
        let [_, oh, ow, c_out] = nhwc("result", cx.output_desc()).expect("made by infer");
        let [_, kh, kw, _] = cx.desc(1).shape[..] else { unreachable!("checked by infer") };
        let (pixels, dtype) = (n * h * w, cx.output_desc().dtype);
        let (rows, taps) =
            (TensorDesc::new([pixels, c_in], dtype), TensorDesc::new([c_in, kh * kw * c_out], dtype));
        let scratch = cx.scratch(products.bytes() as usize);
        let inputs = vec![(&rows, cx.input(0)), (&taps, cx.input(1))];
        Matmul::default().lower_as_of(pixels.max(ALIKE), &mut cx.part(inputs, (products, scratch)));

        let unsigned = |n: usize| format!("{n}u");
        let mut kernel = Kernel::new("fold_taps")
            .constant("KERNEL_Y", unsigned(kh))
            .constant("KERNEL_X", unsigned(kw))
            .constant("STRIDE_Y", unsigned(o.stride[0]))
            .constant("STRIDE_X", unsigned(o.stride[1]))
            .constant("TAPS_Y", unsigned(kh.div_ceil(o.stride[0])))
            .constant("TAPS_X", unsigned(kw.div_ceil(o.stride[1])))
            .alias("Quad", if dtype == DType::F16 { "vec4<f16>" } else { "vec4<f32>" });
        let mut buffers = vec![("products", scratch), ("dst", cx.output())];
        if cx.inputs() > 2 {
            buffers.push(("bias", cx.input(2)));
        } else {
            kernel = kernel.function("start", NO_BIAS);
        }
        let count = cx.output_desc().shape.elements() / 4;
        cx.dispatch(
            kernel,
            &buffers,
            &[
                ("count", count.into()),
                ("h", h.into()),
                ("w", w.into()),
                ("oh", oh.into()),
                ("ow", ow.into()),
                ("quads", (c_out / 4).into()),
                ("top", o.padding[0].into()),
                ("left", o.padding[1].into()),
            ],
            Grid::Threads(count),
        );
    }

    /// Each result by itself.
    fn lower_gathered(&self, cx: &mut Lower) {
        let o = &self.options;
        let [_, h, w, c_in] = nhwc("input", cx.desc(0)).expect("checked by infer");
        let [_, oh, ow, c_out] = nhwc("result", cx.output_desc()).expect("made by infer");
        let (group_in, group_out) = (c_in / o.groups, c_out / o.groups);
        let dtype = cx.output_desc().dtype;
        let quad = if dtype == DType::F16 { "vec4<f16>" } else { "vec4<f32>" };
        let (unit, v, elem) = match group_out.is_multiple_of(4) {
            true => (4, "vec4<f32>", quad),
            false => (1, "f32", dtype.wgsl()),
        };
        let mut kernel = Kernel::new("conv_transpose2d").alias("V", v).alias("Elem", elem);
        kernel = match group_in.is_multiple_of(4) {
            true => kernel.alias("Source", quad),
            false => kernel.alias("Source", dtype.wgsl()).function(
                "tap",
                "fn tap(pixel: u32, at: u32, step: u32) -> V {\n    \
                 var sum = V(0.0);\n    \
                 for (var c = 0u; c < P.group_in; c++) {\n        \
                 sum += f32(src[pixel + c]) * V(weight[at + c * step]);\n    }\n    \
                 return sum;\n}",
            ),
        };
        let mut buffers = vec![("src", cx.input(0)), ("weight", cx.input(1)), ("dst", cx.output())];
        if cx.inputs() > 2 {
            buffers.push(("bias", cx.input(2)));
        } else {
            kernel = kernel.function("start", NO_BIAS);
        }
        let kernel_size = &cx.desc(1).shape;
        let count = cx.output_desc().shape.elements() / unit;
        cx.dispatch(
            kernel,
            &buffers,
            &[
                ("count", count.into()),
                ("h", h.into()),
                ("w", w.into()),
                ("c_in", c_in.into()),
                ("oh", oh.into()),
                ("ow", ow.into()),
                ("c_out", (c_out / unit).into()),
                ("group_in", group_in.into()),
                ("group_out", (group_out / unit).into()),
                ("kernel_y", kernel_size[1].into()),
                ("kernel_x", kernel_size[2].into()),
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

const NO_BIAS: &str = "fn start(o: u32) -> V {
    return V();
}";

impl Graph {
    /// Transposed convolution of `x` `[n, h, w, c_in]` with a weight `[c_in, c_out / groups, kh, kw]` and a
    /// bias `[c_out]` or none; `[n, oh, ow, c_out]`, where `oh = (h − 1) · stride − padding + dilation · (kh − 1) + output_padding + 1`.
    pub fn conv_transpose2d(
        &mut self,
        x: ValueId,
        weight: ValueId,
        bias: Option<ValueId>,
        options: ConvTranspose2dOptions,
    ) -> Result<ValueId> {
        // Done once while loading when the weight is a constant.
        let weight = self.transpose(weight, &[0, 2, 3, 1])?;
        let inputs: Vec<ValueId> = [x, weight].into_iter().chain(bias).collect();
        self.push(ConvTranspose2d { options }, &inputs)
    }
}

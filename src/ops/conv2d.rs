//! 2-D convolution.

use super::epilogue::{Epilogue, Step, Width};
use super::{Operator, float, nhwc};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::ConvWeight;
use crate::lower::{Grid, Lower, TEXTURE_LINE};
use crate::shader::{Kernel, Param};
use crate::target::{DeviceClass, Target};
use crate::tensor::{DType, TensorDesc};

/// Stride, padding, dilation and groups of a convolution, each pair as `[y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    pub stride: [usize; 2],
    /// Zeros added at the top, left, bottom and right.
    pub padding: [usize; 4],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions {
            stride: [1; 2],
            padding: [0; 4],
            dilation: [1; 2],
            groups: 1,
        }
    }
}

impl Conv2dOptions {
    /// The same padding on all four sides.
    pub fn padded(padding: usize) -> Self {
        Conv2dOptions {
            padding: [padding; 4],
            ..Self::default()
        }
    }

    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = [stride; 2];
        self
    }

    pub fn dilation(mut self, dilation: usize) -> Self {
        self.dilation = [dilation; 2];
        self
    }

    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }
}

/// How a convolution is computed, and so the order of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A register tile in each thread: `rows` × `pixels` neighbouring pixels ×
    /// `quads` quads of output channels. Any convolution with one group.
    Rows {
        pixels: usize,
        rows: usize,
        quads: usize,
        /// Source and weight are read through textures.
        textured: bool,
    },
    /// One quad of channels of one pixel in each thread, for `groups == c_in == c_out`, a multiple of four.
    Depthwise,
    /// One result in each thread. Any convolution.
    Direct,
}

/// Cross-correlation of `[n, h, w, c_in]` with `[c_out, c_in / groups, kh, kw]`,
/// as PyTorch's `Conv2d`, then the epilogue. Inputs: source, weight, the epilogue's tensors.
#[derive(Clone, Debug)]
pub struct Conv2d {
    pub options: Conv2dOptions,
    pub kernel: [usize; 2],
    pub c_in: usize,
    pub c_out: usize,
    /// The source is first enlarged by this factor, each pixel repeated.
    pub upsample: usize,
    pub epilogue: Epilogue,
    /// `None` until the passes choose; then the weight is in the method's order.
    pub method: Option<Method>,
}

impl Conv2d {
    /// The best method for a device.
    pub fn choose(&self, target: &Target, source: &TensorDesc, output: &TensorDesc) -> Method {
        if self.options.groups > 1 {
            let depthwise = self.options.groups == self.c_in
                && self.c_in == self.c_out
                && self.c_in.is_multiple_of(4);
            return if depthwise { Method::Depthwise } else { Method::Direct };
        }
        let rows = self.rows(target, output, self.textured(target, source, output));
        match self.weight_lines(rows) <= target.max_texture as usize {
            true => rows,
            false => self.rows(target, output, false),
        }
    }

    fn rows(&self, target: &Target, output: &TensorDesc, textured: bool) -> Method {
        let [n, height, width] = self.extent(output, textured);
        let quads_out = self.c_out.div_ceil(4);
        // Wide tiles where arithmetic is bound by loads (the CPU); on a GPU
        // narrower ones, so that there are enough threads to fill it.
        let (tile, most_quads) = match target.class {
            DeviceClass::Cpu => (16, 4),
            _ if n * height * width * quads_out >= 1 << 18 => (8, 2),
            _ => (4, 1),
        };
        let pixels = even_part(width, tile);
        let rows = if self.is_pointwise() { 1 } else { even_part(height, tile / pixels) };
        let quads = even_part(quads_out, if pixels * rows < 4 { 1 } else { most_quads });
        Method::Rows { pixels, rows, quads, textured }
    }

    /// Samples, rows and pixels in a row, as the kernel sees them: a 1×1
    /// convolution has no neighbours and may cut all pixels into rows as it likes.
    fn extent(&self, output: &TensorDesc, textured: bool) -> [usize; 3] {
        let [n, height, width] = [output.shape[0], output.shape[1], output.shape[2]];
        let pixels = n * height * width;
        match self.is_pointwise() {
            true if textured => {
                let width = row_of_pixels(pixels);
                [1, pixels / width, width]
            }
            true => [1, 1, pixels],
            false => [n, height, width],
        }
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.options.stride == [1, 1] && self.options.padding == [0; 4] && self.upsample == 1
    }

    /// Taps side by side are written out in the kernel, unless they are too many.
    fn taps_written_out(&self) -> usize {
        if self.kernel[1] <= 5 { self.kernel[1] } else { 1 }
    }

    /// Whether to read through textures: only where buffers are slow, the work is
    /// worth the copy, and the tensors have the shape of images.
    fn textured(&self, target: &Target, source: &TensorDesc, output: &TensorDesc) -> bool {
        let flops = 2 * output.shape.elements() * self.c_in * self.kernel[0] * self.kernel[1];
        let [width, height] = self.source_lines(source, output, true);
        target.class == DeviceClass::Cpu
            && output.dtype == DType::F32
            && self.c_in.is_multiple_of(4)
            && flops >= 1 << 20
            && (16 * width).is_multiple_of(TEXTURE_LINE)
            && width.max(height) <= target.max_texture as usize
    }

    /// Lines of the weight as a texture; none when it is none.
    fn weight_lines(&self, method: Method) -> usize {
        match method {
            Method::Rows { quads, textured: true, .. } => {
                let steps = self.kernel[1] / self.taps_written_out();
                self.c_out.div_ceil(4 * quads) * self.kernel[0] * steps * self.c_in.div_ceil(4)
            }
            _ => 0,
        }
    }

    /// Quads in a line of the source and number of lines.
    fn source_lines(&self, source: &TensorDesc, output: &TensorDesc, textured: bool) -> [usize; 2] {
        let [n, height, width] = match self.is_pointwise() {
            true => self.extent(output, textured),
            false => [source.shape[0], source.shape[1], source.shape[2]],
        };
        [width * self.c_in.div_ceil(4), n * height]
    }

    /// How the weight must be repacked for a method, if at all.
    pub fn packing(&self, method: Method) -> Option<ConvWeight> {
        match method {
            Method::Rows { quads, textured, .. } => Some(ConvWeight::Tiles {
                taps: self.taps_written_out(),
                quads,
                align: if textured { TEXTURE_LINE / 4 } else { 1 },
            }),
            Method::Depthwise => Some(ConvWeight::Depthwise),
            Method::Direct => None,
        }
    }
}

/// A length of row that divides the number of pixels, as long as can be up to a few tiles.
fn row_of_pixels(pixels: usize) -> usize {
    (1..=64).rev().find(|width| pixels.is_multiple_of(*width)).unwrap_or(1)
}

/// Size of the parts when `n` is cut into as few as possible of at most `limit` each, as even as can be.
fn even_part(n: usize, limit: usize) -> usize {
    n.div_ceil(n.div_ceil(limit.max(1)))
}

impl Operator for Conv2d {
    fn detail(&self) -> String {
        let [h, w] = self.kernel;
        let mut text = format!("{h}×{w}");
        match self.options.stride {
            [1, 1] => {}
            [y, x] if y == x => text += &format!(", stride {y}"),
            [y, x] => text += &format!(", stride {y}×{x}"),
        }
        if self.options.groups > 1 {
            text += &format!(", {} groups", self.options.groups);
        }
        text
    }

    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        let [source, weight, extras @ ..] = inputs else {
            return Err(format!("wants a source and a weight, found {} inputs", inputs.len()));
        };
        let [n, h, w, c] = nhwc("source", source)?;
        let (h, w) = (h * self.upsample, w * self.upsample);
        float("source", source)?;
        let o = &self.options;
        if o.stride.contains(&0) || o.dilation.contains(&0) || o.groups == 0 || self.kernel.contains(&0) {
            return Err(format!("stride, dilation, groups and kernel must be positive, found {o:?}"));
        }
        if c != self.c_in {
            return Err(format!("weight wants {} channels, source has {c}", self.c_in));
        }
        if !self.c_in.is_multiple_of(o.groups) || !self.c_out.is_multiple_of(o.groups) {
            return Err(format!(
                "{} groups divide neither {} input nor {} output channels evenly",
                o.groups, self.c_in, self.c_out
            ));
        }
        if weight.dtype != source.dtype {
            return Err(format!("source is {}, weight is {}", source.dtype, weight.dtype));
        }
        let size = |i: usize, size: usize, before: usize, after: usize| {
            let reach = o.dilation[i] * (self.kernel[i] - 1) + 1;
            let padded = size + before + after;
            match padded >= reach {
                true => Ok((padded - reach) / o.stride[i] + 1),
                false => Err(format!("kernel reaches over {reach}, padded source has {padded}")),
            }
        };
        let [top, left, bottom, right] = o.padding;
        let shape = [n, size(0, h, top, bottom)?, size(1, w, left, right)?, self.c_out];
        let output = TensorDesc::new(shape, source.dtype);
        self.epilogue.check(extras, &output)?;
        Ok(output)
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        let taps = self.kernel[0] * self.kernel[1] * self.c_in / self.options.groups;
        2 * (output.shape.elements() * taps) as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let method = self
            .method
            .unwrap_or_else(|| unreachable!("the pass `choose` gives every convolution a method"));
        let source = cx.desc(0);
        let output = cx.output_desc();
        let o = &self.options;
        let mut buffers = vec![
            ("src", cx.input(0)),
            ("weight", cx.input(1)),
            ("dst", cx.output()),
        ];
        for (i, name) in ["extra0", "extra1", "extra2"].into_iter().enumerate().take(self.epilogue.tensors()) {
            buffers.push((name, cx.input(2 + i)));
        }
        let pixels_out = output.shape[..3].iter().product::<usize>();
        let quads_out = self.c_out.div_ceil(4);
        let mut params: Vec<(&'static str, Param)> = vec![
            ("height", source.shape[1].into()),
            ("width", source.shape[2].into()),
            ("height_out", output.shape[1].into()),
            ("width_out", output.shape[2].into()),
            ("pixels_out", pixels_out.into()),
            ("c_out", self.c_out.into()),
            ("quads_out", quads_out.into()),
            ("kernel_y", self.kernel[0].into()),
            ("kernel_x", self.kernel[1].into()),
            ("stride_y", o.stride[0].into()),
            ("stride_x", o.stride[1].into()),
            ("dilation_y", o.dilation[0].into()),
            ("dilation_x", o.dilation[1].into()),
            ("pad_top", o.padding[0].into()),
            ("pad_left", o.padding[1].into()),
        ];
        let scalar = output.dtype.wgsl();
        let quad = match output.dtype {
            DType::F16 => "vec4<f16>",
            _ => "vec4<f32>",
        };
        match method {
            Method::Rows { pixels, rows, quads, textured } => {
                let [n, height_out, width_out] = self.extent(output, textured);
                let taps = self.taps_written_out();
                let columns = (pixels - 1) * o.stride[1] + (taps - 1) * o.dilation[1] + 1;
                let unsigned = |n: usize| format!("{n}u");
                let mut kernel = Kernel::new("conv2d_rows")
                    .constant("PIXELS", unsigned(pixels))
                    .constant("ROWS", unsigned(rows))
                    .constant("QUADS", unsigned(quads))
                    .constant("KERNEL_X", unsigned(taps))
                    .constant("STRIDE_X", unsigned(o.stride[1]))
                    .constant("DILATION_X", unsigned(o.dilation[1]))
                    .constant("UPSAMPLE", unsigned(self.upsample))
                    .constant("COLUMNS", unsigned(columns))
                    .alias("Quad", quad);
                // Small workgroups share the cores out evenly; a GPU wants full ones.
                if cx.target().class == DeviceClass::Cpu {
                    kernel = kernel.constant("WORKGROUP", "8u");
                }
                let [height, width_in] = match self.is_pointwise() {
                    true => [height_out, width_out],
                    false => [source.shape[1] * self.upsample, source.shape[2] * self.upsample],
                };
                let quads_in = self.c_in.div_ceil(4);
                if textured {
                    let weight = &cx.desc(1).shape;
                    cx.texture("src_texture", cx.input(0), self.source_lines(source, output, true));
                    cx.texture("weight_texture", cx.input(1), [weight[1] / 4, weight[0]]);
                }
                if textured {
                    kernel = kernel.alias("Src", quad).function("load", LOAD_TEXTURE).function("load_weight", LOAD_WEIGHT_TEXTURE);
                } else if self.c_in.is_multiple_of(4) {
                    kernel = kernel.alias("Src", quad);
                } else {
                    kernel = kernel.alias("Src", scalar).function("load", LOAD_SCALARS);
                }
                let width = if self.c_out.is_multiple_of(4) {
                    kernel = kernel.alias("Dst", quad);
                    Width::Quads
                } else {
                    kernel = kernel.alias("Dst", scalar).function("store", STORE_SCALARS);
                    Width::QuadsOfScalars
                };
                let mut residual_line = None;
                if let (Some(tensor), Width::Quads) = (self.epilogue.residual(), width) {
                    residual_line = cx.texture_line(output.dtype, pixels_out, quads_out);
                    if let Some(line) = residual_line {
                        cx.texture_of_pixels("residual", cx.input(2 + tensor), pixels_out, quads_out, line);
                    }
                }
                let (tiles_x, tiles_y) = (width_out.div_ceil(pixels), height_out.div_ceil(rows));
                let tiles_quads = quads_out.div_ceil(quads);
                let params = [
                    ("height", height.into()),
                    ("width", width_in.into()),
                    ("c_in", self.c_in.into()),
                    ("quads_in", quads_in.into()),
                    ("height_out", height_out.into()),
                    ("width_out", width_out.into()),
                    ("samples", n.into()),
                    ("pixels_sample", (output.shape[1] * output.shape[2]).into()),
                    ("c_out", self.c_out.into()),
                    ("quads_out", quads_out.into()),
                    ("weight_row", (cx.desc(1).shape[1] / 4).into()),
                    ("tiles_x", tiles_x.into()),
                    ("tiles_y", tiles_y.into()),
                    ("tiles_quads", tiles_quads.into()),
                    ("kernel_y", self.kernel[0].into()),
                    ("steps_x", (self.kernel[1] / taps).into()),
                    ("stride_y", o.stride[0].into()),
                    ("dilation_y", o.dilation[0].into()),
                    ("pad_top", o.padding[0].into()),
                    ("pad_left", o.padding[1].into()),
                    ("residual_line", residual_line.unwrap_or(0).into()),
                ];
                let threads = n * tiles_y * tiles_x * tiles_quads;
                let one_sample = !self.is_pointwise();
                let kernel = self.epilogue.splice_tile(kernel, width, one_sample, residual_line.is_some());
                cx.dispatch(kernel, &buffers, &params, Grid::Threads(threads));
            }
            Method::Depthwise => {
                let kernel = Kernel::new("conv2d_depthwise").alias("Quad", quad);
                let kernel = self.epilogue.splice(kernel, Width::Quads);
                cx.dispatch(kernel, &buffers, &params, Grid::Threads(pixels_out * quads_out));
            }
            Method::Direct => {
                let kernel = Kernel::new("conv2d_direct").alias("Elem", scalar);
                let kernel = self.epilogue.splice(kernel, Width::Scalars);
                params.retain(|(name, _)| *name != "quads_out");
                params.push(("c_in", self.c_in.into()));
                params.push(("c_in_group", (self.c_in / o.groups).into()));
                params.push(("c_out_group", (self.c_out / o.groups).into()));
                cx.dispatch(kernel, &buffers, &params, Grid::Threads(pixels_out * self.c_out));
            }
        }
    }
}

/// For a channel count that is not a multiple of four: the missing lanes are zero.
const LOAD_SCALARS: &str = "fn load(line: u32, x: u32, quad: u32) -> vec4<f32> {
    var v = vec4<f32>(0.0);
    let first = quad * 4u;
    for (var i = 0u; i < 4u; i++) { // #unroll
        if (first + i < P.c_in) {
            v[i] = f32(src[(line * (P.width / UPSAMPLE) + x) * P.c_in + first + i]);
        }
    }
    return v;
}";

const LOAD_TEXTURE: &str = "fn load(line: u32, x: u32, quad: u32) -> vec4<f32> {
    return textureLoad(src_texture, vec2<u32>(x * P.quads_in + quad, line), 0);
}";

const LOAD_WEIGHT_TEXTURE: &str = "fn load_weight(row: u32, at: u32) -> V {
    return textureLoad(weight_texture, vec2<u32>(at, row), 0);
}";

const STORE_SCALARS: &str = "fn store(pixel: u32, quad: u32, value: V) {
    let first = quad * 4u;
    for (var i = 0u; i < 4u; i++) { // #unroll
        if (first + i < P.c_out) {
            dst[pixel * P.c_out + first + i] = Dst(value[i]);
        }
    }
}";

impl Graph {
    /// Convolution of `x` `[n, h, w, c_in]` with `weight` `[c_out, c_in / groups, kh, kw]`
    /// and an optional `bias` `[c_out]`; the result is `[n, h', w', c_out]`.
    pub fn conv2d(
        &mut self,
        x: ValueId,
        weight: ValueId,
        bias: Option<ValueId>,
        options: Conv2dOptions,
    ) -> Result<ValueId> {
        let [c_out, c_in, kh, kw] = self.shape(weight)[..] else {
            return Err(crate::Error::Graph {
                op: "Conv2d",
                node: self.value(weight).name.clone(),
                message: format!("weight must be [c_out, c_in, kh, kw], found {}", self.shape(weight)),
            });
        };
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        let steps = bias.map(|_| Step::AddChannel).into_iter().collect();
        self.push(
            Conv2d {
                options,
                kernel: [kh, kw],
                c_in: c_in * options.groups,
                c_out,
                upsample: 1,
                epilogue: Epilogue { steps },
                method: None,
            },
            &inputs,
        )
    }

    /// Fully connected layer as PyTorch's `Linear`: `x` `[..., k]`, `weight` `[m, k]`,
    /// `bias` `[m]`; the result is `[..., m]`. A 1×1 convolution over a column of rows.
    pub fn linear(&mut self, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
        let shape = self.shape(x).clone();
        let k = shape.last();
        let [m, weight_k] = self.shape(weight)[..] else {
            return Err(crate::Error::Graph {
                op: "Linear",
                node: self.value(weight).name.clone(),
                message: format!("weight must be [out, in], found {}", self.shape(weight)),
            });
        };
        let rows = self.reshape(x, [shape.elements() / k, 1, 1, k])?;
        let weight = self.reshape(weight, [m, weight_k, 1, 1])?;
        let y = self.conv2d(rows, weight, bias, Conv2dOptions::default())?;
        let mut result = shape.to_vec();
        *result.last_mut().expect("rank is at least one") = m;
        self.reshape(y, result)
    }
}

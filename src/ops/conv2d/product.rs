//! A convolution as one matrix product, pixels × (tap, channel) by (tap, channel) × output channels: what the kernels for it
//! have in common, and sums that are cut in parts.

use super::Conv2d;
use super::tiles::STORE_SCALARS;
use crate::lower::{Grid, Lower};
use crate::ops::epilogue::Width;
use crate::shader::{Kernel, Param};
use crate::target::Target;
use crate::tensor::{DType, TensorDesc};

/// Most parts of a sum.
pub(super) const MOST_PARTS: usize = 16;

/// Most bytes of sums in so many parts of samples that are a row each.
const MOST_OF_ROWS: u64 = 16 << 20;

/// Workgroups, below which cutting sums is worth a trial on any device, and how many parts are tried.
pub(super) const FEW: usize = 256;
pub(super) const TRIED: [usize; 2] = [4, MOST_PARTS];

/// What a workgroup computes: `rows` pixels × `columns` channels of the result, `depth` channels of a tap at a time; and into how
/// many parts the sums are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub parts: usize,
}

impl Conv2d {
    /// As many parts, or as many as have at least a step, if those are several and there is room for their sums. Rows of a linear
    /// layer that are samples by themselves may be pictures, or the tokens of one: many are taken for tokens.
    pub(super) fn cut(&self, target: &Target, output: &TensorDesc, depth: usize, parts: usize) -> Option<usize> {
        let steps = self.steps(depth);
        let parts = steps.div_ceil(steps.div_ceil(parts));
        let room = match output.shape[1] * output.shape[2] {
            1 => self.bytes_of_parts(output, MOST_PARTS) <= MOST_OF_ROWS,
            _ => self.bytes_of_parts(output, parts) <= target.max_binding.min(target.max_buffer),
        };
        (parts > 1 && room).then_some(parts)
    }

    fn bytes_of_parts(&self, output: &TensorDesc, parts: usize) -> u64 {
        let pixels: usize = output.shape[..3].iter().product();
        (parts * pixels * self.c_out.next_multiple_of(4) * size_of::<f32>()) as u64
    }

    /// Steps of a sum.
    pub(super) fn steps(&self, depth: usize) -> usize {
        self.kernel[0] * self.kernel[1] * self.c_in.div_ceil(depth)
    }
}

impl Product {
    /// Launches a kernel that divides the product so, and what adds its parts. `channels` is how the kernel counts those of
    /// the source.
    pub fn lower(&self, conv: &Conv2d, kernel: Kernel, channels: (&'static str, usize), cx: &mut Lower) {
        let (source, output, o) = (cx.desc(0), cx.output_desc(), &conv.options);
        let [n, height_out, width_out] = conv.extent(output);
        let [height, width] = match conv.is_pointwise() {
            true => [height_out, width_out],
            false => [source.shape[1] * conv.upsample, source.shape[2] * conv.upsample],
        };
        let pixels = n * height_out * width_out;
        let (tiles_y, tiles_x) = (pixels.div_ceil(self.rows), conv.c_out.div_ceil(self.columns));
        let (parts, steps, dtype) = (self.parts, conv.steps(self.depth), output.dtype);
        let mut buffers = conv.buffers(cx);
        let kernel = match parts {
            1 => finished(conv, kernel, dtype),
            _ => {
                let bytes = conv.bytes_of_parts(output, parts);
                buffers.push(("partial", cx.scratch(bytes as usize)));
                kernel.function("finish", FINISH_PART)
            }
        };
        let pixels_sample = output.shape[1] * output.shape[2];
        let common = [
            ("parts", Param::from(parts)),
            ("pixels", pixels.into()),
            // Of the tensor, even when all pixels are taken as one row.
            ("pixels_sample", pixels_sample.into()),
            ("c_out", conv.c_out.into()),
            ("quads_out", conv.c_out.div_ceil(4).into()),
        ];
        let mut params = vec![
            ("height", height.into()),
            ("width", width.into()),
            ("c_in", conv.c_in.into()),
            (channels.0, channels.1.into()),
            ("height_out", height_out.into()),
            ("width_out", width_out.into()),
            ("tiles_x", tiles_x.into()),
            ("tiles", (tiles_y * tiles_x).into()),
            ("slices", conv.c_in.div_ceil(self.depth).into()),
            ("steps", steps.into()),
            ("steps_part", steps.div_ceil(parts).into()),
            ("kernel_x", conv.kernel[1].into()),
            ("stride_y", o.stride[0].into()),
            ("stride_x", o.stride[1].into()),
            ("dilation_y", o.dilation[0].into()),
            ("dilation_x", o.dilation[1].into()),
            ("pad_top", o.padding[0].into()),
            ("pad_left", o.padding[1].into()),
        ];
        params.extend(common.clone());
        cx.dispatch(kernel, &buffers, &params, Grid::Groups(parts * tiles_y * tiles_x));
        if parts > 1 {
            let quads = pixels * conv.c_out.div_ceil(4);
            let (_, partial) = buffers.pop().expect("it was put there");
            buffers[0] = ("src", partial);
            let kernel = finished(conv, Kernel::new("sum_parts"), dtype);
            cx.dispatch(kernel, &buffers, &common, Grid::Threads(quads));
        }
    }
}

/// The kernel with the epilogue, and the way in which results are written.
fn finished(conv: &Conv2d, kernel: Kernel, dtype: DType) -> Kernel {
    let quad = if dtype == DType::F16 { "vec4<f16>" } else { "vec4<f32>" };
    match conv.c_out.is_multiple_of(4) {
        true => conv.epilogue.splice(kernel.alias("Dst", quad), Width::Quads),
        false => {
            let kernel = kernel.alias("Dst", dtype.wgsl()).function("store", STORE_SCALARS);
            conv.epilogue.splice(kernel, Width::QuadsOfScalars)
        }
    }
}

const FINISH_PART: &str = "fn finish(value: V, part: u32, pixel: u32, quad: u32) {
    partial[(part * P.pixels + pixel) * P.quads_out + quad] = value;
}";

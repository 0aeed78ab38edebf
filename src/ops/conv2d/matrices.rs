//! A convolution as one product of cooperative matrices.

use super::Conv2d;
use super::tiles::{LOAD_SCALARS, STORE_SCALARS, unsigned};
use crate::lower::{Grid, Lower};
use crate::ops::epilogue::Width;
use crate::ops::matrices::Block;
use crate::target::Target;
use crate::tensor::{DType, TensorDesc};

impl Conv2d {
    /// Whether the method computes this convolution, and fills matrices of this side.
    pub(crate) fn allows_matrices(&self, dtype: DType, side: usize) -> bool {
        self.options.groups == 1 && dtype == DType::F16 && self.c_in >= side && self.c_out >= side
    }

    /// Parts for workgroups that the device can take, the largest first.
    pub(super) fn blocks(&self, target: &Target, output: &TensorDesc) -> impl Iterator<Item = Block> {
        let dtype = output.dtype;
        Block::all(target, dtype, self.c_in).filter(move |block| self.allows_matrices(dtype, block.side))
    }

    pub(super) fn choose_block(&self, target: &Target, output: &TensorDesc) -> Option<Block> {
        let pixels = self.extent(output).iter().product();
        Block::choose(target, output.dtype, [pixels, self.c_out], self.c_in, 1)
            .filter(|block| self.allows_matrices(output.dtype, block.side))
    }
}

pub fn lower(conv: &Conv2d, block: Block, cx: &mut Lower) {
    let (source, output, o) = (cx.desc(0), cx.output_desc(), &conv.options);
    let [n, height_out, width_out] = conv.extent(output);
    let [height, width] = match conv.is_pointwise() {
        true => [height_out, width_out],
        false => [source.shape[1] * conv.upsample, source.shape[2] * conv.upsample],
    };
    let pixels = n * height_out * width_out;
    let (tiles_y, tiles_x) = (pixels.div_ceil(block.rows()), conv.c_out.div_ceil(block.columns()));
    let slices = conv.c_in.div_ceil(block.depth);
    let mut kernel = block
        .kernel("conv2d_matrices", cx.target(), [false, false])
        .constant("UPSAMPLE", unsigned(conv.upsample));
    if !conv.c_in.is_multiple_of(4) {
        kernel = kernel.alias("Src", "f16").function("load", load_halves());
    }
    let (kernel, width_of_dst) = match conv.c_out.is_multiple_of(4) {
        true => (kernel, Width::Quads),
        false => (kernel.alias("Dst", "f16").function("store", STORE_SCALARS), Width::QuadsOfScalars),
    };
    let kernel = conv.epilogue.splice(kernel, width_of_dst);
    let buffers = conv.buffers(cx);
    cx.dispatch(
        kernel,
        &buffers,
        &[
            ("height", height.into()),
            ("width", width.into()),
            ("c_in", conv.c_in.into()),
            ("quads_in", conv.c_in.div_ceil(4).into()),
            ("height_out", height_out.into()),
            ("width_out", width_out.into()),
            ("pixels", pixels.into()),
            ("pixels_sample", (output.shape[1] * output.shape[2]).into()),
            ("c_out", conv.c_out.into()),
            ("quads_out", conv.c_out.div_ceil(4).into()),
            ("tiles_x", tiles_x.into()),
            ("slices", slices.into()),
            ("steps", (conv.kernel[0] * conv.kernel[1] * slices).into()),
            ("kernel_x", conv.kernel[1].into()),
            ("stride_y", o.stride[0].into()),
            ("stride_x", o.stride[1].into()),
            ("dilation_y", o.dilation[0].into()),
            ("dilation_x", o.dilation[1].into()),
            ("pad_top", o.padding[0].into()),
            ("pad_left", o.padding[1].into()),
        ],
        Grid::Groups(tiles_y * tiles_x),
    );
}

/// [`LOAD_SCALARS`] without the way through f32.
fn load_halves() -> String {
    LOAD_SCALARS.replace("vec4<f32>", "vec4<f16>").replace("f32(src", "f16(src")
}

//! Lowering where every channel has a filter of its own.

use super::{Conv2d, direct, method::even_part};
use crate::lower::{Grid, Lower};
use crate::ops::epilogue::Width;
use crate::shader::Kernel;
use crate::tensor::DType;

/// Most source pixels that a thread of `conv2d_depthwise_texels` holds.
const MOST_HELD: usize = 128;

pub fn lower(conv: &Conv2d, cx: &mut Lower) {
    match tile(conv, cx) {
        Some(tile) => lower_texels(conv, tile, cx),
        None => lower_pixels(conv, cx),
    }
}

fn lower_pixels(conv: &Conv2d, cx: &mut Lower) {
    let output = cx.output_desc();
    let quad = match output.dtype {
        DType::F16 => "vec4<f16>",
        _ => "vec4<f32>",
    };
    let kernel = Kernel::new("conv2d_depthwise").alias("Quad", quad);
    let kernel = conv.epilogue.splice_tile(kernel, Width::Quads, true, false);
    let mut params = direct::params(conv, cx);
    params.push(("quads_out", (conv.c_out / 4).into()));
    let buffers = conv.buffers(cx);
    cx.dispatch(kernel, &buffers, &params, Grid::Threads(output.shape.elements() / 4));
}

/// Rows and pixels that a thread computes from texels, if the source is better read so.
fn tile(conv: &Conv2d, cx: &Lower) -> Option<[usize; 2]> {
    let output = &cx.output_desc().shape;
    let sizes = [[4, 4], [2, 4], [1, 4], [1, 2], [1, 1]]
        .map(|[rows, pixels]| [even_part(output[1], rows), even_part(output[2], pixels)]);
    let held = |[rows, pixels]: [usize; 2]| {
        let [lines, columns] = source_tile(conv, [rows, pixels]);
        lines * columns <= MOST_HELD
    };
    cx.prefers_texels(cx.desc(0)).then(|| sizes.into_iter().find(|&size| held(size))).flatten()
}

/// Lines and columns of the source under a tile.
fn source_tile(conv: &Conv2d, [rows, pixels]: [usize; 2]) -> [usize; 2] {
    let o = &conv.options;
    let reach = |i: usize, results: usize| {
        (results - 1) * o.stride[i] + (conv.kernel[i] - 1) * o.dilation[i] + 1
    };
    [reach(0, rows), reach(1, pixels)]
}

fn lower_texels(conv: &Conv2d, [rows, pixels]: [usize; 2], cx: &mut Lower) {
    let (source, output) = (cx.desc(0), cx.output_desc());
    let [lines, columns] = source_tile(conv, [rows, pixels]);
    let o = &conv.options;
    let mut kernel = Kernel::new("conv2d_depthwise_texels");
    for (name, value) in [
        ("PIXELS", pixels),
        ("ROWS", rows),
        ("KERNEL_Y", conv.kernel[0]),
        ("KERNEL_X", conv.kernel[1]),
        ("STRIDE_Y", o.stride[0]),
        ("STRIDE_X", o.stride[1]),
        ("DILATION_Y", o.dilation[0]),
        ("DILATION_X", o.dilation[1]),
        ("LINES", lines),
        ("COLUMNS", columns),
    ] {
        kernel = kernel.constant(name, format!("{value}u"));
    }
    cx.texels("src_texture", cx.input(0), source);
    let residual = conv.epilogue.residual().filter(|_| cx.prefers_texels(output));
    if let Some(tensor) = residual {
        cx.texels("residual", cx.input(2 + tensor), output);
    }
    let kernel = conv.epilogue.splice_tile(kernel, Width::Quads, true, residual.is_some());
    let [n, height_out, width_out] = [output.shape[0], output.shape[1], output.shape[2]];
    let (tiles_x, tiles_y) = (width_out.div_ceil(pixels), height_out.div_ceil(rows));
    let quads = conv.c_out / 4;
    let buffers = conv.buffers(cx);
    cx.dispatch(
        kernel,
        &buffers,
        &[
            ("height", source.shape[1].into()),
            ("width", source.shape[2].into()),
            ("height_out", height_out.into()),
            ("width_out", width_out.into()),
            ("samples", n.into()),
            ("tiles_x", tiles_x.into()),
            ("tiles_y", tiles_y.into()),
            ("c_out", conv.c_out.into()),
            ("quads_out", quads.into()),
            ("pad_top", o.padding[0].into()),
            ("pad_left", o.padding[1].into()),
        ],
        Grid::Threads(n * tiles_y * tiles_x * quads),
    );
}

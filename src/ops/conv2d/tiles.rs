//! Lowering of the methods that hold a tile of results in registers.

use super::Conv2d;
use super::method::Tile;
use crate::lower::{Grid, Lower};
use crate::ops::epilogue::Width;
use crate::ops::quantized::{BLOCK, BlockFormat};
use crate::ops::share;
use crate::shader::{Kernel, Param};
use crate::target::{DeviceClass, Target};
use crate::tensor::DType;

/// Small workgroups share a CPU's cores out evenly.
pub(super) const CPU_WORKGROUP: usize = 8;

/// Source and weight in buffers.
pub fn lower_rows(conv: &Conv2d, tile: Tile, cx: &mut Lower) {
    let output = cx.output_desc();
    let (scalar, quad) = match output.dtype {
        DType::F16 => ("f16", "vec4<f16>"),
        _ => ("f32", "vec4<f32>"),
    };
    let mut kernel = tiled("conv2d_rows", conv, tile).alias("Quad", quad);
    // A GPU wants full workgroups.
    if cx.target().class == DeviceClass::Cpu {
        kernel = kernel.constant("WORKGROUP", unsigned(CPU_WORKGROUP));
    }
    kernel = match conv.c_in.is_multiple_of(4) {
        true => kernel.alias("Src", quad),
        false => kernel.alias("Src", scalar).function("load", LOAD_SCALARS),
    };
    let (kernel, width) = stored(kernel, conv, scalar, quad);
    let kernel = conv.epilogue.splice_tile(kernel, width, !conv.is_pointwise(), false);
    let (mut params, tiles, tiles_quads) = params(conv, tile, cx);
    params.push(("c_in", conv.c_in.into()));
    params.push(("weight_row", (cx.desc(1).shape[1] / 4).into()));
    let buffers = conv.buffers(cx);
    cx.dispatch(kernel, &buffers, &params, Grid::Threads(tiles * tiles_quads));
}

/// The weight in blocks.
pub fn lower_blocks(conv: &Conv2d, tile: Tile, format: BlockFormat, texels: bool, cx: &mut Lower) {
    let output = cx.output_desc();
    let (scalar, quad) = match output.dtype {
        DType::F16 => ("f16", "vec4<f16>"),
        _ => ("f32", "vec4<f32>"),
    };
    let mut kernel = tiled("conv2d_blocks", conv, tile)
        .alias("Src", quad)
        .constant("PAIRS", unsigned(conv.taps_written_out() * tile.quads));
    if cx.target().class == DeviceClass::Cpu {
        kernel = kernel.constant("WORKGROUP", unsigned(CPU_WORKGROUP));
    }
    if format == BlockFormat::Q4_0 {
        kernel = kernel.constant("WORDS", "1u").function("integers", Q4_INTEGERS);
    }
    if texels {
        cx.texels("src_texture", cx.input(0), cx.desc(0));
        kernel = kernel.function("load", LOAD_TEXTURE);
    }
    let (kernel, width) = stored(kernel, conv, scalar, quad);
    let kernel = conv.epilogue.splice_tile(kernel, width, !conv.is_pointwise(), false);
    let (mut params, tiles, tiles_quads) = params(conv, tile, cx);
    params.push(("blocks", conv.c_in.div_ceil(BLOCK).into()));
    let buffers = conv.buffers(cx);
    cx.dispatch(kernel, &buffers, &params, Grid::Threads(tiles * tiles_quads));
}

/// Source and weight in textures.
pub fn lower_texels(conv: &Conv2d, tile: Tile, cx: &mut Lower) {
    let output = cx.output_desc();
    let weights = conv.taps_written_out() * 4 * tile.quads;
    let kernel = sharing(tiled("conv2d_texels", conv, tile), weights, cx.target());
    cx.texels("src_texture", cx.input(0), cx.desc(0));
    cx.texels("weight_texture", cx.input(1), cx.desc(1));

    let (kernel, width) = stored(kernel, conv, "f32", "vec4<f32>");
    let residual = conv.epilogue.residual().filter(|_| width == Width::Quads && cx.prefers_texels(output));
    if let Some(tensor) = residual {
        cx.texels("residual", cx.input(2 + tensor), output);
    }
    let kernel = conv.epilogue.splice_tile(kernel, width, !conv.is_pointwise(), residual.is_some());
    let (params, tiles, tiles_quads) = params(conv, tile, cx);
    let buffers = conv.buffers(cx);
    cx.dispatch(kernel, &buffers, &params, Grid::Groups(tiles.div_ceil(CPU_WORKGROUP) * tiles_quads));
}

/// A kernel whose lanes fetch the `weights` texels of a turn for one another.
pub(super) fn sharing(kernel: Kernel, weights: usize, target: &Target) -> Kernel {
    let lanes = share::lanes(target);
    let share = if weights.is_multiple_of(lanes) { lanes } else { lanes.min(4) };
    let kernel = kernel
        .constant("LANES", unsigned(CPU_WORKGROUP))
        .constant("SHARE", unsigned(share))
        .constant("WEIGHTS", unsigned(weights))
        .constant("FETCHES", unsigned(weights / share));
    match share {
        1 => kernel,
        _ => kernel.function("share", share::LANES),
    }
}

pub(super) fn unsigned(n: usize) -> String {
    format!("{n}u")
}

/// A kernel with what is written out in it.
fn tiled(name: &'static str, conv: &Conv2d, tile: Tile) -> Kernel {
    let o = &conv.options;
    let taps = conv.taps_written_out();
    Kernel::new(name)
        .constant("PIXELS", unsigned(tile.pixels))
        .constant("ROWS", unsigned(tile.rows))
        .constant("QUADS", unsigned(tile.quads))
        .constant("KERNEL_X", unsigned(taps))
        .constant("STRIDE_X", unsigned(o.stride[1]))
        .constant("DILATION_X", unsigned(o.dilation[1]))
        .constant("UPSAMPLE", unsigned(conv.upsample))
        .constant("COLUMNS", unsigned((tile.pixels - 1) * o.stride[1] + (taps - 1) * o.dilation[1] + 1))
}

/// How results are written, which the number of channels decides.
fn stored(
    kernel: Kernel,
    conv: &Conv2d,
    scalar: &'static str,
    quad: &'static str,
) -> (Kernel, Width) {
    match conv.c_out.is_multiple_of(4) {
        true => (kernel.alias("Dst", quad), Width::Quads),
        false => (kernel.alias("Dst", scalar).function("store", STORE_SCALARS), Width::QuadsOfScalars),
    }
}

/// The parameters that both kernels have, the number of tiles of pixels and of channels.
fn params(conv: &Conv2d, tile: Tile, cx: &Lower) -> (Vec<(&'static str, Param)>, usize, usize) {
    let (source, output, o) = (cx.desc(0), cx.output_desc(), &conv.options);
    let [n, height_out, width_out] = conv.extent(output);
    let [height, width] = match conv.is_pointwise() {
        true => [height_out, width_out],
        false => [source.shape[1] * conv.upsample, source.shape[2] * conv.upsample],
    };
    let quads_out = conv.c_out.div_ceil(4);
    let quads_group = quads_out / o.groups;
    let (tiles_x, tiles_y) = (width_out.div_ceil(tile.pixels), height_out.div_ceil(tile.rows));
    let tiles_group = quads_group.div_ceil(tile.quads);
    let params = vec![
        ("height", height.into()),
        ("width", width.into()),
        ("quads_in", (conv.c_in / o.groups).div_ceil(4).into()),
        ("quads_pixel", conv.c_in.div_ceil(4).into()),
        ("height_out", height_out.into()),
        ("width_out", width_out.into()),
        ("samples", n.into()),
        ("pixels_sample", (output.shape[1] * output.shape[2]).into()),
        ("c_out", conv.c_out.into()),
        ("quads_out", quads_out.into()),
        ("quads_group", quads_group.into()),
        ("tiles_x", tiles_x.into()),
        ("tiles_y", tiles_y.into()),
        ("tiles_group", tiles_group.into()),
        ("groups", o.groups.into()),
        ("kernel_y", conv.kernel[0].into()),
        ("steps_x", (conv.kernel[1] / conv.taps_written_out()).into()),
        ("stride_y", o.stride[0].into()),
        ("dilation_y", o.dilation[0].into()),
        ("pad_top", o.padding[0].into()),
        ("pad_left", o.padding[1].into()),
    ];
    (params, n * tiles_y * tiles_x, o.groups * tiles_group)
}

/// For a channel count that is not a multiple of four: the missing lanes are zero.
pub(super) const LOAD_SCALARS: &str = "fn load(line: u32, x: u32, quad: u32) -> vec4<f32> {
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
    return textureLoad(src_texture, texel((line * (P.width / UPSAMPLE) + x) * P.quads_pixel + quad));
}";

const Q4_INTEGERS: &str = "fn integers(word: u32, i: u32) -> V {
    let four = vec4<u32>(word >> (i % 2u * 16u));
    return V((four >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)) - 8.0;
}";

pub(super) const STORE_SCALARS: &str = "fn store(pixel: u32, quad: u32, value: V) {
    let first = quad * 4u;
    for (var i = 0u; i < 4u; i++) { // #unroll
        if (first + i < P.c_out) {
            dst[pixel * P.c_out + first + i] = Dst(value[i]);
        }
    }
}";

// dst[n, y, x, co] = epilogue( start + Σ_{ky, kx, ci} src[n, y·stride + ky·dilation − pad, x·stride + kx·dilation − pad, ci] · d · integer[ky, kx, ci, co] )
//
// The convolution of conv2d_rows with a weight in blocks: d is the scale of 32 input
// channels of a tap. src: [n, height, width, c_in], c_in a multiple of four; weight: in the
// order of conv_weight_blocks; dst: [n, height_out, width_out, c_out].
//
// One thread computes ROWS × PIXELS neighbouring pixels × QUADS quads of channels in
// registers. For each ky and block it loads KERNEL_X · QUADS scales of four channels, for
// each quad of input channels the COLUMNS source pixels under its PIXELS and
// KERNEL_X · QUADS times 16 integers, which it turns into numbers once for all its pixels:
// 16 multiplications for 16 · ROWS · PIXELS multiply-adds. With one tap this is the matrix
// product of a 1×1 convolution or linear layer.

const PIXELS: u32 = 8u;
const ROWS: u32 = 1u;
const QUADS: u32 = 4u;
const KERNEL_X: u32 = 3u;
const STRIDE_X: u32 = 1u;
const DILATION_X: u32 = 1u;
const WORKGROUP: u32 = 32u;
const UPSAMPLE: u32 = 1u;
const PAIRS: u32 = 12u; // KERNEL_X · QUADS
const COLUMNS: u32 = 10u; // (PIXELS - 1) · STRIDE_X + (KERNEL_X - 1) · DILATION_X + 1
const WORDS: u32 = 2u; // pairs of words for 16 integers
alias V = vec4<f32>;
alias Src = vec4<f32>;
alias Dst = vec4<f32>;

struct Params {
    height: u32, // of the source, enlarged
    width: u32,
    quads_in: u32, // of a group
    quads_pixel: u32, // of all groups
    height_out: u32,
    width_out: u32,
    samples: u32,
    pixels_sample: u32, // height_out · width_out of the tensor, even when all pixels are taken as one row
    c_out: u32,
    quads_out: u32,
    quads_group: u32, // of the result, in a group
    tiles_x: u32, // tiles in a row
    tiles_y: u32,
    tiles_group: u32, // tiles of quads in a group
    groups: u32,
    blocks: u32, // of input channels
    kernel_y: u32,
    steps_x: u32, // groups of KERNEL_X taps
    stride_y: u32,
    dilation_y: u32,
    pad_top: u32,
    pad_left: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Src>;
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(3) var<storage, read> extra0: array<Dst>;
@group(0) @binding(4) var<storage, read> extra1: array<Dst>;
@group(0) @binding(5) var<storage, read> extra2: array<Dst>;
@group(0) @binding(6) var<uniform> P: Params;
@group(0) @binding(7) var src_texture: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/math
// #include lib/texels

fn load(line: u32, x: u32, quad: u32) -> vec4<f32> {
    return vec4<f32>(src[(line * (P.width / UPSAMPLE) + x) * P.quads_pixel + quad]);
}

fn scales(at: u32) -> V {
    let halves = weight[at];
    return V(unpack2x16float(halves.x), unpack2x16float(halves.y));
}

// Four output channels of input channel i of a quad.
fn integers(word: u32, i: u32) -> V {
    return V((vec4<i32>(bitcast<i32>(word)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}

fn store(pixel: u32, quad: u32, value: V) {
    dst[pixel * P.quads_out + quad] = Dst(value);
}

fn start(sample: u32, at: u32) -> V {
    return V(0.0);
}

fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {
    return value;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, WORKGROUP);
    let tile_quads = thread % (P.groups * P.tiles_group);
    let tile = thread / (P.groups * P.tiles_group);
    let channel_group = tile_quads / P.tiles_group;
    let first_quad = channel_group * P.quads_group + tile_quads % P.tiles_group * QUADS;
    let end_quad = (channel_group + 1u) * P.quads_group;
    let first_in = channel_group * P.quads_in;
    let tile_row = tile / P.tiles_x;
    let x_out = (tile % P.tiles_x) * PIXELS;
    let y_out = (tile_row % P.tiles_y) * ROWS;
    let sample = tile_row / P.tiles_y;
    if (sample >= P.samples) {
        return;
    }

    var sum: array<array<array<V, QUADS>, PIXELS>, ROWS>; // #registers
    for (var q = 0u; q < QUADS; q++) { // #unroll
        let first = start(sample, min(first_quad + q, end_quad - 1u));
        for (var r = 0u; r < ROWS; r++) { // #unroll
            for (var p = 0u; p < PIXELS; p++) { // #unroll
                sum[r][p][q] = first;
            }
        }
    }
    for (var ky = 0u; ky < P.kernel_y; ky++) {
        for (var step = 0u; step < P.steps_x; step++) {
            // Where the columns lie and whether they exist. Positions left of or above the source wrap to large numbers.
            let x0 = x_out * STRIDE_X + step * DILATION_X - P.pad_left;
            var line: array<u32, ROWS>; // #registers
            var inside: array<array<bool, COLUMNS>, ROWS>; // #registers
            for (var r = 0u; r < ROWS; r++) { // #unroll
                let y = (y_out + r) * P.stride_y + ky * P.dilation_y - P.pad_top;
                line[r] = select(0u, (sample * P.height + y) / UPSAMPLE, y < P.height);
                for (var c = 0u; c < COLUMNS; c++) { // #unroll
                    inside[r][c] = x0 + c < P.width && y < P.height;
                }
            }
            let row = ((tile_quads * P.kernel_y + ky) * P.steps_x + step) * P.blocks;
            for (var block = 0u; block < P.blocks; block++) {
                let record = (row + block) * (PAIRS * (1u + 8u * WORDS));
                var scale: array<V, PAIRS>; // #registers
                for (var at = 0u; at < PAIRS; at++) { // #unroll
                    scale[at] = scales(record + at);
                }
                let end = min(block * 8u + 8u, P.quads_in);
                for (var quad = block * 8u; quad < end; quad++) {
                    var s: array<array<vec4<f32>, COLUMNS>, ROWS>; // #registers
                    for (var r = 0u; r < ROWS; r++) { // #unroll
                        for (var c = 0u; c < COLUMNS; c++) { // #unroll
                            s[r][c] = select(vec4<f32>(0.0), load(line[r], select(0u, (x0 + c) / UPSAMPLE, inside[r][c]), first_in + quad), inside[r][c]);
                        }
                    }
                    var words: array<vec2<u32>, WORDS>; // #registers
                    let packed = record + PAIRS + quad % 8u * (PAIRS * WORDS);
                    for (var kx = 0u; kx < KERNEL_X; kx++) { // #unroll
                        for (var q = 0u; q < QUADS; q++) { // #unroll
                            for (var f = 0u; f < WORDS; f++) { // #unroll
                                words[f] = weight[packed + (kx * QUADS + q) * WORDS + f];
                            }
                            for (var i = 0u; i < 4u; i++) { // #unroll
                                let w = integers(words[i * WORDS / 4u][i * WORDS / 2u % 2u], i) * scale[kx * QUADS + q];
                                for (var r = 0u; r < ROWS; r++) { // #unroll
                                    for (var p = 0u; p < PIXELS; p++) { // #unroll
                                        sum[r][p][q] = fma(V(s[r][p * STRIDE_X + kx * DILATION_X][i]), w, sum[r][p][q]);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    for (var r = 0u; r < ROWS; r++) { // #unroll
        for (var p = 0u; p < PIXELS; p++) { // #unroll
            if (y_out + r < P.height_out && x_out + p < P.width_out) {
                let pixel = (sample * P.height_out + y_out + r) * P.width_out + x_out + p;
                for (var q = 0u; q < QUADS; q++) { // #unroll
                    if (first_quad + q < end_quad) {
                        store(pixel, first_quad + q, epilogue(sum[r][p][q], pixel, pixel / P.pixels_sample, first_quad + q));
                    }
                }
            }
        }
    }
}

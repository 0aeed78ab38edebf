// dst[p, co] = epilogue( Σ_{ky, kx, ci} src[n, y·stride + ky·dilation − pad, x·stride + …, ci] · weight[ky, kx, ci, co] )
//
// Convolution as a matrix product that gathers its left side as it goes
// (implicit GEMM): p counts the result's pixels (n, y, x), zeros stand outside the source.
// src: [n, height, width, c_in]; weight: [kernel_y, kernel_x, c_in', c_out'], padded with zeros
// to quads of channels; dst: [n, height_out, width_out, c_out].
//
// One thread computes PIXELS consecutive pixels × QUADS quads of channels in
// registers: for each tap and quad of input channels it loads PIXELS + 4 · QUADS
// vectors for 16 · PIXELS · QUADS multiply-adds. No workgroup memory and no
// barriers: on software adapters both cost more than they save.
// With one tap this is the matrix product of a 1×1 convolution or linear layer.

const PIXELS: u32 = 8u;
const QUADS: u32 = 4u;
alias V = vec4<f32>;
alias Quad = vec4<f32>;
alias Src = vec4<f32>;
alias Dst = vec4<f32>;

struct Params {
    height: u32,
    width: u32,
    c_in: u32,
    quads_in: u32,
    height_out: u32,
    width_out: u32,
    pixels_out: u32, // in all samples
    c_out: u32,
    quads_out: u32,
    kernel_y: u32,
    kernel_x: u32,
    stride_y: u32,
    stride_x: u32,
    dilation_y: u32,
    dilation_x: u32,
    pad_top: u32,
    pad_left: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Src>;
@group(0) @binding(1) var<storage, read> weight: array<Quad>;
@group(0) @binding(2) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(3) var<storage, read> extra0: array<Dst>;
@group(0) @binding(4) var<storage, read> extra1: array<Dst>;
@group(0) @binding(5) var<storage, read> extra2: array<Dst>;
@group(0) @binding(6) var<uniform> P: Params;

// #include lib/index
// #include lib/math

fn load(pixel: u32, quad: u32) -> vec4<f32> {
    return vec4<f32>(src[pixel * P.quads_in + quad]);
}

fn store(pixel: u32, quad: u32, value: V) {
    dst[pixel * P.quads_out + quad] = Dst(value);
}

fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {
    return value;
}

const OUTSIDE: u32 = 0xffffffffu;

// Source pixel under a tap, or OUTSIDE. Positions left of or above the source wrap to large numbers.
fn source_pixel(pixel: u32, ky: u32, kx: u32) -> u32 {
    let x = (pixel % P.width_out) * P.stride_x + kx * P.dilation_x - P.pad_left;
    let row = pixel / P.width_out;
    let y = (row % P.height_out) * P.stride_y + ky * P.dilation_y - P.pad_top;
    let sample = row / P.height_out;
    return select(OUTSIDE, (sample * P.height + y) * P.width + x, x < P.width && y < P.height && pixel < P.pixels_out);
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, 32u);
    let tiles = (P.pixels_out + PIXELS - 1u) / PIXELS;
    let first_pixel = (thread % tiles) * PIXELS;
    let first_quad = (thread / tiles) * QUADS;
    if (first_quad >= P.quads_out) {
        return;
    }

    var sum: array<array<V, QUADS>, PIXELS>;
    var at: array<u32, PIXELS>;
    for (var ky = 0u; ky < P.kernel_y; ky++) {
        for (var kx = 0u; kx < P.kernel_x; kx++) {
            for (var p = 0u; p < PIXELS; p++) {
                at[p] = source_pixel(first_pixel + p, ky, kx);
            }
            var row = (ky * P.kernel_x + kx) * P.quads_in * 4u * P.quads_out + first_quad;
            for (var quad = 0u; quad < P.quads_in; quad++) {
                var s: array<vec4<f32>, PIXELS>;
                for (var p = 0u; p < PIXELS; p++) {
                    let inside = at[p] != OUTSIDE;
                    s[p] = select(vec4<f32>(0.0), load(select(0u, at[p], inside), quad), inside);
                }
                for (var i = 0u; i < 4u; i++) {
                    for (var q = 0u; q < QUADS; q++) {
                        let w = V(weight[row + q]);
                        for (var p = 0u; p < PIXELS; p++) {
                            sum[p][q] += s[p][i] * w;
                        }
                    }
                    row += P.quads_out;
                }
            }
        }
    }

    for (var p = 0u; p < PIXELS; p++) {
        let pixel = first_pixel + p;
        if (pixel < P.pixels_out) {
            let sample = pixel / (P.width_out * P.height_out);
            for (var q = 0u; q < QUADS; q++) {
                store(pixel, first_quad + q, epilogue(sum[p][q], pixel, sample, first_quad + q));
            }
        }
    }
}

// dst[p, c] = epilogue( Σ_{ky, kx} src[n, y·stride + ky·dilation − pad, x·stride + …, c] · weight[ky, kx, c] )
//
// The depthwise convolution of conv2d_depthwise where buffers are slow to read: Mesa's
// software adapter. src: [n, height, width, c] as texels; weight: [kernel_y, kernel_x, c] in a buffer;
// dst: [n, height_out, width_out, c]; c a multiple of four.
//
// One thread computes ROWS × PIXELS neighbouring pixels of one quad of channels. It
// fetches the LINES × COLUMNS source pixels under them once and uses each for all taps
// that want it. Kernel and strides are written out.

const PIXELS: u32 = 4u;
const ROWS: u32 = 2u;
const KERNEL_Y: u32 = 3u;
const KERNEL_X: u32 = 3u;
const STRIDE_Y: u32 = 1u;
const STRIDE_X: u32 = 1u;
const DILATION_Y: u32 = 1u;
const DILATION_X: u32 = 1u;
const LINES: u32 = 4u; // (ROWS - 1) · STRIDE_Y + (KERNEL_Y - 1) · DILATION_Y + 1
const COLUMNS: u32 = 6u; // (PIXELS - 1) · STRIDE_X + (KERNEL_X - 1) · DILATION_X + 1
const WORKGROUP: u32 = 8u;
alias V = vec4<f32>;
alias Quad = vec4<f32>;

struct Params {
    height: u32,
    width: u32,
    height_out: u32,
    width_out: u32,
    samples: u32,
    tiles_x: u32,
    tiles_y: u32,
    c_out: u32,
    quads_out: u32,
    pad_top: u32,
    pad_left: u32,
}

@group(0) @binding(0) var src_texture: texture_storage_2d<rgba32float, read>;
@group(0) @binding(1) var<storage, read> weight: array<Quad>;
@group(0) @binding(2) var<storage, read_write> dst: array<Quad>;
@group(0) @binding(3) var<storage, read> extra0: array<Quad>;
@group(0) @binding(4) var<storage, read> extra1: array<Quad>;
@group(0) @binding(5) var<storage, read> extra2: array<Quad>;
@group(0) @binding(6) var<uniform> P: Params;
@group(0) @binding(7) var residual: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/math
// #include lib/texels

fn start(sample: u32, at: u32) -> V {
    return V(0.0);
}

fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {
    return value;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, WORKGROUP);
    let quad = thread % P.quads_out;
    let tile = thread / P.quads_out;
    let tile_row = tile / P.tiles_x;
    let x_out = (tile % P.tiles_x) * PIXELS;
    let y_out = (tile_row % P.tiles_y) * ROWS;
    let sample = tile_row / P.tiles_y;
    if (sample >= P.samples) {
        return;
    }
    // Positions left of or above the source wrap to large numbers.
    let x0 = x_out * STRIDE_X - P.pad_left;
    let y0 = y_out * STRIDE_Y - P.pad_top;

    var s: array<array<V, COLUMNS>, LINES>; // #registers
    for (var l = 0u; l < LINES; l++) { // #unroll
        for (var c = 0u; c < COLUMNS; c++) { // #unroll
            let inside = x0 + c < P.width && y0 + l < P.height;
            let at = select(0u, ((sample * P.height + y0 + l) * P.width + x0 + c) * P.quads_out + quad, inside);
            s[l][c] = select(V(0.0), textureLoad(src_texture, texel(at)), inside);
        }
    }
    var w: array<array<V, KERNEL_X>, KERNEL_Y>; // #registers
    for (var ky = 0u; ky < KERNEL_Y; ky++) { // #unroll
        for (var kx = 0u; kx < KERNEL_X; kx++) { // #unroll
            w[ky][kx] = V(weight[(ky * KERNEL_X + kx) * P.quads_out + quad]);
        }
    }
    let first = start(sample, quad);
    for (var r = 0u; r < ROWS; r++) { // #unroll
        for (var p = 0u; p < PIXELS; p++) { // #unroll
            var sum = first;
            for (var ky = 0u; ky < KERNEL_Y; ky++) { // #unroll
                for (var kx = 0u; kx < KERNEL_X; kx++) { // #unroll
                    sum = fma(s[r * STRIDE_Y + ky * DILATION_Y][p * STRIDE_X + kx * DILATION_X], w[ky][kx], sum);
                }
            }
            if (y_out + r < P.height_out && x_out + p < P.width_out) {
                let pixel = (sample * P.height_out + y_out + r) * P.width_out + x_out + p;
                dst[pixel * P.quads_out + quad] = Quad(epilogue(sum, pixel, sample, quad));
            }
        }
    }
}

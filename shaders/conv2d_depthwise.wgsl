// dst[p, c] = epilogue( Σ_{ky, kx} src[n, y·stride + ky·dilation − pad, x·stride + …, c] · weight[ky, kx, c] )
//
// Depthwise convolution: every channel has a filter of its own.
// src: [n, height, width, c], weight: [kernel_y, kernel_x, c], dst: [n, height_out, width_out, c];
// c a multiple of four. One thread computes one quad of channels of one pixel;
// neighbouring threads share the pixel, so that their loads are consecutive.

alias V = vec4<f32>;
alias Quad = vec4<f32>;

struct Params {
    height: u32,
    width: u32,
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

@group(0) @binding(0) var<storage, read> src: array<Quad>;
@group(0) @binding(1) var<storage, read> weight: array<Quad>;
@group(0) @binding(2) var<storage, read_write> dst: array<Quad>;
@group(0) @binding(3) var<storage, read> extra0: array<Quad>;
@group(0) @binding(4) var<storage, read> extra1: array<Quad>;
@group(0) @binding(5) var<storage, read> extra2: array<Quad>;
@group(0) @binding(6) var<uniform> P: Params;

// #include lib/index
// #include lib/math

fn start(sample: u32, at: u32) -> V {
    return V(0.0);
}

fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {
    return value;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, 64u);
    let quad = thread % P.quads_out;
    let pixel = thread / P.quads_out;
    if (pixel >= P.pixels_out) {
        return;
    }
    let row = pixel / P.width_out;
    let sample = row / P.height_out;
    // Positions left of or above the source wrap to large numbers.
    let x0 = (pixel % P.width_out) * P.stride_x - P.pad_left;
    let y0 = (row % P.height_out) * P.stride_y - P.pad_top;

    // The same sums in the same order as in conv2d_depthwise_texels.
    var sum = start(sample, quad);
    for (var ky = 0u; ky < P.kernel_y; ky++) {
        let y = y0 + ky * P.dilation_y;
        for (var kx = 0u; kx < P.kernel_x; kx++) {
            let x = x0 + kx * P.dilation_x;
            if (x < P.width && y < P.height) {
                let s = V(src[((sample * P.height + y) * P.width + x) * P.quads_out + quad]);
                sum = fma(s, V(weight[(ky * P.kernel_x + kx) * P.quads_out + quad]), sum);
            }
        }
    }
    dst[thread] = Quad(epilogue(sum, pixel, sample, quad));
}

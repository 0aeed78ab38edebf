// dst[p, co] = epilogue( Σ_{ky, kx, ci in the group of co} src[n, y·stride + ky·dilation − pad, x·stride + …, ci] · weight[co, ci, ky, kx] )
//
// Convolution as it is defined, for any number of groups: the fallback and the explanation.
// src: [n, height, width, c_in]; weight: [c_out, c_in_group, kernel_y, kernel_x];
// dst: [n, height_out, width_out, c_out]. One thread computes one number.

alias V = f32;
alias Elem = f32;

struct Params {
    height: u32,
    width: u32,
    c_in: u32,
    c_in_group: u32,
    height_out: u32,
    width_out: u32,
    pixels_out: u32, // in all samples
    c_out: u32,
    c_out_group: u32,
    kernel_y: u32,
    kernel_x: u32,
    stride_y: u32,
    stride_x: u32,
    dilation_y: u32,
    dilation_x: u32,
    pad_top: u32,
    pad_left: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> weight: array<Elem>;
@group(0) @binding(2) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(3) var<storage, read> extra0: array<Elem>;
@group(0) @binding(4) var<storage, read> extra1: array<Elem>;
@group(0) @binding(5) var<storage, read> extra2: array<Elem>;
@group(0) @binding(6) var<uniform> P: Params;

// #include lib/index
// #include lib/math

fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {
    return value;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, 64u);
    let co = thread % P.c_out;
    let pixel = thread / P.c_out;
    if (pixel >= P.pixels_out) {
        return;
    }
    let row = pixel / P.width_out;
    let sample = row / P.height_out;
    // Positions left of or above the source wrap to large numbers.
    let x0 = (pixel % P.width_out) * P.stride_x - P.pad_left;
    let y0 = (row % P.height_out) * P.stride_y - P.pad_top;
    let first = (co / P.c_out_group) * P.c_in_group;

    var sum = 0.0;
    for (var ky = 0u; ky < P.kernel_y; ky++) {
        let y = y0 + ky * P.dilation_y;
        for (var kx = 0u; kx < P.kernel_x; kx++) {
            let x = x0 + kx * P.dilation_x;
            if (x < P.width && y < P.height) {
                let s = ((sample * P.height + y) * P.width + x) * P.c_in + first;
                let w = ((co * P.c_in_group) * P.kernel_y + ky) * P.kernel_x + kx;
                for (var ci = 0u; ci < P.c_in_group; ci++) {
                    sum += f32(src[s + ci]) * f32(weight[w + ci * P.kernel_y * P.kernel_x]);
                }
            }
        }
    }
    dst[thread] = Elem(epilogue(sum, pixel, sample, co));
}

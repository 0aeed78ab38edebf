// dst[n, y, x, o] = bias[o] + Σ products[n, v, u, ky, kx, o] over the taps with y + top = v · stride + ky, likewise for x
//
// The end of a transposed convolution that was computed as one product, of every source pixel with every tap: products
// [n, h, w, kh, kw, c_out], dst [n, oh, ow, c_out], c_out in quads. Of the taps only every stride-th meets a pixel: TAPS_Y ×
// TAPS_X of them. One thread gathers one quad.

const KERNEL_Y: u32 = 4u;
const KERNEL_X: u32 = 4u;
const STRIDE_Y: u32 = 2u;
const STRIDE_X: u32 = 2u;
const TAPS_Y: u32 = 2u; // ⌈KERNEL_Y / STRIDE_Y⌉
const TAPS_X: u32 = 2u;
alias V = vec4<f32>;
alias Quad = vec4<f32>; // of bias and dst

struct Params {
    count: u32, // quads of dst
    h: u32,
    w: u32,
    oh: u32,
    ow: u32,
    quads: u32, // of c_out
    top: u32,
    left: u32,
}

@group(0) @binding(0) var<storage, read> products: array<V>;
@group(0) @binding(1) var<storage, read> bias: array<Quad>;
@group(0) @binding(2) var<storage, read_write> dst: array<Quad>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

fn start(o: u32) -> V {
    return V(bias[o]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let pixel = divide(id, P.quads);
    let column = divide(pixel.x, P.ow);
    let line = divide(column.x, P.oh);
    let o = pixel.y;
    let x = column.y + P.left;
    let y = line.y + P.top;
    var sum = start(o);
    for (var j = 0u; j < TAPS_Y; j++) { // #unroll
        let ky = y % STRIDE_Y + j * STRIDE_Y;
        let v = (y - ky) / STRIDE_Y; // wraps to a large number above the source
        for (var i = 0u; i < TAPS_X; i++) { // #unroll
            let kx = x % STRIDE_X + i * STRIDE_X;
            let u = (x - kx) / STRIDE_X;
            let inside = ky < KERNEL_Y && ky <= y && v < P.h && kx < KERNEL_X && kx <= x && u < P.w;
            let at = ((((line.x * P.h + v) * P.w + u) * KERNEL_Y + ky) * KERNEL_X + kx) * P.quads + o;
            sum += select(V(), products[select(0u, at, inside)], inside);
        }
    }
    dst[id] = Quad(sum);
}

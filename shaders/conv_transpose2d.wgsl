// dst[n, y, x, o] = bias[o] + Σ src[n, v, u, c] · weight[ky, kx, c, o]
// over the taps with y + top = v · stride + ky · dilation, likewise for x
//
// src [n, h, w, c_in], weight [c_in, kh, kw, c_out / groups], dst [n, oh, ow, c_out]; output
// channels in units of V (quads where each group allows it, else one).
// One thread gathers one V: no two write to the same place, and nothing is cleared first.

alias V = vec4<f32>;
alias Elem = vec4<f32>;   // of weight, bias and dst
alias Source = vec4<f32>;

struct Params {
    count: u32,
    h: u32,
    w: u32,
    c_in: u32,
    oh: u32,
    ow: u32,
    c_out: u32,     // in V
    group_in: u32,  // source channels of a group
    group_out: u32, // output channels of a group, in V
    kernel_y: u32,
    kernel_x: u32,
    stride_y: u32,
    stride_x: u32,
    dilation_y: u32,
    dilation_x: u32,
    top: u32,
    left: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Source>;
@group(0) @binding(1) var<storage, read> weight: array<Elem>;
@group(0) @binding(2) var<storage, read> bias: array<Elem>;
@group(0) @binding(3) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index

fn start(o: u32) -> V {
    return V(bias[o]);
}

// Σ over a group's channels for one tap; pixel in numbers from the start of src.
fn tap(pixel: u32, at: u32, step: u32) -> V {
    var sum = V(0.0);
    for (var c = 0u; c < P.group_in; c += 4u) {
        let s = vec4<f32>(src[(pixel + c) / 4u]);
        let k = at + c * step;
        sum += s.x * V(weight[k]);
        sum += s.y * V(weight[k + step]);
        sum += s.z * V(weight[k + 2u * step]);
        sum += s.w * V(weight[k + 3u * step]);
    }
    return sum;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let o = id % P.c_out;
    let place = id / P.c_out;
    let y = (place / P.ow) % P.oh + P.top;
    let x = place % P.ow + P.left;
    let n = place / (P.ow * P.oh);
    let first = o / P.group_out * P.group_in;
    var sum = start(o);
    for (var ky = 0u; ky < P.kernel_y; ky++) {
        let dy = ky * P.dilation_y;
        let v = (y - dy) / P.stride_y;
        if (dy <= y && v * P.stride_y == y - dy && v < P.h) {
            for (var kx = 0u; kx < P.kernel_x; kx++) {
                let dx = kx * P.dilation_x;
                let u = (x - dx) / P.stride_x;
                if (dx <= x && u * P.stride_x == x - dx && u < P.w) {
                    let pixel = ((n * P.h + v) * P.w + u) * P.c_in + first;
                    // weight [c_in, kh, kw, group_out]
                    let taps = P.kernel_y * P.kernel_x;
                    let at = (first * taps + ky * P.kernel_x + kx) * P.group_out + o % P.group_out;
                    sum += tap(pixel, at, taps * P.group_out);
                }
            }
        }
    }
    dst[id] = Elem(sum);
}

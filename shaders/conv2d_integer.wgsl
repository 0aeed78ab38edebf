// dst[n, y, x, o] = Σ_j Σ_i Σ_c src[n, y · stride − top + j · dilation, x · stride − left + i · dilation, c] · weight[j, i, c, o]
//
// Exact sums in i32, as integers wrap. src [n, h, w, c], dst [n, oh, ow, channels], o in units of V; weight [kh, kw,
// each, channels] with `each` channels of src to a group of `outputs` channels. Taps outside src count for nothing.
// One thread computes one V.

alias V = vec4<i32>;

struct Params {
    count: u32,
    h: u32,
    w: u32,
    c: u32,
    oh: u32,
    ow: u32,
    channels: u32,
    outputs: u32,
    each: u32,
    kernel_y: u32,
    kernel_x: u32,
    stride_y: u32,
    stride_x: u32,
    dilation_y: u32,
    dilation_x: u32,
    top: u32,
    left: u32,
}

@group(0) @binding(0) var<storage, read> src: array<i32>;
@group(0) @binding(1) var<storage, read> weight: array<V>;
@group(0) @binding(2) var<storage, read_write> dst: array<V>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let o = id % P.channels;
    let pixel = id / P.channels;
    let y = i32((pixel / P.ow) % P.oh * P.stride_y) - i32(P.top);
    let x = i32(pixel % P.ow * P.stride_x) - i32(P.left);
    let n = pixel / (P.ow * P.oh);
    let first = o / P.outputs * P.each;
    var sum = V(0);
    for (var j = 0u; j < P.kernel_y; j++) {
        let v = y + i32(j * P.dilation_y);
        if (v < 0 || v >= i32(P.h)) {
            continue;
        }
        for (var i = 0u; i < P.kernel_x; i++) {
            let u = x + i32(i * P.dilation_x);
            if (u < 0 || u >= i32(P.w)) {
                continue;
            }
            let line = ((n * P.h + u32(v)) * P.w + u32(u)) * P.c + first;
            let column = (j * P.kernel_x + i) * P.each * P.channels + o;
            for (var c = 0u; c < P.each; c++) {
                sum += src[line + c] * weight[column + c * P.channels];
            }
        }
    }
    dst[id] = sum;
}

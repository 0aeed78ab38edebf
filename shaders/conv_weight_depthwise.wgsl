// dst[tap, c] = src[c, tap]: the order in which conv2d_depthwise reads its weight
//
// One thread writes one number.

alias Elem = f32;

struct Params {
    channels: u32,
    taps: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.channels * P.taps) {
        return;
    }
    dst[i] = src[(i % P.channels) * P.taps + i / P.channels];
}

// dst[(co / COLUMNS, tap, ci), co % COLUMNS] = src[co, ci, tap]: the order in which conv2d_shared and conv2d_matrices read their weight
//
// src: [c_out, c_in, taps]. dst: [tiles of COLUMNS output channels, taps, `depth` input channels, COLUMNS], zero where a
// channel does not exist. One thread writes one number.

alias Elem = f32;

struct Params {
    count: u32, // of dst
    columns: u32,
    depth: u32, // c_in up to whole steps
    c_out: u32,
    c_in: u32,
    taps: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    let at = coordinates(i, P.taps, P.depth, P.columns);
    let ci = at.z;
    let tap = at.y;
    let co = at.x * P.columns + at.w;
    var value = Elem(0.0);
    if (ci < P.c_in && co < P.c_out) {
        value = src[(co * P.c_in + ci) * P.taps + tap];
    }
    dst[i] = value;
}

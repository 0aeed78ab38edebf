// dst[tap, ci, co] = src[co, ci, tap], zero where the padded channel does not exist
//
// src: [c_out, c_in, taps]; dst: [taps, c_in_padded, c_out_padded]. One thread writes one number.

alias Elem = f32;

struct Params {
    count: u32, // numbers in dst
    c_out: u32,
    c_in: u32,
    taps: u32,
    c_in_padded: u32,
    c_out_padded: u32,
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
    let co = i % P.c_out_padded;
    let ci = (i / P.c_out_padded) % P.c_in_padded;
    let tap = i / (P.c_out_padded * P.c_in_padded);
    var value = Elem(0.0);
    if (co < P.c_out && ci < P.c_in) {
        value = src[(co * P.c_in + ci) * P.taps + tap];
    }
    dst[i] = value;
}

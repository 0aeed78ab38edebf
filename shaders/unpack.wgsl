// dst[i] = the i-th 16-bit float of src
//
// src: u32 words, two numbers each, the first in the low half (the byte order of safetensors).
// One thread unpacks one word.

alias Elem = f32;

struct Params {
    count: u32, // numbers
}

@group(0) @binding(0) var<storage, read> src: array<u32>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

fn halves(word: u32) -> vec2<f32> {
    return unpack2x16float(word);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u) * 2u;
    if (i >= P.count) {
        return;
    }
    let pair = halves(src[i / 2u]);
    dst[i] = Elem(pair.x);
    if (i + 1u < P.count) {
        dst[i + 1u] = Elem(pair.y);
    }
}

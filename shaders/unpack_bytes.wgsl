// dst[i] = byte i of src, as a signed or unsigned integer
//
// src words of four bytes, the lowest first. One thread computes the four of a word.

const SIGNED: bool = false;

struct Params {
    count: u32,
}

@group(0) @binding(0) var<storage, read> src: array<u32>;
@group(0) @binding(1) var<storage, read_write> dst: array<i32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id * 4u >= P.count) {
        return;
    }
    let word = src[id];
    for (var k = 0u; k < 4u; k++) { // #unroll
        let i = id * 4u + k;
        if (i < P.count) {
            let high = word << (24u - 8u * k);
            dst[i] = select(i32(high >> 24u), bitcast<i32>(high) >> 24u, SIGNED);
        }
    }
}

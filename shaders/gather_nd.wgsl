// dst[b, t, i] = src[b, indices[b, t, 0], indices[b, t, 1], …, i]
//
// src [batch, sizes…, inner], indices [batch, tuples, DEPTH], dst [batch, tuples, inner]; strides and inner in units of
// Elem, quads where inner allows it. Negative indices count from the end; what is still outside reads the last slice of its axis.
// One thread copies one Elem.

const DEPTH: u32 = 2u;
alias Elem = vec4<f32>;

struct Params {
    count: u32,
    tuples: u32,
    batch: u32, // Elems of src in one of the batch
    inner: u32,
    sizes: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> indices: array<i32>;
@group(0) @binding(2) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let tuple = id / P.inner;
    var at = tuple / P.tuples * P.batch + id % P.inner;
    for (var k = 0u; k < DEPTH; k++) { // #unroll
        let size = P.sizes[k / 4u][k % 4u];
        at += min(from_end(indices[tuple * DEPTH + k], size), size - 1u) * P.strides[k / 4u][k % 4u];
    }
    dst[id] = src[at];
}

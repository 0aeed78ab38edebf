// dst[o, base + start_k + j] = src_k[o, j], for up to four tensors src_k
//
// src_k [outer, rows[k]], dst [outer, total]: rows are all dimensions from the axis on, in units
// of Elem (quads where every row allows it). One thread copies one Elem.

alias Elem = vec4<f32>;

struct Params {
    count: u32, // outer · width
    width: u32, // sum of the four rows
    base: u32,  // where the four begin in a row of dst
    total: u32, // row of dst
    rows: array<vec4<u32>, 1>,
}

@group(0) @binding(0) var<storage, read> src0: array<Elem>;
@group(0) @binding(1) var<storage, read> src1: array<Elem>;
@group(0) @binding(2) var<storage, read> src2: array<Elem>;
@group(0) @binding(3) var<storage, read> src3: array<Elem>;
@group(0) @binding(4) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(5) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let o = id / P.width;
    var j = id % P.width;
    let to = o * P.total + P.base + j;
    let rows = P.rows[0];
    if (j < rows.x) {
        dst[to] = src0[o * rows.x + j];
        return;
    }
    j -= rows.x;
    if (j < rows.y) {
        dst[to] = src1[o * rows.y + j];
        return;
    }
    j -= rows.y;
    if (j < rows.z) {
        dst[to] = src2[o * rows.z + j];
        return;
    }
    j -= rows.z;
    dst[to] = src3[o * rows.w + j];
}

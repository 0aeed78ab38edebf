// dst[o, base + start_k + j] = src_k[o, j], for up to four tensors src_k
//
// src_k [outer, rows[k]], dst [outer, total]: rows are all dimensions from the axis on, in units
// of Elem (quads where every row allows it). One thread copies an Elem of each of LINES neighbouring o.

alias Elem = vec4<f32>;
const INPUTS: u32 = 4u;
const LINES: u32 = 1u;

struct Params {
    count: u32, // threads
    outer: u32,
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
@group(0) @binding(6) var texture0: texture_storage_2d<rgba32float, read>;
@group(0) @binding(7) var texture1: texture_storage_2d<rgba32float, read>;
@group(0) @binding(8) var texture2: texture_storage_2d<rgba32float, read>;
@group(0) @binding(9) var texture3: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/texels

fn load0(o: u32, j: u32) -> Elem { return src0[o * P.rows[0].x + j]; }
fn load1(o: u32, j: u32) -> Elem { return src1[o * P.rows[0].y + j]; }
fn load2(o: u32, j: u32) -> Elem { return src2[o * P.rows[0].z + j]; }
fn load3(o: u32, j: u32) -> Elem { return src3[o * P.rows[0].w + j]; }

fn load(o: u32, j: u32) -> Elem {
    let rows = P.rows[0];
    if (INPUTS == 1u || j < rows.x) {
        return load0(o, j);
    }
    if (INPUTS == 2u || j < rows.x + rows.y) {
        return load1(o, j - rows.x);
    }
    if (INPUTS == 3u || j < rows.x + rows.y + rows.z) {
        return load2(o, j - rows.x - rows.y);
    }
    return load3(o, j - rows.x - rows.y - rows.z);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let split = divide(id, P.width);
    for (var k = 0u; k < LINES; k++) { // #unroll
        let o = split.x * LINES + k;
        if (o < P.outer) {
            dst[o * P.total + P.base + split.y] = load(o, split.y);
        }
    }
}

// dst[o, k, i] = table[o, min(indices[k], rows - 1), i]
//
// table [outer, rows, inner], indices [k], dst [outer, k, inner], inner in units of Elem
// (quads where it allows them). One thread copies one Elem.

alias Elem = vec4<f32>;

struct Params {
    count: u32,
    rows: u32,
    indices: u32,
    inner: u32,
}

@group(0) @binding(0) var<storage, read> table: array<Elem>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let i = id % P.inner;
    let k = (id / P.inner) % P.indices;
    let o = id / (P.inner * P.indices);
    let row = min(indices[k], P.rows - 1u);
    dst[id] = table[(o * P.rows + row) * P.inner + i];
}

// place[u] = Σₖ indices[u, k] · strides[k], the row that a tuple of DEPTH indices addresses
//
// Negative indices count from the end; tuples that are still outside get the largest i32, which is no row.
// One thread does one tuple.

const DEPTH: u32 = 2u;

struct Params {
    count: u32,
    sizes: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>, // in rows
}

@group(0) @binding(0) var<storage, read> indices: array<i32>;
@group(0) @binding(1) var<storage, read_write> place: array<i32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    var row = 0u;
    var within = true;
    for (var k = 0u; k < DEPTH; k++) { // #unroll
        let size = P.sizes[k / 4u][k % 4u];
        let i = from_end(indices[id * DEPTH + k], size);
        within &= i < size;
        row += i * P.strides[k / 4u][k % 4u];
    }
    place[id] = select(0x7fffffff, i32(row), within);
}

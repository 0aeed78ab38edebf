// dst[b, i, j] = Σ_l left[b, i, l] · right[b, l, j], exact sums in i32, as integers wrap
//
// left [batch, m, k], right [batch, k, n], dst [batch, m, n], n in units of V. One thread computes one V.

alias V = vec4<i32>;

struct Params {
    count: u32,
    m: u32,
    k: u32,
    n: u32,
}

@group(0) @binding(0) var<storage, read> left: array<i32>;
@group(0) @binding(1) var<storage, read> right: array<V>;
@group(0) @binding(2) var<storage, read_write> dst: array<V>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let row = id / P.n;
    let column = row / P.m * P.k * P.n + id % P.n;
    var sum = V(0);
    for (var l = 0u; l < P.k; l++) {
        sum += left[row * P.k + l] * right[column + l * P.n];
    }
    dst[id] = sum;
}

// dst[i] = src[i, but along one axis indices[i]]
//
// indices and dst have one shape, src the same number of axes. Negative indices count from the end; what
// is still outside reads the last element. One thread copies one element.

const RANK: u32 = 6u;
alias Elem = f32;

struct Params {
    count: u32,
    size: u32, // of the axis in src
    step: u32, // its stride
    shape: array<vec4<u32>, 2>,   // of dst; here and below the last axis first
    strides: array<vec4<u32>, 2>, // of src, 0 for the axis
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
    var rest = id;
    var at = 0u;
    for (var k = 0u; k < RANK; k++) { // #unroll
        let split = divide(rest, P.shape[k / 4u][k % 4u]);
        at += split.y * P.strides[k / 4u][k % 4u];
        rest = split.x;
    }
    dst[id] = src[at + min(from_end(indices[id], P.size), P.size - 1u) * P.step];
}

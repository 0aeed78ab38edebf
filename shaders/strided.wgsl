// dst[i0, i1, …] = src[base + Σ_d stride[d] · i_d]
//
// Slices, permutations of axes and broadcasts in one kernel. dst is row-major with up to six axes;
// strides are of src, modulo 2^32 (backward steps wrap), all in units of Elem: quads where the last
// axis lies side by side in both tensors and every stride allows it. One thread copies RUN neighbours of dst's last axis.

const RANK: u32 = 6u;
const RUN: u32 = 1u;
alias Elem = vec4<f32>;

struct Params {
    count: u32, // threads
    base: u32,
    step: u32, // from one of a thread's elements to the next
    shape: array<vec4<u32>, 2>, // of dst, the last axis first and in runs; so are the strides
    strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    var rest = id;
    var at = P.base;
    for (var k = 0u; k < RANK; k++) { // #unroll
        let split = divide(rest, P.shape[k / 4u][k % 4u]);
        at += split.y * P.strides[k / 4u][k % 4u];
        rest = split.x;
    }
    for (var k = 0u; k < RUN; k++) { // #unroll
        dst[id * RUN + k] = src[at + k * P.step];
    }
}

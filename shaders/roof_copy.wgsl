// dst[i] = src[i]
//
// How fast a device copies by a kernel. Neighbours copy neighbouring vectors of four, each thread COPIES of them.

const THREADS: u32 = 64u;
const COPIES: u32 = 4u;

struct Params {
    count: u32, // vectors
}

@group(0) @binding(0) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> dst: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = linear_group(group, groups) * THREADS * COPIES + local;
    for (var i = 0u; i < COPIES; i++) { // #unroll
        if (first + i * THREADS < P.count) {
            dst[first + i * THREADS] = src[first + i * THREADS];
        }
    }
}

// dst[i] = a number in [1, 2) with a random mantissa
//
// What the other roof kernels read: memory that a device could compress on its way would seem faster than it is.
// The bits are a hash of the index (O'Neill's PCG in one round, as in Jarzynski and Olano 2020).

const THREADS: u32 = 64u;

struct Params {
    count: u32, // vectors
}

@group(0) @binding(0) var<storage, read_write> dst: array<vec4<f32>>;
@group(0) @binding(1) var<uniform> P: Params;

// #include lib/index

fn random(i: vec4<u32>) -> vec4<f32> {
    let state = i * 747796405u + 2891336453u;
    let word = ((state >> ((state >> vec4<u32>(28u)) + 4u)) ^ state) * 277803737u;
    return bitcast<vec4<f32>>(((word >> vec4<u32>(22u)) ^ word) & vec4<u32>(0x7fffffu) | vec4<u32>(0x3f800000u));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, THREADS);
    if (i < P.count) {
        dst[i] = random(4u * i + vec4<u32>(0u, 1u, 2u, 3u));
    }
}

// dst[thread] = Σ_k src[(first of its workgroup + local + k · THREADS) mod length], k < LOADS · rounds
//
// How fast a device reads a buffer. A workgroup reads a stretch of it from end to end, neighbours neighbouring vectors
// of four, each thread LOADS of them before it needs the first. The buffer's length is a power of two: a large one is
// read once, a small one over and over, out of the cache that holds it.

const THREADS: u32 = 64u;
const LOADS: u32 = 8u;

struct Params {
    rounds: u32,
    mask: u32, // length - 1
}

@group(0) @binding(0) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> dst: array<f32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum: array<vec4<f32>, LOADS>; // #registers
    var at = linear_group(group, groups) * P.rounds * LOADS * THREADS + local;
    for (var round = 0u; round < P.rounds; round++) {
        for (var i = 0u; i < LOADS; i++) { // #unroll
            sum[i] += src[(at + i * THREADS) & P.mask];
        }
        at += LOADS * THREADS;
    }
    var all = vec4<f32>();
    for (var i = 0u; i < LOADS; i++) { // #unroll
        all += sum[i];
    }
    dst[linear_id(group, groups, local, THREADS)] = all.x + all.y + all.z + all.w;
}

// dst[thread] = Σ_k tile[(local + k · stride) mod LENGTH], k < LOADS · rounds
//
// How fast a device reads workgroup memory: neighbours read neighbouring vectors of four, so that no two want the same
// bank, and each thread has LOADS of them under way.

const THREADS: u32 = 64u;
const LENGTH: u32 = 512u; // vectors, a power of two
const LOADS: u32 = 8u;

struct Params {
    rounds: u32,
    stride: u32,
}

@group(0) @binding(0) var<storage, read_write> dst: array<f32>;
@group(0) @binding(1) var<uniform> P: Params;

var<workgroup> tile: array<vec4<f32>, LENGTH>;

// #include lib/index

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var i = local; i < LENGTH; i += THREADS) {
        tile[i] = vec4<f32>(f32(i));
    }
    workgroupBarrier(); // all of the tile is there
    var sum: array<vec4<f32>, LOADS>; // #registers
    var at = local;
    for (var round = 0u; round < P.rounds; round++) {
        for (var i = 0u; i < LOADS; i++) { // #unroll
            sum[i] += tile[(at + i * P.stride) & (LENGTH - 1u)];
        }
        at += LOADS * P.stride;
    }
    var all = vec4<f32>();
    for (var i = 0u; i < LOADS; i++) { // #unroll
        all += sum[i];
    }
    dst[linear_id(group, groups, local, THREADS)] = all.x + all.y + all.z + all.w;
}

// x ← x · factor + addend, again and again; dst[thread] = Σ of all x
//
// How fast a device multiplies and adds when it does nothing else. One thread keeps ACCUMULATORS vectors of four in
// registers, which do not depend on one another, and goes over all of them STEPS times a round: as many operations are
// under way as the latency of one takes. Factor and addend come from outside and the sum is stored, so that no compiler
// can do without any of it.

const THREADS: u32 = 64u;
const ACCUMULATORS: u32 = 8u;
const STEPS: u32 = 4u;
alias S = f32;
alias V = vec4<f32>;

struct Params {
    rounds: u32,
    factor: f32,
    addend: f32,
}

@group(0) @binding(0) var<storage, read_write> dst: array<f32>;
@group(0) @binding(1) var<uniform> P: Params;

// #include lib/index

fn multiply_add(x: V, factor: V, addend: V) -> V {
    return fma(x, factor, addend);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, THREADS);
    let factor = V(S(P.factor));
    let addend = V(S(P.addend));
    var x: array<V, ACCUMULATORS>; // #registers
    for (var i = 0u; i < ACCUMULATORS; i++) { // #unroll
        x[i] = V(S(local + i));
    }
    for (var round = 0u; round < P.rounds; round++) {
        for (var step = 0u; step < STEPS; step++) { // #unroll
            for (var i = 0u; i < ACCUMULATORS; i++) { // #unroll
                x[i] = multiply_add(x[i], factor, addend);
            }
        }
    }
    var sum = V(S(0));
    for (var i = 0u; i < ACCUMULATORS; i++) { // #unroll
        sum += x[i];
    }
    dst[thread] = f32(sum.x + sum.y + sum.z + sum.w);
}

// c ← a · b + c, again and again; dst = Σ of all c
//
// How fast a device multiplies cooperative matrices: small ones that the threads of a subgroup hold together. One
// subgroup keeps ACCUMULATORS products that do not depend on one another. a and b come from memory, so that they are
// not known to be anything in particular.

enable f16;
enable wgpu_cooperative_matrix;

const THREADS: u32 = 32u; // one subgroup
const SIDE: u32 = 16u;
const ACCUMULATORS: u32 = 4u;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

struct Params {
    rounds: u32,
}

@group(0) @binding(0) var<storage, read_write> factors: array<f16>;
@group(0) @binding(1) var<storage, read_write> dst: array<f32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let place = linear_group(group, groups) * SIDE * SIDE;
    let a = coopLoad<Left>(&factors[0], SIDE);
    let b = coopLoad<Right>(&factors[SIDE * SIDE], SIDE);
    var c: array<Sum, ACCUMULATORS>; // #registers
    for (var i = 0u; i < ACCUMULATORS; i++) { // #unroll
        c[i] = coopLoad<Sum>(&dst[place], SIDE);
    }
    for (var round = 0u; round < P.rounds; round++) {
        for (var i = 0u; i < ACCUMULATORS; i++) { // #unroll
            c[i] = coopMultiplyAdd(a, b, c[i]);
        }
    }
    var sum = c[0];
    for (var i = 0u; i < ACCUMULATORS; i++) { // #unroll
        sum = sum + c[i];
    }
    coopStore(sum, &dst[place], SIDE);
}

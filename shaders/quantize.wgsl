// dst[i] = clamp(round(src[i] / scale[k]) + zero[k], low, high), k = place(i), halves to the even integer
//
// src and dst alike, scale and zero for all, for each index of an axis, or for blocks along it: strides say how k
// grows along the axes before, of and after it. TIMES: src[i] · scale[k] instead. The operation may
// replace the result by the number that it stands for. One thread computes RUN neighbours.

const TIMES: bool = false;
const RUN: u32 = 1u;
alias Elem = f32;
alias Out = i32;

struct Params {
    count: u32, // threads
    inner: u32, // elements of src in one index of the axis
    axis: u32,
    block: u32,
    outer_step: u32,
    axis_step: u32,
    inner_step: u32,
    low: i32,
    high: i32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> zero: array<i32>;
@group(0) @binding(3) var<storage, read_write> dst: array<Out>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index
// #include lib/quotient

fn place(i: u32) -> u32 {
    let line = divide(i, P.inner);
    let outer = divide(line.x, P.axis);
    return outer.x * P.outer_step + divide(outer.y, P.block).x * P.axis_step + line.y * P.inner_step;
}

fn zero_at(k: u32) -> i32 {
    return zero[k];
}

fn result(q: i32, k: u32) -> Out {
    return q;
}

fn scaled(x: f32, s: f32) -> f32 {
    if (TIMES) {
        return x * s;
    }
    let q = x / s;
    // Near a half the last bits decide; beyond 2^18 every type is saturated.
    let near = abs(abs(q - floor(q)) - 0.5) <= abs(q) * 9.5e-7;
    if (near && abs(q) < 262144.0) {
        return quotient(x, s);
    }
    return q;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    for (var r = 0u; r < RUN; r++) { // #unroll
        let i = id * RUN + r;
        let k = place(i);
        let q = round(clamp(scaled(f32(src[i]), scale[k]), -262144.0, 262144.0));
        dst[i] = result(clamp(i32(q) + zero_at(k), P.low, P.high), k);
    }
}

// dst[i] = (src[i] - zero[k]) · scale[k], k = place(i)
//
// src and dst alike, scale and zero for all, for each index of an axis, or for blocks along it: strides say how k
// grows along the axes before, of and after it. One thread computes RUN neighbours.

const RUN: u32 = 1u;
alias Elem = f32;

struct Params {
    count: u32, // threads
    inner: u32, // elements of src in one index of the axis
    axis: u32,
    block: u32,
    outer_step: u32,
    axis_step: u32,
    inner_step: u32,
}

@group(0) @binding(0) var<storage, read> src: array<i32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> zero: array<i32>;
@group(0) @binding(3) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index

fn place(i: u32) -> u32 {
    let line = divide(i, P.inner);
    let outer = divide(line.x, P.axis);
    return outer.x * P.outer_step + divide(outer.y, P.block).x * P.axis_step + line.y * P.inner_step;
}

fn zero_at(k: u32) -> i32 {
    return zero[k];
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
        dst[i] = Elem(f32(src[i] - zero_at(k)) * scale[k]);
    }
}

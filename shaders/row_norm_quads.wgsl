// dst[row, c] = activation((src − mean) / √(variance + eps) · weight[c] + bias[c])
//
// The norm of row_norm.wgsl where a thread has a core's vector unit to itself: software adapters. src: [rows, 4 · quads].
// One thread normalises one row: four means and sums of squares side by side, which are put together at the end as blocks are,
// in a first reading, the result in a second.

alias V = vec4<f32>;
alias Quad = vec4<f32>;

struct Params {
    rows: u32,
    quads: u32, // in a row
    eps: f32,
}

@group(0) @binding(0) var<storage, read> src: array<Quad>;
@group(0) @binding(1) var<storage, read> weight: array<Quad>;
@group(0) @binding(2) var<storage, read> bias: array<Quad>;
@group(0) @binding(3) var<storage, read_write> dst: array<Quad>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index
// #include lib/math
// #include lib/moments

fn number(start: u32, i: u32) -> V {
    return V(src[start + i]);
}

fn weight_of(quad: u32) -> V {
    return V(weight[quad]);
}

fn bias_of(quad: u32) -> V {
    return V(bias[quad]);
}

fn activation(x: V) -> V {
    return x;
}

fn sum(v: V) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// Mean and variance of the row that starts at `first`.
fn moments(first: u32) -> vec2<f32> {
    let m = moments_of(first, P.quads);
    let mean = 0.25 * sum(m.mean);
    let apart = m.mean - mean;
    return vec2<f32>(mean, 0.25 * (sum(m.squares) / f32(P.quads) + sum(apart * apart)));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = linear_id(group, groups, local, 8u);
    if (row >= P.rows) {
        return;
    }
    let first = row * P.quads;
    let m = moments(first);
    let factor = 1.0 / sqrt(m.y + P.eps);
    for (var k = 0u; k < P.quads; k++) {
        let x = (V(src[first + k]) - m.x) * factor;
        dst[first + k] = Quad(activation(x * weight_of(k) + bias_of(k)));
    }
}

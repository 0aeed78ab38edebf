// dst[row, c] = activation((src − mean) / √(variance + eps) · weight[c] + bias[c])
//
// Layer norm of each row; with `mean` left at zero, RMS norm (Zhang and Sennrich, 2019).
// src: [rows, c]. One thread normalises one row: the statistics in a first reading, the result in a second.

alias V = f32;
alias Elem = f32;

struct Params {
    rows: u32,
    channels: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> weight: array<Elem>;
@group(0) @binding(2) var<storage, read> bias: array<Elem>;
@group(0) @binding(3) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index
// #include lib/math
// #include lib/moments

fn number(start: u32, i: u32) -> V {
    return f32(src[start + i]);
}

fn weight_of(channel: u32) -> f32 {
    return f32(weight[channel]);
}

fn bias_of(channel: u32) -> f32 {
    return f32(bias[channel]);
}

fn activation(x: V) -> V {
    return x;
}

// Mean and variance of the row that starts at `first`.
fn moments(first: u32) -> vec2<f32> {
    let m = moments_of(first, P.channels);
    return vec2<f32>(m.mean, m.squares / f32(P.channels));
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = linear_id(group, groups, local, 32u);
    if (row >= P.rows) {
        return;
    }
    let first = row * P.channels;
    let m = moments(first);
    let factor = 1.0 / sqrt(m.y + P.eps);
    for (var c = 0u; c < P.channels; c++) {
        let x = (f32(src[first + c]) - m.x) * factor;
        dst[first + c] = Elem(activation(x * weight_of(c) + bias_of(c)));
    }
}

// dst[row, c] = activation((src − mean) / √(variance + eps) · weight[c] + bias[c])
//
// Layer norm of each row; with `mean` left at zero, RMS norm (Zhang and Sennrich, 2019).
// src: [rows, c]. One thread normalises one row: the statistics in a first reading, BLOCK numbers
// at a time whose mean and squares join those before by Chan's formula (1979), the result in a second.
// With one number at a time, a mean far from zero would be rounded as often as there are numbers. A block's
// mean is counted from its first number, so that it is that number where all are the same.

alias V = f32;
alias Elem = f32;

const BLOCK: u32 = 8u;

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
    var mean = 0.0;
    var squares = 0.0;
    for (var c = 0u; c < P.channels; c += BLOCK) {
        let count = f32(min(BLOCK, P.channels - c));
        let all = f32(c) + count;
        var held: array<f32, BLOCK>; // #registers
        var total = 0.0;
        for (var i = 0u; i < BLOCK; i++) { // #unroll
            held[i] = f32(src[first + min(c + i, P.channels - 1u)]);
            total += select(0.0, held[i] - held[0], c + i < P.channels);
        }
        let of_block = held[0] + total / count;
        let delta = of_block - mean;
        squares += delta * delta * (f32(c) * count / all);
        for (var i = 0u; i < BLOCK; i++) { // #unroll
            let apart = select(0.0, held[i] - of_block, c + i < P.channels);
            squares += apart * apart;
        }
        mean += delta * (count / all);
    }
    return vec2<f32>(mean, squares / f32(P.channels));
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

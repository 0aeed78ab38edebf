// dst[sample, pixel, c] = activation((src − mean) · factor + term), each of sample and c
//
// As group_norm_apply, for a number of channels that is not a multiple of four.
// One thread computes one number.

alias V = f32;
alias Elem = f32;

struct Params {
    samples: u32,
    pixels: u32,
    channels: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> scales: array<f32>;
@group(0) @binding(2) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index
// #include lib/math

fn activation(x: V) -> V {
    return x;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    let channel = i % P.channels;
    let sample = i / P.channels / P.pixels;
    if (sample >= P.samples) {
        return;
    }
    let quads = (P.channels + 3u) / 4u;
    let at = (sample * quads + channel / 4u) * 12u + channel % 4u;
    dst[i] = Elem(activation((f32(src[i]) - scales[at]) * scales[at + 4u] + scales[at + 8u]));
}

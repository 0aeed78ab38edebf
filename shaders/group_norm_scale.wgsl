// scales[sample, c] = (mean, weight[c] / √(variance + eps), bias[c])
//
// Turns the statistics of chunks and channels into what normalises a channel: mean and variance of a group come from those of its parts
// by Chan's formula, Σ squares = Σ squaresᵢ + Σ nᵢ · (meanᵢ − mean)².
// stats as channel_stats writes them; scales: for each sample and quad of channels
// a quad of means, one of factors, one of terms. One thread does one group.

alias Elem = f32;

struct Params {
    samples: u32,
    pixels: u32,
    channels: u32,
    group_channels: u32,
    chunks: u32,
    chunk: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> stats: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<Elem>;
@group(0) @binding(2) var<storage, read> bias: array<Elem>;
@group(0) @binding(3) var<storage, read_write> scales: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index

fn weight_of(channel: u32) -> f32 {
    return f32(weight[channel]);
}

fn bias_of(channel: u32) -> f32 {
    return f32(bias[channel]);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, 8u);
    let quads = (P.channels + 3u) / 4u;
    let parts = P.channels / P.group_channels;
    let first = thread % parts * P.group_channels;
    let sample = thread / parts;
    if (sample >= P.samples) {
        return;
    }
    // Welford's recurrence again, a part at a time. Means are counted from that of the first part: theirs may be far from
    // zero and near to one another, and each of the many sums would lose what is small of them.
    let origin = stats[(sample * P.chunks * quads + first / 4u) * 8u + first % 4u];
    var mean = 0.0;
    var squares = 0.0;
    var count = 0.0;
    for (var chunk = 0u; chunk < P.chunks; chunk++) {
        let pixels = f32(min(P.chunk, P.pixels - chunk * P.chunk));
        for (var c = first; c < first + P.group_channels; c++) {
            let at = ((sample * P.chunks + chunk) * quads + c / 4u) * 8u + c % 4u;
            let delta = (stats[at] - origin) - mean;
            let total = count + pixels;
            mean += delta * (pixels / total);
            squares += stats[at + 4u] + delta * delta * (count * pixels / total);
            count = total;
        }
    }
    let factor = 1.0 / sqrt(squares / count + P.eps);
    for (var c = first; c < first + P.group_channels; c++) {
        let at = (sample * quads + c / 4u) * 12u + c % 4u;
        scales[at] = origin + mean;
        scales[at + 4u] = weight_of(c) * factor;
        scales[at + 8u] = bias_of(c);
    }
}

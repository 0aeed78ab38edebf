// scales[sample, c] = (mean, weight[c] / √(variance + eps), bias[c])
//
// As group_norm_scale, of the statistics of many chunks: THREADS threads do one group. The mean of all parts comes first, then
// Chan's formula for the squares, Σ squares = Σ squaresᵢ + Σ nᵢ · (meanᵢ − mean)²; the sum of nᵢ · (meanᵢ − mean) beside it
// corrects the mean for the rounding of the first one.

alias Elem = f32;
alias Part = vec2<f32>;

struct Params {
    rows: u32, // samples · groups
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
// #include lib/threads

fn join(a: Part, b: Part) -> Part {
    return a + b;
}

fn weight_of(channel: u32) -> f32 {
    return f32(weight[channel]);
}

fn bias_of(channel: u32) -> f32 {
    return f32(bias[channel]);
}

// Mean, sum of squares and number of pixels of a part: one channel of one chunk.
fn part_of(sample: u32, first: u32, i: u32) -> vec3<f32> {
    let chunk = i / P.group_channels;
    let c = first + i % P.group_channels;
    let at = ((sample * P.chunks + chunk) * ((P.channels + 3u) / 4u) + c / 4u) * 8u + c % 4u;
    return vec3<f32>(stats[at], stats[at + 4u], f32(min(P.chunk, P.pixels - chunk * P.chunk)));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = line_and_lane(local);
    let line = place.x;
    let lane = place.y;
    let index = linear_group(group, groups) * LINES + line;
    // Threads beyond the last group go along with the others to the barriers.
    let row = min(index, P.rows - 1u);
    let quads = (P.channels + 3u) / 4u;
    let parts_row = P.channels / P.group_channels;
    let first = row % parts_row * P.group_channels;
    let sample = row / parts_row;
    let count = f32(P.pixels) * f32(P.group_channels);

    var total = 0.0;
    for (var i = lane; i < P.chunks * P.group_channels; i += THREADS) {
        let part = part_of(sample, first, i);
        total += part.z * part.x;
    }
    let mean = joined(Part(total, 0.0), line, lane).x / count;
    var left = 0.0;
    var squares = 0.0;
    for (var i = lane; i < P.chunks * P.group_channels; i += THREADS) {
        let part = part_of(sample, first, i);
        let delta = part.x - mean;
        left += part.z * delta;
        squares += part.y + part.z * delta * delta;
    }
    let moments = joined(Part(left, squares), line, lane) / count;
    let factor = 1.0 / sqrt(moments.y - moments.x * moments.x + P.eps);
    if (index >= P.rows) {
        return;
    }
    for (var c = first + lane; c < first + P.group_channels; c += THREADS) {
        let at = (sample * quads + c / 4u) * 12u + c % 4u;
        scales[at] = mean + moments.x;
        scales[at + 4u] = weight_of(c) * factor;
        scales[at + 8u] = bias_of(c);
    }
}

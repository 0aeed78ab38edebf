// stats[sample, chunk, c] = (mean, Σ (src − mean)²) over the chunk's pixels
//
// As channel_stats, for a number of channels that is not a multiple of four: one
// thread runs over one chunk of pixels of one channel. Results lie as channel_stats
// writes them: quads of means, then quads of sums, the last quad padded.

alias Elem = f32;

const WORKGROUP: u32 = 8u;

struct Params {
    samples: u32,
    pixels: u32,
    channels: u32,
    chunks: u32,
    chunk: u32, // pixels in a chunk
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> stats: array<f32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, WORKGROUP);
    let channel = thread % P.channels;
    let part = thread / P.channels; // sample and chunk
    let sample = part / P.chunks;
    if (sample >= P.samples) {
        return;
    }
    let first = (part % P.chunks) * P.chunk;
    let end = min(first + P.chunk, P.pixels);
    var mean = 0.0;
    var squares = 0.0;
    for (var pixel = first; pixel < end; pixel++) {
        let x = f32(src[(sample * P.pixels + pixel) * P.channels + channel]);
        let delta = x - mean;
        mean += delta / f32(pixel - first + 1u);
        squares += delta * (x - mean);
    }
    let quads = (P.channels + 3u) / 4u;
    let at = (part * quads + channel / 4u) * 8u + channel % 4u;
    stats[at] = mean;
    stats[at + 4u] = squares;
}

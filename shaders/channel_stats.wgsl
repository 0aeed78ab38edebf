// stats[sample, chunk, c] = (mean, Σ (src − mean)²) over the chunk's pixels
//
// The statistics of group and instance norm, for each channel. src: [samples, pixels, c].
// One thread runs over one chunk of pixels of one quad of channels.

alias V = vec4<f32>;
alias Quad = vec4<f32>;

const WORKGROUP: u32 = 8u;

struct Params {
    samples: u32,
    pixels: u32,
    quads: u32, // in a pixel
    chunks: u32,
    chunk: u32, // pixels in a chunk
}

@group(0) @binding(0) var<storage, read> src: array<Quad>;
@group(0) @binding(1) var<storage, read_write> stats: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> P: Params;
@group(0) @binding(3) var src_texture: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/texels
// #include lib/moments

fn load(at: u32) -> V {
    return V(src[at]);
}

fn number(start: u32, i: u32) -> V {
    return load(start + i * P.quads);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, WORKGROUP);
    let quad = thread % P.quads;
    let chunk = (thread / P.quads) % P.chunks;
    let sample = thread / (P.quads * P.chunks);
    if (sample >= P.samples) {
        return;
    }
    let first = chunk * P.chunk;
    let m = moments_of((sample * P.pixels + first) * P.quads + quad, min(P.chunk, P.pixels - first));
    stats[thread * 2u] = m.mean;
    stats[thread * 2u + 1u] = m.squares;
}

// stats[sample, chunk, c] = (mean, Σ (src − mean)²) over the chunk's pixels
//
// The statistics of group and instance norm, for each channel. src: [samples, pixels, c].
// One thread runs over one chunk of pixels of one quad of channels, BLOCK pixels at a time whose mean and squares
// join those before by Chan's formula (1979), which does not cancel however far the mean is from zero. A block's mean is
// counted from its first number, so that it is that number where all are the same.

alias V = vec4<f32>;
alias Quad = vec4<f32>;

const WORKGROUP: u32 = 8u;
const BLOCK: u32 = 8u;

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
@group(0) @binding(3) var src_texture: texture_2d<f32>;

// #include lib/index
// #include lib/texels

fn load(pixel: u32, quad: u32) -> V {
    return V(src[pixel * P.quads + quad]);
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
    let end = min(first + P.chunk, P.pixels);
    var mean = V(0.0);
    var squares = V(0.0);
    for (var pixel = first; pixel < end; pixel += BLOCK) {
        let before = f32(pixel - first);
        let count = f32(min(BLOCK, end - pixel));
        let all = before + count;
        var held: array<V, BLOCK>; // #registers
        var total = V(0.0);
        for (var i = 0u; i < BLOCK; i++) { // #unroll
            held[i] = load(sample * P.pixels + min(pixel + i, end - 1u), quad);
            total += select(V(0.0), held[i] - held[0], pixel + i < end);
        }
        let of_block = held[0] + total * (1.0 / count);
        let delta = of_block - mean;
        squares += delta * delta * (before * count / all);
        for (var i = 0u; i < BLOCK; i++) { // #unroll
            let apart = select(V(0.0), held[i] - of_block, pixel + i < end);
            squares += apart * apart;
        }
        mean += delta * (count / all);
    }
    stats[thread * 2u] = mean;
    stats[thread * 2u + 1u] = squares;
}

// dst[i, y, x, c] = element (c · height + y) · width + x of draw `draw` of the seed of picture i
//
// Standard normal noise as torch.randn gives it on CUDA for an NCHW latent of one picture.
// seeds: [n, 2] (low word, high word); dst: [n, height, width, channels]; row: a sampler's, if any. One thread computes one number.

alias Elem = f32;

struct Params {
    count: u32, // numbers in dst
    area: u32, // height · width
    channels: u32,
    draw: u32,
}

@group(0) @binding(0) var<storage, read> seeds: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<storage, read> row: array<f32>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index
// #include lib/philox

// Replaced where a sampler's row says it.
fn draw() -> u32 {
    return P.draw;
}

fn value(seed: vec2<u32>, index: u32) -> Elem {
    return Elem(normal(seed, draw(), index));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    let channel = i % P.channels;
    let pixel = (i / P.channels) % P.area;
    let picture = i / (P.channels * P.area);
    dst[i] = value(seeds[picture], channel * P.area + pixel);
}

// dst[sample, pixel, c] = activation((src − mean) · factor + term), each of sample and c
//
// scales as group_norm_scale writes them. One thread takes a strip of pixels of one
// quad of channels, so that its scales are read once.

alias V = vec4<f32>;
alias Quad = vec4<f32>;

const WORKGROUP: u32 = 32u;

struct Params {
    samples: u32,
    pixels: u32,
    quads: u32,
    strips: u32,
    strip: u32, // pixels in a strip
}

@group(0) @binding(0) var<storage, read> src: array<Quad>;
@group(0) @binding(1) var<storage, read> scales: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dst: array<Quad>;
@group(0) @binding(3) var<uniform> P: Params;
@group(0) @binding(4) var src_texture: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/texels
// #include lib/math

fn load(at: u32) -> V {
    return V(src[at]);
}

fn activation(x: V) -> V {
    return x;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, WORKGROUP);
    let quad = thread % P.quads;
    let strip = (thread / P.quads) % P.strips;
    let sample = thread / (P.quads * P.strips);
    if (sample >= P.samples) {
        return;
    }
    let first = (sample * P.quads + quad) * 3u;
    let mean = scales[first];
    let factor = scales[first + 1u];
    let term = scales[first + 2u];
    let end = min((strip + 1u) * P.strip, P.pixels);
    for (var pixel = strip * P.strip; pixel < end; pixel++) {
        let at = (sample * P.pixels + pixel) * P.quads + quad;
        dst[at] = Quad(activation((load(at) - mean) * factor + term));
    }
}

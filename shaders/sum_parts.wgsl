// dst[p, co] = epilogue( Σ_part src[part, p, co] )
//
// What conv2d_shared and conv2d_matrices leave of a convolution whose sums it has cut into parts. src: [parts, pixels, c_out up to whole
// quads]; dst: [pixels, c_out]. One thread computes a quad of channels.

alias V = vec4<f32>;
alias Dst = vec4<f32>;

struct Params {
    parts: u32,
    pixels: u32,
    pixels_sample: u32,
    c_out: u32,
    quads_out: u32,
}

@group(0) @binding(0) var<storage, read> src: array<V>;
@group(0) @binding(1) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(2) var<storage, read> extra0: array<Dst>;
@group(0) @binding(3) var<storage, read> extra1: array<Dst>;
@group(0) @binding(4) var<storage, read> extra2: array<Dst>;
@group(0) @binding(5) var<uniform> P: Params;

// #include lib/index
// #include lib/math

fn store(pixel: u32, quad: u32, value: V) {
    dst[pixel * P.quads_out + quad] = Dst(value);
}

fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {
    return value;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.pixels * P.quads_out) {
        return;
    }
    var sum = V(0.0);
    for (var part = 0u; part < P.parts; part++) {
        sum += src[part * P.pixels * P.quads_out + i];
    }
    let pixel = i / P.quads_out;
    let quad = i % P.quads_out;
    store(pixel, quad, epilogue(sum, pixel, pixel / P.pixels_sample, quad));
}

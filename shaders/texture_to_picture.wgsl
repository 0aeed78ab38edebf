// dst[picture, y, x] = the texel (x, y) as bytes, red in the lowest
//
// A texture of any float format as the packed picture that picture_to_tensor reads.
// dst: [n, height, width]. One thread does one texel.

struct Params {
    width: u32,
    height: u32,
    picture: u32,
}

@group(0) @binding(0) var source: texture_2d<f32>;
@group(0) @binding(1) var<storage, read_write> dst: array<u32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.width * P.height) {
        return;
    }
    let texel = textureLoad(source, vec2<u32>(i % P.width, i / P.width), 0);
    dst[P.picture * P.width * P.height + i] = pack4x8unorm(texel);
}

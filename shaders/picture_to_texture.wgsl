// texel (x, y) = the bytes of src[picture, y, x], red in the lowest
//
// A packed picture, as picture_from_tensor writes it, into a texture. src: [n, height, width].
// One thread does one texel.

struct Params {
    width: u32,
    height: u32,
    picture: u32,
}

@group(0) @binding(0) var goal: texture_storage_2d<rgba8unorm, write>;
@group(0) @binding(1) var<storage, read> src: array<u32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.width * P.height) {
        return;
    }
    let texel = unpack4x8unorm(src[P.picture * P.width * P.height + i]);
    textureStore(goal, vec2<u32>(i % P.width, i / P.width), texel);
}

// dst[p] = bytes of round(255 · clamp(scale · src[p] + shift, 0, 1)), alpha 255
//
// Feature maps to pictures of 8-bit sRGB bytes. src: [slots, pixels, channels], of which one slot is read,
// channels 1 (grey) or 3; dst: [pixels] of words with red in the lowest byte. One thread computes one pixel.

const CHANNELS: u32 = 3u;
alias Elem = f32;

struct Params {
    pixels: u32,
    first: u32, // first number of the slot
    scale: f32,
    shift: f32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<u32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let pixel = linear_id(group, groups, local, 64u);
    if (pixel >= P.pixels) {
        return;
    }
    var bytes = vec3<u32>(0u);
    for (var c = 0u; c < 3u; c++) {
        let value = f32(src[P.first + pixel * CHANNELS + min(c, CHANNELS - 1u)]);
        bytes[c] = u32(clamp(value * P.scale + P.shift, 0.0, 1.0) * 255.0 + 0.5);
    }
    dst[pixel] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | 0xff000000u;
}

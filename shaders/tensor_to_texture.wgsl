// texel (x + left, y + top) = to_texture(scale[c] · src[picture, y + from_y, x + from_x, c] + shift[c])
//
// Part of a feature map, or of a packed picture as picture_from_tensor writes it, into part of a texture. What is beyond is not
// written. One channel becomes grey. NaN and infinity become finite. One thread does one pixel, a workgroup 8 × 8 of them.

const CHANNELS: u32 = 3u;
alias Elem = f32;
alias Goal = texture_storage_2d<rgba8unorm, write>;

struct Params {
    width: u32, // of the tensor
    height: u32,
    left: u32, // of the part of the texture, in texels
    top: u32,
    columns: u32, // of the part
    lines: u32,
    from_x: u32, // where it begins in the tensor
    from_y: u32,
    first: u32, // pixels before the picture
    alpha_width: u32, // of the picture whose alpha is kept
    alpha_height: u32,
    opaque: f32, // alpha where neither has one
    scale0: f32,
    scale1: f32,
    scale2: f32,
    scale3: f32,
    shift0: f32,
    shift1: f32,
    shift2: f32,
    shift3: f32,
}

@group(0) @binding(0) var goal: Goal;
@group(0) @binding(1) var<storage, read> src: array<Elem>;
@group(0) @binding(2) var<storage, read> exposures: array<f32>;
@group(0) @binding(3) var<storage, read> alphas: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/transfer

fn exposure() -> f32 { return exposures[0]; }
fn stored(texel: vec4<f32>) -> vec4<f32> { return texel; }
fn to_texture(x: vec3<f32>) -> vec3<f32> { return x / exposure(); }

// The nearest pixel of the picture whose alpha is kept.
fn kept(place: vec2<u32>) -> f32 {
    let at = place * vec2<u32>(P.alpha_width, P.alpha_height) / vec2<u32>(P.width, P.height);
    return alphas[at.y * P.alpha_width + at.x];
}
fn opacity(place: vec2<u32>, alpha: f32) -> f32 { return kept(place); }

fn load(pixel: u32) -> vec4<f32> {
    let at = pixel * CHANNELS;
    let x = f32(src[at]);
    var v = vec4<f32>(x, x, x, 1.0);
    if (CHANNELS > 1u) { v = vec4<f32>(x, f32(src[at + 1u]), 0.0, 1.0); }
    if (CHANNELS > 2u) { v.z = f32(src[at + 2u]); }
    if (CHANNELS > 3u) { v.w = f32(src[at + 3u]); }
    return v;
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= P.columns || id.y >= P.lines) {
        return;
    }
    let scale = vec4<f32>(P.scale0, P.scale1, P.scale2, P.scale3);
    let shift = vec4<f32>(P.shift0, P.shift1, P.shift2, P.shift3);
    let place = id.xy + vec2<u32>(P.from_x, P.from_y);
    let value = finite(finite(load(P.first + place.y * P.width + place.x)) * scale + shift);
    let texel = finite(vec4<f32>(to_texture(value.xyz), opacity(place, value.w)));
    textureStore(goal, id.xy + vec2<u32>(P.left, P.top), stored(texel));
}

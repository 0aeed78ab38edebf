// dst[picture, y, x, c] = scale[c] · to_network(texel (x + left, y + top))[c] + shift[c]
//
// Part of a texture of any float format as a feature map, or as the packed picture that picture_to_tensor reads. Where the
// tensor is larger than the part, the last line and column go on. NaN and infinity become finite. One thread does one pixel,
// a workgroup 8 × 8 of them, as textures are laid out in squares.

const CHANNELS: u32 = 3u;
alias Elem = f32;

struct Params {
    width: u32, // of the tensor
    height: u32,
    left: u32, // of the part of the texture, in texels
    top: u32,
    right: u32, // its last column and line
    bottom: u32,
    first: u32, // pixels before the picture
    opaque: f32, // alpha where the texture's is not taken
    inverse_at_zero: f32, // of the distances that depths 0 and 1 stand for
    inverse_at_one: f32,
    scale0: f32,
    scale1: f32,
    scale2: f32,
    scale3: f32,
    shift0: f32,
    shift1: f32,
    shift2: f32,
    shift3: f32,
}

@group(0) @binding(0) var source: texture_2d<f32>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<storage, read> exposures: array<f32>;
@group(0) @binding(3) var<storage, read_write> alphas: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/transfer

// Straight colours out of those that are multiplied by alpha; nothing where there is no alpha.
fn straight(texel: vec4<f32>) -> vec4<f32> {
    let inverse = select(0.0, 1.0 / texel.w, texel.w > 0.0);
    return finite(vec4<f32>(texel.xyz * inverse, texel.w));
}

// The distance out of a depth, whose inverse is linear between those of depths 0 and 1.
fn distance_of(depth: f32) -> f32 {
    let inverse = P.inverse_at_zero + depth * (P.inverse_at_one - P.inverse_at_zero);
    return 1.0 / max(inverse, 1.0 / LARGEST);
}

fn exposure() -> f32 { return exposures[0]; }
fn loaded(texel: vec4<f32>) -> vec4<f32> { return texel; }
fn to_network(x: vec3<f32>) -> vec3<f32> { return x * exposure(); }
fn opacity(alpha: f32) -> f32 { return alpha; }
fn keep(pixel: u32, alpha: f32) { alphas[pixel] = alpha; }

fn store(pixel: u32, v: vec4<f32>) {
    let at = pixel * CHANNELS;
    dst[at] = Elem(v.x);
    if (CHANNELS > 1u) { dst[at + 1u] = Elem(v.y); }
    if (CHANNELS > 2u) { dst[at + 2u] = Elem(v.z); }
    if (CHANNELS > 3u) { dst[at + 3u] = Elem(v.w); }
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= P.width || id.y >= P.height) {
        return;
    }
    let place = min(id.xy + vec2<u32>(P.left, P.top), vec2<u32>(P.right, P.bottom));
    let texel = loaded(finite(textureLoad(source, place, 0)));
    let pixel = id.y * P.width + id.x;
    keep(pixel, texel.w);
    let value = finite(vec4<f32>(to_network(texel.xyz), opacity(texel.w)));
    let scale = vec4<f32>(P.scale0, P.scale1, P.scale2, P.scale3);
    let shift = vec4<f32>(P.shift0, P.shift1, P.shift2, P.shift3);
    store(P.first + pixel, finite(value * scale + shift));
}

// dst[i, y, x, c] = scale[c] · (Σ weight · src / Σ weight) / 255 + shift[c]
//
// Pictures of 8-bit sRGB bytes to what a network reads: resized with a triangle filter over half-pixel
// centres, as wide as the shrinking demands (antialiased bilinear, as Pillow and torchvision), then normalised.
// With one channel, luma of ITU-R BT.601. src: [n, height, width] of words with red in the lowest byte;
// dst: [n, height_out, width_out, channels]. One thread computes one pixel.

const CHANNELS: u32 = 3u;
alias Elem = f32;

struct Params {
    pixels_out: u32, // in all samples
    height: u32,
    width: u32,
    height_out: u32,
    width_out: u32,
    scale0: f32,
    scale1: f32,
    scale2: f32,
    shift0: f32,
    shift1: f32,
    shift2: f32,
}

@group(0) @binding(0) var<storage, read> src: array<u32>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

// First and last source position under the filter of position `at`, of `size` shrunk to `size_out`.
fn window(at: u32, size: u32, size_out: u32) -> vec2<u32> {
    let ratio = f32(size) / f32(size_out);
    let reach = max(ratio, 1.0);
    let centre = (f32(at) + 0.5) * ratio;
    let first = u32(max(floor(centre - reach), 0.0));
    let last = min(u32(ceil(centre + reach)), size) - 1u;
    return vec2<u32>(min(first, last), last);
}

// The triangle filter at a source position.
fn weight(position: u32, at: u32, size: u32, size_out: u32) -> f32 {
    let ratio = f32(size) / f32(size_out);
    let distance = abs((f32(position) + 0.5) - (f32(at) + 0.5) * ratio);
    return max(1.0 - distance / max(ratio, 1.0), 0.0);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let pixel = linear_id(group, groups, local, 64u);
    if (pixel >= P.pixels_out) {
        return;
    }
    let x = pixel % P.width_out;
    let y = (pixel / P.width_out) % P.height_out;
    let picture = pixel / (P.width_out * P.height_out);
    let xs = window(x, P.width, P.width_out);
    let ys = window(y, P.height, P.height_out);
    var sum = vec4<f32>(0.0);
    var total = 0.0;
    for (var v = ys.x; v <= ys.y; v++) {
        let wy = weight(v, y, P.height, P.height_out);
        for (var u = xs.x; u <= xs.y; u++) {
            let w = wy * weight(u, x, P.width, P.width_out);
            sum += w * unpack4x8unorm(src[(picture * P.height + v) * P.width + u]);
            total += w;
        }
    }
    let color = sum.rgb / total;
    let scale = vec3<f32>(P.scale0, P.scale1, P.scale2);
    let shift = vec3<f32>(P.shift0, P.shift1, P.shift2);
    if (CHANNELS == 1u) {
        dst[pixel] = Elem(dot(color, vec3<f32>(0.299, 0.587, 0.114)) * scale.x + shift.x);
        return;
    }
    let normalised = color * scale + shift;
    for (var c = 0u; c < CHANNELS; c++) {
        dst[pixel * CHANNELS + c] = Elem(normalised[c]);
    }
}

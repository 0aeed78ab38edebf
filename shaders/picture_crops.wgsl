// dst[i, y, x, c] = scale[c] · (Σ weight · src / Σ weight) / 255 + shift[c], over the box i of its picture
//
// Parts of pictures of 8-bit sRGB that are known on the device alone, each brought to one size: a triangle filter over
// half-pixel centres, as wide as the shrinking demands. src: [n, height, width] of words with red in the lowest byte;
// boxes: [n, boxes, stride], left, top, right, bottom in pixels, then what else; dst: [n · boxes, height_out, width_out, channels].
// With one channel, luma of ITU-R BT.601. One thread computes one pixel.

const CHANNELS: u32 = 3u;
const SQUARE: bool = false; // the shorter side of the box is made as long as the other

struct Params {
    pixels_out: u32, // in all boxes
    height: u32,
    width: u32,
    height_out: u32,
    width_out: u32,
    boxes: u32, // of a picture
    stride: u32,
    margin: f32, // added on each side, as a share of the box's own
    scale0: f32,
    scale1: f32,
    scale2: f32,
    shift0: f32,
    shift1: f32,
    shift2: f32,
}

@group(0) @binding(0) var<storage, read> src: array<u32>;
@group(0) @binding(1) var<storage, read> boxes: array<f32>;
@group(0) @binding(2) var<storage, read_write> dst: array<f32>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

// Source pixels under the filter around `centre`, `reach` to each side.
fn window(centre: f32, reach: f32, size: u32) -> vec2<u32> {
    let last = f32(size - 1u);
    let low = clamp(floor(centre - reach), 0.0, last);
    let high = clamp(ceil(centre + reach) - 1.0, low, last);
    return vec2<u32>(u32(low), u32(high));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let pixel = linear_id(group, groups, local, 64u);
    if (pixel >= P.pixels_out) {
        return;
    }
    let x = pixel % P.width_out;
    let y = (pixel / P.width_out) % P.height_out;
    let i = pixel / (P.width_out * P.height_out);
    let picture = i / P.boxes;
    let b = i * P.stride;
    let most = vec2<f32>(f32(P.width), f32(P.height));
    let low = clamp(vec2<f32>(boxes[b], boxes[b + 1u]), vec2<f32>(0.0), most);
    let high = clamp(vec2<f32>(boxes[b + 2u], boxes[b + 3u]), vec2<f32>(0.0), most);
    var size = max(high - low, vec2<f32>(1.0)) * (1.0 + 2.0 * P.margin);
    if (SQUARE) {
        size = vec2<f32>(max(size.x, size.y));
    }
    let ratio = size / vec2<f32>(f32(P.width_out), f32(P.height_out));
    let reach = max(ratio, vec2<f32>(1.0));
    // What lies outside of the picture is its border again.
    let centre = clamp((low + high - size) * 0.5 + (vec2<f32>(f32(x), f32(y)) + 0.5) * ratio, vec2<f32>(0.5), most - 0.5);
    let xs = window(centre.x, reach.x, P.width);
    let ys = window(centre.y, reach.y, P.height);
    var sum = vec4<f32>(0.0);
    var total = 0.0;
    for (var v = ys.x; v <= ys.y; v++) {
        let wy = max(1.0 - abs(f32(v) + 0.5 - centre.y) / reach.y, 0.0);
        for (var u = xs.x; u <= xs.y; u++) {
            let w = wy * max(1.0 - abs(f32(u) + 0.5 - centre.x) / reach.x, 0.0);
            sum += w * unpack4x8unorm(src[(picture * P.height + v) * P.width + u]);
            total += w;
        }
    }
    let color = sum.rgb / max(total, 1e-12);
    let scale = vec3<f32>(P.scale0, P.scale1, P.scale2);
    let shift = vec3<f32>(P.shift0, P.shift1, P.shift2);
    if (CHANNELS == 1u) {
        dst[pixel] = dot(color, vec3<f32>(0.299, 0.587, 0.114)) * scale.x + shift.x;
        return;
    }
    let normalised = color * scale + shift;
    for (var c = 0u; c < CHANNELS; c++) {
        dst[pixel * CHANNELS + c] = normalised[c];
    }
}

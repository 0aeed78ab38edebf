// dst[i, y, x] = argmax_c src[i, v, u, c] with (u, v) the place of the pixel in the map, between four of its scores
//
// Classes of a picture's pixels from scores at another size: bilinear over half-pixel centres, the first of equal scores;
// with one class 1 where its score is above 0. src: [n, height, width, classes]; dst: [n, height_out, width_out].
// One thread computes one pixel.

const CLASSES: u32 = 2u;

struct Params {
    count: u32,
    height: u32,
    width: u32,
    height_out: u32,
    width_out: u32,
    scale_y: f32, // v + 1/2 = (y + 1/2) · scale_y + shift_y
    shift_y: f32,
    scale_x: f32,
    shift_x: f32,
}

@group(0) @binding(0) var<storage, read> src: array<f32>;
@group(0) @binding(1) var<storage, read_write> dst: array<u32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    let x = i % P.width_out;
    let y = (i / P.width_out) % P.height_out;
    let sample = i / (P.width_out * P.height_out);
    let last = vec2<f32>(f32(P.width - 1u), f32(P.height - 1u));
    let place = (vec2<f32>(f32(x), f32(y)) + 0.5) * vec2<f32>(P.scale_x, P.scale_y) + vec2<f32>(P.shift_x, P.shift_y) - 0.5;
    let inside = clamp(place, vec2<f32>(0.0), last);
    let low = vec2<u32>(inside);
    let high = min(low + 1u, vec2<u32>(P.width - 1u, P.height - 1u));
    let t = inside - vec2<f32>(low);
    let row = sample * P.height;
    let a = ((row + low.y) * P.width + low.x) * CLASSES;
    let b = ((row + low.y) * P.width + high.x) * CLASSES;
    let c = ((row + high.y) * P.width + low.x) * CLASSES;
    let d = ((row + high.y) * P.width + high.x) * CLASSES;
    var best = 0u;
    var most = 0.0;
    for (var k = 0u; k < CLASSES; k++) {
        let score = mix(mix(src[a + k], src[b + k], t.x), mix(src[c + k], src[d + k], t.x), t.y);
        if (CLASSES == 1u) {
            best = u32(score > 0.0);
        } else if (k == 0u || score > most) {
            best = k;
            most = score;
        }
    }
    dst[i] = best;
}

// dst[n, y, x, c] = Σ_j Σ_i wy[j] · wx[i] · src[n, floor(v) + j + first, floor(u) + i + first, c], (u, v) the pixel that
// grid[n, y, x] points to, -1 and 1 being the edges of src or the centres of its outermost pixels (CORNERS)
//
// src [n, h, w, c], grid [n, oh, ow, 2] with x before y, dst [n, oh, ow, c], c in units of V. TAPS is 1 (nearest),
// 2 (bilinear) or 4 (bicubic, Keys 1981). Taps outside src are zero, moved to its edge, or mirrored at it (PADDING).
// One thread computes one V.

const TAPS: u32 = 2u;
const PADDING: u32 = 0u; // ZEROS, BORDER, REFLECTION
const CORNERS: bool = false;
alias V = vec4<f32>;
alias Elem = vec4<f32>;
alias Place = f32;

const BORDER: u32 = 1u;
const REFLECTION: u32 = 2u;

struct Params {
    count: u32,
    h: u32,
    w: u32,
    c: u32,
    pixels: u32, // of one picture of the result
    cubic: f32, // the cubic's slope at distance one
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> grid: array<Place>;
@group(0) @binding(2) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

// The place in pixels, held to what i32 can count; farther out no pixel has neighbours that differ.
fn pixel(place: f32, size: u32) -> f32 {
    let n = f32(size);
    let at = select(((place + 1.0) * n - 1.0) / 2.0, (place + 1.0) * (n - 1.0) / 2.0, CORNERS);
    return clamp(at, -1e9, 1e9);
}

// Where the tap `i` is read in an axis of `size`; `size` for nothing.
fn tap(i: i32, size: u32) -> u32 {
    let n = i32(size);
    if (i >= 0 && i < n) {
        return u32(i);
    }
    if (PADDING == BORDER) {
        return u32(clamp(i, 0, n - 1));
    }
    if (PADDING == REFLECTION) {
        // The axis and its mirror image, again and again.
        let period = select(2 * n, max(2 * n - 2, 1), CORNERS);
        let rest = i % period;
        let at = select(rest, rest + period, rest < 0);
        return u32(min(at, period - select(1, 0, CORNERS) - at));
    }
    return size;
}

// Weights of the four neighbours at distances 1 + f, f, 1 - f, 2 - f.
fn cubic(f: f32) -> vec4<f32> {
    let a = P.cubic;
    let g = 1.0 - f;
    return vec4<f32>(
        a * f * g * g,
        ((a + 2.0) * f - (a + 3.0)) * f * f + 1.0,
        ((a + 2.0) * g - (a + 3.0)) * g * g + 1.0,
        a * g * f * f,
    );
}

fn weights(f: f32) -> vec4<f32> {
    switch (TAPS) {
        case 1u: { return vec4<f32>(1.0, 0.0, 0.0, 0.0); }
        case 2u: { return vec4<f32>(1.0 - f, f, 0.0, 0.0); }
        default: { return cubic(f); }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let split = divide(id, P.c);
    let c = split.y;
    let place = split.x;
    let n = divide(place, P.pixels).x;
    let u = pixel(f32(grid[place * 2u]), P.w);
    let v = pixel(f32(grid[place * 2u + 1u]), P.h);
    // Halves go to the even pixel.
    let left = select(floor(u), round(u), TAPS == 1u);
    let top = select(floor(v), round(v), TAPS == 1u);
    let wx = weights(u - left);
    let wy = weights(v - top);
    let first = select(0, -1, TAPS == 4u);
    var sum = V(0.0);
    for (var j = 0u; j < TAPS; j++) { // #unroll
        let y = tap(i32(top) + first + i32(j), P.h);
        if (y < P.h) {
            var line = V(0.0);
            for (var i = 0u; i < TAPS; i++) { // #unroll
                let x = tap(i32(left) + first + i32(i), P.w);
                if (x < P.w) {
                    line += wx[i] * V(src[((n * P.h + y) * P.w + x) * P.c + c]);
                }
            }
            sum += wy[j] * line;
        }
    }
    dst[id] = Elem(sum);
}

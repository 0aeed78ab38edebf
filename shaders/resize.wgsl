// dst[n, y, x, c] = Σ_j Σ_i wy[j] · wx[i] · src[n, floor(v) + j + first, floor(u) + i + first, c],
// v and u the coordinates of y and x in src, taps outside src moved to its edge
//
// src [n, h, w, c], dst [n, oh, ow, c], c in units of V. A coordinate is the exact fraction
// (a · i + b) / d, so that whole and half positions are hit at every size.
// TAPS is 1 (nearest), 2 (bilinear) or 4 (bicubic, Keys 1981). One thread computes RUN units of a pixel.

const TAPS: u32 = 2u;
const RUN: u32 = 1u;
alias V = vec4<f32>;
alias Elem = vec4<f32>;

struct Params {
    count: u32, // threads
    h: u32,
    w: u32,
    runs: u32, // in a pixel
    oh: u32,
    ow: u32,
    ya: i32,
    yb: i32,
    yd: i32,
    xa: i32,
    xb: i32,
    xd: i32,
    cubic: f32, // the cubic's slope at distance one
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;
@group(0) @binding(3) var src_texture: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/texels

fn load(i: u32) -> V {
    return V(src[i]);
}

struct Position {
    cell: i32,
    fraction: f32,
}

fn position(i: u32, a: i32, b: i32, d: i32) -> Position {
    let t = a * i32(i) + b;
    // The cell is the floor.
    let whole = i32(divide(u32(select(t, d - 1 - t, t < 0)), u32(d)).x);
    let cell = select(whole, -whole, t < 0);
    return Position(cell, f32(t - cell * d) / f32(d));
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
    let at = coordinates(id, P.oh, P.ow, P.runs);
    let v = position(at.y, P.ya, P.yb, P.yd);
    let u = position(at.z, P.xa, P.xb, P.xd);
    let wy = weights(v.fraction);
    let wx = weights(u.fraction);
    let first = select(0, -1, TAPS == 4u);
    var sum: array<V, RUN>; // #registers
    for (var j = 0u; j < TAPS; j++) {
        let y = u32(clamp(v.cell + first + i32(j), 0, i32(P.h) - 1));
        var line: array<V, RUN>; // #registers
        for (var i = 0u; i < TAPS; i++) {
            let x = u32(clamp(u.cell + first + i32(i), 0, i32(P.w) - 1));
            let tap = (((at.x * P.h + y) * P.w + x) * P.runs + at.w) * RUN;
            for (var r = 0u; r < RUN; r++) { // #unroll
                line[r] += wx[i] * load(tap + r);
            }
        }
        for (var r = 0u; r < RUN; r++) { // #unroll
            sum[r] += wy[j] * line[r];
        }
    }
    for (var r = 0u; r < RUN; r++) { // #unroll
        dst[id * RUN + r] = Elem(sum[r]);
    }
}

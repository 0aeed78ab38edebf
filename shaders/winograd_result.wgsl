// dst[n, y + i, x + j, c] = epilogue( Σ_{v, u} A[i, v] A[j, u] src[(v, u), c, tile] ): Winograd's products back to a picture
//
// The last of the three steps of F(4 × 4, 3 × 3), see winograd_source: from the values at 6 × 6 points to 4 × 4
// neighbouring results. F(2 × 2, 3 × 3) replaces `results`.
//
// src: [POINTS, POINTS, quads of c_out, tiles, 4], the `tiles` squares from `first` on; dst: [n, height_out, width_out, c_out],
// c_out a multiple of four. One thread computes the results of a square for a quad of channels. On GPUs V and Quad are one
// number, and src is [POINTS, POINTS, tiles, c_out], as in winograd_source.

const RESULTS: u32 = 4u; // along a side
const POINTS: u32 = 6u; // RESULTS + 2
const THREADS: u32 = 8u; // of a workgroup
const CHANNELS_INNERMOST: bool = false; // in src, not squares

alias V = vec4<f32>;
alias Quad = vec4<f32>;

struct Params {
    height_out: u32,
    width_out: u32,
    quads_out: u32, // numbers of V
    first: u32,
    tiles: u32,
    tiles_x: u32, // in a row
    tiles_y: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Quad>;
@group(0) @binding(1) var<storage, read_write> dst: array<Quad>;
@group(0) @binding(2) var<storage, read> extra0: array<Quad>;
@group(0) @binding(3) var<storage, read> extra1: array<Quad>;
@group(0) @binding(4) var<storage, read> extra2: array<Quad>;
@group(0) @binding(5) var<uniform> P: Params;
@group(0) @binding(6) var src_texture: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/math
// #include lib/texels

fn load(at: u32) -> V {
    return V(src[at]);
}

fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {
    return value;
}

// A row of results from values at the points.
fn results(m0: V, m1: V, m2: V, m3: V, m4: V, m5: V) -> array<V, 4> {
    let near = m1 + m2;
    let odd_near = m1 - m2;
    let far = m3 + m4;
    let odd_far = m3 - m4;
    return array<V, 4>(
        m0 + near + far,
        0.75 * odd_near + 1.5 * odd_far,
        0.5625 * near + 2.25 * far,
        0.421875 * odd_near + 3.375 * odd_far + m5,
    );
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = linear_id(group, groups, local, THREADS); // at any one point
    let place = divide(at, select(P.tiles, P.quads_out, CHANNELS_INNERMOST));
    let tile = select(place.y, place.x, CHANNELS_INNERMOST);
    let quad = select(place.x, place.y, CHANNELS_INNERMOST);
    if (at >= P.quads_out * P.tiles) {
        return;
    }
    let row = divide(P.first + tile, P.tiles_x);
    let rows = divide(row.x, P.tiles_y);
    let sample = rows.x;
    let x0 = row.y * RESULTS;
    let y0 = rows.y * RESULTS;

    let point = P.quads_out * P.tiles; // from one to the next
    var s: array<array<V, 6>, 4>; // #registers
    var m: array<V, 6>; // #registers
    for (var u = 0u; u < POINTS; u++) { // #unroll
        for (var v = 0u; v < POINTS; v++) { // #unroll
            m[v] = load(at + (v * POINTS + u) * point);
        }
        let column = results(m[0], m[1], m[2], m[3], m[4], m[5]);
        for (var i = 0u; i < RESULTS; i++) { // #unroll
            s[i][u] = column[i];
        }
    }
    for (var i = 0u; i < RESULTS; i++) { // #unroll
        let line = results(s[i][0], s[i][1], s[i][2], s[i][3], s[i][4], s[i][5]);
        for (var j = 0u; j < RESULTS; j++) { // #unroll
            if (y0 + i < P.height_out && x0 + j < P.width_out) {
                let pixel = (sample * P.height_out + y0 + i) * P.width_out + x0 + j;
                dst[pixel * P.quads_out + quad] = Quad(epilogue(line[j], pixel, sample, quad));
            }
        }
    }
}

// dst[(v, u), c, tile] = Σ_{i, j} B[v, i] B[u, j] src[n, y + i, x + j, c]: squares of a picture, at the points of Winograd's convolution
//
// The first of the three steps of F(4 × 4, 3 × 3) (Lavin and Gray, 2015, "Fast Algorithms for Convolutional Neural
// Networks"): a square of 6 × 6 pixels, for each square of 4 × 4 results, is taken to the values of a polynomial of
// degree 5 at the points 0, ±3/4, ±3/2 and ∞ along both sides, where convolution is 36 plain products. These points
// lose 1.7 times as much to rounding as plain sums do, the integers 0, ±1, ±2 lose four times as much, and all
// constants are exact. F(2 × 2, 3 × 3) replaces `points`: 4 × 4 pixels at the points 0, ±1 and ∞ for 2 × 2 results.
//
// src: [n, height, width, c]; dst: [POINTS, POINTS, quads of c, tiles, 4] for the `tiles` squares from `first` on. One
// thread computes the values of a quad of channels.
//
// On GPUs V and Quad are one number, and dst is [POINTS, POINTS, tiles, c]: neighbouring threads have neighbouring channels
// of a square, and 36 values leave room for other threads in the registers, where 36 quads would not.

const UPSAMPLE: u32 = 1u;
const RESULTS: u32 = 4u; // along a side
const POINTS: u32 = 6u; // RESULTS + 2
const THREADS: u32 = 8u; // of a workgroup
const CHANNELS_INNERMOST: bool = false; // in dst, not squares
alias V = vec4<f32>;
alias Quad = vec4<f32>;

struct Params {
    height: u32, // of the source, enlarged
    width: u32,
    quads: u32, // of channels: numbers of V
    first: u32,
    tiles: u32,
    tiles_x: u32, // in a row
    tiles_y: u32,
    pad_top: u32,
    pad_left: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Quad>;
@group(0) @binding(1) var<storage, read_write> dst: array<Quad>;
@group(0) @binding(2) var<uniform> P: Params;
@group(0) @binding(3) var src_texture: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/texels

fn load(at: u32) -> V {
    return V(src[at]);
}

// Values at the points of the polynomial whose transposed evaluation these numbers are.
fn points(d0: V, d1: V, d2: V, d3: V, d4: V, d5: V) -> array<V, 6> {
    let far = d4 - 0.5625 * d2;
    let near = d4 - 2.25 * d2;
    let odd_far = 1.5 * (d3 - 0.5625 * d1);
    let odd_near = 0.75 * (d3 - 2.25 * d1);
    return array<V, 6>(
        1.265625 * d0 - 2.8125 * d2 + d4,
        near + odd_near,
        near - odd_near,
        far + odd_far,
        far - odd_far,
        1.265625 * d1 - 2.8125 * d3 + d5,
    );
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = linear_id(group, groups, local, THREADS); // at any one point
    let place = divide(at, select(P.tiles, P.quads, CHANNELS_INNERMOST));
    let tile = select(place.y, place.x, CHANNELS_INNERMOST);
    let quad = select(place.x, place.y, CHANNELS_INNERMOST);
    if (at >= P.quads * P.tiles) {
        return;
    }
    let row = divide(P.first + tile, P.tiles_x);
    let rows = divide(row.x, P.tiles_y);
    let sample = rows.x;
    // Positions left of or above the source wrap to large numbers.
    let x0 = row.y * RESULTS - P.pad_left;
    let y0 = rows.y * RESULTS - P.pad_top;

    var s: array<array<V, 6>, 6>; // #registers
    for (var i = 0u; i < POINTS; i++) { // #unroll
        let y = y0 + i;
        let line = (sample * (P.height / UPSAMPLE) + min(y, P.height - 1u) / UPSAMPLE) * (P.width / UPSAMPLE);
        for (var j = 0u; j < POINTS; j++) { // #unroll
            let x = x0 + j;
            let value = load((line + min(x, P.width - 1u) / UPSAMPLE) * P.quads + quad);
            s[i][j] = select(V(0.0), value, x < P.width && y < P.height);
        }
    }
    for (var j = 0u; j < POINTS; j++) { // #unroll
        let column = points(s[0][j], s[1][j], s[2][j], s[3][j], s[4][j], s[5][j]);
        for (var i = 0u; i < POINTS; i++) { // #unroll
            s[i][j] = column[i];
        }
    }
    for (var i = 0u; i < POINTS; i++) { // #unroll
        let line = points(s[i][0], s[i][1], s[i][2], s[i][3], s[i][4], s[i][5]);
        for (var j = 0u; j < POINTS; j++) { // #unroll
            dst[at + (i * POINTS + j) * P.quads * P.tiles] = Quad(line[j]);
        }
    }
}

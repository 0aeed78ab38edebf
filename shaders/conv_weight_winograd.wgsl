// dst[((v, u), tile, ci / 4), (ci % 4, co)] = Σ_{i, j} G[v, i] G[u, j] src[co, ci, i, j]: a kernel of 3 × 3 at the points of Winograd's convolution
//
// The second factor of the products of F(4 × 4, 3 × 3), see winograd_source: the kernel's polynomial at the points 0,
// ±3/4, ±3/2 and ∞ along both sides, each value over what interpolation divides by; F(2 × 2, 3 × 3) replaces `points`. It
// is laid out as conv_weight_tiles does for a group of a 1 × 1 convolution for each point: a row for each point, tile of
// QUADS quads of output channels and quad of input channels holds [4 input channels, QUADS, 4 output channels], zero where
// an output channel does not exist.
//
// src: [c_out, c_in, 3, 3], c_in a multiple of four. One thread computes the numbers of a pair of channels.

const POINTS: u32 = 6u; // along a side

alias Elem = f32;

struct Params {
    c_out: u32,
    c_in: u32,
    channels: u32, // of output, in a tile
    tiles: u32, // of them
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

// Values at the points.
fn points(g0: f32, g1: f32, g2: f32) -> array<f32, 6> {
    let near = (g0 + 0.5625 * g2) / -1.8984375;
    let odd_near = 0.75 * g1 / -1.8984375;
    let far = (g0 + 2.25 * g2) / 7.59375;
    let odd_far = 1.5 * g1 / 7.59375;
    return array<f32, 6>(g0 / 1.265625, near + odd_near, near - odd_near, far + odd_far, far - odd_far, g2);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    let channels = P.tiles * P.channels;
    let split = divide(i, channels);
    let co = split.y;
    let ci = split.x;
    if (ci >= P.c_in) {
        return;
    }
    var g: array<array<f32, 6>, 3>; // #registers
    for (var y = 0u; y < 3u; y++) { // #unroll
        let at = ((min(co, P.c_out - 1u) * P.c_in + ci) * 3u + y) * 3u;
        let line = points(f32(src[at]), f32(src[at + 1u]), f32(src[at + 2u]));
        for (var u = 0u; u < POINTS; u++) { // #unroll
            g[y][u] = line[u];
        }
    }
    let rows = P.tiles * (P.c_in / 4u); // of a point
    let of_tile = divide(co, P.channels);
    let row = of_tile.x * (P.c_in / 4u) + ci / 4u;
    let place = ci % 4u * P.channels + of_tile.y;
    for (var u = 0u; u < POINTS; u++) { // #unroll
        let column = points(g[0][u], g[1][u], g[2][u]);
        for (var v = 0u; v < POINTS; v++) { // #unroll
            let at = ((v * POINTS + u) * rows + row) * 4u * P.channels + place;
            dst[at] = Elem(select(0.0, column[v], co < P.c_out));
        }
    }
}

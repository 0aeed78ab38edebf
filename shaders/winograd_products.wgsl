// dst[point, co, tile] = Σ_{ci} src[point, ci, tile] · weight[point, ci, co]: the matrix products of Winograd's convolution
//
// The second of the three steps of F(4 × 4, 3 × 3), see winograd_source. src and dst: [POINTS, quads of channels, tiles, 4],
// so that LANES neighbouring squares lie side by side; weight: in the order of conv_weight_winograd. On software
// adapters src and weight are texels.
//
// One thread computes PIXELS squares, LANES apart, × QUADS quads of output channels in registers, as conv2d_texels
// does: of the weight each thread fetches one texel in SHARE, and they hand them round.
//
// The loop begins at a number that depends on the workgroup: where all of a loop is known from the parameters,
// Mesa's software adapter compiles the kernel anew for their values at every launch.

const POINTS: u32 = 36u; // along both sides
const PIXELS: u32 = 8u;
const QUADS: u32 = 4u;
const LANES: u32 = 8u; // threads of a workgroup
const SHARE: u32 = 1u; // of them fetch weights for one another; a subgroup has at least so many
const WEIGHTS: u32 = 16u; // 4 · QUADS
const FETCHES: u32 = 16u; // WEIGHTS / SHARE
alias V = vec4<f32>;

struct Params {
    tiles: u32,
    quads_in: u32,
    quads_out: u32,
    blocks: u32, // of LANES · PIXELS squares
    columns: u32, // of QUADS quads of output channels
}

@group(0) @binding(0) var<storage, read> src: array<V>;
@group(0) @binding(1) var<storage, read> weight: array<V>;
@group(0) @binding(2) var<storage, read_write> dst: array<V>;
@group(0) @binding(3) var<uniform> P: Params;
@group(0) @binding(4) var src_texture: texture_storage_2d<rgba32float, read>;
@group(0) @binding(5) var weight_texture: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/quads
// #include lib/texels

fn load(at: u32) -> V {
    return src[at];
}

fn load_weight(at: u32) -> V {
    return weight[at];
}

// What `lane` holds, for every thread of a subgroup.
fn share(held: V, lane: u32) -> V {
    return held;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let workgroup = linear_group(group, groups);
    let block = workgroup % P.blocks;
    let column = workgroup / P.blocks; // of all points
    let point = column / P.columns;
    let first = block * LANES * PIXELS + local;
    let first_quad = column % P.columns * QUADS;
    let lane = local % SHARE;

    var sum: array<array<V, QUADS>, PIXELS>; // #registers
    var at: array<u32, PIXELS>; // #values
    for (var p = 0u; p < PIXELS; p++) { // #unroll
        // A thread beyond the last square stays, to fetch weights for the others.
        at[p] = min(point, POINTS - 1u) * P.quads_in * P.tiles + min(first + p * LANES, P.tiles - 1u);
    }
    let end = (column + 1u) * P.quads_in;
    var ahead = 0u;
    for (var row = column * P.quads_in; row < end; row++) {
        var s: array<V, PIXELS>; // #values
        for (var p = 0u; p < PIXELS; p++) { // #unroll
            s[p] = load(at[p] + ahead);
        }
        var held: array<V, FETCHES>; // #values
        var w: array<V, WEIGHTS>; // #values
        for (var f = 0u; f < FETCHES; f++) { // #unroll
            held[f] = load_weight(row * WEIGHTS + f * SHARE + lane);
            for (var l = 0u; l < SHARE; l++) { // #unroll
                w[f * SHARE + l] = share(held[f], l);
            }
        }
        for (var p = 0u; p < PIXELS; p++) { // #unroll
            for (var q = 0u; q < QUADS; q++) { // #unroll
                sum[p][q] = add_products(s[p], w[q], w[QUADS + q], w[2u * QUADS + q], w[3u * QUADS + q], sum[p][q]);
            }
        }
        ahead += P.tiles;
    }
    for (var p = 0u; p < PIXELS; p++) { // #unroll
        let tile = first + p * LANES;
        if (tile < P.tiles && point < POINTS) {
            for (var q = 0u; q < QUADS; q++) { // #unroll
                if (first_quad + q < P.quads_out) {
                    dst[(point * P.quads_out + first_quad + q) * P.tiles + tile] = sum[p][q];
                }
            }
        }
    }
}

// dst[batch, i, j] = Σ_l a[batch, i, l] · b[batch, l, j]
//
// The product of matmul.wgsl where buffers are slow to read and registers are the first-level cache: Mesa's software
// adapter. Both sides as texels; either may be stored transposed. k and n are multiples of four, and m where a is
// stored transposed.
//
// One thread computes ROWS × QUADS quads of the result: for four steps of l it fetches ROWS texels of a. LANES threads
// side by side have the same columns, so each fetches one texel in SHARE of b, and they hand them round: ROWS +
// 4 · QUADS / SHARE fetches for 16 · ROWS · QUADS multiply-adds. All products of one result follow each other, so that
// it stays in a register meanwhile.

const RANK: u32 = 4u; // of the batch
const ROWS: u32 = 8u;
const QUADS: u32 = 8u;
const LANES: u32 = 8u; // threads of a workgroup
const SHARE: u32 = 1u; // of them fetch for one another; a subgroup has at least so many
const FETCHES: u32 = 32u; // 4 · QUADS / SHARE
const TURNED_A: bool = false; // a is stored as [batch, k, m]
const TURNED_B: bool = false; // b is stored as [batch, n, k]
alias V = vec4<f32>;

struct Params {
    m: u32,
    n: u32,
    k: u32,
    batches: u32,
    blocks_m: u32, // of LANES · ROWS rows
    tiles_n: u32,
    shape: array<vec4<u32>, 1>,     // of the batch; here and below the last axis first
    a_strides: array<vec4<u32>, 1>, // in matrices; zero where a is broadcast
    b_strides: array<vec4<u32>, 1>,
}

@group(0) @binding(0) var a_texture: texture_storage_2d<rgba32float, read>;
@group(0) @binding(1) var b_texture: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var<storage, read_write> dst: array<V>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index
// #include lib/quads
// #include lib/texels

// What `lane` holds, for every thread of a subgroup.
fn share(held: V, lane: u32) -> V {
    return held;
}

// Texel `quad` of a row of `quads`, or the last.
fn fetch_a(row: u32, quad: u32, quads: u32) -> V {
    return textureLoad(a_texture, texel(row * quads + min(quad, quads - 1u)));
}

fn fetch_b(row: u32, quad: u32, quads: u32) -> V {
    return textureLoad(b_texture, texel(row * quads + min(quad, quads - 1u)));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // That driver makes a kernel anew for values of uniforms that alone decide a loop or a branch, for some at each launch.
    // What comes of `group.z`, which is zero, it does not know.
    let m = P.m + group.z;
    let n = P.n + group.z;
    let k = P.k + group.z;
    let workgroup = linear_group(group, groups);
    let first_quad = workgroup % P.tiles_n * QUADS;
    // A thread beyond the last row stays, to fetch for the others.
    let first_row = (workgroup / P.tiles_n % P.blocks_m * LANES + local) * ROWS;
    let batch = workgroup / P.tiles_n / P.blocks_m;
    if (batch >= P.batches) {
        return;
    }
    let lane = local % SHARE;
    var matrix_a = 0u;
    var matrix_b = 0u;
    var rest = batch;
    for (var d = 0u; d < RANK; d++) { // #unroll
        let split = divide(rest, P.shape[0][d]);
        rest = split.x;
        matrix_a += split.y * P.a_strides[0][d];
        matrix_b += split.y * P.b_strides[0][d];
    }

    var sum: array<array<V, QUADS>, ROWS>; // #registers
    for (var l = 0u; l < k / 4u; l++) {
        var x: array<V, ROWS>; // #registers
        var y: array<V, 4u * QUADS>; // #registers
        if (TURNED_A) {
            for (var t = 0u; t < 4u; t++) { // #unroll
                for (var r = 0u; r < ROWS / 4u; r++) { // #unroll
                    let held = fetch_a(matrix_a * k + l * 4u + t, first_row / 4u + r, m / 4u);
                    for (var i = 0u; i < 4u; i++) { // #unroll
                        x[r * 4u + i][t] = held[i];
                    }
                }
            }
        } else {
            for (var r = 0u; r < ROWS; r++) { // #unroll
                x[r] = fetch_a(matrix_a * m + min(first_row + r, m - 1u), l, k / 4u);
            }
        }
        for (var f = 0u; f < FETCHES; f++) { // #unroll
            let e = f * SHARE + lane;
            if (TURNED_B) {
                let held = fetch_b(matrix_b * n + min(first_quad * 4u + e, n - 1u), l, k / 4u);
                for (var i = 0u; i < SHARE; i++) { // #unroll
                    let column = share(held, i);
                    for (var t = 0u; t < 4u; t++) { // #unroll
                        y[t * QUADS + (f * SHARE + i) / 4u][(f * SHARE + i) % 4u] = column[t];
                    }
                }
            } else {
                let held = fetch_b(matrix_b * k + l * 4u + e / QUADS, first_quad + e % QUADS, n / 4u);
                for (var i = 0u; i < SHARE; i++) { // #unroll
                    y[f * SHARE + i] = share(held, i);
                }
            }
        }
        for (var r = 0u; r < ROWS; r++) { // #unroll
            for (var q = 0u; q < QUADS; q++) { // #unroll
                sum[r][q] = add_products(x[r], y[q], y[QUADS + q], y[2u * QUADS + q], y[3u * QUADS + q], sum[r][q]);
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) { // #unroll
        for (var q = 0u; q < QUADS; q++) { // #unroll
            if (first_row + r < m && first_quad + q < n / 4u) {
                dst[(batch * m + first_row + r) * (n / 4u) + first_quad + q] = sum[r][q];
            }
        }
    }
}

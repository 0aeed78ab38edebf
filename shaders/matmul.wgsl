// dst[batch, i, j] = Σ_l a[batch, i, l] · b[batch, l, j]
//
// Batched matrix product of two activations; either side may be stored transposed,
// which only changes how it is loaded. a: [batch, m, k], b: [batch, k, n], dst: [batch, m, n].
//
// One thread computes ROWS × QUADS quads of the result in registers: for four steps
// of l it loads ROWS vectors of a and 4 · QUADS of b for 16 · ROWS · QUADS multiply-adds.
// What is outside a matrix loads as zero.

const ROWS: u32 = 4u;
const QUADS: u32 = 2u;
alias Number = f32; // or i32, whose sums wrap
alias V = vec4<Number>;
alias A = vec4<f32>;
alias B = vec4<f32>;
alias Dst = vec4<f32>;

struct Params {
    m: u32,
    n: u32,
    k: u32,
    batches: u32,
    tiles_m: u32,
    tiles_n: u32,
    rank: u32, // of the batch dimensions
    shape: array<vec4<u32>, 1>,     // of the batch
    a_strides: array<vec4<u32>, 1>, // of the batch, in matrices; zero where a is broadcast
    b_strides: array<vec4<u32>, 1>,
}

@group(0) @binding(0) var<storage, read> a: array<A>;
@group(0) @binding(1) var<storage, read> b: array<B>;
@group(0) @binding(2) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

// a[i, 4 · l ..], b[l, 4 · j ..]: four numbers along the second index.
fn load_a(matrix: u32, i: u32, l: u32) -> V {
    return V(a[(matrix * P.m + i) * (P.k / 4u) + l]);
}

fn load_b(matrix: u32, l: u32, j: u32) -> V {
    return V(b[(matrix * P.k + l) * (P.n / 4u) + j]);
}

fn store(batch: u32, i: u32, j: u32, value: V) {
    dst[(batch * P.m + i) * (P.n / 4u) + j] = Dst(value);
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, 32u);
    let quads_n = (P.n + 3u) / 4u;
    let first_quad = thread % P.tiles_n * QUADS;
    let first_row = thread / P.tiles_n % P.tiles_m * ROWS;
    let batch = thread / P.tiles_n / P.tiles_m;
    if (batch >= P.batches) {
        return;
    }
    var matrix_a = 0u;
    var matrix_b = 0u;
    var rest = batch;
    for (var d = P.rank; d > 0u; d--) {
        let at = rest % P.shape[0][d - 1u];
        rest /= P.shape[0][d - 1u];
        matrix_a += at * P.a_strides[0][d - 1u];
        matrix_b += at * P.b_strides[0][d - 1u];
    }

    var sum: array<array<V, QUADS>, ROWS>; // #registers
    for (var l = 0u; l < (P.k + 3u) / 4u; l++) {
        var x: array<V, ROWS>; // #registers
        for (var r = 0u; r < ROWS; r++) { // #unroll
            x[r] = load_a(matrix_a, min(first_row + r, P.m - 1u), l);
        }
        for (var t = 0u; t < 4u; t++) { // #unroll
            for (var q = 0u; q < QUADS; q++) { // #unroll
                let y = load_b(matrix_b, min(l * 4u + t, P.k - 1u), min(first_quad + q, quads_n - 1u));
                for (var r = 0u; r < ROWS; r++) { // #unroll
                    sum[r][q] += x[r][t] * y;
                }
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) { // #unroll
        for (var q = 0u; q < QUADS; q++) { // #unroll
            if (first_row + r < P.m && first_quad + q < quads_n) {
                store(batch, first_row + r, first_quad + q, sum[r][q]);
            }
        }
    }
}

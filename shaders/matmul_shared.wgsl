// dst[batch, i, j] = Σ_l a[batch, i, l] · b[batch, l, j]
//
// Batched product of two activations. a: [batch, m, k], b: [batch, k, n], dst: [batch, m, n], all of whole quads.
//
// As conv2d_shared: a workgroup computes ROWS × COLUMNS numbers of the result, DEPTH of l at a time, zeros where a matrix
// has ended. Its threads bring both sides into workgroup memory, and fetch a step while the one before is multiplied.
// Each holds HELD rows × QUADS quads of columns in registers.

const ROWS: u32 = 128u;
const COLUMNS: u32 = 128u;
const DEPTH: u32 = 16u;
const HELD: u32 = 8u; // a multiple of four
const QUADS: u32 = 2u;
const THREADS: u32 = 256u; // ROWS / HELD · COLUMNS / (4 · QUADS)
const PATCHES: u32 = 2u; // of 8 × 4 threads, across: COLUMNS / (32 · QUADS)
const LOADS_LEFT: u32 = 2u; // quads that a thread fetches of a side
const LOADS_RIGHT: u32 = 2u;
alias Number = f32; // or i32, whose sums wrap
alias V = vec4<Number>;
alias Quad = vec4<f32>; // of a and b
alias Dst = vec4<f32>;

struct Params {
    m: u32,
    quads_n: u32,
    k: u32,
    batches: u32,
    tiles_y: u32,
    tiles_x: u32,
    steps: u32,
    rank: u32, // of the batch dimensions
    shape: array<vec4<u32>, 1>,     // of the batch
    a_strides: array<vec4<u32>, 1>, // of the batch, in matrices; zero where a is broadcast
    b_strides: array<vec4<u32>, 1>,
}

@group(0) @binding(0) var<storage, read> a: array<Quad>;
@group(0) @binding(1) var<storage, read> b: array<Quad>;
@group(0) @binding(2) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(3) var<uniform> P: Params;

const QUADS_LEFT: u32 = DEPTH / 4u;
const QUADS_RIGHT: u32 = COLUMNS / 4u;
const LEFT_LINE: u32 = QUADS_LEFT + 1u; // one more than there are, for other banks
// From one four of rows that a thread holds to the next, and from one quad of columns.
const FOUR_APART: u32 = ROWS / (HELD / 4u);
const QUAD_APART: u32 = QUADS_RIGHT / QUADS;

var<workgroup> left: array<V, ROWS * LEFT_LINE>;
var<workgroup> right: array<V, DEPTH * QUADS_RIGHT>;

// The quad at a place, zeros where there is none; nothing branches.
fn fetch_a(matrix: u32, row: u32, quad: u32) -> V {
    let inside = row < P.m && quad < P.k / 4u;
    return select(V(), V(a[select(0u, (matrix * P.m + row) * (P.k / 4u) + quad, inside)]), inside);
}

fn fetch_b(matrix: u32, row: u32, quad: u32) -> V {
    let inside = row < P.k && quad < P.quads_n;
    return select(V(), V(b[select(0u, (matrix * P.k + row) * P.quads_n + quad, inside)]), inside);
}

fn add(sum: V, x: Number, y: V) -> V {
    return fma(V(x), y, sum);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // As in lib/index, but naga takes what functions return to differ between threads, and then allows no barriers.
    let tile = group.y * groups.x + group.x;
    let first_quad = tile % P.tiles_x * QUADS_RIGHT;
    let first_row = tile / P.tiles_x % P.tiles_y * ROWS;
    let batch = tile / P.tiles_x / P.tiles_y;
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

    let quad = local % QUADS_LEFT;
    let row_left = first_row + local / QUADS_LEFT;
    let quad_right = first_quad + local % QUADS_RIGHT;
    let row_right = local / QUADS_RIGHT;
    var fetched_left: array<V, LOADS_LEFT>; // #registers
    var fetched_right: array<V, LOADS_RIGHT>; // #registers
    for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
        fetched_left[i] = fetch_a(matrix_a, row_left + i * (THREADS / QUADS_LEFT), quad);
    }
    for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
        fetched_right[i] = fetch_b(matrix_b, row_right + i * (THREADS / QUADS_RIGHT), quad_right);
    }

    // This thread's place among the others: threads of a patch share what they read.
    let patch_of = local / 32u;
    let across = patch_of % PATCHES * 8u + local % 8u;
    let down = patch_of / PATCHES * 4u + local % 32u / 8u;
    var sum: array<array<V, QUADS>, HELD>; // #registers
    var x: array<V, HELD>; // #registers
    var y: array<V, QUADS>; // #registers
    for (var step = 1u; step <= P.steps; step++) {
        workgroupBarrier(); // the step before is multiplied
        for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
            left[(local + i * THREADS) / QUADS_LEFT * LEFT_LINE + quad] = fetched_left[i];
        }
        for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
            right[local + i * THREADS] = fetched_right[i];
        }
        workgroupBarrier(); // both sides are there
        for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
            fetched_left[i] = fetch_a(matrix_a, row_left + i * (THREADS / QUADS_LEFT), step * QUADS_LEFT + quad);
        }
        for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
            fetched_right[i] = fetch_b(matrix_b, step * DEPTH + row_right + i * (THREADS / QUADS_RIGHT), quad_right);
        }
        for (var l = 0u; l < DEPTH / 4u; l++) { // #unroll
            for (var r = 0u; r < HELD; r++) { // #unroll
                x[r] = left[(r / 4u * FOUR_APART + down * 4u + r % 4u) * LEFT_LINE + l];
            }
            for (var t = 0u; t < 4u; t++) { // #unroll
                for (var q = 0u; q < QUADS; q++) { // #unroll
                    y[q] = right[(l * 4u + t) * QUADS_RIGHT + q * QUAD_APART + across];
                }
                for (var q = 0u; q < QUADS; q++) { // #unroll
                    for (var r = 0u; r < HELD; r++) { // #unroll
                        sum[r][q] = add(sum[r][q], x[r][t], y[q]);
                    }
                }
            }
        }
    }

    for (var r = 0u; r < HELD; r++) { // #unroll
        let row = first_row + r / 4u * FOUR_APART + down * 4u + r % 4u;
        for (var q = 0u; q < QUADS; q++) { // #unroll
            let column = first_quad + q * QUAD_APART + across;
            if (row < P.m && column < P.quads_n) {
                dst[(batch * P.m + row) * P.quads_n + column] = Dst(sum[r][q]);
            }
        }
    }
}

// dst[batch, i, j] = Σ_l a[batch, i, l] · b[batch, l, j]
//
// Batched product of two activations in cooperative matrices of f16, summed in f32; either side may be stored
// transposed. a: [batch, m, k], b: [batch, k, n], dst: [batch, m, n].
//
// A workgroup computes ROWS × COLUMNS numbers of the result, DEPTH of l at a time, zeros where a matrix has ended
// (lib/matrices). The threads fetch a step while the one before is multiplied.

enable f16;
enable wgpu_cooperative_matrix;

alias V = vec4<f32>;
alias SrcA = vec4<f32>; // eight numbers
alias SrcB = vec4<f32>;
alias Dst = vec4<f16>;

struct Params {
    m: u32,
    n: u32,
    a_lines: u32, // of a matrix as it is stored: m, or k
    a_width: u32,
    b_lines: u32,
    b_width: u32,
    batches: u32,
    tiles_y: u32,
    tiles_x: u32,
    steps: u32,
    rank: u32, // of the batch dimensions
    shape: array<vec4<u32>, 1>,     // of the batch
    a_strides: array<vec4<u32>, 1>, // of the batch, in matrices; zero where a is broadcast
    b_strides: array<vec4<u32>, 1>,
}

@group(0) @binding(0) var<storage, read> a: array<SrcA>;
@group(0) @binding(1) var<storage, read> b: array<SrcB>;
@group(0) @binding(2) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/matrices

fn load_a(line: u32, eight: u32) -> Eight {
    return a[line * (P.a_width / 8u) + eight];
}

fn load_b(line: u32, eight: u32) -> Eight {
    return b[line * (P.b_width / 8u) + eight];
}

// The i-th eight of a step of a side, zeros past the end. Nothing branches: past it, some numbers are read.
fn fetch_a(matrix: u32, row: u32, step: u32, i: u32) -> Eight {
    let line = select(row, step * DEPTH, TURNED_LEFT) + i / EIGHTS_LEFT;
    let eight = select(step * DEPTH, row, TURNED_LEFT) / 8u + i % EIGHTS_LEFT;
    let inside = line < P.a_lines && eight * 8u < P.a_width && i < LINES_LEFT * EIGHTS_LEFT;
    return select(Eight(), load_a(select(0u, matrix * P.a_lines + line, inside), select(0u, eight, inside)), inside);
}

fn fetch_b(matrix: u32, column: u32, step: u32, i: u32) -> Eight {
    let line = select(step * DEPTH, column, TURNED_RIGHT) + i / EIGHTS_RIGHT;
    let eight = select(column, step * DEPTH, TURNED_RIGHT) / 8u + i % EIGHTS_RIGHT;
    let inside = line < P.b_lines && eight * 8u < P.b_width && i < LINES_RIGHT * EIGHTS_RIGHT;
    return select(Eight(), load_b(select(0u, matrix * P.b_lines + line, inside), select(0u, eight, inside)), inside);
}

fn store(batch: u32, i: u32, j: u32, value: V) {
    dst[(batch * P.m + i) * (P.n / 4u) + j] = Dst(value);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32, @builtin(subgroup_id) subgroup: u32) {
    // As in lib/index, but naga takes what functions return to differ between threads, and then allows no barriers.
    let tile = group.y * groups.x + group.x;
    let column = tile % P.tiles_x * COLUMNS;
    let row = tile / P.tiles_x % P.tiles_y * ROWS;
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

    var fetched_left: array<Eight, LOADS_LEFT>; // #registers
    var fetched_right: array<Eight, LOADS_RIGHT>; // #registers
    for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
        fetched_left[i] = fetch_a(matrix_a, row, 0u, local + i * THREADS);
    }
    for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
        fetched_right[i] = fetch_b(matrix_b, column, 0u, local + i * THREADS);
    }

    var sum: array<array<Sum, HELD_X>, HELD_Y>; // #registers
    var of_left: array<Left, HELD_Y>; // #registers
    var of_right: Right;
    for (var step = 1u; step <= P.steps; step++) {
        workgroupBarrier(); // the step before is multiplied
        for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
            put_left(local + i * THREADS, fetched_left[i]);
        }
        for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
            put_right(local + i * THREADS, fetched_right[i]);
        }
        workgroupBarrier(); // both sides are there
        for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
            fetched_left[i] = fetch_a(matrix_a, row, step, local + i * THREADS);
        }
        for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
            fetched_right[i] = fetch_b(matrix_b, column, step, local + i * THREADS);
        }
        for (var own = subgroup; own < SUBGROUPS; own += SUBGROUPS) {
            for (var k = 0u; k < DEPTH / SIDE; k++) {
                for (var i = 0u; i < HELD_Y; i++) { // #unroll
                    if (TURNED_LEFT) {
                        of_left[i] = coopLoad<Left>(&sides[place_left(own, i, k)], LEFT_LINE);
                    } else {
                        of_left[i] = coopLoadT<Left>(&sides[place_left(own, i, k)], LEFT_LINE);
                    }
                }
                for (var j = 0u; j < HELD_X; j++) { // #unroll
                    if (TURNED_RIGHT) {
                        of_right = coopLoad<Right>(&sides[place_right(own, j, k)], RIGHT_LINE);
                    } else {
                        of_right = coopLoadT<Right>(&sides[place_right(own, j, k)], RIGHT_LINE);
                    }
                    for (var i = 0u; i < HELD_Y; i++) { // #unroll
                        sum[i][j] = coopMultiplyAdd(of_left[i], of_right, sum[i][j]);
                    }
                }
            }
        }
    }

    for (var i = 0u; i < HELD_Y; i++) { // #unroll
        workgroupBarrier(); // what was there is done with
        for (var own = subgroup; own < SUBGROUPS; own += SUBGROUPS) {
            for (var j = 0u; j < HELD_X; j++) { // #unroll
                coopStoreT(sum[i][j], &sides[(own * HELD_X + j) * QUADS_HELD], SIDE / 4u);
            }
        }
        workgroupBarrier(); // a line of matrices of each subgroup is there
        for (var at = local; at < QUADS_OF_LINE; at += THREADS) {
            let line = row + row_of_sum(at, i);
            let quad = column / 4u + quad_of_sum(at);
            if (line < P.m && quad * 4u < P.n) {
                store(batch, line, quad, sides[place_of_sum(at)]);
            }
        }
    }
}

// A workgroup's part of a product in cooperative matrices: small ones that the threads of a subgroup hold together, of
// f16, whose products are summed in f32. Its threads bring DEPTH columns of the left side and as many rows of the right
// one into workgroup memory. Each of SUBGROUPS subgroups, SUBGROUPS_X side by side, multiplies them into HELD_Y × HELD_X
// matrices of sums. At last those go through workgroup memory too, one of each subgroup at a time: only there is it known
// which number is whose.
//
// A subgroup has no more than THREADS / SUBGROUPS threads. Where it has fewer there are subgroups to spare, which fetch and
// write as all others do and multiply nothing.

const SIDE: u32 = 16u; // of a matrix
const ROWS: u32 = 64u; // of the workgroup's part
const COLUMNS: u32 = 64u;
const DEPTH: u32 = 32u;
const SUBGROUPS: u32 = 4u;
const SUBGROUPS_X: u32 = 2u;
const HELD_Y: u32 = 2u;
const HELD_X: u32 = 2u;
const THREADS: u32 = 128u;
const LOADS_LEFT: u32 = 4u; // quads that a thread fetches of a side
const LOADS_RIGHT: u32 = 4u;
// A side that is turned lies in memory as it is stored, column by column.
const TURNED_LEFT: bool = false;
const TURNED_RIGHT: bool = false;
const LINES_LEFT: u32 = 64u; // as stored: ROWS, or DEPTH of a side that is turned
const QUADS_LEFT: u32 = 8u; // of a line: DEPTH / 4, or ROWS / 4
const LINES_RIGHT: u32 = 32u;
const QUADS_RIGHT: u32 = 16u;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

// Quads from one line to the next: two more than there are, so that the lines of a matrix lie in different banks.
const LEFT_LINE: u32 = QUADS_LEFT + 2u;
const RIGHT_LINE: u32 = QUADS_RIGHT + 2u;
const QUADS_HELD: u32 = SIDE * SIDE / 4u;

var<workgroup> left: array<vec4<f16>, LINES_LEFT * LEFT_LINE>;
var<workgroup> right: array<vec4<f16>, LINES_RIGHT * RIGHT_LINE>;
var<workgroup> sums: array<vec4<f32>, SUBGROUPS * QUADS_HELD>; // [subgroup, row, column] of a matrix each

// The i-th of the quads that threads fetch.
fn put_left(i: u32, value: vec4<f16>) {
    if (i < LINES_LEFT * QUADS_LEFT) {
        left[i / QUADS_LEFT * LEFT_LINE + i % QUADS_LEFT] = value;
    }
}

fn put_right(i: u32, value: vec4<f16>) {
    if (i < LINES_RIGHT * QUADS_RIGHT) {
        right[i / QUADS_RIGHT * RIGHT_LINE + i % QUADS_RIGHT] = value;
    }
}

// Where the matrices begin that a subgroup multiplies for its i-th line and j-th column of sums, k matrices deep.
fn place_left(subgroup: u32, i: u32, k: u32) -> u32 {
    let row = (subgroup / SUBGROUPS_X * HELD_Y + i) * SIDE;
    let depth = k * SIDE;
    if (TURNED_LEFT) {
        return depth * LEFT_LINE + row / 4u;
    }
    return row * LEFT_LINE + depth / 4u;
}

fn place_right(subgroup: u32, j: u32, k: u32) -> u32 {
    let column = (subgroup % SUBGROUPS_X * HELD_X + j) * SIDE;
    let depth = k * SIDE;
    if (TURNED_RIGHT) {
        return column * RIGHT_LINE + depth / 4u;
    }
    return depth * RIGHT_LINE + column / 4u;
}

// Row and quad of columns, in the workgroup's part, of a quad in `sums`.
fn row_of_sum(at: u32, i: u32) -> u32 {
    return (at / QUADS_HELD / SUBGROUPS_X * HELD_Y + i) * SIDE + at % QUADS_HELD / (SIDE / 4u);
}

fn quad_of_sum(at: u32, j: u32) -> u32 {
    return (at / QUADS_HELD % SUBGROUPS_X * HELD_X + j) * (SIDE / 4u) + at % (SIDE / 4u);
}

// A workgroup's part of a product in cooperative matrices: small ones that the threads of a subgroup hold together, of
// f16, whose products are summed in f32. Its threads bring DEPTH columns of the left side and as many rows of the right
// one into workgroup memory, eight numbers at a time, which go about as the sixteen bytes of a vec4<f32>: drivers take
// vectors of f16 apart and put them together again. That factors of f32 are of f16 in truth is written into their SPIR-V
// (src/spirv.rs), as WGSL takes matrices to be of what their memory is of. Each of SUBGROUPS subgroups, SUBGROUPS_X side by side, multiplies them into HELD_Y × HELD_X
// matrices of sums. At last those go through the same memory, a line of each subgroup at a time: only there is it known
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
const ALIKE: bool = false; // all subgroups have THREADS / SUBGROUPS threads, so that none is to spare
const EAGER: bool = false; // fetch without a branch, after the last step too
const LOADS_LEFT: u32 = 2u; // eights that a thread fetches of a side
const LOADS_RIGHT: u32 = 2u;
// A side that is turned lies in memory as it is stored, column by column.
const TURNED_LEFT: bool = false;
const TURNED_RIGHT: bool = false;
const LINES_LEFT: u32 = 64u; // as stored: ROWS, or DEPTH of a side that is turned
const EIGHTS_LEFT: u32 = 4u; // of a line: DEPTH / 8, or ROWS / 8
const LINES_RIGHT: u32 = 32u;
const EIGHTS_RIGHT: u32 = 8u;
alias Eight = vec4<f32>;
alias Left = coop_mat16x16<f32, A>;
alias Right = coop_mat16x16<f32, B>;
alias Sum = coop_mat16x16<f32, C>;

// Eights from one line to the next: one more than there are, so that the lines of a matrix lie in different banks.
const LEFT_LINE: u32 = EIGHTS_LEFT + 1u;
const RIGHT_LINE: u32 = EIGHTS_RIGHT + 1u;
const RIGHT: u32 = LINES_LEFT * LEFT_LINE;
const QUADS_HELD: u32 = SIDE * SIDE / 4u;
const ROOM: u32 = 864u; // for both sides, or SUBGROUPS · HELD_X · QUADS_HELD

// The left side, then the right one; at last sums, [subgroup, matrix across, row, quad].
var<workgroup> sides: array<Eight, ROOM>;

fn eight_of(low: vec4<f16>, high: vec4<f16>) -> Eight {
    let first = vec4<f32>(low);
    let last = vec4<f32>(high);
    return bitcast<Eight>(vec4<u32>(pack2x16float(first.xy), pack2x16float(first.zw), pack2x16float(last.xy), pack2x16float(last.zw)));
}

// The i-th of the eights that threads fetch.
fn put_left(i: u32, value: Eight) {
    if (i < LINES_LEFT * EIGHTS_LEFT) {
        sides[i / EIGHTS_LEFT * LEFT_LINE + i % EIGHTS_LEFT] = value;
    }
}

fn put_right(i: u32, value: Eight) {
    if (i < LINES_RIGHT * EIGHTS_RIGHT) {
        sides[RIGHT + i / EIGHTS_RIGHT * RIGHT_LINE + i % EIGHTS_RIGHT] = value;
    }
}

// Where the matrices begin that a subgroup multiplies for its i-th line and j-th column of sums, k matrices deep.
fn place_left(subgroup: u32, i: u32, k: u32) -> u32 {
    let row = (subgroup / SUBGROUPS_X * HELD_Y + i) * SIDE;
    let depth = k * SIDE;
    if (TURNED_LEFT) {
        return depth * LEFT_LINE + row / 8u;
    }
    return row * LEFT_LINE + depth / 8u;
}

fn place_right(subgroup: u32, j: u32, k: u32) -> u32 {
    let column = (subgroup % SUBGROUPS_X * HELD_X + j) * SIDE;
    let depth = k * SIDE;
    if (TURNED_RIGHT) {
        return RIGHT + column * RIGHT_LINE + depth / 8u;
    }
    return RIGHT + depth * RIGHT_LINE + column / 8u;
}

// The quads of the i-th line of matrices of every subgroup, those of a row side by side: how many they are, where the
// at-th lies in `sides`, and its row and quad of columns in the workgroup's part.
const QUADS_OF_LINE: u32 = SUBGROUPS * HELD_X * QUADS_HELD;

fn place_of_sum(at: u32) -> u32 {
    let across = at % (HELD_X * SIDE / 4u);
    let row = at / (HELD_X * SIDE / 4u) % SIDE;
    let subgroup = at / (HELD_X * QUADS_HELD);
    return (subgroup * HELD_X + across / (SIDE / 4u)) * QUADS_HELD + row * (SIDE / 4u) + across % (SIDE / 4u);
}

fn row_of_sum(at: u32, i: u32) -> u32 {
    let subgroup = at / (HELD_X * QUADS_HELD);
    return (subgroup / SUBGROUPS_X * HELD_Y + i) * SIDE + at / (HELD_X * SIDE / 4u) % SIDE;
}

fn quad_of_sum(at: u32) -> u32 {
    let subgroup = at / (HELD_X * QUADS_HELD);
    return subgroup % SUBGROUPS_X * (HELD_X * SIDE / 4u) + at % (HELD_X * SIDE / 4u);
}

// dst = src; then for u = 0, 1, …: dst[l, place[l, u]] = combine(dst[l, place[l, u]], updates[l, u])
//
// The lines l of dst, each `rows` Elems, are those along one axis; `shape` are the other axes, of which place and updates may
// have fewer (`limits`). Negative places count from the end; what is still outside writes nothing. Elems are quads where
// neighbouring lines share their places. Updates of a place come in their order on every device, so that sums are the same
// each time: a thread owns a stretch of rows of one line and walks all updates of that line for it.

const RANK: u32 = 1u;
alias Elem = vec4<f32>;
alias Wide = vec4<f32>;

struct Params {
    threads: u32,
    lines: u32,
    rows: u32,
    stretch: u32, // rows of a thread
    count: u32, // updates of a line
    row_step: u32, // from a row, place or update of a line to the next
    place_step: u32,
    update_step: u32,
    shape: array<vec4<u32>, 2>, // here and below the last axis first
    limits: array<vec4<u32>, 2>,
    row_strides: array<vec4<u32>, 2>,
    place_strides: array<vec4<u32>, 2>,
    update_strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> place: array<i32>;
@group(0) @binding(2) var<storage, read> updates: array<Elem>;
@group(0) @binding(3) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index

fn combine(was: Wide, given: Wide) -> Wide {
    return given;
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 32u);
    if (id >= P.threads) {
        return;
    }
    let owned = divide(id, P.lines);
    var rest = owned.y;
    var row_base = 0u;
    var place_base = 0u;
    var update_base = 0u;
    var count = P.count;
    for (var k = 0u; k < RANK; k++) { // #unroll
        let split = divide(rest, P.shape[k / 4u][k % 4u]);
        row_base += split.y * P.row_strides[k / 4u][k % 4u];
        place_base += split.y * P.place_strides[k / 4u][k % 4u];
        update_base += split.y * P.update_strides[k / 4u][k % 4u];
        count = select(count, 0u, split.y >= P.limits[k / 4u][k % 4u]);
        rest = split.x;
    }
    let first = owned.x * P.stretch;
    let end = min(first + P.stretch, P.rows);
    for (var row = first; row < end; row++) {
        dst[row_base + row * P.row_step] = src[row_base + row * P.row_step];
    }
    for (var u = 0u; u < count; u++) {
        let row = from_end(place[place_base + u * P.place_step], P.rows);
        if (row >= first && row < end) {
            let at = row_base + row * P.row_step;
            dst[at] = Elem(combine(Wide(dst[at]), Wide(updates[update_base + u * P.update_step])));
        }
    }
}

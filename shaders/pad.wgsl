// dst[i0, i1, …] = src[source(i0), source(i1), …], or the value where a coordinate has no source
//
// Row-major, up to six axes; the last is in units of Elem (quads where it is not padded and allows
// it). MODE 0 fills with a constant, 1 reflects (the edge itself not repeated), 2 repeats the edge.
// One thread computes RUN neighbours of dst's last axis.

const MODE: u32 = 0u;
const OUTER: u32 = 5u; // axes before the last
const RUN: u32 = 1u;
alias Elem = vec4<f32>;
alias Number = f32;

struct Params {
    count: u32, // threads
    value: f32,
    shape: array<vec4<u32>, 2>,  // of dst, the last axis in runs; here and below the last axis first
    source: array<vec4<u32>, 2>, // shape of src
    before: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

fn fill() -> Elem {
    return Elem(Number(P.value));
}

// Where the number at place i of an axis of so many comes from; of a constant, any place.
fn place(i: i32, size: u32) -> u32 {
    var j = i;
    if (MODE == 1u) {
        j = abs(j);
        j = min(j, 2 * (i32(size) - 1) - j);
    }
    return u32(clamp(j, 0, i32(size) - 1));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    // Where a line of src begins, and which part of dst's line this is.
    let line = divide(id, P.shape[0][0]);
    var rest = line.x;
    var at = 0u;
    var stride = P.source[0][0];
    var inside = true;
    for (var axis = 0u; axis < OUTER; axis++) { // #unroll
        const k = axis + 1u;
        let size = P.source[k / 4u][k % 4u];
        let split = divide(rest, P.shape[k / 4u][k % 4u]);
        let i = i32(split.y) - i32(P.before[k / 4u][k % 4u]);
        inside = inside && i >= 0 && i < i32(size);
        at += place(i, size) * stride;
        stride *= size;
        rest = split.x;
    }
    for (var k = 0u; k < RUN; k++) { // #unroll
        let i = i32(line.y * RUN + k) - i32(P.before[0][0]);
        let here = inside && i >= 0 && i < i32(P.source[0][0]);
        dst[id * RUN + k] = select(fill(), src[at + place(i, P.source[0][0])], MODE != 0u || here);
    }
}

// dst[i0, i1, …] = src[source(i0), source(i1), …], or the value where a coordinate has no source
//
// Row-major, up to six axes; the last is in units of Elem (quads where it is not padded and allows
// it). MODE 0 fills with a constant, 1 reflects (the edge itself not repeated), 2 repeats the edge.
// One thread computes one Elem.

const MODE: u32 = 0u;
const RANK: u32 = 6u;
alias Elem = vec4<f32>;
alias Number = f32;

struct Params {
    count: u32,
    value: f32,
    shape: array<vec4<u32>, 2>,  // of dst; here and below the last axis first
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

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    var rest = id;
    var at = 0u;
    var stride = 1u;
    var inside = true;
    for (var k = 0u; k < RANK; k++) { // #unroll
        let size = i32(P.source[k / 4u][k % 4u]);
        let split = divide(rest, P.shape[k / 4u][k % 4u]);
        var i = i32(split.y) - i32(P.before[k / 4u][k % 4u]);
        inside = inside && i >= 0 && i < size;
        if (MODE == 1u) {
            i = abs(i);
            i = min(i, 2 * (size - 1) - i);
        }
        at += u32(clamp(i, 0, size - 1)) * stride;
        stride *= u32(size);
        rest = split.x;
    }
    dst[id] = select(fill(), src[at], MODE != 0u || inside);
}

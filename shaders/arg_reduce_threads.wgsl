// dst[o, k] = the first i at which src[o, i, k] is largest
//
// As arg_reduce, where a line is long: THREADS threads do one, over the middle dimension of [outer, size, inner].

alias Elem = f32;

struct Part {
    best: f32,
    at: u32,
}

struct Params {
    lines: u32, // outer · inner
    size: u32,
    inner: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<u32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index
// #include lib/threads

fn better(x: f32, best: f32) -> bool {
    return x > best;
}

// Of equals, the place that is wanted.
fn nearer(i: u32, at: u32) -> bool {
    return i < at;
}

fn join(a: Part, b: Part) -> Part {
    if (better(b.best, a.best) || (b.best == a.best && nearer(b.at, a.at))) {
        return b;
    }
    return a;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = line_and_lane(local);
    let index = linear_group(group, groups) * LINES + place.x;
    // Threads beyond the last line go along with the others to the barriers.
    let line = min(index, P.lines - 1u);
    let first = line / P.inner * P.size * P.inner + line % P.inner;
    var own = Part(f32(src[first]), 0u);
    for (var i = place.y; i < P.size; i += THREADS) {
        own = join(own, Part(f32(src[first + i * P.inner]), i));
    }
    let all = joined(own, place.x, place.y);
    if (index < P.lines && place.y == 0u) {
        dst[line] = all.at;
    }
}

// dst[o, k] = finish( fold of src[o, i, k] over i )
//
// As reduce, where a line is long: THREADS threads do one. Over the middle dimension of [outer, size, inner], in units of
// Elem: quads of neighbouring lines, or of one line where inner is one. The functions are the operation's: here they make the mean.

alias V = vec4<f32>; // a unit
alias Elem = vec4<f32>;
alias Part = f32; // what comes of a line, or of a quad of lines
alias Dst = f32;

struct Params {
    lines: u32, // outer · inner
    units: u32, // in a line
    inner: u32,
    size: f32, // numbers in a line
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index
// #include lib/threads

// Before the first element of a line, whose index is given.
fn start(first: u32) -> V {
    return V(0.0);
}

fn fold(so_far: V, x: V) -> V {
    return so_far + x;
}

fn join(a: Part, b: Part) -> Part {
    return a + b;
}

// What the numbers of a unit are together, if they are of one line.
fn within(v: V) -> Part {
    return join(join(v.x, v.y), join(v.z, v.w));
}

fn finish(all: Part) -> Part {
    return all / P.size;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = line_and_lane(local);
    let index = linear_group(group, groups) * LINES + at.x;
    // Threads beyond the last line go along with the others to the barriers.
    let line = min(index, P.lines - 1u);
    let first = line / P.inner * P.units * P.inner + line % P.inner;
    var own = start(first);
    for (var i = at.y; i < P.units; i += THREADS) {
        own = fold(own, V(src[first + i * P.inner]));
    }
    let all = joined(within(own), at.x, at.y);
    if (index < P.lines && at.y == 0u) {
        dst[line] = Dst(finish(all));
    }
}

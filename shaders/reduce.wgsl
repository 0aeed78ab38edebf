// dst[o, k] = finish( fold of src[o, i, k] over i )
//
// Reduction of the middle dimension of [outer, size, inner]; inner in units of Elem,
// a quad where it can be. One thread computes one Elem. The functions are the
// operation's: here they make the mean.

alias V = vec4<f32>;
alias Elem = vec4<f32>;

struct Params {
    lines: u32, // outer · inner
    size: u32,
    inner: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

// Before the first element, whose index is given.
fn start(first: u32) -> V {
    return V(0.0);
}

fn fold(sum: V, x: V) -> V {
    return sum + x;
}

fn finish(sum: V) -> V {
    return sum / f32(P.size);
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let line = linear_id(group, groups, local, 32u);
    if (line >= P.lines) {
        return;
    }
    let first = line / P.inner * P.size * P.inner + line % P.inner;
    var sum = start(first);
    for (var i = 0u; i < P.size; i++) {
        sum = fold(sum, V(src[first + i * P.inner]));
    }
    dst[line] = Elem(finish(sum));
}

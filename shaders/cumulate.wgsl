// dst[o, i, k] = src[o, 0, k] + … + src[o, i, k]
//
// Along the middle dimension of [outer, size, inner], inner in units of Elem, a quad where it can be. EXCLUSIVE leaves the
// element itself out; REVERSE goes from the last to the first. One thread does one line, one term after the other.

alias V = vec4<f32>;
alias Elem = vec4<f32>;
const EXCLUSIVE: bool = false;
const REVERSE: bool = false;

struct Params {
    lines: u32, // outer · inner
    size: u32,
    inner: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

// Of no elements.
fn start() -> V {
    return V(0);
}

fn fold(total: V, x: V) -> V {
    return total + x;
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let line = linear_id(group, groups, local, 32u);
    if (line >= P.lines) {
        return;
    }
    let first = line / P.inner * P.size * P.inner + line % P.inner;
    var total = start();
    for (var step = 0u; step < P.size; step++) {
        let i = first + select(step, P.size - 1u - step, REVERSE) * P.inner;
        let before = total;
        total = fold(total, V(src[i]));
        dst[i] = Elem(select(total, before, EXCLUSIVE));
    }
}

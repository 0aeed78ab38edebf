// dst[o, k] = finish( fold of src[o, i, k] over i )
//
// Reduction of the middle dimension of [outer, size, inner]; inner in units of Elem,
// a quad where it can be. One thread computes one unit. The functions are the
// operation's: here they make the mean.

alias V = vec4<f32>;
alias Elem = vec4<f32>; // of src
alias Dst = vec4<f32>;

const WORKGROUP: u32 = 32u;
const STEP: u32 = 4u; // numbers in a turn

struct Params {
    lines: u32, // outer · inner
    size: u32,
    inner: u32,
    numbers: f32, // that each result is made of
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(2) var<uniform> P: Params;
@group(0) @binding(3) var src_texture: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/texels

fn load(i: u32) -> V {
    return V(src[i]);
}

// Before the first element, whose index is given.
fn start(first: u32) -> V {
    return V(0.0);
}

fn fold(sum: V, x: V) -> V {
    return sum + x;
}

fn finish(sum: V) -> V {
    return sum / P.numbers;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let line = linear_id(group, groups, local, WORKGROUP);
    if (line >= P.lines) {
        return;
    }
    let first = line / P.inner * P.size * P.inner + line % P.inner;
    var sum = start(first);
    let whole = P.size / STEP * STEP;
    for (var i = 0u; i < whole; i += STEP) {
        for (var k = 0u; k < STEP; k++) { // #unroll
            sum = fold(sum, load(first + (i + k) * P.inner));
        }
    }
    for (var i = whole; i < P.size; i++) {
        sum = fold(sum, load(first + i * P.inner));
    }
    dst[line] = Dst(finish(sum));
}

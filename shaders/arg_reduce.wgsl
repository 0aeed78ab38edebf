// dst[o, k] = the first i at which src[o, i, k] is largest
//
// Over the middle dimension of [outer, size, inner]. One thread computes one index.

alias Elem = f32;

struct Params {
    lines: u32, // outer · inner
    size: u32,
    inner: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<u32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

fn better(x: f32, best: f32) -> bool {
    return x > best;
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let line = linear_id(group, groups, local, 32u);
    if (line >= P.lines) {
        return;
    }
    let first = line / P.inner * P.size * P.inner + line % P.inner;
    var at = 0u;
    var best = f32(src[first]);
    for (var i = 1u; i < P.size; i++) {
        let x = f32(src[first + i * P.inner]);
        if (better(x, best)) {
            best = x;
            at = i;
        }
    }
    dst[line] = at;
}

// dst[o, i, k] = exp(src[o, i, k] − max_i) / Σ_i exp(src[o, i, k] − max_i)
//
// Softmax over the middle dimension of [outer, size, inner]. One thread computes one
// line: maximum and sum together in a first reading (Milakov and Gimelshein, 2018),
// results in a second.

alias Elem = f32;

struct Params {
    lines: u32, // outer · inner
    size: u32,
    inner: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

// `x` is the element less the maximum, `sum` the sum of the exponentials of all of these.
fn result(x: f32, sum: f32) -> f32 {
    return exp(x) / sum;
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let line = linear_id(group, groups, local, 32u);
    if (line >= P.lines) {
        return;
    }
    let first = line / P.inner * P.size * P.inner + line % P.inner;
    // Of nothing but −∞ the largest finite number stands for the maximum, so that no NaN arises in between.
    var highest = -3.4028234e38;
    var sum = 0.0;
    for (var i = 0u; i < P.size; i++) {
        let x = f32(src[first + i * P.inner]);
        let higher = max(highest, x);
        sum = sum * exp(highest - higher) + exp(x - higher);
        highest = higher;
    }
    for (var i = 0u; i < P.size; i++) {
        let at = first + i * P.inner;
        dst[at] = Elem(result(f32(src[at]) - highest, sum));
    }
}

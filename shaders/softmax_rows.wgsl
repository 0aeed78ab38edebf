// dst[i, k] = exp(src[i, k] − max_k) / Σ_k exp(src[i, k] − max_k)
//
// Softmax over the last dimension of [rows, 4 · quads], where a thread has a core's vector unit: software adapters. One
// thread computes one row, QUADS quads at a time: their maximum first, so that what was summed is rescaled once for all
// of them (Milakov and Gimelshein, 2018), and four sums side by side.

const QUADS: u32 = 4u;
alias V = vec4<f32>;
alias Quad = vec4<f32>;

struct Params {
    rows: u32,
    quads: u32, // in a row
}

@group(0) @binding(0) var<storage, read> src: array<Quad>;
@group(0) @binding(1) var<storage, read_write> dst: array<Quad>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

// `x` are elements less the maximum, `sum` the sum of the exponentials of all of these.
fn result(x: V, sum: f32) -> V {
    return exp(x) * (1.0 / sum);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = linear_id(group, groups, local, 8u);
    if (row >= P.rows) {
        return;
    }
    let first = row * P.quads;
    // Of nothing but −∞ the largest finite number stands for the maximum, so that no NaN arises in between.
    var highest = -3.4028234e38;
    var sums = V(0.0);
    var x: array<V, QUADS>; // #registers
    for (var k = 0u; k < P.quads; k += QUADS) {
        var top = V(highest);
        for (var i = 0u; i < QUADS; i++) { // #unroll
            // The last quad once more adds nothing to the maximum.
            x[i] = V(src[first + min(k + i, P.quads - 1u)]);
            top = max(top, x[i]);
        }
        let higher = max(max(top.x, top.y), max(top.z, top.w));
        sums *= exp(highest - higher);
        highest = higher;
        for (var i = 0u; i < QUADS; i++) { // #unroll
            sums += select(V(0.0), exp(x[i] - higher), k + i < P.quads);
        }
    }
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
    for (var k = 0u; k < P.quads; k += QUADS) {
        for (var i = 0u; i < QUADS; i++) { // #unroll
            x[i] = V(src[first + min(k + i, P.quads - 1u)]);
        }
        for (var i = 0u; i < QUADS; i++) { // #unroll
            if (k + i < P.quads) {
                dst[first + k + i] = Quad(result(x[i] - highest, sum));
            }
        }
    }
}

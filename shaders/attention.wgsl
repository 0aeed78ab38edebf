// dst[n, i, h] = Σ_j softmax_j( scale · q[n, i, h] · k[n, j, h] + mask[n, h, i, j] ) v[n, j, h]
//
// Scaled dot-product attention of HEADS heads of `d` channels each, side by side in
// a token. q, dst: [n, lq, heads · d]; k, v: [n, lk, heads · d], or side by side in one tensor (lib/heads).
//
// One thread computes QUERIES neighbouring queries of one head in registers and
// streams through the keys, KEYS at a time, with a running maximum m, sum l and
// result (Milakov and Gimelshein, 2018): when m grows, what was summed shrinks by
// exp(m − m'). No score ever reaches memory, and a key is loaded once for QUERIES queries.

const QUERIES: u32 = 4u;
const KEYS: u32 = 4u;
const QUADS: u32 = 8u; // of channels in a head, the last padded with zeros
const CAUSAL: bool = false;
alias V = vec4<f32>;
alias Src = vec4<f32>;
alias Dst = vec4<f32>;
alias Mask = f32;

struct Params {
    samples: u32,
    heads: u32,
    query_heads: u32, // in a token
    key_heads: u32, // and of values
    first_key: u32,
    first_value: u32,
    head_size: u32,
    queries: u32,
    keys: u32,
    tiles: u32, // of QUERIES
    scale: f32,
    mask_sample: u32, // strides
    mask_head: u32,
}

@group(0) @binding(0) var<storage, read> query: array<Src>;
@group(0) @binding(1) var<storage, read> key: array<Src>;
@group(0) @binding(2) var<storage, read> value: array<Src>;
@group(0) @binding(3) var<storage, read> mask: array<Mask>;
@group(0) @binding(4) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(5) var<uniform> P: Params;

// #include lib/index
// #include lib/heads

fn load_query(token: u32, head: u32, quad: u32) -> V {
    return V(query[query_place(token, head, QUADS, quad)]);
}

fn load_key(token: u32, head: u32, quad: u32) -> V {
    return V(key[key_place(token, head, QUADS, quad)]);
}

fn load_value(token: u32, head: u32, quad: u32) -> V {
    return V(value[value_place(token, head, QUADS, quad)]);
}

fn store(token: u32, head: u32, quad: u32, v: V) {
    dst[place(token, P.heads, head, QUADS, quad)] = Dst(v);
}

fn bias(sample: u32, head: u32, i: u32, j: u32) -> f32 {
    return 0.0;
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, 8u);
    let head = thread % P.heads;
    let first = (thread / P.heads) % P.tiles * QUERIES;
    let sample = thread / P.heads / P.tiles;
    if (sample >= P.samples) {
        return;
    }

    var q: array<array<V, QUADS>, QUERIES>; // #registers
    var sum: array<array<V, QUADS>, QUERIES>; // #registers
    var m: array<f32, QUERIES>; // #registers
    var l: array<f32, QUERIES>; // #registers
    for (var i = 0u; i < QUERIES; i++) { // #unroll
        m[i] = -3.4028234e38;
        for (var c = 0u; c < QUADS; c++) { // #unroll
            q[i][c] = load_query(sample * P.queries + min(first + i, P.queries - 1u), head, c) * P.scale;
        }
    }
    var end = P.keys;
    if (CAUSAL) {
        end = min(end, first + QUERIES);
    }
    for (var j = 0u; j < end; j += KEYS) {
        var s: array<array<f32, KEYS>, QUERIES>; // #registers
        for (var t = 0u; t < KEYS; t++) { // #unroll
            let token = sample * P.keys + min(j + t, P.keys - 1u);
            for (var c = 0u; c < QUADS; c++) { // #unroll
                let k = load_key(token, head, c);
                for (var i = 0u; i < QUERIES; i++) { // #unroll
                    s[i][t] += dot(q[i][c], k);
                }
            }
        }
        for (var i = 0u; i < QUERIES; i++) { // #unroll
            var highest = m[i];
            for (var t = 0u; t < KEYS; t++) { // #unroll
                s[i][t] += bias(sample, head, min(first + i, P.queries - 1u), min(j + t, P.keys - 1u));
                if (seen(first + i, j + t)) {
                    highest = max(highest, s[i][t]);
                }
            }
            let shrink = exp(m[i] - highest);
            m[i] = highest;
            l[i] *= shrink;
            for (var c = 0u; c < QUADS; c++) { // #unroll
                sum[i][c] *= shrink;
            }
            for (var t = 0u; t < KEYS; t++) { // #unroll
                s[i][t] = select(0.0, exp(s[i][t] - highest), seen(first + i, j + t));
                l[i] += s[i][t];
            }
        }
        for (var t = 0u; t < KEYS; t++) { // #unroll
            let token = sample * P.keys + min(j + t, P.keys - 1u);
            for (var c = 0u; c < QUADS; c++) { // #unroll
                let v = load_value(token, head, c);
                for (var i = 0u; i < QUERIES; i++) { // #unroll
                    sum[i][c] += s[i][t] * v;
                }
            }
        }
    }
    for (var i = 0u; i < QUERIES; i++) { // #unroll
        if (first + i < P.queries) {
            // A query that sees no key gives zeros.
            let factor = select(0.0, 1.0 / l[i], l[i] > 0.0);
            for (var c = 0u; c < QUADS; c++) { // #unroll
                store(sample * P.queries + first + i, head, c, sum[i][c] * factor);
            }
        }
    }
}

// Whether query i may look at key j.
fn seen(i: u32, j: u32) -> bool {
    return j < P.keys && (!CAUSAL || j <= i);
}

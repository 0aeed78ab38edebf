// dst[n, i, h] = Σ_j softmax_j( scale · q[n, i, h] · k[n, j, h] + mask[n, h, i, j] ) v[n, j, h]
//
// The attention of attention.wgsl where buffers are slow to read and registers are the first-level cache: Mesa's
// software adapter. q, k and v as texels, heads of a multiple of four channels.
//
// One thread computes QUERIES neighbouring queries of one head and streams through the keys, KEYS at a time, with a
// running maximum m, sum l and result:
//
//     s[i, j] = LOG2_E · (scale · q[i] · k[j] + mask),   w = exp2(s[i, j] - m[i]),   l[i] += w,   sum[i] += w v[j]
//
// Any m gives the same result, as long as no weight leaves the range of f32: it need not be the highest score, only within
// SLACK of it from below. So sums are scaled to a new maximum where one of a subgroup's scores rises above that, which is
// at the first keys and seldom later, and not at each turn. The weights of that turn are computed again.
//
// What makes it fast there:
//
// - A fetch costs as much as a hundred multiply-adds of the whole subgroup. LANES threads side by side have the same
//   head, so each fetches one key in SHARE and its value, and they hand them round: 2 · QUADS fetches for
//   8 · QUADS · SHARE · QUERIES multiply-adds.
// - A block of so many keys is gone through in turns of KEYS, in a loop: written out for all of them the code is larger
//   than a core's cache for instructions (168 KB for heads of 40), and the core waits for code.
// - A query's quad is read once for the keys of a turn; between its sums those of other queries are added to, so that
//   additions need not wait for each other.
// - Scores are in units of log 2, so that exp2 does. To that of a key which a query does not see the lowest score is added.

const QUERIES: u32 = 4u;
const KEYS: u32 = 2u;
const QUADS: u32 = 8u; // of channels in a head
const LANES: u32 = 8u; // threads of a workgroup
const SHARE: u32 = 1u; // of them fetch for one another; a subgroup has at least so many
const TURN: u32 = 1u; // keys a turn of those that are held: KEYS, where lanes hold so many
const FETCHES: u32 = 2u; // keys that a thread fetches at a time
const CAUSAL: bool = false;
const LOWEST: f32 = -3.4028234e38;
const SLACK: f32 = 32.0; // weights up to 2^32 leave f32 room for 2^96
const LOG2_E: f32 = 1.4426950408889634;
alias V = vec4<f32>;

struct Params {
    samples: u32,
    heads: u32,
    queries: u32,
    keys: u32,
    blocks: u32, // of LANES · QUERIES queries
    token: u32, // texels in a token
    scale: f32,
    mask_sample: u32, // strides
    mask_head: u32,
}

@group(0) @binding(0) var query_texture: texture_storage_2d<rgba32float, read>;
@group(0) @binding(1) var key_texture: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var value_texture: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read_write> dst: array<V>;
@group(0) @binding(5) var<uniform> P: Params;

// #include lib/index
// #include lib/texels

// What `lane` holds, for every thread of a subgroup.
fn share(held: V, lane: u32) -> V {
    return held;
}

// The first lane of a turn, and a constant where there is one turn.
fn turn(t: u32) -> u32 {
    return t;
}

// Whether it is so for a thread of the subgroup, which all go through the same keys.
fn any_thread(own: bool) -> bool {
    return own;
}

fn bias(sample: u32, head: u32, i: u32, j: u32) -> f32 {
    return 0.0;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // That driver makes a kernel anew for values of uniforms that alone decide a loop or a branch, for some at each launch.
    // What comes of `group.z`, which is zero, it does not know.
    let keys = P.keys + group.z;
    let queries = P.queries + group.z;
    let workgroup = linear_group(group, groups);
    let block = workgroup % P.blocks;
    let head = workgroup / P.blocks % P.heads;
    let sample = workgroup / P.blocks / P.heads;
    if (sample >= P.samples) {
        return;
    }
    let lane = local % SHARE;
    // A thread beyond the last query stays, to fetch keys for the others.
    let first = (block * LANES + local) * QUERIES;

    var q: array<array<V, QUADS>, QUERIES>; // #registers
    var sum: array<array<V, QUADS>, QUERIES>; // #registers
    var m: array<f32, QUERIES>; // #registers
    var seen: array<f32, QUERIES>; // #registers
    var l: array<f32, QUERIES>; // #registers
    for (var i = 0u; i < QUERIES; i++) { // #unroll
        m[i] = LOWEST;
        seen[i] = LOWEST;
        let query = (sample * queries + min(first + i, queries - 1u)) * P.token + head * QUADS;
        for (var c = 0u; c < QUADS; c++) { // #unroll
            q[i][c] = textureLoad(query_texture, texel(query + c)) * (P.scale * LOG2_E);
        }
    }
    var end = keys;
    if (CAUSAL) {
        end = min(end, (block + 1u) * LANES * QUERIES);
    }
    var j = 0u;
    while (j < end) {
        // Sums are scaled to the highest scores by now.
        for (var i = 0u; i < QUERIES; i++) { // #unroll
            let shrink = exp2(m[i] - seen[i]);
            m[i] = seen[i];
            l[i] *= shrink;
            for (var c = 0u; c < QUADS; c++) { // #unroll
                sum[i][c] *= shrink;
            }
        }
        var beyond = false;
        while (j < end && !beyond) {
            var k: array<array<V, QUADS>, FETCHES>; // #registers
            var v: array<array<V, QUADS>, FETCHES>; // #registers
            for (var f = 0u; f < FETCHES; f++) { // #unroll
                let at = (sample * keys + min(j + f * SHARE + lane, keys - 1u)) * P.token + head * QUADS;
                for (var c = 0u; c < QUADS; c++) { // #unroll
                    k[f][c] = textureLoad(key_texture, texel(at + c));
                    v[f][c] = textureLoad(value_texture, texel(at + c));
                }
            }
            var t = 0u;
            while (t < SHARE) {
                var s: array<array<f32, KEYS>, QUERIES>; // #registers
                var w: array<array<V, KEYS>, QUADS>; // #registers
                for (var c = 0u; c < QUADS; c++) { // #unroll
                    for (var u = 0u; u < KEYS; u++) { // #unroll
                        w[c][u] = share(k[u / SHARE][c], turn(t) + u % SHARE);
                    }
                    for (var i = 0u; i < QUERIES; i++) { // #unroll
                        for (var u = 0u; u < KEYS; u++) { // #unroll
                            s[i][u] = fma(q[i][c].x, w[c][u].x, s[i][u]);
                            s[i][u] = fma(q[i][c].y, w[c][u].y, s[i][u]);
                            s[i][u] = fma(q[i][c].z, w[c][u].z, s[i][u]);
                            s[i][u] = fma(q[i][c].w, w[c][u].w, s[i][u]);
                        }
                    }
                }
                for (var i = 0u; i < QUERIES; i++) { // #unroll
                    for (var u = 0u; u < KEYS; u++) { // #unroll
                        s[i][u] += added(sample, head, first + i, j + t + u);
                        seen[i] = max(seen[i], s[i][u]);
                    }
                    beyond = beyond || seen[i] - m[i] > SLACK;
                }
                beyond = any_thread(beyond);
                if (beyond) {
                    break;
                }
                for (var i = 0u; i < QUERIES; i++) { // #unroll
                    for (var u = 0u; u < KEYS; u++) { // #unroll
                        s[i][u] = exp2(s[i][u] - m[i]);
                        l[i] += s[i][u];
                    }
                }
                for (var c = 0u; c < QUADS; c++) { // #unroll
                    for (var u = 0u; u < KEYS; u++) { // #unroll
                        w[c][u] = share(v[u / SHARE][c], turn(t) + u % SHARE);
                    }
                    for (var i = 0u; i < QUERIES; i++) { // #unroll
                        for (var u = 0u; u < KEYS; u++) { // #unroll
                            sum[i][c] = fma(V(s[i][u]), w[c][u], sum[i][c]);
                        }
                    }
                }
                t += TURN;
            }
            j += t * FETCHES;
        }
    }
    for (var i = 0u; i < QUERIES; i++) { // #unroll
        if (first + i < queries) {
            // A query that sees no key gives zeros.
            let factor = select(0.0, 1.0 / l[i], m[i] > LOWEST);
            let query = (sample * queries + first + i) * P.token + head * QUADS;
            for (var c = 0u; c < QUADS; c++) { // #unroll
                dst[query + c] = sum[i][c] * factor;
            }
        }
    }
}

// What is added to the product of query i and key j.
fn added(sample: u32, head: u32, i: u32, j: u32) -> f32 {
    let in_score = LOG2_E * bias(sample, head, min(i, P.queries - 1u), min(j, P.keys - 1u));
    return select(LOWEST, in_score, j < P.keys && (!CAUSAL || j <= i));
}

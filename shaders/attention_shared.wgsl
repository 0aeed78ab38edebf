// dst[n, i, h] = Σ_j softmax_j( scale · q[n, i, h] · k[n, j, h] + mask[n, h, i, j] ) v[n, j, h]
//
// Scaled dot-product attention in tiles that threads share in workgroup memory (FlashAttention-2: Dao, 2023).
// q, dst: [n, lq, heads · d]; k, v: [n, lk, heads · d], d a multiple of four.
//
// A workgroup computes ROWS queries of one head and goes through the keys, KEYS at a time. ACROSS threads share
// a query. Of its ROWS_HELD queries a thread first computes the scores of KEYS_HELD keys, in registers, then sums
// of values: QUADS_HELD quads of channels for the weights of its part of the keys. So a number of workgroup memory
// serves four to eight multiply-adds in registers. ACROSS = ACROSS_CHANNELS · ACROSS_KEYS threads divide channels
// and weights between them; the sums of parts of the keys are added at the end. As both products have the same
// queries in a thread, the running maximum m and the factor by which it shrinks what was summed stay in registers.
//
// The same memory holds keys, then values; what comes next is fetched into registers while a product is computed
// (EARLY), unless that takes too many. Scores are in units of log 2, so that the weights are powers of two.

const ROWS_HELD: u32 = 4u;
const KEYS_HELD: u32 = 4u; // a multiple of four
const QUADS_HELD: u32 = 5u;
const ACROSS: u32 = 8u; // a power of two from 4 on
const ACROSS_CHANNELS: u32 = 2u;
const ACROSS_KEYS: u32 = 4u; // ACROSS / ACROSS_CHANNELS
const DOWN: u32 = 16u; // even
const THREADS: u32 = 128u; // DOWN · ACROSS
const ROWS: u32 = 64u; // DOWN · ROWS_HELD
const KEYS: u32 = 32u; // ACROSS · KEYS_HELD
const QUADS: u32 = 10u; // of channels in a head
const DEPTH: u32 = 10u; // ACROSS_CHANNELS · QUADS_HELD, those past QUADS are zeros
const LOADS: u32 = 3u; // quads of a tile that a thread fetches: KEYS · DEPTH / THREADS, rounded up
const EARLY: bool = true;
const CAUSAL: bool = false;
const MASKED: bool = false;
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
    queries: u32,
    keys: u32,
    tiles: u32, // of ROWS queries
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

// Quads from one line to the next: odd, so that neighbouring lines lie in different banks.
const LINE: u32 = DEPTH / 2u * 2u + 1u;
const WEIGHTS_LINE: u32 = KEYS / 4u + 1u;
const LOG2_E: f32 = 1.4426950408889634;
const LOWEST: f32 = -3.4028234e38;

var<workgroup> queries: array<V, ROWS * LINE>; // at last sums over a part of the keys
var<workgroup> tile: array<V, KEYS * LINE>; // of keys, then of values
var<workgroup> weights: array<V, ROWS * WEIGHTS_LINE>;
var<workgroup> parts: array<f32, ACROSS * ROWS>; // of each thread: its largest score of a query, at last its sum of weights

// #include lib/heads

// The i-th quad of a tile that begins with key j, zeros past the end.
fn fetch_key(sample: u32, head: u32, j: u32, i: u32) -> V {
    let token = j + i / DEPTH;
    let quad = i % DEPTH;
    if (token < P.keys && quad < QUADS && i < KEYS * DEPTH) {
        return V(key[key_place(sample * P.keys + token, head, QUADS, quad)]);
    }
    return V();
}

fn fetch_value(sample: u32, head: u32, j: u32, i: u32) -> V {
    let token = j + i / DEPTH;
    let quad = i % DEPTH;
    if (token < P.keys && quad < QUADS && i < KEYS * DEPTH) {
        return V(value[value_place(sample * P.keys + token, head, QUADS, quad)]);
    }
    return V();
}

fn keep(i: u32, quad: V) {
    if (i < KEYS * DEPTH) {
        tile[i / DEPTH * LINE + i % DEPTH] = quad;
    }
}

fn bias(sample: u32, head: u32, i: u32, j: u32) -> f32 {
    return 0.0;
}

// A bias in units of log 2. The lowest of numbers, by which some hide keys, stays one.
fn in_log2(bias: f32) -> f32 {
    return select(bias * LOG2_E, bias, bias < LOWEST / 2.0);
}

// Whether query i may look at key j.
fn seen(i: u32, j: u32) -> bool {
    return j < P.keys && (!CAUSAL || j <= i);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // As in lib/index, but naga takes what functions return to differ between threads, and then allows no barriers.
    let block = group.y * groups.x + group.x;
    let first = block % P.tiles * ROWS;
    let head = block / P.tiles % P.heads;
    let sample = block / P.tiles / P.heads;
    if (sample >= P.samples) {
        return;
    }
    // Of four neighbouring threads two share keys and two share queries: GPUs then serve twice as many of them at once.
    let across = (local & 1u) | ((local >> 1u) & (ACROSS - 2u));
    let down = ((local >> 1u) & 1u) | (local / (2u * ACROSS) * 2u);
    let own_channels = across % ACROSS_CHANNELS;
    let own_keys = across / ACROSS_CHANNELS;

    for (var at = local; at < ROWS * DEPTH; at += THREADS) {
        let i = at / DEPTH;
        let quad = at % DEPTH;
        var q = V();
        if (first + i < P.queries && quad < QUADS) {
            q = V(query[query_place(sample * P.queries + first + i, head, QUADS, quad)]) * (P.scale * LOG2_E);
        }
        queries[i * LINE + quad] = q;
    }

    var sum: array<array<V, QUADS_HELD>, ROWS_HELD>; // #registers
    var m: array<f32, ROWS_HELD>; // #registers
    var l: array<f32, ROWS_HELD>; // #registers
    var next: array<V, LOADS>; // #registers
    for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
        m[r] = LOWEST;
    }
    var end = P.keys;
    if (CAUSAL) {
        end = min(end, first + ROWS);
    }
    if (EARLY) {
        for (var n = 0u; n < LOADS; n++) { // #unroll
            next[n] = fetch_key(sample, head, 0u, local + n * THREADS);
        }
    }
    for (var j = 0u; j < end; j += KEYS) {
        // Whether some keys are hidden from some queries.
        let hides = j + KEYS > P.keys || (CAUSAL && j + KEYS > first + 1u);
        if (!EARLY) {
            for (var n = 0u; n < LOADS; n++) { // #unroll
                next[n] = fetch_key(sample, head, j, local + n * THREADS);
            }
        }
        workgroupBarrier(); // the values that were there are done with
        for (var n = 0u; n < LOADS; n++) { // #unroll
            keep(local + n * THREADS, next[n]);
        }
        workgroupBarrier(); // queries and keys are there
        if (EARLY) {
            for (var n = 0u; n < LOADS; n++) { // #unroll
                next[n] = fetch_value(sample, head, j, local + n * THREADS);
            }
        }

        // Scores of queries down + r · DOWN with keys j + across + t · ACROSS.
        var s: array<array<f32, KEYS_HELD>, ROWS_HELD>; // #registers
        for (var c = 0u; c < QUADS; c++) {
            var q: array<V, ROWS_HELD>; // #registers
            for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
                q[r] = queries[(down + r * DOWN) * LINE + c];
            }
            for (var t = 0u; t < KEYS_HELD; t++) { // #unroll
                let k = tile[(across + t * ACROSS) * LINE + c];
                for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
                    // Not `dot`, after which some compilers add in an instruction of its own.
                    s[r][t] = q[r].w * k.w + (q[r].z * k.z + (q[r].y * k.y + (q[r].x * k.x + s[r][t])));
                }
            }
        }
        if (MASKED) {
            for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
                for (var t = 0u; t < KEYS_HELD; t++) { // #unroll
                    let i = min(first + down + r * DOWN, P.queries - 1u);
                    s[r][t] += in_log2(bias(sample, head, i, min(j + across + t * ACROSS, P.keys - 1u)));
                }
            }
        }
        if (hides) {
            for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
                for (var t = 0u; t < KEYS_HELD; t++) { // #unroll
                    s[r][t] = select(LOWEST, s[r][t], seen(first + down + r * DOWN, j + across + t * ACROSS));
                }
            }
        }
        for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
            var highest = s[r][0];
            for (var t = 0u; t < KEYS_HELD; t++) { // #unroll
                highest = max(highest, s[r][t]);
            }
            parts[across * ROWS + down + r * DOWN] = highest;
        }
        if (!EARLY) {
            for (var n = 0u; n < LOADS; n++) { // #unroll
                next[n] = fetch_value(sample, head, j, local + n * THREADS);
            }
        }
        workgroupBarrier(); // the keys are done with, the largest scores are there
        for (var n = 0u; n < LOADS; n++) { // #unroll
            keep(local + n * THREADS, next[n]);
        }
        for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
            let row = down + r * DOWN;
            var highest = m[r];
            for (var a = 0u; a < ACROSS; a++) { // #unroll
                highest = max(highest, parts[a * ROWS + row]);
            }
            let shrink = exp2(m[r] - highest);
            m[r] = highest;
            l[r] *= shrink;
            for (var c = 0u; c < QUADS_HELD; c++) { // #unroll
                sum[r][c] *= shrink;
            }
            for (var t = 0u; t < KEYS_HELD; t++) { // #unroll
                s[r][t] = exp2(s[r][t] - highest);
            }
            if (hides) {
                for (var t = 0u; t < KEYS_HELD; t++) { // #unroll
                    s[r][t] = select(0.0, s[r][t], seen(first + row, j + across + t * ACROSS));
                }
            }
            for (var t = 0u; t < KEYS_HELD; t++) { // #unroll
                l[r] += s[r][t];
            }
            // A quad is of keys ACROSS apart, of which the sums below read the values.
            for (var four = 0u; four < KEYS_HELD / 4u; four++) { // #unroll
                weights[row * WEIGHTS_LINE + four * ACROSS + across] =
                    V(s[r][four * 4u], s[r][four * 4u + 1u], s[r][four * 4u + 2u], s[r][four * 4u + 3u]);
            }
        }
        workgroupBarrier(); // values and weights are there
        if (EARLY) {
            for (var n = 0u; n < LOADS; n++) { // #unroll
                next[n] = fetch_key(sample, head, j + KEYS, local + n * THREADS);
            }
        }

        // Sums of quads own_channels + c · ACROSS_CHANNELS over one part of the weights. Parts are
        // neighbouring runs of ACROSS_CHANNELS quads, so that threads read lines of values in different banks.
        for (var step = 0u; step < KEYS_HELD / 4u * ACROSS_CHANNELS; step++) {
            let four = step / ACROSS_CHANNELS;
            let line = own_keys * ACROSS_CHANNELS + step % ACROSS_CHANNELS;
            var w: array<V, ROWS_HELD>; // #registers
            for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
                w[r] = weights[(down + r * DOWN) * WEIGHTS_LINE + four * ACROSS + line];
            }
            for (var t = 0u; t < 4u; t++) { // #unroll
                for (var c = 0u; c < QUADS_HELD; c++) { // #unroll
                    let v = tile[((four * 4u + t) * ACROSS + line) * LINE + own_channels + c * ACROSS_CHANNELS];
                    for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
                        sum[r][c] += w[r][t] * v;
                    }
                }
            }
        }
    }

    // The parts of the keys, one after the other, and the sums of weights.
    for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
        parts[across * ROWS + down + r * DOWN] = l[r];
    }
    for (var part = 1u; part < ACROSS_KEYS; part++) {
        workgroupBarrier(); // queries, or the part before, are done with
        if (own_keys == part) {
            for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
                for (var c = 0u; c < QUADS_HELD; c++) { // #unroll
                    queries[(down + r * DOWN) * LINE + own_channels + c * ACROSS_CHANNELS] = sum[r][c];
                }
            }
        }
        workgroupBarrier(); // this part is there
        if (own_keys == 0u) {
            for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
                for (var c = 0u; c < QUADS_HELD; c++) { // #unroll
                    sum[r][c] += queries[(down + r * DOWN) * LINE + own_channels + c * ACROSS_CHANNELS];
                }
            }
        }
    }
    workgroupBarrier(); // sums of weights are there
    for (var r = 0u; r < ROWS_HELD; r++) { // #unroll
        let row = down + r * DOWN;
        var total = 0.0;
        for (var a = 0u; a < ACROSS; a++) { // #unroll
            total += parts[a * ROWS + row];
        }
        // A query that sees no key gives zeros.
        let factor = select(0.0, 1.0 / total, total > 0.0);
        for (var c = 0u; c < QUADS_HELD; c++) { // #unroll
            let quad = own_channels + c * ACROSS_CHANNELS;
            if (own_keys == 0u && first + row < P.queries && quad < QUADS) {
                dst[place(sample * P.queries + first + row, P.heads, head, QUADS, quad)] = Dst(sum[r][c] * factor);
            }
        }
    }
}

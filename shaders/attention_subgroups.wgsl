// dst[n, i, h] = Σ_j softmax_j( scale · q[n, i, h] · k[n, j, h] + mask[n, h, i, j] ) v[n, j, h]
//
// Scaled dot-product attention in cooperative matrices of f16 whose products are summed in f32: small ones that the
// threads of a subgroup hold together. q, dst: [n, lq, heads · d]; k, v: [n, lk, heads · d], d a multiple of eight.
//
// Every subgroup computes SIDE queries of one head and streams through the keys, KEYS at a time, which the workgroup
// fetches together while those before are worked on. A running maximum is subtracted from the scores before they become
// weights (Milakov and Gimelshein, 2018), but one that lags behind: numbers that a subgroup holds together can be scaled
// row by row in memory only, so what was summed is scaled down only when a score exceeds that maximum by SLACK powers of
// two, as FlashAttention-4 does; f16 holds larger weights as exactly. After the first keys that hardly ever happens.
//
// Scores and weights lie in workgroup memory, where SHARE threads have a query; no other subgroup looks at them. All
// subgroups have LANES threads. Eight numbers of f16 go about as a vector of four of f32, see lib/matrices.

enable f16;
enable wgpu_cooperative_matrix;

const SIDE: u32 = 16u; // of a matrix
const SUBGROUPS: u32 = 4u;
const LANES: u32 = 32u;
const THREADS: u32 = 128u; // SUBGROUPS · LANES
const ROWS: u32 = 64u; // SUBGROUPS · SIDE, no more than 2 · KEYS
const SHARE: u32 = 2u; // LANES / SIDE
const KEYS: u32 = 64u;
const DEPTH: u32 = 64u; // channels in a head up to whole matrices
const HELD_KEYS: u32 = 4u; // KEYS / SIDE
const HELD_CHANNELS: u32 = 4u; // DEPTH / SIDE
const LOADS: u32 = 4u; // eights of keys that a thread fetches, and of values: KEYS · DEPTH / 8 / THREADS, up
const EIGHTS_SHARED: u32 = 4u; // of scores of a query that a thread has: KEYS / 8 / SHARE
const CAUSAL: bool = false;
alias Left = coop_mat16x16<f32, A>;
alias Right = coop_mat16x16<f32, B>;
alias Sum = coop_mat16x16<f32, C>;
alias Mask = f32;

struct Params {
    samples: u32,
    heads: u32,
    eights: u32, // in a head
    queries: u32,
    keys: u32,
    tiles: u32, // of ROWS queries
    scale: f32, // times log2(e)
    mask_sample: u32, // strides
    mask_head: u32,
}

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> mask: array<Mask>;
@group(0) @binding(4) var<storage, read_write> dst: array<vec4<f16>>;
@group(0) @binding(5) var<uniform> P: Params;

const SLACK: f32 = 8.0;
// Below every score there can be, and far above what stands for keys that are not seen.
const LOWEST: f32 = -1e30;
const UNSEEN: f32 = -3e38;

// Eights, and quads of scores, from one line to the next: more than there are, so that the lines of a matrix lie in
// different banks.
const LINE: u32 = DEPTH / 8u + 1u;
const WEIGHTS_LINE: u32 = KEYS / 8u + 1u;
const SCORES_LINE: u32 = KEYS / 4u + 1u;

var<workgroup> tokens: array<vec4<f32>, 2u * KEYS * LINE>; // at first queries, then keys and values
var<workgroup> scores: array<vec4<f32>, ROWS * SCORES_LINE>; // and sums, a column of matrices at a time
var<workgroup> weights: array<vec4<f32>, ROWS * WEIGHTS_LINE>;

fn place(token: u32, head: u32, eight: u32) -> u32 {
    return (token * P.heads + head) * P.eights + eight;
}

// Scores of four keys, with what is to be added to them, in powers of two.
fn biased(products: vec4<f32>, sample: u32, head: u32, i: u32, j: u32) -> vec4<f32> {
    return products;
}

// Whether query i may look at key j.
fn seen(i: u32, j: u32) -> bool {
    return j < P.keys && (!CAUSAL || j <= i);
}

// The i-th eight of a block of tokens, zeros past the last one.
fn fetch_key(first: u32, end: u32, sample: u32, head: u32, i: u32) -> vec4<f32> {
    let token = first + i / (DEPTH / 8u);
    let eight = i % (DEPTH / 8u);
    if (i < KEYS * (DEPTH / 8u) && token < end && eight < P.eights) {
        return key[place(sample * P.keys + token, head, eight)];
    }
    return vec4<f32>();
}

fn fetch_value(first: u32, end: u32, sample: u32, head: u32, i: u32) -> vec4<f32> {
    let token = first + i / (DEPTH / 8u);
    let eight = i % (DEPTH / 8u);
    if (i < KEYS * (DEPTH / 8u) && token < end && eight < P.eights) {
        return value[place(sample * P.keys + token, head, eight)];
    }
    return vec4<f32>();
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32, @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    // As in lib/index, but naga takes what functions return to differ between threads, and then allows no barriers.
    let tile = group.y * groups.x + group.x;
    let head = tile % P.heads;
    let first = tile / P.heads % P.tiles * ROWS;
    let sample = tile / P.heads / P.tiles;
    if (sample >= P.samples) {
        return;
    }
    for (var at = local; at < ROWS * (DEPTH / 8u); at += THREADS) {
        let i = at / (DEPTH / 8u);
        let eight = at % (DEPTH / 8u);
        var of_query = vec4<f32>();
        if (first + i < P.queries && eight < P.eights) {
            of_query = query[place(sample * P.queries + first + i, head, eight)];
        }
        tokens[i * LINE + eight] = of_query;
    }
    var end = P.keys;
    if (CAUSAL) {
        end = min(end, first + ROWS);
    }
    var fetched_keys: array<vec4<f32>, LOADS>; // #registers
    var fetched_values: array<vec4<f32>, LOADS>; // #registers
    for (var i = 0u; i < LOADS; i++) { // #unroll
        fetched_keys[i] = fetch_key(0u, end, sample, head, local + i * THREADS);
        fetched_values[i] = fetch_value(0u, end, sample, head, local + i * THREADS);
    }
    workgroupBarrier(); // queries are there
    var of_queries: array<Left, HELD_CHANNELS>; // #registers
    for (var k = 0u; k < HELD_CHANNELS; k++) { // #unroll
        of_queries[k] = coopLoadT<Left>(&tokens[subgroup * SIDE * LINE + k * (SIDE / 8u)], LINE);
    }

    // Of this thread's query, and of it the scores that it has.
    let own = subgroup * SIDE + lane / SHARE;
    let part = lane % SHARE;
    var largest = LOWEST;
    var total = 0.0;
    var zero: Sum;
    var score: array<Sum, HELD_KEYS>; // #registers
    var sum: array<Sum, HELD_CHANNELS>; // #registers
    var s: array<vec4<f32>, 2u * EIGHTS_SHARED>; // #registers
    for (var j = 0u; j < end; j += KEYS) {
        workgroupBarrier(); // the tokens before are done with
        for (var i = 0u; i < LOADS; i++) { // #unroll
            let at = local + i * THREADS;
            if (at < KEYS * (DEPTH / 8u)) {
                tokens[at / (DEPTH / 8u) * LINE + at % (DEPTH / 8u)] = fetched_keys[i];
                tokens[(KEYS + at / (DEPTH / 8u)) * LINE + at % (DEPTH / 8u)] = fetched_values[i];
            }
        }
        workgroupBarrier(); // keys and values are there
        if (j + KEYS < end) {
            for (var i = 0u; i < LOADS; i++) { // #unroll
                fetched_keys[i] = fetch_key(j + KEYS, end, sample, head, local + i * THREADS);
                fetched_values[i] = fetch_value(j + KEYS, end, sample, head, local + i * THREADS);
            }
        }
        for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
            score[t] = zero;
        }
        for (var k = 0u; k < HELD_CHANNELS; k++) { // #unroll
            for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
                let of_keys = coopLoad<Right>(&tokens[t * SIDE * LINE + k * (SIDE / 8u)], LINE);
                score[t] = coopMultiplyAdd(of_queries[k], of_keys, score[t]);
            }
        }
        for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
            coopStoreT(score[t], &scores[subgroup * SIDE * SCORES_LINE + t * (SIDE / 4u)], SCORES_LINE);
        }
        subgroupBarrier(); // scores are there
        var highest = LOWEST;
        for (var i = 0u; i < EIGHTS_SHARED; i++) { // #unroll
            for (var half = 0u; half < 2u; half++) { // #unroll
                let quad = (i * SHARE + part) * 2u + half;
                s[i * 2u + half] = biased(scores[own * SCORES_LINE + quad] * P.scale, sample, head, first + own, j + quad * 4u);
            }
        }
        if (CAUSAL || j + KEYS > P.keys) {
            for (var i = 0u; i < EIGHTS_SHARED * 2u; i++) { // #unroll
                for (var t = 0u; t < 4u; t++) { // #unroll
                    let at = j + (i / 2u * SHARE + part) * 8u + i % 2u * 4u + t;
                    s[i][t] = select(UNSEEN, s[i][t], seen(first + own, at));
                }
            }
        }
        for (var i = 0u; i < EIGHTS_SHARED * 2u; i++) { // #unroll
            highest = max(highest, max(max(s[i].x, s[i].y), max(s[i].z, s[i].w)));
        }
        for (var apart = 1u; apart < SHARE; apart *= 2u) {
            highest = max(highest, subgroupShuffleXor(highest, apart));
        }
        // A loop of one turn at most: in a branch naga allows no operations of subgroups.
        for (var scaled = !subgroupAny(highest > largest + SLACK); !scaled; scaled = true) {
            let shrink = exp2(largest - max(largest, highest));
            largest = max(largest, highest);
            total *= shrink;
            for (var c = 0u; c < HELD_CHANNELS; c++) { // #unroll
                subgroupBarrier(); // what was there is done with
                coopStoreT(sum[c], &scores[subgroup * SIDE * SCORES_LINE], SCORES_LINE);
                subgroupBarrier(); // sums are there
                for (var quad = part; quad < SIDE / 4u; quad += SHARE) {
                    scores[own * SCORES_LINE + quad] *= shrink;
                }
                subgroupBarrier(); // they are scaled
                sum[c] = coopLoadT<Sum>(&scores[subgroup * SIDE * SCORES_LINE], SCORES_LINE);
            }
        }
        for (var i = 0u; i < EIGHTS_SHARED; i++) { // #unroll
            let low = exp2(s[i * 2u] - vec4<f32>(largest));
            let high = exp2(s[i * 2u + 1u] - vec4<f32>(largest));
            total += ((low.x + low.y) + (low.z + low.w)) + ((high.x + high.y) + (high.z + high.w));
            weights[own * WEIGHTS_LINE + i * SHARE + part] = bitcast<vec4<f32>>(vec4<u32>(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw)));
        }
        subgroupBarrier(); // weights are there
        for (var k = 0u; k < HELD_KEYS; k++) { // #unroll
            let of_weights = coopLoadT<Left>(&weights[subgroup * SIDE * WEIGHTS_LINE + k * (SIDE / 8u)], WEIGHTS_LINE);
            for (var c = 0u; c < HELD_CHANNELS; c++) { // #unroll
                let of_values = coopLoadT<Right>(&tokens[(KEYS + k * SIDE) * LINE + c * (SIDE / 8u)], LINE);
                sum[c] = coopMultiplyAdd(of_weights, of_values, sum[c]);
            }
        }
    }

    for (var apart = 1u; apart < SHARE; apart *= 2u) {
        total += subgroupShuffleXor(total, apart);
    }
    // A query that sees no key gives zeros.
    let factor = select(0.0, 1.0 / total, total > 0.0);
    for (var c = 0u; c < HELD_CHANNELS; c++) { // #unroll
        subgroupBarrier(); // what was there is done with
        coopStoreT(sum[c], &scores[subgroup * SIDE * SCORES_LINE], SCORES_LINE);
        subgroupBarrier(); // sums are there
        for (var quad = part; quad < SIDE / 4u; quad += SHARE) {
            if (first + own < P.queries && c * (SIDE / 4u) + quad < 2u * P.eights) {
                dst[2u * place(sample * P.queries + first + own, head, 0u) + c * (SIDE / 4u) + quad] = vec4<f16>(scores[own * SCORES_LINE + quad] * factor);
            }
        }
    }
}

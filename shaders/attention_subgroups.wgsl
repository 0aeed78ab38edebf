// dst[n, i, h] = Σ_j softmax_j( scale · q[n, i, h] · k[n, j, h] + mask[n, h, i, j] ) v[n, j, h]
//
// Scaled dot-product attention in cooperative matrices of f16 whose products are summed in f32: small ones that the
// threads of a subgroup hold together. q, dst: [n, lq, heads · d]; k, v: [n, lk, heads · d], d a multiple of eight.
//
// Every subgroup computes SIDE queries of one head and streams through the keys, KEYS at a time, which the
// workgroup fetches together while those before are worked on. A running maximum is subtracted from the scores before they
// become weights (Milakov and Gimelshein, 2018), but one that lags behind: what was summed is scaled down only when a score
// exceeds that maximum by SLACK powers of two, as FlashAttention-4 does; f16 holds larger weights as exactly. After the first
// keys that hardly ever happens.
//
// Scores become weights where they are, in registers: each thread computes the numbers that it holds, whichever they are
// (lib/elements), with the maximum of each query in a matrix whose rows are all of that number. Only weights go through
// workgroup memory, where they become a factor, and scores where it must be known which is whose: for a new maximum and
// where keys are hidden. There SHARE threads have a query; no other subgroup looks at it. All subgroups have LANES threads.
// Eight numbers of f16 go about as a vector of four of f32, see lib/matrices.

enable f16;
enable wgpu_cooperative_matrix;

const SIDE: u32 = 16u; // of a matrix
const SUBGROUPS: u32 = 4u;
const LANES: u32 = 32u;
const THREADS: u32 = 128u; // SUBGROUPS · LANES
const ROWS: u32 = 64u; // SUBGROUPS · SIDE, no more than 2 · KEYS
const SHARE: u32 = 2u; // LANES / SIDE
const KEYS: u32 = 64u; // at least 2 · SIDE
const DEPTH: u32 = 64u; // channels in a head up to whole matrices
const HELD_KEYS: u32 = 4u; // KEYS / SIDE
const HELD_CHANNELS: u32 = 4u; // DEPTH / SIDE
const LOADS: u32 = 4u; // eights of keys that a thread fetches, and of values: KEYS · DEPTH / 8 / THREADS, up
const NUMBERS: u32 = 8u; // of a matrix that a thread holds: SIDE · SIDE / LANES
const CAUSAL: bool = false;
const MASKED: bool = false;
alias Left = coop_mat16x16<f32, A>;
alias Right = coop_mat16x16<f32, B>;
alias Sum = coop_mat16x16<f32, C>;
alias Mask = f32;

struct Params {
    samples: u32,
    heads: u32,
    query_heads: u32, // in a token
    key_heads: u32, // and of values
    first_key: u32,
    first_value: u32,
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
var<workgroup> scores: array<vec4<f32>, ROWS * SCORES_LINE>; // and what else becomes known by row
var<workgroup> weights: array<vec4<f32>, ROWS * WEIGHTS_LINE>;

// #include lib/elements

// A matrix of weights, in f16.
fn store_halves(m: Sum, at: u32) {
    coopStoreT(m, &weights[at], WEIGHTS_LINE);
}

// #include lib/heads

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
        return key[key_place(sample * P.keys + token, head, P.eights, eight)];
    }
    return vec4<f32>();
}

fn fetch_value(first: u32, end: u32, sample: u32, head: u32, i: u32) -> vec4<f32> {
    let token = first + i / (DEPTH / 8u);
    let eight = i % (DEPTH / 8u);
    if (i < KEYS * (DEPTH / 8u) && token < end && eight < P.eights) {
        return value[value_place(sample * P.keys + token, head, P.eights, eight)];
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
            of_query = query[query_place(sample * P.queries + first + i, head, P.eights, eight)];
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

    // Where this subgroup's scores and weights begin; of its queries, this thread's one.
    let own_scores = subgroup * SIDE * SCORES_LINE;
    let own_weights = subgroup * SIDE * WEIGHTS_LINE;
    let own_query = first + subgroup * SIDE + lane / SHARE;
    let line = own_scores + lane / SHARE * SCORES_LINE;
    let part = lane % SHARE;
    var zero: Sum;
    var score: array<Sum, HELD_KEYS>; // #registers
    var sum: array<Sum, HELD_CHANNELS>; // #registers
    var total: Sum;
    // The maximum that is subtracted: of this thread's query, and of all of them.
    var largest = LOWEST;
    var limit: Sum;
    var shrink: Sum;
    for (var i = 0u; i < NUMBERS; i++) { // #unroll
        set_number(&limit, i, LOWEST);
    }
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
            for (var k = 0u; k < HELD_CHANNELS; k++) { // #unroll
                let of_keys = coopLoad<Right>(&tokens[t * SIDE * LINE + k * (SIDE / 8u)], LINE);
                score[t] = coopMultiplyAdd(of_queries[k], of_keys, score[t]);
            }
        }
        // What scores are still to be multiplied by.
        var factor = P.scale;
        // A loop of one turn at most: in a branch naga allows no operations of subgroups.
        for (var whole = !MASKED && !CAUSAL && j + KEYS <= P.keys; !whole; whole = true) {
            factor = 1.0;
            subgroupBarrier(); // what was there is done with
            for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
                coopStoreT(score[t], &scores[own_scores + t * (SIDE / 4u)], SCORES_LINE);
            }
            subgroupBarrier(); // scores are there
            for (var quad = part; quad < KEYS / 4u; quad += SHARE) {
                var s = biased(scores[line + quad] * P.scale, sample, head, own_query, j + quad * 4u);
                for (var t = 0u; t < 4u; t++) { // #unroll
                    s[t] = select(UNSEEN, s[t], seen(own_query, j + quad * 4u + t));
                }
                scores[line + quad] = s;
            }
            subgroupBarrier(); // those that count are left
            for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
                score[t] = coopLoadT<Sum>(&scores[own_scores + t * (SIDE / 4u)], SCORES_LINE);
            }
        }
        var above = -SLACK;
        for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
            for (var i = 0u; i < NUMBERS; i++) { // #unroll
                above = max(above, fma(number(&score[t], i), factor, -number(&limit, i)));
            }
        }
        for (var scaled = !subgroupAny(above > SLACK); !scaled; scaled = true) {
            subgroupBarrier(); // what was there is done with
            for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
                coopStoreT(score[t], &scores[own_scores + t * (SIDE / 4u)], SCORES_LINE);
            }
            subgroupBarrier(); // scores are there
            var highest = LOWEST;
            for (var quad = part; quad < KEYS / 4u; quad += SHARE) {
                let s = scores[line + quad] * factor;
                highest = max(highest, max(max(s.x, s.y), max(s.z, s.w)));
            }
            for (var apart = 1u; apart < SHARE; apart *= 2u) {
                highest = max(highest, subgroupShuffleXor(highest, apart));
            }
            let before = largest;
            largest = max(before, highest);
            subgroupBarrier(); // scores are done with
            for (var quad = part; quad < SIDE / 4u; quad += SHARE) {
                scores[line + quad] = vec4<f32>(largest);
                scores[line + SIDE / 4u + quad] = vec4<f32>(exp2(before - largest));
            }
            subgroupBarrier(); // rows are there
            limit = coopLoadT<Sum>(&scores[own_scores], SCORES_LINE);
            shrink = coopLoadT<Sum>(&scores[own_scores + SIDE / 4u], SCORES_LINE);
            for (var i = 0u; i < NUMBERS; i++) { // #unroll
                set_number(&total, i, number(&total, i) * number(&shrink, i));
                for (var c = 0u; c < HELD_CHANNELS; c++) { // #unroll
                    set_number(&sum[c], i, number(&sum[c], i) * number(&shrink, i));
                }
            }
        }
        for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
            for (var i = 0u; i < NUMBERS; i++) { // #unroll
                set_number(&score[t], i, exp2(fma(number(&score[t], i), factor, -number(&limit, i))));
            }
            total = total + score[t];
            store_halves(score[t], own_weights + t * (SIDE / 8u));
        }
        subgroupBarrier(); // weights are there
        for (var k = 0u; k < HELD_KEYS; k++) { // #unroll
            let of_weights = coopLoadT<Left>(&weights[own_weights + k * (SIDE / 8u)], WEIGHTS_LINE);
            for (var c = 0u; c < HELD_CHANNELS; c++) { // #unroll
                let of_values = coopLoadT<Right>(&tokens[(KEYS + k * SIDE) * LINE + c * (SIDE / 8u)], LINE);
                sum[c] = coopMultiplyAdd(of_weights, of_values, sum[c]);
            }
        }
    }

    subgroupBarrier(); // what was there is done with
    coopStoreT(total, &scores[own_scores], SCORES_LINE);
    subgroupBarrier(); // totals are there
    var all = 0.0;
    for (var quad = 0u; quad < SIDE / 4u; quad++) {
        let weights_of_four = scores[line + quad];
        all += (weights_of_four.x + weights_of_four.y) + (weights_of_four.z + weights_of_four.w);
    }
    // A query that sees no key gives zeros. If a driver deals out the numbers of a matrix otherwise, all is NaN, not merely wrong;
    // one that depends on a parameter, as naga refuses NaN where it can compute it.
    let unknown = held_numbers(total) != NUMBERS;
    let inverse = select(select(0.0, 1.0 / all, all > 0.0), bitcast<f32>(0x7fc00000u + NUMBERS * P.samples), unknown);
    for (var c = 0u; c < HELD_CHANNELS; c++) { // #unroll
        subgroupBarrier(); // what was there is done with
        coopStoreT(sum[c], &scores[own_scores], SCORES_LINE);
        subgroupBarrier(); // sums are there
        for (var quad = part; quad < SIDE / 4u; quad += SHARE) {
            if (own_query < P.queries && c * (SIDE / 4u) + quad < 2u * P.eights) {
                dst[2u * place(sample * P.queries + own_query, P.heads, head, P.eights, 0u) + c * (SIDE / 4u) + quad] = vec4<f16>(scores[line + quad] * inverse);
            }
        }
    }
}

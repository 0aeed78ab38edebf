// dst[n, i, h] = Σ_j softmax_j( scale · q[n, i, h] · k[n, j, h] + mask[n, h, i, j] ) v[n, j, h]
//
// Scaled dot-product attention in cooperative matrices of f16 whose products are summed in f32: small ones that the
// threads of a subgroup hold together. q, dst: [n, lq, heads · d]; k, v: [n, lk, heads · d], d a multiple of four.
//
// A workgroup computes SIDE queries of one head for each of its SUBGROUPS subgroups, and goes through the keys twice,
// KEYS at a time: first for the largest score of each query, then for the weights exp(score − largest), their sum, and
// the sums of values. Once would do if sums could be scaled line by line while subgroups hold them, as a running
// maximum wants; they cannot be in WGSL, and scores computed twice are still cheaper than sums in memory. Scores and
// weights go through workgroup memory, where a thread has a query of its own. A weight is two numbers of f16, the nearest
// and what is left, which together are as good as one of f32.
//
// A subgroup has no more than THREADS / SUBGROUPS threads; where it has fewer, there are subgroups to spare.

enable f16;
enable wgpu_cooperative_matrix;

const SIDE: u32 = 16u; // of a matrix
const SUBGROUPS: u32 = 4u;
const THREADS: u32 = 128u; // no fewer than ROWS
const ROWS: u32 = 64u; // SUBGROUPS · SIDE
const KEYS: u32 = 32u;
const DEPTH: u32 = 64u; // channels in a head up to whole matrices
const HELD_KEYS: u32 = 2u; // KEYS / SIDE
const HELD_CHANNELS: u32 = 4u; // DEPTH / SIDE
const CAUSAL: bool = false;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
alias Mask = f32;

struct Params {
    samples: u32,
    heads: u32,
    query_heads: u32, // in a token
    key_heads: u32, // and of values
    first_key: u32,
    first_value: u32,
    quads: u32, // in a head
    queries: u32,
    keys: u32,
    tiles: u32, // of ROWS queries
    scale: f32,
    mask_sample: u32, // strides
    mask_head: u32,
}

@group(0) @binding(0) var<storage, read> query: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read> mask: array<Mask>;
@group(0) @binding(4) var<storage, read_write> dst: array<vec4<f16>>;
@group(0) @binding(5) var<uniform> P: Params;


// Quads from one line to the next: more than there are, so that the lines of a matrix lie in different banks.
const LINE: u32 = DEPTH / 4u + 2u;
const WEIGHTS_LINE: u32 = KEYS / 4u + 2u;
const SCORES_LINE: u32 = KEYS / 4u + 1u;

var<workgroup> queries: array<vec4<f16>, ROWS * LINE>;
var<workgroup> keys: array<vec4<f16>, KEYS * LINE>;
var<workgroup> values: array<vec4<f16>, KEYS * LINE>;
var<workgroup> scores: array<vec4<f32>, ROWS * SCORES_LINE>; // at last sums, a matrix of each subgroup
var<workgroup> weights: array<vec4<f16>, 2u * ROWS * WEIGHTS_LINE>; // and after all of them what they leave
var<workgroup> totals: array<f32, ROWS>; // of weights

// #include lib/heads

fn bias(sample: u32, head: u32, i: u32, j: u32) -> f32 {
    return 0.0;
}

// Whether query i may look at key j.
fn seen(i: u32, j: u32) -> bool {
    return j < P.keys && (!CAUSAL || j <= i);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32, @builtin(subgroup_id) subgroup: u32) {
    // As in lib/index, but naga takes what functions return to differ between threads, and then allows no barriers.
    let tile = group.y * groups.x + group.x;
    let head = tile % P.heads;
    let first = tile / P.heads % P.tiles * ROWS;
    let sample = tile / P.heads / P.tiles;
    if (sample >= P.samples) {
        return;
    }
    for (var at = local; at < ROWS * (DEPTH / 4u); at += THREADS) {
        let i = at / (DEPTH / 4u);
        let quad = at % (DEPTH / 4u);
        var quad_of_query = vec4<f16>();
        if (first + i < P.queries && quad < P.quads) {
            quad_of_query = query[query_place(sample * P.queries + first + i, head, P.quads, quad)];
        }
        queries[i * LINE + quad] = quad_of_query;
    }
    var end = P.keys;
    if (CAUSAL) {
        end = min(end, first + ROWS);
    }

    // Of this thread's own query, if it has one.
    let own_query = first + local;
    var largest = -3.4028234e38;
    var total = 0.0;
    var zero: Sum;
    var score: array<Sum, HELD_KEYS>; // #registers
    var sum: array<Sum, HELD_CHANNELS>; // #registers
    for (var pass = 0u; pass < 2u; pass++) { // #unroll
        for (var j = 0u; j < end; j += KEYS) {
            workgroupBarrier(); // what was there is done with
            for (var at = local; at < KEYS * (DEPTH / 4u); at += THREADS) {
                let t = at / (DEPTH / 4u);
                let quad = at % (DEPTH / 4u);
                let there = j + t < P.keys && quad < P.quads;
                let token = sample * P.keys + j + t;
                var quad_of_key = vec4<f16>();
                var quad_of_value = vec4<f16>();
                if (there) {
                    quad_of_key = key[key_place(token, head, P.quads, quad)];
                    if (pass == 1u) {
                        quad_of_value = value[value_place(token, head, P.quads, quad)];
                    }
                }
                keys[t * LINE + quad] = quad_of_key;
                if (pass == 1u) {
                    values[t * LINE + quad] = quad_of_value;
                }
            }
            workgroupBarrier(); // queries, keys and values are there
            for (var own = subgroup; own < SUBGROUPS; own += SUBGROUPS) {
                for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
                    score[t] = zero;
                }
                for (var k = 0u; k < DEPTH / SIDE; k++) {
                    let of_queries = coopLoadT<Left>(&queries[own * SIDE * LINE + k * (SIDE / 4u)], LINE);
                    for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
                        let of_keys = coopLoad<Right>(&keys[t * SIDE * LINE + k * (SIDE / 4u)], LINE);
                        score[t] = coopMultiplyAdd(of_queries, of_keys, score[t]);
                    }
                }
                for (var t = 0u; t < HELD_KEYS; t++) { // #unroll
                    coopStoreT(score[t], &scores[own * SIDE * SCORES_LINE + t * (SIDE / 4u)], SCORES_LINE);
                }
            }
            workgroupBarrier(); // scores are there
            if (local < ROWS) {
                for (var quad = 0u; quad < KEYS / 4u; quad++) {
                    let products = scores[local * SCORES_LINE + quad];
                    var quad_of_weights = vec4<f32>();
                    for (var lane = 0u; lane < 4u; lane++) { // #unroll
                        let at = j + quad * 4u + lane;
                        if (seen(own_query, at)) {
                            let biased = products[lane] * P.scale + bias(sample, head, min(own_query, P.queries - 1u), at);
                            if (pass == 0u) {
                                largest = max(largest, biased);
                            } else {
                                quad_of_weights[lane] = exp(biased - largest);
                                total += quad_of_weights[lane];
                            }
                        }
                    }
                    if (pass == 1u) {
                        let nearest = vec4<f16>(quad_of_weights);
                        weights[local * WEIGHTS_LINE + quad] = nearest;
                        weights[(ROWS + local) * WEIGHTS_LINE + quad] = vec4<f16>(quad_of_weights - vec4<f32>(nearest));
                    }
                }
            }
            if (pass == 1u) {
                workgroupBarrier(); // weights are there
                for (var own = subgroup; own < SUBGROUPS; own += SUBGROUPS) {
                    for (var k = 0u; k < KEYS / SIDE; k++) {
                        let of_weights = coopLoadT<Left>(&weights[own * SIDE * WEIGHTS_LINE + k * (SIDE / 4u)], WEIGHTS_LINE);
                        let of_rests = coopLoadT<Left>(&weights[(ROWS + own * SIDE) * WEIGHTS_LINE + k * (SIDE / 4u)], WEIGHTS_LINE);
                        for (var c = 0u; c < HELD_CHANNELS; c++) { // #unroll
                            let of_values = coopLoadT<Right>(&values[k * SIDE * LINE + c * (SIDE / 4u)], LINE);
                            sum[c] = coopMultiplyAdd(of_rests, of_values, sum[c]);
                            sum[c] = coopMultiplyAdd(of_weights, of_values, sum[c]);
                        }
                    }
                }
            }
        }
    }

    if (local < ROWS) {
        totals[local] = total;
    }
    for (var c = 0u; c < HELD_CHANNELS; c++) { // #unroll
        for (var own = subgroup; own < SUBGROUPS; own += SUBGROUPS) {
            coopStoreT(sum[c], &scores[own * (SIDE * SIDE / 4u)], SIDE / 4u);
        }
        workgroupBarrier(); // totals and a matrix of each subgroup are there
        for (var at = local; at < ROWS * (SIDE / 4u); at += THREADS) {
            let i = at / (SIDE / 4u);
            let quad = c * (SIDE / 4u) + at % (SIDE / 4u);
            if (first + i < P.queries && quad < P.quads) {
                // A query that sees no key gives zeros.
                let factor = select(0.0, 1.0 / totals[i], totals[i] > 0.0);
                dst[place(sample * P.queries + first + i, P.heads, head, P.quads, quad)] = vec4<f16>(scores[at] * factor);
            }
        }
        workgroupBarrier(); // it is written
    }
}

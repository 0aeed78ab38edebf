// picked[l, 0], picked[l, 1], … = the candidate with the highest score above `least`; then the best of those whose
// intersection over union with no picked one is above `overlap`; and so on, `most` times. Of equals the first.
//
// boxes: [n, candidates, 4], two opposite corners, or, where CENTRE, the centre and the size; scores: [n · classes, candidates], a
// list l each; overlap, least: one number each; left: [n · classes, candidates], room for who is left; counts: how many of a
// list are picked. One workgroup does one list: each thread keeps an eye on every 64th of those with a high enough score.

const CENTRE: bool = false;

struct Params {
    lists: u32,
    classes: u32,
    candidates: u32,
    most: u32,
}

const THREADS: u32 = 64u;
const NOBODY: u32 = 0xffffffffu;

@group(0) @binding(0) var<storage, read> boxes: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read> overlap: array<f32>;
@group(0) @binding(3) var<storage, read> least: array<f32>;
@group(0) @binding(4) var<storage, read_write> left: array<u32>;
@group(0) @binding(5) var<storage, read_write> picked: array<u32>;
@group(0) @binding(6) var<storage, read_write> counts: array<u32>;
@group(0) @binding(7) var<uniform> P: Params;

var<workgroup> counter: atomic<u32>;
var<workgroup> total: u32;
var<workgroup> keys: array<u32, THREADS>;
var<workgroup> places: array<u32, THREADS>;

// #include lib/index
// #include lib/boxes
// #include lib/ranking

fn edges(b: vec4<f32>) -> vec4<f32> {
    if (CENTRE) {
        return vec4<f32>(b.xy - 0.5 * b.zw, b.xy + 0.5 * b.zw);
    }
    return vec4<f32>(min(b.xy, b.zw), max(b.xy, b.zw));
}

fn counts_at_all(score: f32) -> bool {
    return score > least[0];
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let list = linear_group(group, groups);
    if (list >= P.lists) {
        return;
    }
    let base = list * P.candidates;
    let first = list / P.classes * P.candidates;
    if (local == 0u) {
        atomicStore(&counter, 0u);
    }
    workgroupBarrier(); // it is zero before anybody adds
    for (var i = local; i < P.candidates; i += THREADS) {
        if (counts_at_all(scores[base + i])) {
            left[base + min(atomicAdd(&counter, 1u), P.candidates - 1u)] = i;
        }
    }
    storageBarrier(); // all that are high enough are there
    if (local == 0u) {
        total = atomicLoad(&counter);
    }
    let found = workgroupUniformLoad(&total);

    var picks = 0u;
    var chosen = vec4<f32>(0.0);
    while (picks < P.most) {
        var key = 0u;
        var place = NOBODY;
        for (var slot = local; slot < found; slot += THREADS) {
            let i = left[base + slot];
            if (i == NOBODY) {
                continue;
            }
            if (picks > 0u && intersection_over_union(edges(boxes[first + i]), chosen) > overlap[0]) {
                left[base + slot] = NOBODY;
                continue;
            }
            let own = key_of_f32(scores[base + i]);
            if (own > key || (own == key && i < place)) {
                key = own;
                place = i;
            }
        }
        keys[local] = key;
        places[local] = place;
        workgroupBarrier(); // all candidates of this round are there
        for (var half = THREADS / 2u; half > 0u; half /= 2u) {
            if (local < half) {
                let other = keys[local + half];
                if (other > keys[local] || (other == keys[local] && places[local + half] < places[local])) {
                    keys[local] = other;
                    places[local] = places[local + half];
                }
            }
            workgroupBarrier(); // this half is folded
        }
        let best = workgroupUniformLoad(&places[0]);
        if (best == NOBODY) {
            break;
        }
        chosen = edges(boxes[first + best]);
        // A box without an area does not cover itself.
        for (var slot = local; slot < found; slot += THREADS) {
            if (left[base + slot] == best) {
                left[base + slot] = NOBODY;
            }
        }
        if (local == 0u) {
            picked[list * P.most + picks] = best;
        }
        picks++;
    }
    if (local == 0u) {
        counts[list] = picks;
    }
}

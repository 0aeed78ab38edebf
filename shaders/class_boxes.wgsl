// Greedy non-maximum suppression within each class: of the `MOST` candidates with the highest scores the best, without
// those that overlap it by more than `overlap` (intersection over union); then the best of the rest, and so on.
//
// boxes: [n, count, 4], left, top, right, bottom; scores: [n, count, classes]; best, place: [n, classes − first, keep],
// scores and indices of what is kept, best first; −1 after the last.
// One workgroup does one class of a picture. A binary search over the bits of the scores finds the lowest one that counts,
// a second one over the indices of equals; what is above is then ordered by counting what comes before.

struct Params {
    pictures: u32,
    count: u32,
    classes: u32,
    first: u32, // 1 where class 0 is the background
    keep: u32, // at most MOST
    least: f32, // lower scores do not count; at least 0
    overlap: f32,
}

const THREADS: u32 = 256u;
const MOST: u32 = 300u;

@group(0) @binding(0) var<storage, read> boxes: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read_write> best: array<f32>;
@group(0) @binding(3) var<storage, read_write> place: array<u32>;
@group(0) @binding(4) var<uniform> P: Params;

var<workgroup> counter: atomic<u32>;
var<workgroup> total: u32;
var<workgroup> loose_keys: array<u32, MOST>;
var<workgroup> loose_places: array<u32, MOST>;
var<workgroup> keys: array<u32, MOST>;
var<workgroup> places: array<u32, MOST>;
var<workgroup> alive: array<u32, MOST>;

// #include lib/index
// #include lib/boxes

// A number that grows with the score; 0 for one that does not count.
fn key_of(score: f32) -> u32 {
    return select(0u, bitcast<u32>(abs(score)) + 1u, score >= P.least);
}

// How many candidates have a higher key, or this one and an index below `end`. The same for all threads.
fn count_before(base: u32, local: u32, key: u32, end: u32) -> u32 {
    if (local == 0u) {
        atomicStore(&counter, 0u);
    }
    workgroupBarrier(); // it is zero before anybody adds
    var own = 0u;
    for (var i = local; i < P.count; i += THREADS) {
        let other = key_of(scores[base + i * P.classes]);
        own += select(0u, 1u, other > key || (other == key && i < end));
    }
    atomicAdd(&counter, own);
    workgroupBarrier(); // all have added
    if (local == 0u) {
        total = atomicLoad(&counter);
    }
    return workgroupUniformLoad(&total);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lists = P.classes - P.first;
    let list = linear_group(group, groups);
    if (list >= P.pictures * lists) {
        return;
    }
    let picture = list / lists;
    let first = picture * P.count;
    let base = first * P.classes + P.first + list % lists;

    // Candidates with a key above `key` count, and those that have it and an index below `end`.
    var key = 0u;
    var end = 0u;
    if (count_before(base, local, 0u, 0u) > MOST) {
        for (var bit = 1u << 30u; bit > 0u; bit >>= 1u) {
            // The highest key that too many, or just enough, reach.
            if (count_before(base, local, (key | bit) - 1u, 0u) >= MOST) {
                key |= bit;
            }
        }
        for (var bit = 1u << firstLeadingBit(P.count); bit > 0u; bit >>= 1u) {
            if (count_before(base, local, key, end | bit) <= MOST) {
                end |= bit;
            }
        }
    }
    if (local == 0u) {
        atomicStore(&counter, 0u);
    }
    workgroupBarrier(); // it is zero before anybody adds
    for (var i = local; i < P.count; i += THREADS) {
        let own = key_of(scores[base + i * P.classes]);
        if (own > key || (own == key && i < end)) {
            let slot = min(atomicAdd(&counter, 1u), MOST - 1u);
            loose_keys[slot] = own;
            loose_places[slot] = i;
        }
    }
    workgroupBarrier(); // all that count are there
    if (local == 0u) {
        total = min(atomicLoad(&counter), MOST);
    }
    let found = workgroupUniformLoad(&total);
    for (var s = local; s < found; s += THREADS) {
        var rank = 0u;
        for (var other = 0u; other < found; other++) {
            let higher = loose_keys[other] > loose_keys[s];
            let earlier = loose_keys[other] == loose_keys[s] && loose_places[other] < loose_places[s];
            rank += select(0u, 1u, higher || earlier);
        }
        keys[rank] = loose_keys[s];
        places[rank] = loose_places[s];
        alive[rank] = 1u;
    }
    workgroupBarrier(); // they are in order

    var kept = 0u;
    for (var k = 0u; k < found; k++) {
        if (kept == P.keep) {
            break;
        }
        if (workgroupUniformLoad(&alive[k]) == 1u) {
            let chosen = boxes[first + places[k]];
            for (var s = k + 1u + local; s < found; s += THREADS) {
                if (intersection_over_union(boxes[first + places[s]], chosen) > P.overlap) {
                    alive[s] = 0u;
                }
            }
            if (local == 0u) {
                best[list * P.keep + kept] = bitcast<f32>(keys[k] - 1u);
                place[list * P.keep + kept] = places[k];
            }
            kept++;
        }
    }
    for (var k = kept + local; k < P.keep; k += THREADS) {
        best[list * P.keep + k] = -1.0;
        place[list * P.keep + k] = 0u;
    }
}

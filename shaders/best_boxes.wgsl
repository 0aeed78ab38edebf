// Greedy non-maximum suppression: the best box, without those of its class (of any, where `across`) that
// overlap it by more than `overlap` (intersection over union); then the best of the rest, and so on, `keep` times.
//
// boxes: [n, count, 4], left, top, right, bottom; best: [n, count], below 0 for no candidate, and written over; kind: [n, count];
// dst: [n, keep, 6], the four edges moved to the picture and cut at its border, score, class; zeros after the last.
// One workgroup does one picture: each thread keeps an eye on every 256th candidate.

struct Params {
    pictures: u32,
    count: u32,
    keep: u32,
    overlap: f32,
    across: u32,
    scale_x: f32, // place in the picture = scale · place of the box + shift
    shift_x: f32,
    scale_y: f32,
    shift_y: f32,
    width: f32, // of the picture
    height: f32,
}

const THREADS: u32 = 256u;

@group(0) @binding(0) var<storage, read> boxes: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> kind: array<u32>;
@group(0) @binding(2) var<storage, read_write> best: array<f32>;
@group(0) @binding(3) var<storage, read_write> dst: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;

var<workgroup> scores: array<f32, THREADS>;
var<workgroup> places: array<u32, THREADS>;

// #include lib/index
// #include lib/boxes

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let picture = linear_group(group, groups);
    if (picture >= P.pictures) {
        return;
    }
    let first = picture * P.count;
    var kept = 0u;
    for (var k = 0u; k < P.keep; k++) {
        var most = -1.0;
        var at = 0u;
        for (var i = local; i < P.count; i += THREADS) {
            let score = best[first + i];
            if (score > most) {
                most = score;
                at = i;
            }
        }
        scores[local] = most;
        places[local] = at;
        workgroupBarrier(); // all candidates of this round are there
        for (var half = THREADS / 2u; half > 0u; half /= 2u) {
            if (local < half) {
                let other = scores[local + half];
                // The first of equals, so that the order of threads does not matter.
                if (other > scores[local] || (other == scores[local] && places[local + half] < places[local])) {
                    scores[local] = other;
                    places[local] = places[local + half];
                }
            }
            workgroupBarrier(); // this half is folded
        }
        let score = workgroupUniformLoad(&scores[0]);
        if (score < 0.0) {
            break;
        }
        let place = places[0];
        let chosen = boxes[first + place];
        let class_chosen = kind[first + place];
        if (local == 0u) {
            let scale = vec4<f32>(P.scale_x, P.scale_y, P.scale_x, P.scale_y);
            let shift = vec4<f32>(P.shift_x, P.shift_y, P.shift_x, P.shift_y);
            let edges = clamp(chosen * scale + shift, vec4<f32>(0.0), vec4<f32>(P.width, P.height, P.width, P.height));
            let line = (picture * P.keep + k) * 6u;
            for (var e = 0u; e < 4u; e++) {
                dst[line + e] = edges[e];
            }
            dst[line + 4u] = score;
            dst[line + 5u] = f32(class_chosen);
        }
        for (var i = local; i < P.count; i += THREADS) {
            let same = P.across == 1u || kind[first + i] == class_chosen;
            if (i == place || (same && intersection_over_union(boxes[first + i], chosen) > P.overlap)) {
                best[first + i] = -1.0;
            }
        }
        kept = k + 1u;
        workgroupBarrier(); // everybody has read the best before the next round writes it
    }
    for (var i = kept * 6u + local; i < P.keep * 6u; i += THREADS) {
        dst[picture * P.keep * 6u + i] = 0.0;
    }
}

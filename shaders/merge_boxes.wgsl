// The best boxes of all classes: of the heads of the classes' lists the best, which moves that list on; `keep` times.
//
// boxes: [n, count, 4]; best, place: [n, lists, length], scores and indices of boxes, best first, −1 after the last;
// heads: [n, lists], room to count in; dst: [n, keep, 6], the four edges moved to the picture and cut at its border,
// score, class; zeros after the last. One workgroup does one picture: each thread keeps an eye on every 256th list.

struct Params {
    pictures: u32,
    count: u32,
    lists: u32,
    length: u32,
    first: u32, // class of the first list
    keep: u32,
    scale_x: f32, // place in the picture = scale · place of the box + shift
    shift_x: f32,
    scale_y: f32,
    shift_y: f32,
    width: f32, // of the picture
    height: f32,
}

const THREADS: u32 = 256u;

@group(0) @binding(0) var<storage, read> boxes: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> best: array<f32>;
@group(0) @binding(2) var<storage, read> place: array<u32>;
@group(0) @binding(3) var<storage, read_write> heads: array<u32>;
@group(0) @binding(4) var<storage, read_write> dst: array<f32>;
@group(0) @binding(5) var<uniform> P: Params;

var<workgroup> scores: array<f32, THREADS>;
var<workgroup> list_of: array<u32, THREADS>;

// #include lib/index

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let picture = linear_group(group, groups);
    if (picture >= P.pictures) {
        return;
    }
    let first = picture * P.lists;
    for (var l = local; l < P.lists; l += THREADS) {
        heads[first + l] = 0u;
    }
    var kept = 0u;
    for (var k = 0u; k < P.keep; k++) {
        var most = -1.0;
        var at = 0u;
        for (var l = local; l < P.lists; l += THREADS) {
            let head = heads[first + l];
            let score = select(-1.0, best[(first + l) * P.length + min(head, P.length - 1u)], head < P.length);
            if (score > most) {
                most = score;
                at = l;
            }
        }
        scores[local] = most;
        list_of[local] = at;
        workgroupBarrier(); // all lists of this round are there
        for (var half = THREADS / 2u; half > 0u; half /= 2u) {
            if (local < half) {
                let other = scores[local + half];
                // The first of equals, so that the order of threads does not matter.
                if (other > scores[local] || (other == scores[local] && list_of[local + half] < list_of[local])) {
                    scores[local] = other;
                    list_of[local] = list_of[local + half];
                }
            }
            workgroupBarrier(); // this half is folded
        }
        let score = workgroupUniformLoad(&scores[0]);
        if (score < 0.0) {
            break;
        }
        let list = list_of[0];
        // Only the thread that watches the list reads and writes its head.
        if (local == list % THREADS) {
            let head = min(heads[first + list], P.length - 1u);
            let chosen = boxes[picture * P.count + min(place[(first + list) * P.length + head], P.count - 1u)];
            let scale = vec4<f32>(P.scale_x, P.scale_y, P.scale_x, P.scale_y);
            let shift = vec4<f32>(P.shift_x, P.shift_y, P.shift_x, P.shift_y);
            let edges = clamp(chosen * scale + shift, vec4<f32>(0.0), vec4<f32>(P.width, P.height, P.width, P.height));
            let line = (picture * P.keep + k) * 6u;
            for (var e = 0u; e < 4u; e++) {
                dst[line + e] = edges[e];
            }
            dst[line + 4u] = score;
            dst[line + 5u] = f32(P.first + list);
            heads[first + list] = head + 1u;
        }
        kept = k + 1u;
        workgroupBarrier(); // everybody has read the best before the next round writes it
    }
    for (var i = kept * 6u + local; i < P.keep * 6u; i += THREADS) {
        dst[picture * P.keep * 6u + i] = 0.0;
    }
}

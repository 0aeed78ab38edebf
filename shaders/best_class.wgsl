// score[i] = max_c src[i, c] where above least, else −1; class[i] = argmax_c src[i, c], the first of equals; c ≥ first
//
// What a detector's candidates are. src: [count, classes]. One thread does one candidate.

struct Params {
    count: u32,
    classes: u32,
    first: u32, // 1 where class 0 is the background
    least: f32,
}

@group(0) @binding(0) var<storage, read> src: array<f32>;
@group(0) @binding(1) var<storage, read_write> best: array<f32>;
@group(0) @binding(2) var<storage, read_write> kind: array<u32>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    var most = src[i * P.classes + P.first];
    var at = P.first;
    for (var c = P.first + 1u; c < P.classes; c++) {
        let score = src[i * P.classes + c];
        if (score > most) {
            most = score;
            at = c;
        }
    }
    best[i] = select(-1.0, most, most >= P.least);
    kind[i] = at;
}

// dst[o, j, k] = the i at which src[o, i, k] is the j-th largest; of equals the first comes first
//
// Over the middle dimension of [outer, size, inner], for short lines: one thread counts how many elements come before one,
// which is its place. No two have the same place.

alias Elem = f32;

struct Params {
    count: u32, // elements of src
    size: u32,
    inner: u32,
    keep: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<i32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index
// #include lib/ranking

fn key_of(x: Elem) -> u32 {
    return key_of_f32(f32(x));
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 32u);
    if (id >= P.count) {
        return;
    }
    let row = divide(id, P.inner);
    let line = divide(row.x, P.size);
    let own = key_of(src[id]);
    let first = line.x * P.size * P.inner + row.y;
    var place = 0u;
    for (var i = 0u; i < P.size; i++) {
        let key = key_of(src[first + i * P.inner]);
        place += u32(key > own || (key == own && i < line.y));
    }
    if (place < P.keep) {
        dst[(line.x * P.keep + place) * P.inner + row.y] = i32(line.y);
    }
}

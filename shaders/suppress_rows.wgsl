// dst = (how many rows there are, 0, 0), then for each picked candidate, list by list: (picture, class, candidate); zeros after the last
//
// picked: [lists, most], of which the first counts[l] of each list count. One thread writes one row.

struct Params {
    rows: u32, // lists · most + 1
    lists: u32,
    classes: u32,
    most: u32,
}

@group(0) @binding(0) var<storage, read> picked: array<u32>;
@group(0) @binding(1) var<storage, read> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> dst: array<i32>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.rows) {
        return;
    }
    // Of row id the list, and the rows of lists before it; for the first row there is none, so all are counted.
    let wanted = select(id - 1u, 0xffffffffu, id == 0u);
    var list = 0u;
    var before = 0u;
    while (list < P.lists && before + counts[list] <= wanted) {
        before += counts[list];
        list++;
    }
    var row = vec3<u32>(0u);
    if (id == 0u) {
        row.x = before;
    } else if (list < P.lists) {
        row = vec3<u32>(list / P.classes, list % P.classes, picked[list * P.most + min(wanted - before, P.most - 1u)]);
    }
    for (var k = 0u; k < 3u; k++) {
        dst[3u * id + k] = i32(row[k]);
    }
}

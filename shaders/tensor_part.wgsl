// dst[n, y + to_y, i + to_x] = src[n, y + from_y, i + from_x]
//
// Part of a tensor of pictures into part of another: lines of so many elements, whose first is that of the first picture. One
// thread copies one element.

alias Elem = f32;

struct Params {
    line: u32, // elements that are copied of a line
    lines: u32, // of a picture
    samples: u32,
    src_first: u32, // elements
    src_line: u32,
    src_sample: u32,
    dst_first: u32,
    dst_line: u32,
    dst_sample: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    let i = id % P.line;
    let y = id / P.line % P.lines;
    let n = id / P.line / P.lines;
    if (n >= P.samples) {
        return;
    }
    dst[P.dst_first + n * P.dst_sample + y * P.dst_line + i] = src[P.src_first + n * P.src_sample + y * P.src_line + i];
}

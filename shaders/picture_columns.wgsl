// dst[row, x] = clamp((Σ weight[x, k] · src[row, first[x] + k] + 2²¹) >> 22, 0, 255), for each byte
//
// The horizontal pass of a separable resize of pictures of 8-bit sRGB, in the fixed-point arithmetic of Pillow and bit for
// bit its result. src: [rows, width] and dst: [rows, width_out] of words with red in the lowest byte; table: for each
// column first and then the weights, in units of 2⁻²². One thread computes one pixel.

struct Params {
    count: u32,
    width: u32,
    width_out: u32,
    taps: u32,
    fill: u32, // the word of columns that lie outside
}

@group(0) @binding(0) var<storage, read> src: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read_write> dst: array<u32>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index
// #include lib/bytes

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    let line = (i % P.width_out) * (P.taps + 1u);
    let first = table[line];
    if (first == OUTSIDE) {
        dst[i] = P.fill;
        return;
    }
    let row = (i / P.width_out) * P.width;
    var sum = vec4<i32>(HALF);
    for (var k = 0u; k < P.taps; k++) {
        // Short windows end in weights of zero, which may lie past the picture.
        sum += bitcast<i32>(table[line + 1u + k]) * bytes_of(src[row + min(first + k, P.width - 1u)]);
    }
    dst[i] = word_of(clip(sum));
}

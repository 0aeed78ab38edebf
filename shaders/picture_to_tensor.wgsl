// dst[i, y, x, c] = scale[c] · clip(Σ weight[y, k] · src[i, first[y] + k, x]) / 255 + shift[c]
//
// The vertical pass of a separable resize of pictures of 8-bit sRGB (see picture_columns), then what a network reads: three
// channels, or luma of ITU-R BT.601. src: [n, height, width] of words with red in the lowest byte; table: for each row
// first and then the weights, in units of 2⁻²²; dst: [n, height_out, width, channels]. One thread computes one pixel.

const CHANNELS: u32 = 3u;
alias Elem = f32;

struct Params {
    pixels_out: u32, // in all samples
    height: u32,
    width: u32,
    height_out: u32,
    taps: u32,
    fill: u32, // the word of rows that lie outside
    scale0: f32,
    scale1: f32,
    scale2: f32,
    shift0: f32,
    shift1: f32,
    shift2: f32,
}

@group(0) @binding(0) var<storage, read> src: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index
// #include lib/bytes

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let pixel = linear_id(group, groups, local, 64u);
    if (pixel >= P.pixels_out) {
        return;
    }
    let x = pixel % P.width;
    let y = (pixel / P.width) % P.height_out;
    let picture = pixel / (P.width * P.height_out);
    let line = y * (P.taps + 1u);
    let first = table[line];
    var bytes = bytes_of(P.fill);
    if (first != OUTSIDE) {
        var sum = vec4<i32>(HALF);
        for (var k = 0u; k < P.taps; k++) {
            // Short windows end in weights of zero, which may lie past the picture.
            let v = picture * P.height + min(first + k, P.height - 1u);
            sum += bitcast<i32>(table[line + 1u + k]) * bytes_of(src[v * P.width + x]);
        }
        bytes = clip(sum);
    }
    let color = vec3<f32>(bytes.xyz) / 255.0;
    let scale = vec3<f32>(P.scale0, P.scale1, P.scale2);
    let shift = vec3<f32>(P.shift0, P.shift1, P.shift2);
    if (CHANNELS == 1u) {
        dst[pixel] = Elem(dot(color, vec3<f32>(0.299, 0.587, 0.114)) * scale.x + shift.x);
        return;
    }
    let normalised = color * scale + shift;
    for (var c = 0u; c < CHANNELS; c++) {
        dst[pixel * CHANNELS + c] = Elem(normalised[c]);
    }
}

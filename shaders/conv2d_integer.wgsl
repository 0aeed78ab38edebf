// dst[n, y, x, o] = Σ_j Σ_i Σ_c src[n, y · stride − top + j · dilation, x · stride − left + i · dilation, c] · weight[j, i, c, o]
//
// Exact sums in i32, as integers wrap. src [n, h, w, c], dst [n, oh, ow, channels], o in units of V; weight [kh, kw,
// each, channels] with `each` channels of src to a group of `outputs` channels. Taps outside src count for nothing.
//
// One thread computes PIXELS neighbouring pixels × UNITS V of a group in registers: for four channels of a tap it
// loads PIXELS quads of src and 4 · UNITS V of the weight for 4 · PIXELS · UNITS products of V.

const PIXELS: u32 = 4u;
const UNITS: u32 = 2u;
alias V = vec4<i32>;
alias Src = vec4<i32>;

struct Params {
    h: u32,
    w: u32,
    c: u32,
    oh: u32,
    ow: u32,
    samples: u32,
    channels: u32,
    outputs: u32,
    each: u32,
    tiles_x: u32,     // tiles in a row of pixels
    tiles_group: u32, // tiles of V in a group
    tiles: u32,       // of all groups
    kernel_y: u32,
    kernel_x: u32,
    stride_y: u32,
    stride_x: u32,
    dilation_y: u32,
    dilation_x: u32,
    top: u32,
    left: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Src>;
@group(0) @binding(1) var<storage, read> weight: array<V>;
@group(0) @binding(2) var<storage, read_write> dst: array<V>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

// Four channels from number `c` of a group on, which begins at number `start` of src.
fn load(start: u32, c: u32) -> vec4<i32> {
    return vec4<i32>(src[(start + c) / 4u]);
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = linear_id(group, groups, local, 32u);
    let tile = thread % P.tiles;
    let channel_group = tile / P.tiles_group;
    let first = channel_group * P.outputs + tile % P.tiles_group * UNITS;
    let end = (channel_group + 1u) * P.outputs;
    let tile_row = thread / P.tiles / P.tiles_x;
    let x_out = thread / P.tiles % P.tiles_x * PIXELS;
    let y_out = tile_row % P.oh;
    let sample = tile_row / P.oh;
    if (sample >= P.samples) {
        return;
    }
    var sum: array<array<V, UNITS>, PIXELS>; // #registers
    for (var j = 0u; j < P.kernel_y; j++) {
        // Positions left of or above the source wrap to large numbers.
        let y = y_out * P.stride_y + j * P.dilation_y - P.top;
        let line = (sample * P.h + select(0u, y, y < P.h)) * P.w;
        for (var i = 0u; i < P.kernel_x; i++) {
            var inside: array<bool, PIXELS>; // #registers
            var start: array<u32, PIXELS>; // #registers
            for (var p = 0u; p < PIXELS; p++) { // #unroll
                let u = (x_out + p) * P.stride_x + i * P.dilation_x - P.left;
                inside[p] = u < P.w && y < P.h;
                start[p] = (line + select(0u, u, inside[p])) * P.c + channel_group * P.each;
            }
            let row = (j * P.kernel_x + i) * P.each;
            for (var c = 0u; c < P.each; c += 4u) {
                var s: array<vec4<i32>, PIXELS>; // #registers
                for (var p = 0u; p < PIXELS; p++) { // #unroll
                    s[p] = select(vec4<i32>(), load(start[p], c), inside[p]);
                }
                for (var t = 0u; t < 4u; t++) { // #unroll
                    let l = row + min(c + t, P.each - 1u);
                    for (var q = 0u; q < UNITS; q++) { // #unroll
                        let k = weight[l * P.channels + min(first + q, end - 1u)];
                        for (var p = 0u; p < PIXELS; p++) { // #unroll
                            sum[p][q] += s[p][t] * k;
                        }
                    }
                }
            }
        }
    }
    for (var p = 0u; p < PIXELS; p++) { // #unroll
        for (var q = 0u; q < UNITS; q++) { // #unroll
            if (x_out + p < P.ow && first + q < end) {
                dst[((sample * P.oh + y_out) * P.ow + x_out + p) * P.channels + first + q] = sum[p][q];
            }
        }
    }
}

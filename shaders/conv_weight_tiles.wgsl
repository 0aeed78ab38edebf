// dst[(tile, ky, step, ci / 4), (kx, ci % 4, co)] = src[co, ci, ky, step · TAPS + kx]: the order in which conv2d_rows and conv2d_texels read their weight
//
// src: [c_out, c_in, kernel_y, kernel_x]. dst: rows of `row` numbers, one for each
// (tile of QUADS quads of output channels, ky, group of TAPS taps side by side, quad
// of input channels); a row holds [TAPS, 4 input channels, QUADS, 4 output channels].
// Zero where a channel does not exist.
// One thread writes an output channel of a row, 4 · TAPS numbers, as to find its place takes a while.

alias Elem = f32;

struct Params {
    count: u32, // rows · channels
    channels: u32, // of output, in a tile
    c_out: u32,
    c_in: u32,
    quads_in: u32,
    kernel_y: u32,
    steps: u32, // along x, of so many taps
    taps: u32, // side by side in a row
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    let split = divide(i, P.channels);
    let row = split.x;
    let channel = split.y;
    let at = coordinates(row, P.kernel_y, P.steps, P.quads_in);
    let ci = at.w * 4u;
    let kx = at.z * P.taps;
    let ky = at.y;
    let co = at.x * P.channels + channel;

    let kernel_x = P.steps * P.taps;
    let area = P.kernel_y * kernel_x;
    let first = (min(co, P.c_out - 1u) * P.c_in + ci) * area + ky * kernel_x + kx;
    var to = row * P.taps * 4u * P.channels + channel;
    for (var tap = 0u; tap < P.taps; tap++) {
        for (var k = 0u; k < 4u; k++) {
            var value = Elem(0.0);
            if (ci + k < P.c_in && co < P.c_out) {
                value = src[first + k * area + tap];
            }
            dst[to] = value;
            to += P.channels;
        }
    }
}

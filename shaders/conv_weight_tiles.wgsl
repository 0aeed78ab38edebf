// dst[(tile, ky, step, ci / 4), (kx, ci % 4, co)] = src[co, ci, ky, step · TAPS + kx]: the order in which conv2d_rows and conv2d_texels read their weight
//
// src: [c_out, c_in, kernel_y, kernel_x]. dst: rows of `row` numbers, one for each
// (tile of QUADS quads of output channels, ky, group of TAPS taps side by side, quad
// of input channels); a row holds [TAPS, 4 input channels, QUADS, 4 output channels].
// Zero where a channel does not exist.
// One thread writes one number.

alias Elem = f32;

struct Params {
    count: u32, // numbers in dst
    row: u32,   // numbers in a row
    c_out: u32,
    c_in: u32,
    quads_in: u32,
    kernel_y: u32,
    kernel_x: u32,
    taps: u32, // side by side in a row
    quads: u32, // of output channels in a tile
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
    let within = i % P.row;
    let channel = within % (4u * P.quads);
    let lane = (within / (4u * P.quads)) % 4u;
    let tap = within / (16u * P.quads);

    let at = i / P.row;
    let ci = (at % P.quads_in) * 4u + lane;
    let steps = P.kernel_x / P.taps;
    let kx = ((at / P.quads_in) % steps) * P.taps + tap;
    let ky = (at / (P.quads_in * steps)) % P.kernel_y;
    let tile = at / (P.quads_in * steps * P.kernel_y);
    let co = tile * P.quads * 4u + channel;

    var value = Elem(0.0);
    if (ci < P.c_in && co < P.c_out) {
        value = src[((co * P.c_in + ci) * P.kernel_y + ky) * P.kernel_x + kx];
    }
    dst[i] = value;
}

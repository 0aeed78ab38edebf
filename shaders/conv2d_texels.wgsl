// dst[n, y, x, co] = epilogue( start + Σ_{ky, kx, ci} src[n, y·stride + ky·dilation − pad, x·stride + kx·dilation − pad, ci] · weight[ky, kx, ci, co] )
//
// The convolution of conv2d_rows where buffers are slow to read and registers are the
// first-level cache: Mesa's software adapter. src: [n, height, width, c_in], c_in a
// multiple of four; weight: in the order of conv_weight_tiles; both as texels.
// dst: [n, height_out, width_out, c_out].
//
// One thread computes ROWS × PIXELS neighbouring pixels × QUADS quads of channels. For
// each ky and quad of input channels it fetches the COLUMNS source pixels under its PIXELS
// once and uses them for all KERNEL_X taps. Three things make it fast there:
//
// - A fetch costs as much as some twenty multiply-adds, whoever fetches. LANES threads
//   side by side compute the same channels, so each fetches one texel in SHARE of the
//   weight, and they hand them round: ROWS · COLUMNS + 4 · KERNEL_X · QUADS / SHARE fetches
//   for 16 · ROWS · PIXELS · QUADS · KERNEL_X multiply-adds.
// - All products of one result follow each other, so that it stays in a register
//   meanwhile: one operand from the cache for each multiply-add instead of a load and a store.
// - No workgroup memory and no barriers.

const PIXELS: u32 = 8u;
const ROWS: u32 = 1u;
const QUADS: u32 = 4u;
const KERNEL_X: u32 = 3u;
const STRIDE_X: u32 = 1u;
const DILATION_X: u32 = 1u;
const UPSAMPLE: u32 = 1u;
const COLUMNS: u32 = 10u; // (PIXELS - 1) · STRIDE_X + (KERNEL_X - 1) · DILATION_X + 1
const LANES: u32 = 8u; // threads of a workgroup
const SHARE: u32 = 1u; // of them fetch weights for one another; a subgroup has at least so many
const WEIGHTS: u32 = 48u; // KERNEL_X · 4 · QUADS
const FETCHES: u32 = 48u; // WEIGHTS / SHARE
alias V = vec4<f32>;
alias Dst = vec4<f32>;

struct Params {
    height: u32, // of the source, enlarged
    width: u32,
    quads_in: u32, // of a group
    quads_pixel: u32, // of all groups
    height_out: u32,
    width_out: u32,
    samples: u32,
    pixels_sample: u32, // height_out · width_out of the tensor, even when all pixels are taken as one row
    c_out: u32,
    quads_out: u32,
    quads_group: u32, // of the result, in a group
    tiles_x: u32, // tiles in a row
    tiles_y: u32,
    tiles_group: u32, // tiles of quads in a group
    groups: u32,
    kernel_y: u32,
    steps_x: u32, // groups of KERNEL_X taps
    stride_y: u32,
    dilation_y: u32,
    pad_top: u32,
    pad_left: u32,
}

@group(0) @binding(0) var src_texture: texture_storage_2d<rgba32float, read>;
@group(0) @binding(1) var weight_texture: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(3) var<storage, read> extra0: array<Dst>;
@group(0) @binding(4) var<storage, read> extra1: array<Dst>;
@group(0) @binding(5) var<storage, read> extra2: array<Dst>;
@group(0) @binding(6) var<uniform> P: Params;
@group(0) @binding(7) var residual: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/math
// #include lib/quads
// #include lib/texels

// What `lane` holds, for every thread of a subgroup.
fn share(held: V, lane: u32) -> V {
    return held;
}

fn store(pixel: u32, quad: u32, value: V) {
    dst[pixel * P.quads_out + quad] = Dst(value);
}

fn start(sample: u32, at: u32) -> V {
    return V(0.0);
}

fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {
    return value;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let workgroup = linear_group(group, groups);
    let lane = local % SHARE;
    let tile_quads = workgroup % (P.groups * P.tiles_group);
    let tile = workgroup / (P.groups * P.tiles_group) * LANES + local;
    let channel_group = tile_quads / P.tiles_group;
    let first_quad = channel_group * P.quads_group + tile_quads % P.tiles_group * QUADS;
    let end_quad = (channel_group + 1u) * P.quads_group;
    let first_in = channel_group * P.quads_in;
    let tile_row = tile / P.tiles_x;
    let x_out = (tile % P.tiles_x) * PIXELS;
    let y_out = (tile_row % P.tiles_y) * ROWS;
    // A thread beyond the last tile stays, to fetch weights for the others.
    let exists = tile_row / P.tiles_y < P.samples;
    let sample = min(tile_row / P.tiles_y, P.samples - 1u);

    var sum: array<array<array<V, QUADS>, PIXELS>, ROWS>; // #registers
    for (var q = 0u; q < QUADS; q++) { // #unroll
        let first = start(sample, min(first_quad + q, end_quad - 1u));
        for (var r = 0u; r < ROWS; r++) { // #unroll
            for (var p = 0u; p < PIXELS; p++) { // #unroll
                sum[r][p][q] = first;
            }
        }
    }
    for (var ky = 0u; ky < P.kernel_y; ky++) {
        for (var step = 0u; step < P.steps_x; step++) {
            // Where the columns lie and whether they exist. Positions left of or above the source wrap to large numbers.
            let x0 = x_out * STRIDE_X + step * DILATION_X - P.pad_left;
            var at: array<array<u32, COLUMNS>, ROWS>; // #values
            var inside: array<array<bool, COLUMNS>, ROWS>; // #values
            var y_in: array<u32, ROWS>; // #values
            var line: array<u32, ROWS>; // #values
            for (var r = 0u; r < ROWS; r++) { // #unroll
                y_in[r] = (y_out + r) * P.stride_y + ky * P.dilation_y - P.pad_top;
                line[r] = select(0u, (sample * P.height + y_in[r]) / UPSAMPLE, y_in[r] < P.height) * (P.width / UPSAMPLE);
                for (var c = 0u; c < COLUMNS; c++) { // #unroll
                    inside[r][c] = x0 + c < P.width && y_in[r] < P.height;
                    at[r][c] = (line[r] + select(0u, (x0 + c) / UPSAMPLE, inside[r][c])) * P.quads_pixel + first_in;
                }
            }
            let row = ((tile_quads * P.kernel_y + ky) * P.steps_x + step) * P.quads_in;
            for (var quad = 0u; quad < P.quads_in; quad++) {
                var s: array<array<V, COLUMNS>, ROWS>; // #values
                for (var r = 0u; r < ROWS; r++) { // #unroll
                    for (var c = 0u; c < COLUMNS; c++) { // #unroll
                        s[r][c] = select(V(0.0), textureLoad(src_texture, texel(at[r][c] + quad)), inside[r][c]);
                    }
                }
                var held: array<V, FETCHES>; // #values
                var w: array<V, WEIGHTS>; // #values
                for (var f = 0u; f < FETCHES; f++) { // #unroll
                    held[f] = textureLoad(weight_texture, texel((row + quad) * WEIGHTS + f * SHARE + lane));
                    for (var l = 0u; l < SHARE; l++) { // #unroll
                        w[f * SHARE + l] = share(held[f], l);
                    }
                }
                for (var r = 0u; r < ROWS; r++) { // #unroll
                    for (var p = 0u; p < PIXELS; p++) { // #unroll
                        for (var q = 0u; q < QUADS; q++) { // #unroll
                            for (var kx = 0u; kx < KERNEL_X; kx++) { // #unroll
                                sum[r][p][q] = add_products(
                                    s[r][p * STRIDE_X + kx * DILATION_X],
                                    w[(kx * 4u + 0u) * QUADS + q],
                                    w[(kx * 4u + 1u) * QUADS + q],
                                    w[(kx * 4u + 2u) * QUADS + q],
                                    w[(kx * 4u + 3u) * QUADS + q],
                                    sum[r][p][q]);
                            }
                        }
                    }
                }
            }
        }
    }

    for (var r = 0u; r < ROWS; r++) { // #unroll
        for (var p = 0u; p < PIXELS; p++) { // #unroll
            if (exists && y_out + r < P.height_out && x_out + p < P.width_out) {
                let pixel = (sample * P.height_out + y_out + r) * P.width_out + x_out + p;
                for (var q = 0u; q < QUADS; q++) { // #unroll
                    if (first_quad + q < end_quad) {
                        store(pixel, first_quad + q, epilogue(sum[r][p][q], pixel, pixel / P.pixels_sample, first_quad + q));
                    }
                }
            }
        }
    }
}

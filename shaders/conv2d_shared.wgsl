// dst[n, y, x, co] = epilogue( Σ_{ky, kx, ci} src[n, y·stride + ky·dilation − pad, x·stride + kx·dilation − pad, ci] · weight[ky, kx, ci, co] )
//
// Convolution as one matrix product, pixels × (tap, channel) by (tap, channel) × output channels. The left side is never
// written out: it is the source, read where each tap lies. src: [n, height, width, c_in]; dst: [n, height_out, width_out,
// c_out]; weight: in the order of conv_weight_matrices.
//
// A workgroup computes ROWS pixels × COLUMNS channels, DEPTH channels of a tap at a time, zeros where there is no source.
// Its threads bring both sides into workgroup memory, and fetch a step while the one before is multiplied. Each thread
// holds HELD pixels × QUADS quads of channels in registers: for four channels of the source it reads HELD + 4 · QUADS
// vectors for 16 · HELD · QUADS multiply-adds. Its pixels are fours that lie far apart, its quads too, so that neighbours
// read neighbouring vectors. Where the result has too few such parts for a device, their sums are cut in `parts` as
// well, which sum_parts adds.

const UPSAMPLE: u32 = 1u;
const POINTWISE: bool = false; // one tap, at the pixel itself
const WHOLE: bool = false; // channels of the source are a multiple of DEPTH
const ROWS: u32 = 128u;
const COLUMNS: u32 = 128u;
const DEPTH: u32 = 16u;
const HELD: u32 = 8u; // a multiple of four
const QUADS: u32 = 2u;
const EAGER: bool = false; // fetch without a branch, after the last step too: drivers mix what fetches with what multiplies
const THREADS: u32 = 256u; // ROWS / HELD · COLUMNS / (4 · QUADS)
const PATCHES: u32 = 2u; // of 8 × 4 threads, across: COLUMNS / (32 · QUADS)
const LOADS_LEFT: u32 = 2u; // quads that a thread fetches of a side
const LOADS_RIGHT: u32 = 2u;
alias V = vec4<f32>;
alias Src = vec4<f32>;
alias Weight = vec4<f32>;
alias Dst = vec4<f32>;

struct Params {
    height: u32, // of the source, enlarged
    width: u32,
    c_in: u32,
    quads_in: u32,
    height_out: u32,
    width_out: u32,
    pixels: u32, // of the result, in all samples
    pixels_sample: u32, // of the tensor, even when all pixels are taken as one row
    c_out: u32,
    quads_out: u32,
    tiles_x: u32, // of output channels
    tiles: u32, // of pixels and channels
    slices: u32, // of DEPTH channels, for each tap
    steps: u32, // taps · slices
    parts: u32, // of the steps
    steps_part: u32,
    kernel_x: u32,
    stride_y: u32,
    stride_x: u32,
    dilation_y: u32,
    dilation_x: u32,
    pad_top: u32,
    pad_left: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Src>;
@group(0) @binding(1) var<storage, read> weight: array<Weight>;
@group(0) @binding(2) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(3) var<storage, read> extra0: array<Dst>;
@group(0) @binding(4) var<storage, read> extra1: array<Dst>;
@group(0) @binding(5) var<storage, read> extra2: array<Dst>;
@group(0) @binding(6) var<storage, read_write> partial: array<V>; // [parts, pixels, channels]
@group(0) @binding(7) var<uniform> P: Params;

// #include lib/math

const QUADS_LEFT: u32 = DEPTH / 4u;
const QUADS_RIGHT: u32 = COLUMNS / 4u;
const LEFT_LINE: u32 = QUADS_LEFT + 1u; // one more than there are, for other banks
// From one four of pixels that a thread holds to the next, and from one quad of channels.
const FOUR_APART: u32 = ROWS / (HELD / 4u);
const QUAD_APART: u32 = QUADS_RIGHT / QUADS;

var<workgroup> left: array<V, ROWS * LEFT_LINE>;
var<workgroup> right: array<V, DEPTH * QUADS_RIGHT>;

// A place that no tap brings back into the source.
const OUTSIDE: u32 = 0x40000000u;

fn load(pixel: u32, quad: u32) -> vec4<f32> {
    return vec4<f32>(src[pixel * P.quads_in + quad]);
}

// What lies under a tap, zeros outside the source. Positions left of or above it are large numbers. Nothing branches:
// outside, some number is read.
fn fetch(first: u32, y: u32, x: u32, tap_y: u32, tap_x: u32, quad: u32) -> V {
    let at_y = y + tap_y * P.dilation_y;
    let at_x = x + tap_x * P.dilation_x;
    let inside = select(at_y < P.height && at_x < P.width, y == 0u, POINTWISE) && (WHOLE || quad < P.quads_in);
    var pixel = first;
    if (!POINTWISE) {
        pixel = (first + at_y) / UPSAMPLE * (P.width / UPSAMPLE) + at_x / UPSAMPLE;
    }
    return select(V(), load(select(0u, pixel, inside), select(0u, quad, inside)), inside);
}

fn store(pixel: u32, quad: u32, value: V) {
    dst[pixel * P.quads_out + quad] = Dst(value);
}

fn epilogue(value: V, pixel: u32, sample: u32, at: u32) -> V {
    return value;
}

fn finish(value: V, part: u32, pixel: u32, quad: u32) {
    store(pixel, quad, epilogue(value, pixel, pixel / P.pixels_sample, quad));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // As in lib/index, but naga takes what functions return to differ between threads, and then allows no barriers.
    let index = group.y * groups.x + group.x;
    let tile_x = index % P.tiles_x;
    let first_pixel = index % P.tiles / P.tiles_x * ROWS;
    let part = index / P.tiles;
    if (part >= P.parts) {
        return;
    }
    let first_step = part * P.steps_part;
    let end_step = min(first_step + P.steps_part, P.steps);

    // Where the first tap of the pixels lies that this thread fetches: the sample's first line or, where there is but one
    // tap, the pixel; and whether it is there.
    let quad = local % QUADS_LEFT;
    var first: array<u32, LOADS_LEFT>; // #registers
    var at_y: array<u32, LOADS_LEFT>; // #registers
    var at_x: array<u32, LOADS_LEFT>; // #registers
    for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
        let pixel = first_pixel + (local + i * THREADS) / QUADS_LEFT;
        let there = pixel < P.pixels;
        if (POINTWISE) {
            first[i] = pixel;
            at_y[i] = select(OUTSIDE, 0u, there);
        } else {
            let line = pixel / P.width_out;
            first[i] = line / P.height_out * P.height;
            at_y[i] = select(OUTSIDE, line % P.height_out * P.stride_y - P.pad_top, there);
            at_x[i] = pixel % P.width_out * P.stride_x - P.pad_left;
        }
    }
    let first_weight = tile_x * P.steps * (DEPTH * QUADS_RIGHT) + local;
    let last_weight = (tile_x + 1u) * P.steps * (DEPTH * QUADS_RIGHT) - 1u;
    // Of the step that is fetched.
    var slice = first_step % P.slices;
    var tap_y = first_step / P.slices / P.kernel_x;
    var tap_x = first_step / P.slices % P.kernel_x;

    var fetched_left: array<V, LOADS_LEFT>; // #registers
    var fetched_right: array<V, LOADS_RIGHT>; // #registers
    for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
        fetched_left[i] = fetch(first[i], at_y[i], at_x[i], tap_y, tap_x, slice * QUADS_LEFT + quad);
    }
    for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
        fetched_right[i] = V(weight[first_weight + first_step * (DEPTH * QUADS_RIGHT) + i * THREADS]);
    }

    // This thread's place among the others: threads of a patch share what they read.
    let patch_of = local / 32u;
    let across = patch_of % PATCHES * 8u + local % 8u;
    let down = patch_of / PATCHES * 4u + local % 32u / 8u;
    var sum: array<array<V, QUADS>, HELD>; // #registers
    var x: array<V, HELD>; // #registers
    var y: array<V, QUADS>; // #registers
    for (var step = first_step + 1u; step <= end_step; step++) {
        workgroupBarrier(); // the step before is multiplied
        for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
            left[(local + i * THREADS) / QUADS_LEFT * LEFT_LINE + quad] = fetched_left[i];
        }
        for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
            right[local + i * THREADS] = fetched_right[i];
        }
        workgroupBarrier(); // both sides are there
        slice += 1u;
        if (slice == P.slices) {
            slice = 0u;
            tap_x += 1u;
            if (tap_x == P.kernel_x) {
                tap_x = 0u;
                tap_y += 1u;
            }
        }
        if (EAGER || step < end_step) {
            for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
                fetched_left[i] = fetch(first[i], at_y[i], at_x[i], tap_y, tap_x, slice * QUADS_LEFT + quad);
            }
            for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
                fetched_right[i] = V(weight[min(first_weight + step * (DEPTH * QUADS_RIGHT) + i * THREADS, last_weight)]);
            }
        }
        for (var l = 0u; l < DEPTH / 4u; l++) { // #unroll
            for (var r = 0u; r < HELD; r++) { // #unroll
                x[r] = left[(r / 4u * FOUR_APART + down * 4u + r % 4u) * LEFT_LINE + l];
            }
            for (var t = 0u; t < 4u; t++) { // #unroll
                for (var q = 0u; q < QUADS; q++) { // #unroll
                    y[q] = right[(l * 4u + t) * QUADS_RIGHT + q * QUAD_APART + across];
                }
                for (var q = 0u; q < QUADS; q++) { // #unroll
                    for (var r = 0u; r < HELD; r++) { // #unroll
                        sum[r][q] = fma(V(x[r][t]), y[q], sum[r][q]);
                    }
                }
            }
        }
    }

    for (var r = 0u; r < HELD; r++) { // #unroll
        let pixel = first_pixel + r / 4u * FOUR_APART + down * 4u + r % 4u;
        for (var q = 0u; q < QUADS; q++) { // #unroll
            let channels = tile_x * QUADS_RIGHT + q * QUAD_APART + across;
            if (pixel < P.pixels && channels < P.quads_out) {
                finish(sum[r][q], part, pixel, channels);
            }
        }
    }
}

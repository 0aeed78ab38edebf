// dst[n, y, x, co] = epilogue( Σ_{ky, kx, ci} src[n, y·stride + ky·dilation − pad, x·stride + kx·dilation − pad, ci] · weight[ky, kx, ci, co] )
//
// Convolution as one matrix product, pixels × (tap, channel) by (tap, channel) × output channels, in cooperative
// matrices of f16 whose products are summed in f32. The left side is never written out: it is the source, read where
// each tap lies. src: [n, height, width, c_in]; dst: [n, height_out, width_out, c_out]; weight: in the order of
// conv_weight_matrices.
//
// A workgroup computes ROWS pixels × COLUMNS channels, DEPTH channels of a tap at a time, zeros where there is no source
// (lib/matrices). The threads fetch a step while the one before is multiplied. Where the result has too few such parts for a
// device, their sums are cut in `parts` as well, which sum_parts adds.

enable f16;
enable wgpu_cooperative_matrix;

const UPSAMPLE: u32 = 1u;
const POINTWISE: bool = false; // one tap, at the pixel itself
const WHOLE: bool = false; // channels of the source are a multiple of DEPTH
alias V = vec4<f32>;
alias Src = vec4<f32>; // eight numbers
alias Dst = vec4<f16>;

struct Params {
    height: u32, // of the source, enlarged
    width: u32,
    c_in: u32,
    eights_in: u32,
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
@group(0) @binding(1) var<storage, read> weight: array<Eight>;
@group(0) @binding(2) var<storage, read_write> dst: array<Dst>;
@group(0) @binding(3) var<storage, read> extra0: array<Dst>;
@group(0) @binding(4) var<storage, read> extra1: array<Dst>;
@group(0) @binding(5) var<storage, read> extra2: array<Dst>;
@group(0) @binding(6) var<storage, read_write> partial: array<V>; // [parts, pixels, channels]
@group(0) @binding(7) var<uniform> P: Params;

// #include lib/math
// #include lib/matrices

// A place that no tap brings back into the source.
const OUTSIDE: u32 = 0x40000000u;

// The eight at a place, in eights: the pixel's first, and which.
fn load(pixel: u32, eight: u32) -> Eight {
    return src[pixel * P.eights_in + eight];
}

// What lies under a tap, zeros outside the source. Positions left of or above it are large numbers. Nothing branches:
// outside, some number is read.
fn fetch(first: u32, y: u32, x: u32, tap_y: u32, tap_x: u32, eight: u32) -> Eight {
    let at_y = y + tap_y * P.dilation_y;
    let at_x = x + tap_x * P.dilation_x;
    let inside = select(at_y < P.height && at_x < P.width, y == 0u, POINTWISE) && (WHOLE || eight < P.eights_in);
    var pixel = first;
    if (!POINTWISE) {
        pixel = (first + at_y) / UPSAMPLE * (P.width / UPSAMPLE) + at_x / UPSAMPLE;
    }
    return select(Eight(), load(select(0u, pixel, inside), select(0u, eight, inside)), inside);
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
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32, @builtin(subgroup_id) subgroup: u32) {
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
    let eight = local % EIGHTS_LEFT;
    var first: array<u32, LOADS_LEFT>; // #registers
    var at_y: array<u32, LOADS_LEFT>; // #registers
    var at_x: array<u32, LOADS_LEFT>; // #registers
    for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
        let row = (local + i * THREADS) / EIGHTS_LEFT;
        let pixel = first_pixel + row;
        let there = row < ROWS && pixel < P.pixels;
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
    let first_weight = tile_x * P.steps * (LINES_RIGHT * EIGHTS_RIGHT);
    let last_weight = first_weight + P.steps * (LINES_RIGHT * EIGHTS_RIGHT) - 1u;
    // Of the step that is fetched.
    var slice = first_step % P.slices;
    var tap_y = first_step / P.slices / P.kernel_x;
    var tap_x = first_step / P.slices % P.kernel_x;

    var fetched_left: array<Eight, LOADS_LEFT>; // #registers
    var fetched_right: array<Eight, LOADS_RIGHT>; // #registers
    for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
        fetched_left[i] = fetch(first[i], at_y[i], at_x[i], tap_y, tap_x, slice * EIGHTS_LEFT + eight);
    }
    for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
        fetched_right[i] = weight[min(first_weight + first_step * (LINES_RIGHT * EIGHTS_RIGHT) + local + i * THREADS, last_weight)];
    }

    var sum: array<array<Sum, HELD_X>, HELD_Y>; // #registers
    var of_left: array<Left, HELD_Y>; // #registers
    for (var step = first_step + 1u; step <= end_step; step++) {
        workgroupBarrier(); // the step before is multiplied
        for (var i = 0u; i < LOADS_LEFT; i++) { // #unroll
            put_left(local + i * THREADS, fetched_left[i]);
        }
        for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
            put_right(local + i * THREADS, fetched_right[i]);
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
                fetched_left[i] = fetch(first[i], at_y[i], at_x[i], tap_y, tap_x, slice * EIGHTS_LEFT + eight);
            }
            for (var i = 0u; i < LOADS_RIGHT; i++) { // #unroll
                fetched_right[i] = weight[min(first_weight + step * (LINES_RIGHT * EIGHTS_RIGHT) + local + i * THREADS, last_weight)];
            }
        }
        for (var own = subgroup; own < SUBGROUPS; own += SUBGROUPS) { // #once ALIKE
            for (var k = 0u; k < DEPTH / SIDE; k++) {
                for (var i = 0u; i < HELD_Y; i++) { // #unroll
                    of_left[i] = coopLoadT<Left>(&sides[place_left(own, i, k)], LEFT_LINE);
                }
                for (var j = 0u; j < HELD_X; j++) { // #unroll
                    let of_right = coopLoadT<Right>(&sides[place_right(own, j, k)], RIGHT_LINE);
                    for (var i = 0u; i < HELD_Y; i++) { // #unroll
                        sum[i][j] = coopMultiplyAdd(of_left[i], of_right, sum[i][j]);
                    }
                }
            }
        }
    }

    for (var i = 0u; i < HELD_Y; i++) { // #unroll
        workgroupBarrier(); // what was there is done with
        for (var own = subgroup; own < SUBGROUPS; own += SUBGROUPS) { // #once ALIKE
            for (var j = 0u; j < HELD_X; j++) { // #unroll
                coopStoreT(sum[i][j], &sides[(own * HELD_X + j) * QUADS_HELD], SIDE / 4u);
            }
        }
        workgroupBarrier(); // a line of matrices of each subgroup is there
        for (var at = local; at < QUADS_OF_LINE; at += THREADS) {
            let pixel = first_pixel + row_of_sum(at, i);
            let channels = tile_x * (COLUMNS / 4u) + quad_of_sum(at);
            if (pixel < P.pixels && channels < P.quads_out) {
                finish(sides[place_of_sum(at)], part, pixel, channels);
            }
        }
    }
}

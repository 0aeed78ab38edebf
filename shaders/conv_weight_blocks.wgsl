// dst[(tile, ky, step, block), …] = blocks of 32 input channels of src[co, ci, ky, step · TAPS + kx]: the order in which conv2d_blocks reads its weight
//
// ggml's q8_0: scale d = max |x| / 127 and integers round(x / d), halves away from zero;
// q4_0: d = m / −8 for the number m farthest from zero, and min(15, ⌊x / d + 8.5⌋). d is
// kept in f16, the integers are found with d in f32: x times 1 / d, each step rounded once, as a processor does it.
// Devices divide less exactly, and may compute a product and a sum as one. Which of two integers is
// nearer can hang on such a bit (weights that were f16 often lie just between), so both are left no choice here.
//
// src: [c_out, c_in, kernel_y, kernel_x]. dst: records for each (tile of QUADS quads of
// output channels, ky, group of TAPS taps side by side, block); a record has, in pairs of
// words, [TAPS, QUADS] scales of four output channels, then [8 quads of input channels,
// TAPS, QUADS, WORDS] of 16 integers. Zero where a channel does not exist.
// One thread writes what a record has for a tap and a quad of output channels.

const WORDS: u32 = 2u; // pairs of words for 16 integers
alias Elem = f32;
alias V = vec4<f32>;

struct Params {
    count: u32, // threads
    quads: u32, // of output channels, in a tile
    c_out: u32,
    c_in: u32,
    blocks: u32,
    kernel_y: u32,
    kernel_x: u32,
    taps: u32, // side by side in a record
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<vec2<u32>>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index
// #include lib/quotient

// The f16 nearest to x, ties to even; finite, as weights are.
fn half(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let magnitude = bits & 0x7fffffffu;
    let sign = (bits >> 16u) & 0x8000u;
    if (magnitude < 0x38800000u) {
        return sign | u32(round(abs(x) * 16777216.0));
    }
    return sign | min(0x7c00u, ((magnitude + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u) - 0x1c000u);
}

// The scale, from the number that is farthest from zero.
fn scale(extreme: f32) -> f32 {
    return quotient(abs(extreme), 127.0);
}

fn inverse(d: f32) -> f32 {
    if (d == 0.0) {
        return 0.0;
    }
    return quotient(1.0, d);
}

// In fixed point, where nothing is left to be rounded or contracted: what is cut off is below a half's last bit.
fn integer(x: f32) -> u32 {
    let magnitude = (u32(min(abs(x), 127.0) * 1048576.0) + 524288u) >> 20u;
    return select(magnitude, 256u - magnitude, x < 0.0) & 0xffu;
}

// Four output channels of each of four input channels.
fn pack(x: array<V, 4>) -> array<vec2<u32>, 2> {
    var words: array<u32, 4>;
    for (var i = 0u; i < 4u; i++) {
        for (var lane = 0u; lane < 4u; lane++) {
            words[i] |= integer(x[i][lane]) << (8u * lane);
        }
    }
    return array<vec2<u32>, 2>(vec2<u32>(words[0], words[1]), vec2<u32>(words[2], words[3]));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    let steps = P.kernel_x / P.taps;
    let pairs = P.taps * P.quads;
    let at = i % pairs; // tap and quad
    let record = i / pairs;
    let block = record % P.blocks;
    let kx = record / P.blocks % steps * P.taps + at / P.quads;
    let ky = record / (P.blocks * steps) % P.kernel_y;
    let co = (record / (P.blocks * steps * P.kernel_y) * P.quads + at % P.quads) * 4u;
    let area = P.kernel_y * P.kernel_x;
    let tap = ky * P.kernel_x + kx;

    var x: array<V, 32>;
    var largest = V(0.0);
    var extreme = V(0.0);
    for (var k = 0u; k < 32u; k++) {
        let ci = block * 32u + k;
        var value = V(0.0);
        for (var lane = 0u; lane < 4u; lane++) {
            if (ci < P.c_in && co + lane < P.c_out) {
                value[lane] = f32(src[((co + lane) * P.c_in + ci) * area + tap]);
            }
        }
        extreme = select(extreme, value, abs(value) > largest);
        largest = max(largest, abs(value));
        x[k] = value;
    }
    let d = V(scale(extreme.x), scale(extreme.y), scale(extreme.z), scale(extreme.w));
    let factor = V(inverse(d.x), inverse(d.y), inverse(d.z), inverse(d.w));
    let first = record * pairs * (1u + 8u * WORDS);
    dst[first + at] = vec2<u32>(half(d.x) | (half(d.y) << 16u), half(d.z) | (half(d.w) << 16u));
    for (var quad = 0u; quad < 8u; quad++) {
        let k = quad * 4u;
        let words = pack(array<V, 4>(x[k] * factor, x[k + 1u] * factor, x[k + 2u] * factor, x[k + 3u] * factor));
        for (var word = 0u; word < WORDS; word++) {
            dst[first + pairs + (quad * pairs + at) * WORDS + word] = words[word];
        }
    }
}

// dst[i, k] = sin or cos of src[i, 0] · frequencies[k mod half]
//
// Sinusoidal embedding (Ho et al. 2020, after Vaswani et al. 2017) as diffusers' get_timestep_embedding:
// sines, then cosines, or the other way round; a last column of an odd width is zero.
// src: [rows, stride], of which the first column is read; dst: [rows, dim]. One thread computes one number.

alias Elem = f32;

struct Params {
    count: u32, // numbers in dst
    stride: u32,
    dim: u32,
    cos_first: u32,
    frequencies: array<vec4<u32>, 64>, // bits of f32, computed in f64: exp2 on devices is too coarse
}

@group(0) @binding(0) var<storage, read> src: array<f32>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

const INVERSE_QUARTER: f32 = 0.63661977236758134; // 2 / π
// π/2 in three parts; the first two have few enough bits for exact products with up to 2¹² quarters.
const QUARTER0: f32 = 1.5703125;
const QUARTER1: f32 = 0.0004837512969970703;
const QUARTER2: f32 = 7.54978941586159635e-8;

// (sin x, cos x) for 0 ≤ x ≤ 6000 or so: reduced to an eighth of a turn by hand, because WGSL
// promises its own sin and cos only up to π, and drivers differ beyond.
fn sin_cos(x: f32) -> vec2<f32> {
    let quarters = round(x * INVERSE_QUARTER);
    let a = ((x - quarters * QUARTER0) - quarters * QUARTER1) - quarters * QUARTER2;
    let b = a * a;
    let s = a * (1.0 + b * (-0.16666667 + b * (0.008333334 + b * (-0.00019841270 + b * 2.7557319e-6))));
    let c = 1.0 + b * (-0.5 + b * (0.041666668 + b * (-0.0013888889 + b * (2.4801588e-5 - b * 2.7557319e-7))));
    let q = u32(i32(quarters)) & 3u;
    let turned = select(vec2<f32>(s, c), vec2<f32>(c, -s), (q & 1u) == 1u);
    return select(turned, -turned, (q & 2u) == 2u);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    let column = i % P.dim;
    let half = P.dim / 2u;
    if (column >= 2u * half) {
        dst[i] = Elem(0.0);
        return;
    }
    let j = column % half;
    let angle = src[(i / P.dim) * P.stride] * bitcast<f32>(P.frequencies[j / 4u][j % 4u]);
    let both = sin_cos(abs(angle));
    let is_cos = (column < half) == (P.cos_first == 1u);
    dst[i] = Elem(select(select(both.x, -both.x, angle < 0.0), both.y, is_cos));
}

// What the numbers of a texture or a network mean, and numbers that are finite.

// The largest number of 16-bit floats.
const LARGEST = 65504.0;

// NaN becomes 0, what is beyond 16-bit floats the largest of these. Bits are looked at, as compilers may take it that
// there are no NaNs.
fn finite(x: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
    return select(clamp(x, vec4<f32>(-LARGEST), vec4<f32>(LARGEST)), vec4<f32>(0.0), bits > vec4<u32>(0x7f800000u));
}

// IEC 61966-2-1, beyond 0 and 1 as scRGB goes on.
fn srgb_of(linear: vec3<f32>) -> vec3<f32> {
    let a = abs(linear);
    let curve = 1.055 * pow(max(a, vec3<f32>(0.0031308)), vec3<f32>(1.0 / 2.4)) - vec3<f32>(0.055);
    return sign(linear) * select(curve, 12.92 * a, a <= vec3<f32>(0.0031308));
}

fn linear_of_srgb(srgb: vec3<f32>) -> vec3<f32> {
    let a = abs(srgb);
    let curve = pow((max(a, vec3<f32>(0.04045)) + vec3<f32>(0.055)) / 1.055, vec3<f32>(2.4));
    return sign(srgb) * select(curve, a / 12.92, a <= vec3<f32>(0.04045));
}

// log2(1 + x), 0 for what is below 0. Near 0, where 1 + x is rounded, by the series of 2 artanh(x / (x + 2)) / ln 2.
fn log_of(linear: vec3<f32>) -> vec3<f32> {
    let x = max(linear, vec3<f32>(0.0));
    let s = x / (x + vec3<f32>(2.0));
    let t = s * s;
    let near = 2.885390081777927 * s * (vec3<f32>(1.0) + t * (vec3<f32>(0.333333333) + t * (vec3<f32>(0.2) + t * 0.142857143)));
    return select(log2(vec3<f32>(1.0) + x), near, x < vec3<f32>(0.3));
}

// 2^y − 1, near 0 by its series.
fn linear_of_log(y: vec3<f32>) -> vec3<f32> {
    let a = max(y, vec3<f32>(0.0));
    let z = min(a, vec3<f32>(0.4)) * 0.6931471805599453;
    let near = z * (vec3<f32>(1.0) + z / 2.0 * (vec3<f32>(1.0) + z / 3.0 * (vec3<f32>(1.0) + z / 4.0 * (vec3<f32>(1.0) + z / 5.0))));
    return select(exp2(min(a, vec3<f32>(17.0))) - vec3<f32>(1.0), near, a < vec3<f32>(0.3));
}

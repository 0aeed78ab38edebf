// m  = unconditional + guidance · (conditional − unconditional)
// x0 = x0_x · x + x0_m · m, clamped to ± clip where clip > 0
// x' = next_x · x + next_x0 · x0 + next_m · a · m + Σ next_h[k] · h[k] + noise · b · z
// h' = (hist_x · x + hist_x0 · x0 + hist_m · m, h[0], h[1], …) where push is 1, else h
//
// One step of any sampler: the row of coefficients says which. z is the draw-th standard normal tensor
// of the picture's seed, drawn here. a and b are the picture's rates, 1 but in steps that correct. Guidance: Ho and
// Salimans, 2022.
// sample, dst: [2 + history, n, height, width, channels]: slot 0 the latent x, slot 1 the last x0 (for
// previews), then h. prediction: [copies, n, height, width, channels]: conditional, then unconditional.
// seeds, rates: [n, 2]. row: timestep, in_scale, x0_x, x0_m, clip, next_x, next_x0, next_m, next_h[4],
// noise, push, hist_x, hist_x0, hist_m, draw. One thread steps one number.

alias Elem = f32;

struct Params {
    elements: u32, // of the latent
    area: u32, // height · width
    channels: u32,
    history: u32,
}

@group(0) @binding(0) var<storage, read> sample: array<f32>;
@group(0) @binding(1) var<storage, read> prediction: array<Elem>;
@group(0) @binding(2) var<storage, read> row: array<f32>;
@group(0) @binding(3) var<storage, read> seeds: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read> guidance: array<f32>;
@group(0) @binding(5) var<storage, read_write> dst: array<f32>;
@group(0) @binding(6) var<storage, read> rates: array<vec2<f32>>;
@group(0) @binding(7) var<uniform> P: Params;

// #include lib/index
// #include lib/philox

fn predicted(i: u32) -> f32 {
    return f32(prediction[i]);
}

// The row's share of new noise. A function, because software adapters compute both sides of every
// branch: for samplers that never draw, the operation replaces it.
fn fresh(i: u32) -> f32 {
    if (row[12] == 0.0) {
        return 0.0;
    }
    let pixel = (i / P.channels) % P.area;
    let picture = i / (P.channels * P.area);
    return row[12] * normal(seeds[picture], u32(row[17]), (i % P.channels) * P.area + pixel);
}

// Factors of the prediction and of the noise of element i. Replaced where no sampler corrects.
fn rate(i: u32) -> vec2<f32> {
    return rates[i / (P.channels * P.area)];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.elements) {
        return;
    }
    let x = sample[i];
    let m = predicted(i);
    let factors = rate(i);
    var x0 = row[2] * x + row[3] * m;
    if (row[4] > 0.0) {
        x0 = clamp(x0, -row[4], row[4]);
    }
    var next = row[5] * x + row[6] * x0 + row[7] * factors.x * m;
    let push = row[13] != 0.0;
    var pushed = row[14] * x + row[15] * x0 + row[16] * m;
    for (var k = 0u; k < P.history; k++) {
        let h = sample[(2u + k) * P.elements + i];
        next += row[8u + k] * h;
        dst[(2u + k) * P.elements + i] = select(h, pushed, push);
        pushed = h;
    }
    dst[i] = next + factors.y * fresh(i);
    dst[P.elements + i] = x0;
}

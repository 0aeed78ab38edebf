// Philox4x32-10 (Salmon et al., SC'11) and Box–Muller, numbered as PyTorch's CUDA generator numbers its draws.

// a · b as (low word, high word): WGSL has no 64-bit integers, so from 16-bit halves.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 16u);
    let carry = (middle & 0xffffu) + a0 * b1;
    return vec2<u32>(a * b, a1 * b1 + (middle >> 16u) + (carry >> 16u));
}

// The block of key `seed` (low word, high word) and counter (draw, 0, index, 0).
fn philox(seed: vec2<u32>, draw: u32, index: u32) -> vec4<u32> {
    var key = seed;
    var c = vec4<u32>(draw, 0u, index, 0u);
    for (var round = 0u; round < 10u; round++) {
        let p = wide_product(0xd2511f53u, c.x);
        let q = wide_product(0xcd9e8d57u, c.z);
        c = vec4<u32>(q.y ^ c.y ^ key.x, q.x, p.y ^ c.w ^ key.y, p.x);
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// sin 2π(turn + 2⁻³³) for `turn` in units of 2⁻³² of a full turn, from an eighth of a
// turn by Taylor's polynomials: drivers' sin and cos may be off by 5e-4 at large angles.
fn sin_turns(turn: u32) -> f32 {
    // Nearest quarter turn, and the signed rest of at most an eighth.
    let quarter = (turn + 0x20000000u) >> 30u;
    let rest = bitcast<i32>(turn - (quarter << 30u));
    let a = (f32(rest) + 0.5) * 1.4629180792671596e-9;
    let b = a * a;
    let s = a * (1.0 + b * (-0.16666667 + b * (0.008333334 + b * (-0.00019841270 + b * 2.7557319e-6))));
    let c = 1.0 + b * (-0.5 + b * (0.041666668 + b * (-0.0013888889 + b * (2.4801588e-5 - b * 2.7557319e-7))));
    let value = select(s, c, (quarter & 1u) == 1u);
    return select(value, -value, (quarter & 2u) == 2u);
}

// Element `index` of the draw-th standard normal tensor of a seed.
fn normal(seed: vec2<u32>, draw: u32, index: u32) -> f32 {
    let words = philox(seed, draw, index);
    // The half step keeps u above 0, so that its logarithm is finite.
    let u = f32(words.x) * 2.3283064365386963e-10 + 1.1641532182693481e-10;
    // Near 1 the logarithm's relative error is large on many devices; there its series is exact.
    // 2³² − word is exact, where 1 − u in f32 is not.
    let rest = f32(~words.x) * 2.3283064365386963e-10 + 1.1641532182693481e-10;
    let series = -rest * (1.0 + rest * (0.5 + rest * (0.33333334 + rest * (0.25 + rest * 0.2))));
    let logarithm = select(log(u), series, rest < 0.01);
    return sqrt(-2.0 * logarithm) * sin_turns(words.y);
}

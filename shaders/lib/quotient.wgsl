// Division as IEEE 754 has it. WGSL's may be off by two units in the last place, which decides where a quotient
// that lies between two integers is rounded to.

// a / b to the nearest f32, halves to the even one; of subnormal or infinite numbers what the device makes of them.
fn quotient(a: f32, b: f32) -> f32 {
    let x = bitcast<u32>(a);
    let y = bitcast<u32>(b);
    let ex = i32((x >> 23u) & 255u);
    let ey = i32((y >> 23u) & 255u);
    var exponent = ex - ey + 127;
    if (ex == 0 || ex == 255 || ey == 0 || ey == 255 || exponent < 2 || exponent > 253) {
        return a / b;
    }
    // Long division of the 24-bit significands: 25 bits, the last of them a guard, and whether anything is left.
    var rest = (x & 0x7fffffu) | 0x800000u;
    let divisor_bits = (y & 0x7fffffu) | 0x800000u;
    if (rest < divisor_bits) {
        rest <<= 1u;
        exponent -= 1;
    }
    var bits = 0u;
    for (var i = 0u; i < 25u; i++) {
        let fits = rest >= divisor_bits;
        bits = (bits << 1u) | u32(fits);
        rest = (rest - select(0u, divisor_bits, fits)) << 1u;
    }
    let up = (bits & 1u) & (u32(rest != 0u) | ((bits >> 1u) & 1u));
    let significand = (bits >> 1u) + up;
    return bitcast<f32>(((x ^ y) & 0x80000000u) | ((u32(exponent) << 23u) + significand - 0x800000u));
}

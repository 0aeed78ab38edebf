// Numbers as keys: a larger one has the larger key. Both zeros have one.

fn key_of_f32(x: f32) -> u32 {
    let bits = bitcast<u32>(select(x, 0.0, x == 0.0));
    return bits ^ select(0x80000000u, 0xffffffffu, bits >= 0x80000000u);
}

fn key_of_i32(x: i32) -> u32 {
    return bitcast<u32>(x) ^ 0x80000000u;
}

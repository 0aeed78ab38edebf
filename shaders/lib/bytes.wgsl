// Words of four bytes, and sums of bytes with weights in units of 2⁻²².

const OUTSIDE: u32 = 0xffffffffu; // instead of the first tap, where there is no picture
const HALF: i32 = 0x200000; // half a unit, for rounding

fn bytes_of(word: u32) -> vec4<i32> {
    return vec4<i32>((vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u));
}

fn word_of(bytes: vec4<i32>) -> u32 {
    let b = vec4<u32>(bytes);
    return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}

fn clip(sum: vec4<i32>) -> vec4<i32> {
    return clamp(sum >> vec4<u32>(22u), vec4<i32>(0), vec4<i32>(255));
}

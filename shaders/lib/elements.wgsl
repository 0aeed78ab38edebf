// The numbers of a matrix of sums that a thread holds. Which they are only the driver knows, but it is the same for all matrices
// of a type. WGSL has no such access: what these functions do is written into their SPIR-V (src/spirv/elements.rs).

fn number(m: ptr<function, Sum>, i: u32) -> f32 {
    return 0.0;
}

fn set_number(m: ptr<function, Sum>, i: u32, value: f32) {
}

fn held_numbers(m: Sum) -> u32 {
    return 0u;
}

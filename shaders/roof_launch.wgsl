// nothing, unless it is told to: then dst[0] = 1
//
// What a launch costs that has no work. It may write what the launch before it may have written, so that a device
// keeps the two apart, as it has to in a network.

struct Params {
    write: u32,
}

@group(0) @binding(0) var<storage, read_write> dst: array<f32>;
@group(0) @binding(1) var<uniform> P: Params;

@compute @workgroup_size(32)
fn main() {
    if (P.write != 0u) {
        dst[0] = 1.0;
    }
}

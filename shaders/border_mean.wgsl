// dst[i, 0, 0, c] = mean of the outermost pixels of src[i, :, :, c]
//
// What lies behind the thing in a picture. src: [n, height, width, channels]; dst: [n, 1, 1, channels].
// One thread computes one number.

alias Elem = f32;

struct Params {
    count: u32, // numbers in dst
    height: u32,
    width: u32,
    channels: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 8u);
    if (i >= P.count) {
        return;
    }
    let picture = i / P.channels;
    let channel = i % P.channels;
    var sum = 0.0;
    var pixels = 0.0;
    for (var y = 0u; y < P.height; y++) {
        // Whole first and last lines; of the others the two ends.
        let whole = y == 0u || y + 1u == P.height;
        let stride = select(max(P.width - 1u, 1u), 1u, whole);
        for (var x = 0u; x < P.width; x += stride) {
            sum += f32(src[((picture * P.height + y) * P.width + x) * P.channels + channel]);
            pixels += 1.0;
        }
    }
    dst[i] = Elem(sum / pixels);
}

// dst[p] = src[p] + (colour − src[p]) · alpha / 255, colour and alpha = palette[classes[p]]
//
// Classes laid over pictures in colours. src, classes, dst: [pixels], pictures as words with red in the lowest byte;
// palette: such words with alpha in the highest byte. One thread computes one pixel.

struct Params {
    pixels: u32,
    colours: u32,
}

@group(0) @binding(0) var<storage, read> src: array<u32>;
@group(0) @binding(1) var<storage, read> classes: array<u32>;
@group(0) @binding(2) var<storage, read> palette: array<u32>;
@group(0) @binding(3) var<storage, read_write> dst: array<u32>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.pixels) {
        return;
    }
    let colour = unpack4x8unorm(palette[min(classes[i], P.colours - 1u)]);
    let mixed = mix(unpack4x8unorm(src[i]).rgb, colour.rgb, colour.a);
    dst[i] = pack4x8unorm(vec4<f32>(mixed, 1.0));
}

// Means over the samples of each pixel, as networks read them: three numbers a pixel, rows from the top.

struct Pixel {
    colour: vec3f,
    samples: u32,
    albedo: vec3f,
    normal: vec3f,
    nearest: vec4f,
}

@group(0) @binding(0) var<storage, read> pixels: array<Pixel>;
@group(0) @binding(1) var<storage, read_write> colour: array<f32>;
@group(0) @binding(2) var<storage, read_write> albedo: array<f32>;
@group(0) @binding(3) var<storage, read_write> normal: array<f32>;

@compute @workgroup_size(64)
fn resolve(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let index = id.x + id.y * groups.x * 64u;
    if index >= arrayLength(&pixels) {
        return;
    }
    let pixel = pixels[index];
    let count = max(f32(pixel.samples), 1.0);
    for (var i = 0u; i < 3u; i++) {
        colour[3u * index + i] = pixel.colour[i] / count;
        albedo[3u * index + i] = pixel.albedo[i] / count;
        normal[3u * index + i] = pixel.normal[i] / count;
    }
}

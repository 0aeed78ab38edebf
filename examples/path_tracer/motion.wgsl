// Motion and depth of the nearest sample of each pixel, as networks read them: three numbers and one, rows from the top.

struct Pixel {
    colour: vec3f,
    samples: u32,
    albedo: vec3f,
    normal: vec3f,
    nearest: vec4f,
}

@group(0) @binding(0) var<storage, read> pixels: array<Pixel>;
@group(0) @binding(1) var<storage, read_write> moved: array<f32>;
@group(0) @binding(2) var<storage, read_write> depth: array<f32>;

const SKY = 1e8;

@compute @workgroup_size(64)
fn motion(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let index = id.x + id.y * groups.x * 64u;
    if index >= arrayLength(&pixels) {
        return;
    }
    let nearest = pixels[index].nearest;
    for (var i = 0u; i < 3u; i++) {
        moved[3u * index + i] = nearest[i];
    }
    depth[index] = select(nearest.w, 0.0, nearest.w > SKY);
}

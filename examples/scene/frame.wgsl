// A frame by its function `light(place)`: the linear colour that comes from a place of the picture. Places go from −1 at the
// bottom to 1 at the top, and as far to the sides as the picture is wide.

struct Frame {
    size: vec2f, // pixels
    seconds: f32,
}

@group(0) @binding(0) var<uniform> frame: Frame;

// Along each side of a pixel.
const SAMPLES = 3u;

// One triangle covers the picture.
@vertex
fn cover(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
    return vec4f(f32(i & 1u) * 4.0 - 1.0, f32(i >> 1u) * 4.0 - 1.0, 0.0, 1.0);
}

@fragment
fn draw(@builtin(position) at: vec4f) -> @location(0) vec4f {
    var sum = vec3f(0.0);
    for (var i = 0u; i < SAMPLES * SAMPLES; i++) {
        let inside = (vec2f(vec2u(i % SAMPLES, i / SAMPLES)) + 0.5) / f32(SAMPLES);
        let place = (2.0 * (floor(at.xy) + inside) - frame.size) / frame.size.y;
        sum += clamp(light(vec2f(place.x, -place.y)), vec3f(0.0), vec3f(1.0));
    }
    return vec4f(sum / f32(SAMPLES * SAMPLES), 1.0);
}

// The direction of a camera at `eye` that looks towards a point.
fn ray(eye: vec3f, towards: vec3f, place: vec2f) -> vec3f {
    let forward = normalize(towards - eye);
    let right = normalize(cross(forward, vec3f(0.0, 1.0, 0.0)));
    return normalize(2.4 * forward + place.x * right + place.y * cross(right, forward));
}


// A block that turns on a table, with a picture on each of its six faces: the layers of a texture, dark where they are bright.

@group(0) @binding(1) var faces: texture_2d_array<f32>;
@group(0) @binding(2) var bilinear: sampler;

// Half of a side; its middle is as high.
const HALF = 0.8;

// Round the vertical axis, into the block's own frame.
fn turned(v: vec3f) -> vec3f {
    let turn = 0.6 - 0.5 * frame.seconds;
    return vec3f(cos(turn) * v.x - sin(turn) * v.z, v.y, sin(turn) * v.x + cos(turn) * v.z);
}

// How far along a ray, both in the block's own frame, it goes in and out; out comes first where it misses.
fn through(origin: vec3f, direction: vec3f) -> vec2f {
    let middle = -origin / direction;
    let reach = HALF / abs(direction);
    let enter = middle - reach;
    let leave = middle + reach;
    return vec2f(max(max(enter.x, enter.y), enter.z), min(min(leave.x, leave.y), leave.z));
}

// Of the face at `p` on the block: rows of pictures go down, the top is read from the front.
fn painted(p: vec3f) -> vec3f {
    let q = p / HALF;
    let size = abs(q);
    var uv: vec2f;
    var layer: i32;
    var paint: vec3f;
    if size.z >= max(size.x, size.y) {
        layer = select(2, 0, q.z > 0.0);
        uv = vec2f(q.x * sign(q.z), -q.y);
        paint = vec3f(0.86, 0.62, 0.22);
    } else if size.x >= size.y {
        layer = select(3, 1, q.x > 0.0);
        uv = vec2f(-q.z * sign(q.x), -q.y);
        paint = vec3f(0.7, 0.2, 0.14);
    } else {
        layer = select(5, 4, q.y > 0.0);
        uv = vec2f(q.x, q.z * sign(q.y));
        paint = vec3f(0.2, 0.4, 0.55);
    }
    let wood = vec3f(0.75, 0.56, 0.36);
    if max(abs(uv.x), abs(uv.y)) > 0.86 {
        return wood;
    }
    let ink = textureSampleLevel(faces, bilinear, 0.5 + 0.5 * uv / 0.86, layer, 0.0).x;
    return mix(vec3f(0.88, 0.84, 0.74), paint * 0.35, ink);
}

fn light(place: vec2f) -> vec3f {
    let eye = vec3f(0.0, 2.6, 3.7);
    let direction = ray(eye, vec3f(0.0, 0.62, 0.0), place);
    let lift = vec3f(0.0, HALF, 0.0);
    let sun = normalize(vec3f(-0.45, 0.9, 0.6));
    let met = through(turned(eye - lift), turned(direction));
    if met.x < met.y {
        let p = turned(eye - lift + met.x * direction);
        let size = abs(p);
        let normal = select(vec3f(0.0), sign(p), size >= vec3f(max(max(size.x, size.y), size.z)));
        return painted(p) * (0.3 + 0.95 * max(dot(normal, turned(sun)), 0.0));
    }
    let table = eye - eye.y / direction.y * direction;
    if direction.y >= 0.0 {
        return vec3f(0.22, 0.2, 0.18);
    }
    let shadow = through(turned(table - lift), turned(sun));
    let contact = smoothstep(0.0, 0.5, length(max(abs(turned(table).xz) - vec2f(HALF), vec2f(0.0))));
    let bright = select(1.0, 0.42, shadow.x < shadow.y && shadow.y > 0.0);
    return vec3f(0.5, 0.45, 0.4) * min(bright, 0.35 + 0.65 * contact) * (0.45 + 0.7 / (1.0 + 0.02 * dot(table, table)));
}

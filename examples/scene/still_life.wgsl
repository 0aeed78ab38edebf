// A vase, a ball and a ring that turns, on tiles in the evening sun. Surfaces are where a distance is zero, found by going
// along a ray as far as nothing can be (Hart 1996).

const TILES = 0.0;
const BALL = 1.0;
const RING = 2.0;
const VASE = 3.0;
const FAR = 14.0;

fn nearer(a: vec2f, distance: f32, thing: f32) -> vec2f {
    return select(a, vec2f(distance, thing), distance < a.x);
}

// How far the nearest surface is at least, and of what.
fn nearest(p: vec3f) -> vec2f {
    var near = vec2f(p.y, TILES);
    near = nearer(near, length(p - vec3f(-1.05, 0.45, 0.5)) - 0.45, BALL);
    let turn = 0.9 * frame.seconds;
    let q = p - vec3f(1.0, 0.62, 0.35);
    let across = vec2f(cos(turn) * q.x + sin(turn) * q.z, q.y);
    let along = cos(turn) * q.z - sin(turn) * q.x;
    near = nearer(near, length(vec2f(length(across) - 0.44, along)) - 0.17, RING);
    let v = p - vec3f(0.0, 0.0, -0.55);
    let belly = 0.36 + 0.17 * sin(3.3 * v.y + 0.3) - 0.05 * v.y;
    let vase = max(length(v.xz) - belly, abs(v.y - 0.9) - 0.9);
    return nearer(near, 0.6 * max(vase, -(length(v.xz) - belly + 0.06)), VASE);
}

// How far along a ray the first surface is.
fn meet(origin: vec3f, direction: vec3f) -> f32 {
    var t = 0.0;
    for (var i = 0; i < 110 && t < FAR; i++) {
        let near = nearest(origin + t * direction).x;
        if near < 0.0007 * (1.0 + t) {
            return t;
        }
        t += near;
    }
    return FAR;
}

// From 0 in the shadow to 1 in the sun, whose disc is not a point.
fn sunlit(origin: vec3f, sun: vec3f) -> f32 {
    var share = 1.0;
    var t = 0.02;
    for (var i = 0; i < 40 && t < 6.0; i++) {
        let near = nearest(origin + t * sun).x;
        share = min(share, 14.0 * near / t);
        if share < 0.01 {
            return 0.0;
        }
        t += clamp(near, 0.02, 0.3);
    }
    return share;
}

fn normal_at(p: vec3f) -> vec3f {
    let e = vec2f(0.001, -0.001);
    return normalize(e.xyy * nearest(p + e.xyy).x + e.yyx * nearest(p + e.yyx).x
        + e.yxy * nearest(p + e.yxy).x + e.xxx * nearest(p + e.xxx).x);
}

fn colour_of(thing: f32, p: vec3f) -> vec3f {
    if thing == TILES {
        let place = p.xz * 1.6;
        let cell = floor(place);
        let inside = abs(fract(place) - 0.5);
        let tile = mix(vec3f(0.62, 0.55, 0.45), vec3f(0.3, 0.16, 0.11), abs(cell.x + cell.y) % 2.0);
        return select(tile, vec3f(0.75, 0.73, 0.68), max(inside.x, inside.y) > 0.47);
    }
    if thing == BALL {
        let stripes = step(0.5, fract(7.0 * (p.y + 0.35 * p.x)));
        return mix(vec3f(0.75, 0.12, 0.08), vec3f(0.9, 0.86, 0.78), stripes);
    }
    if thing == RING {
        return vec3f(0.85, 0.55, 0.14);
    }
    // Glazed bands with a zigzag between them.
    let around = 3.8197 * atan2(p.z + 0.55, p.x);
    let zigzag = abs(p.y - 1.05 - 0.12 * abs(2.0 * fract(around) - 1.0)) < 0.03;
    let band = abs(p.y - 0.72) < 0.03 || abs(p.y - 1.38) < 0.03;
    return select(vec3f(0.1, 0.25, 0.42), vec3f(0.9, 0.88, 0.8), zigzag || band);
}

fn light(place: vec2f) -> vec3f {
    let swing = 0.35 * sin(0.4 * frame.seconds);
    let eye = vec3f(3.9 * sin(swing), 1.7, 3.9 * cos(swing));
    let direction = ray(eye, vec3f(0.0, 0.78, 0.0), place);
    let sky = mix(vec3f(0.85, 0.72, 0.55), vec3f(0.25, 0.42, 0.7), clamp(2.5 * direction.y + 0.5, 0.0, 1.0));
    let t = meet(eye, direction);
    if t >= FAR {
        return sky;
    }
    let p = eye + t * direction;
    let n = normal_at(p);
    let sun = normalize(vec3f(-0.75, 0.85, 0.5));
    let thing = nearest(p).y;
    let bright = max(dot(n, sun), 0.0) * sunlit(p + 0.01 * n, sun);
    // What is near to another thing sees less of the sky.
    let open = clamp(nearest(p + 0.25 * n).x / 0.25, 0.2, 1.0);
    let ambient = (0.55 + 0.45 * n.y) * open * vec3f(0.2, 0.25, 0.34);
    var seen = colour_of(thing, p) * (bright * vec3f(1.25, 1.1, 0.85) + ambient);
    if thing != TILES {
        seen += 0.5 * bright * pow(max(dot(reflect(direction, n), sun), 0.0), 40.0);
    }
    return mix(seen, sky, smoothstep(7.0, FAR, t));
}

// A path for each pixel, added to the sums of those before it, whose number is kept with them: the same launch again is
// the next sample. Pixel, sample and seed determine all random numbers.
//
// Diffuse surfaces are lit by points drawn on the lights (next event estimation) and by the sky that their paths find.
// What a renderer for frames leaves out is left out here: glass lets shadow rays through, so there are no caustics,
// and light over two diffuse surfaces or more may be limited.

const PI = 3.14159265;
const NEAR = 4e-4;
const FAR = 1e9;

// Shapes.
const QUAD = 0u;
const SPHERE = 1u;

// Materials.
const DIFFUSE = 0u;
const MIRROR = 1u;
// A mirror whose normals are a little off, and loses nothing.
const GLOSSY = 2u;
const GLASS = 3u;
const LIGHT = 4u;
// Diffuse under varnish.
const COATED = 5u;

struct Primitive {
    shape: u32,
    material: u32,
    texture: u32,
    // Of the texture: repeats in a unit.
    scale: f32,
    // A quad's corner, a sphere's or box's centre.
    place: vec3f,
    radius: f32,
    // A quad's first edge, a box's half sides.
    a: vec3f,
    // A box is turned round its vertical axis.
    cosine: f32,
    // A quad's second edge, at right angles to the first; it looks and shines along a × b.
    b: vec3f,
    sine: f32,
    // Albedo, or a light's radiance.
    colour: vec3f,
    roughness: f32,
    // The texture's second colour.
    other: vec3f,
    unused: f32,
    // Where it was in the frame before, less where it is.
    moved: vec3f,
}

struct Scene {
    eye: vec3f,
    primitives: u32,
    // Half of the picture's width and height at distance one, and where it looks.
    right: vec3f,
    // How many of the primitives are lights: the first ones, all of them quads.
    lights: u32,
    up: vec3f,
    bounces: u32,
    forward: vec3f,
    seed: u32,
    // Radiance of the sky, straight up and at the horizon and below.
    zenith: vec3f,
    // No indirect contribution is brighter.
    limit: f32,
    horizon: vec3f,
    // Of the sun's angular radius; one without a sun.
    sun_cosine: f32,
    sun: vec3f,
    width: u32,
    // Irradiance on what faces it.
    sun_light: vec3f,
    height: u32,
    // The camera of the frame before; of a vector, how many of `right` and `up` it has.
    before_eye: vec3f,
    // The middle of a pixel's samples off the pixel's.
    jitter_x: f32,
    before_right: vec3f,
    jitter_y: f32,
    before_up: vec3f,
    // Side of the square in a pixel that its samples are of.
    spread: f32,
    before_forward: vec3f,
    list: array<Primitive>,
}

// Sums over the samples.
struct Pixel {
    colour: vec3f,
    samples: u32,
    albedo: vec3f,
    normal: vec3f,
    // Of the nearest sample: its motion in pixels and depth, and its depth.
    nearest: vec4f,
}

@group(0) @binding(0) var<storage, read> scene: Scene;
@group(0) @binding(1) var<storage, read_write> pixels: array<Pixel>;

var<private> state: u32;

// PCG, RXS-M-XS on 32 bits (O'Neill 2014).
fn mixed(v: u32) -> u32 {
    let word = ((v >> ((v >> 28u) + 4u)) ^ v) * 277803737u;
    return (word >> 22u) ^ word;
}

fn hash(v: u32) -> u32 {
    return mixed(v * 747796405u + 2891336453u);
}

// From zero to below one.
fn random() -> f32 {
    state = state * 747796405u + 2891336453u;
    return f32(mixed(state) >> 8u) / 16777216.0;
}

fn on_sphere() -> vec3f {
    let z = 1.0 - 2.0 * random();
    let angle = 2.0 * PI * random();
    return vec3f(sqrt(max(0.0, 1.0 - z * z)) * vec2f(cos(angle), sin(angle)), z);
}

// Normalised, or `instead` where there is nothing to normalise.
fn direction_of(v: vec3f, instead: vec3f) -> vec3f {
    let square = dot(v, v);
    return select(instead, v * inverseSqrt(square), square > 1e-12);
}

// Into a box's own frame, and back.
fn turned(p: Primitive, v: vec3f) -> vec3f {
    return vec3f(p.cosine * v.x - p.sine * v.z, v.y, p.sine * v.x + p.cosine * v.z);
}

fn turned_back(p: Primitive, v: vec3f) -> vec3f {
    return vec3f(p.cosine * v.x + p.sine * v.z, v.y, p.cosine * v.z - p.sine * v.x);
}

// How far along a ray the primitive is; FAR if it is not met.
fn meet(i: u32, origin: vec3f, direction: vec3f) -> f32 {
    let p = scene.list[i];
    if p.shape == QUAD {
        let normal = cross(p.a, p.b);
        let t = dot(normal, p.place - origin) / dot(normal, direction);
        let at = origin + t * direction - p.place;
        let u = dot(at, p.a);
        let v = dot(at, p.b);
        let inside = u >= 0.0 && u <= dot(p.a, p.a) && v >= 0.0 && v <= dot(p.b, p.b);
        return select(FAR, t, inside && t > NEAR);
    }
    if p.shape == SPHERE {
        let offset = origin - p.place;
        let half_b = dot(offset, direction);
        // From the nearest point to the centre, which loses no digits (Haines et al., Ray Tracing Gems, chapter 7).
        let off = offset - half_b * direction;
        let square = p.radius * p.radius - dot(off, off);
        let half_chord = sqrt(max(square, 0.0));
        let first = -half_b - half_chord;
        let t = select(first, -half_b + half_chord, first <= NEAR);
        return select(FAR, t, square > 0.0 && t > NEAR);
    }
    let towards = 1.0 / turned(p, direction);
    let middle = turned(p, p.place - origin) * towards;
    let reach = abs(towards) * p.a;
    let enter = middle - reach;
    let leave = middle + reach;
    let first = max(max(enter.x, enter.y), enter.z);
    let last = min(min(leave.x, leave.y), leave.z);
    let t = select(first, last, first <= NEAR);
    return select(FAR, t, first <= last && t > NEAR);
}

// Outwards; a quad's front.
fn normal_of(p: Primitive, at: vec3f) -> vec3f {
    if p.shape == QUAD {
        return normalize(cross(p.a, p.b));
    }
    if p.shape == SPHERE {
        return (at - p.place) / p.radius;
    }
    let local = turned(p, at - p.place) / p.a;
    let size = abs(local);
    let largest = max(max(size.x, size.y), size.z);
    return turned_back(p, normalize(select(vec3f(0.0), sign(local), size >= vec3f(largest))));
}

fn at_corner(v: vec3i) -> f32 {
    let u = bitcast<vec3u>(v);
    return f32(hash(u.x ^ hash(u.y ^ hash(u.z))) >> 8u) / 16777216.0;
}

// Values at the corners of a grid, interpolated smoothly.
fn value_noise(v: vec3f) -> f32 {
    let cell = vec3i(floor(v));
    let f = fract(v);
    let s = f * f * (3.0 - 2.0 * f);
    var edges: vec4f;
    for (var i = 0; i < 4; i++) {
        let corner = cell + vec3i(0, i & 1, i >> 1);
        edges[i] = mix(at_corner(corner), at_corner(corner + vec3i(1, 0, 0)), s.x);
    }
    return mix(mix(edges.x, edges.y, s.y), mix(edges.z, edges.w, s.y), s.z);
}

fn odd(v: f32) -> f32 {
    return abs(v) % 2.0;
}

fn albedo_of(p: Primitive, at: vec3f) -> vec3f {
    // No face of a box may lie on a border of the pattern.
    let v = at * p.scale + vec3f(0.371, 0.213, 0.117);
    var share = 0.0;
    switch p.texture {
        case 1u: {
            let cell = floor(v);
            share = odd(cell.x + cell.y + cell.z);
        }
        case 2u: {
            let sum = value_noise(v) + 0.5 * value_noise(2.0 * v + 17.0) + 0.25 * value_noise(4.0 * v + 5.0);
            share = smoothstep(0.25, 0.75, sum / 1.75);
        }
        case 3u: {
            share = odd(floor(v.x + v.y + 0.5 * v.z));
        }
        // Rings.
        case 4u: {
            share = odd(floor(length(v.xz)));
        }
        // Bricks in mortar.
        case 5u: {
            let row = floor(2.0 * v.y);
            let along = fract(v.x + v.z + 0.5 * odd(row));
            share = select(0.0, 1.0, along < 0.06 || fract(2.0 * v.y) < 0.12);
        }
        default: {}
    }
    return mix(p.colour, p.other, share);
}

fn sky(direction: vec3f) -> vec3f {
    return mix(scene.horizon, scene.zenith, sqrt(max(direction.y, 0.0)));
}

// What of the light comes through: none or all of it, or what glass leaves.
fn through(origin: vec3f, direction: vec3f, distance: f32) -> vec3f {
    var left = vec3f(1.0);
    for (var i = 0u; i < scene.primitives; i++) {
        if meet(i, origin, direction) < distance - NEAR {
            if scene.list[i].material != GLASS {
                return vec3f(0.0);
            }
            left *= scene.list[i].colour;
        }
    }
    return left;
}

// Irradiance from one light drawn of all, at a surface with this normal.
fn lit(at: vec3f, normal: vec3f) -> vec3f {
    let sun = u32(scene.sun_cosine < 1.0);
    let count = scene.lights + sun;
    if count == 0u {
        return vec3f(0.0);
    }
    let chosen = min(u32(random() * f32(count)), count - 1u);
    let u = random();
    let v = random();
    var direction: vec3f;
    var distance = FAR;
    var light: vec3f;
    if chosen < scene.lights {
        let p = scene.list[chosen];
        let towards = p.place + u * p.a + v * p.b - at;
        let square = dot(towards, towards);
        distance = sqrt(square);
        direction = towards / distance;
        // The length of the product is the area.
        light = p.colour * max(-dot(cross(p.a, p.b), direction), 0.0) / square;
    } else {
        let cosine = min(mix(scene.sun_cosine, 1.0, u), 1.0);
        let side = direction_of(cross(scene.sun, vec3f(0.31, 0.17, 0.93)), vec3f(1.0, 0.0, 0.0));
        let across = sqrt(1.0 - cosine * cosine) * vec2f(cos(2.0 * PI * v), sin(2.0 * PI * v));
        direction = cosine * scene.sun + across.x * side + across.y * cross(scene.sun, side);
        light = scene.sun_light;
    }
    let facing = dot(normal, direction);
    if facing <= 0.0 || all(light <= vec3f(0.0)) {
        return vec3f(0.0);
    }
    return f32(count) * facing * light * through(at, direction, distance);
}

fn limited(light: vec3f) -> vec3f {
    return light * min(1.0, scene.limit / max(max(light.x, max(light.y, light.z)), 1e-9));
}

// Fresnel's reflectance (Schlick 1994) of glass and varnish, index of refraction 1.5.
fn reflectance(cosine: f32) -> f32 {
    return 0.04 + 0.96 * pow(clamp(1.0 - cosine, 0.0, 1.0), 5.0);
}

fn glossy(direction: vec3f, normal: vec3f, roughness: f32) -> vec3f {
    let mirrored = reflect(direction, normal);
    let off = direction_of(mirrored + roughness * on_sphere(), mirrored);
    // Back to the right side of the surface.
    return off - 2.0 * min(dot(off, normal), 0.0) * normal;
}

// What the camera meets first: where it was in the frame before, and how far it is; w is 1, for the sky 0, of which
// there is a direction alone.
struct First {
    before: vec4f,
    depth: f32,
}

struct Sample {
    colour: vec3f,
    albedo: vec3f,
    normal: vec3f,
    first: First,
}

fn path(eye: vec3f, towards: vec3f) -> Sample {
    var origin = eye;
    var direction = towards;
    var weight = vec3f(1.0);
    var result = Sample(vec3f(0.0), vec3f(0.0), vec3f(0.0), First(vec4f(towards, 0.0), FAR));
    // Until the path meets what is neither mirror nor glass, whose albedo and normal the pixel gets.
    var described = false;
    // Diffuse surfaces on the way; from the first on, lights are drawn and no longer found.
    var diffuse = 0u;
    for (var bounce = 0u; bounce < scene.bounces; bounce++) {
        var t = FAR;
        var nearest = 0u;
        for (var i = 0u; i < scene.primitives; i++) {
            let distance = meet(i, origin, direction);
            if distance < t {
                t = distance;
                nearest = i;
            }
        }
        if t == FAR {
            var light = sky(direction);
            if diffuse == 0u && dot(direction, scene.sun) > scene.sun_cosine {
                light += scene.sun_light / (2.0 * PI * (1.0 - scene.sun_cosine));
            }
            if !described {
                result.albedo = min(weight * light, vec3f(1.0));
            }
            let found = weight * light;
            result.colour += select(found, limited(found), diffuse > 0u);
            break;
        }
        let p = scene.list[nearest];
        let at = origin + t * direction;
        if bounce == 0u {
            result.first = First(vec4f(at + p.moved, 1.0), dot(at - eye, scene.forward));
        }
        let front = normal_of(p, at);
        let inside = dot(front, direction) > 0.0;
        let normal = select(front, -front, inside);
        if p.material == LIGHT {
            let light = select(p.colour, vec3f(0.0), inside);
            if !described {
                result.albedo = min(weight * light, vec3f(1.0));
                result.normal = normal;
            }
            if diffuse == 0u {
                result.colour += weight * light;
            }
            break;
        }
        let colour = albedo_of(p, at);
        if !described && p.material != MIRROR && p.material != GLASS {
            described = true;
            result.albedo = weight * colour;
            result.normal = normal;
        }
        origin = at;
        let facing = -dot(direction, normal);
        if p.material == MIRROR {
            direction = reflect(direction, normal);
            weight *= colour;
        } else if p.material == GLOSSY {
            direction = glossy(direction, normal, p.roughness);
            weight *= colour;
        } else if p.material == GLASS {
            let refracted = refract(direction, normal, select(1.0 / 1.5, 1.5, inside));
            // Of the angle in the air.
            let reflected = reflectance(select(facing, -dot(refracted, normal), inside));
            if all(refracted == vec3f(0.0)) || random() < reflected {
                direction = reflect(direction, normal);
            } else {
                direction = normalize(refracted);
                // Once for a body, where the path enters.
                weight *= select(colour, vec3f(1.0), inside);
            }
        } else if p.material == COATED && random() < reflectance(facing) {
            direction = glossy(direction, normal, p.roughness);
        } else {
            weight *= colour;
            let drawn = weight * lit(at, normal) / PI;
            result.colour += select(drawn, limited(drawn), diffuse > 0u);
            diffuse++;
            direction = direction_of(normal + on_sphere(), normal);
        }
        // Russian roulette.
        if bounce >= 3u {
            let survival = min(max(weight.x, max(weight.y, weight.z)), 1.0);
            if random() >= survival {
                break;
            }
            weight /= survival;
        }
    }
    return result;
}

@compute @workgroup_size(8, 8)
fn trace(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= scene.width || id.y >= scene.height {
        return;
    }
    let index = id.y * scene.width + id.x;
    state = hash(index ^ hash(pixels[index].samples ^ hash(scene.seed)));
    let size = vec2f(f32(scene.width), f32(scene.height));
    let off = vec2f(random(), random()) - 0.5;
    let pixel = vec2f(id.xy) + 0.5 + vec2f(scene.jitter_x, scene.jitter_y) + scene.spread * off;
    let place = pixel / size;
    let direction = scene.forward + (2.0 * place.x - 1.0) * scene.right + (1.0 - 2.0 * place.y) * scene.up;
    let sample = path(scene.eye, normalize(direction));
    let nearest = pixels[index].nearest;
    if pixels[index].samples == 0u || sample.first.depth < nearest.w {
        // As the camera before saw it.
        let seen = sample.first.before.xyz - sample.first.before.w * scene.before_eye;
        let depth = dot(seen, scene.before_forward);
        let across = vec2f(dot(seen, scene.before_right), -dot(seen, scene.before_up)) / max(depth, 1e-6);
        let away = select(0.0, depth - sample.first.depth, sample.first.before.w > 0.0);
        pixels[index].nearest = vec4f((0.5 + 0.5 * across) * size - pixel, away, sample.first.depth);
    }
    pixels[index].colour += sample.colour;
    pixels[index].albedo += sample.albedo;
    pixels[index].normal += sample.normal;
    pixels[index].samples += 1u;
}

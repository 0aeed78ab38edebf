//! Kinds of random scenes: a seed is a scene.

use std::f32::consts::PI;

use super::scene::{
    Camera, Material, Primitive, Scene, Shape, Sky, Texture, Vector, difference, scaled, unit,
};

/// A kind of scenes.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    /// Never trained on.
    pub held_out: bool,
    build: fn(&mut Dice) -> Scene,
}

pub const FAMILIES: [Family; 8] = [
    Family { name: "cells", held_out: false, build: cell },
    Family { name: "rooms", held_out: false, build: room },
    Family { name: "meadows", held_out: false, build: meadow },
    Family { name: "studios", held_out: false, build: studio },
    Family { name: "heaps", held_out: false, build: heap },
    Family { name: "cornell", held_out: true, build: cornell },
    Family { name: "stairs", held_out: true, build: stairs },
    Family { name: "gallery", held_out: true, build: gallery },
];

impl Family {
    pub fn scene(&self, seed: u64) -> Scene {
        // Families do not share their numbers.
        let salt = self.name.bytes().fold(0u64, |salt, byte| salt.wrapping_mul(257) + u64::from(byte));
        (self.build)(&mut Dice(seed ^ salt << 20))
    }
}

/// SplitMix64 (Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// From one number to another, both possible.
    fn count(&mut self, low: usize, high: usize) -> usize {
        low + self.next() as usize % (high - low + 1)
    }

    fn chance(&mut self, share: f32) -> bool {
        self.between(0.0, 1.0) < share
    }

    /// An albedo of any hue.
    fn colour(&mut self) -> Vector {
        let (hue, grey) = (self.between(0.0, 2.0 * PI), self.between(0.0, 1.0));
        let bright = self.between(0.15, 0.85);
        [0.0, 2.1, 4.2].map(|phase| {
            let pure = 0.5 + 0.5 * (hue + phase).cos();
            bright * (grey + (1.0 - grey) * pure).clamp(0.03, 1.0)
        })
    }

    fn pale(&mut self) -> Vector {
        let bright = self.between(0.6, 0.85);
        [(); 3].map(|()| bright * self.between(0.9, 1.0))
    }

    /// Of a lamp: warm to cold.
    fn white(&mut self) -> Vector {
        let warmth = self.between(-0.3, 0.3);
        [1.0 + warmth, 1.0, 1.0 - warmth]
    }

    fn texture(&mut self, share: f32, scale: f32) -> Texture {
        if !self.chance(share) {
            return Texture::Plain;
        }
        let (other, scale) = (self.colour(), scale * self.between(0.5, 2.0));
        match self.count(0, 3) {
            0 | 1 => Texture::Checker(other, scale),
            2 => Texture::Noise(other, 1.5 * scale),
            _ => Texture::Stripes(other, scale),
        }
    }

    fn wall(&mut self, corner: Vector, a: Vector, b: Vector, pale: bool) -> Primitive {
        let colour = if pale { self.pale() } else { self.colour() };
        Primitive {
            texture: self.texture(0.35, 2.0),
            ..Primitive::diffuse(Shape::Quad { corner, a, b }, colour)
        }
    }

    /// Half of the things are diffuse.
    fn thing(&mut self, shape: Shape, scale: f32) -> Primitive {
        let (material, colour) = match self.count(0, 19) {
            0..=9 => (Material::Diffuse, self.colour()),
            10..=13 => (Material::Coated { roughness: self.between(0.0, 0.2) }, self.colour()),
            14 | 15 => (Material::Mirror, self.pale()),
            16 | 17 => (Material::Glossy { roughness: self.between(0.05, 0.4) }, self.colour()),
            _ => (Material::Glass, [(); 3].map(|()| self.between(0.8, 1.0))),
        };
        Primitive { shape, material, colour, texture: self.texture(0.4, scale) }
    }

    /// Spheres and blocks that stand apart on the ground within the sides `x` and `z`.
    fn things(&mut self, count: usize, x: f32, z: f32, sizes: [f32; 2]) -> Vec<Primitive> {
        let mut places: Vec<[f32; 3]> = Vec::new();
        let mut things = Vec::new();
        for _ in 0..20 * count {
            if things.len() == count {
                break;
            }
            let size = self.between(sizes[0], sizes[1]);
            let (px, pz) = (self.between(size - x, x - size), self.between(size - z, z - size));
            if places.iter().any(|p| (p[0] - px).hypot(p[1] - pz) < 1.05 * (p[2] + size)) {
                continue;
            }
            places.push([px, pz, size]);
            let shape = match self.chance(0.55) {
                true => Shape::Sphere { centre: [px, size, pz], radius: size },
                false => {
                    let half = [0.7 * size, size * self.between(0.3, 1.8), size * self.between(0.3, 0.7)];
                    Shape::Block { centre: [px, half[1], pz], half, turn: self.between(0.0, PI) }
                }
            };
            things.push(self.thing(shape, 2.0 / size));
        }
        things
    }

    /// A camera somewhere round `target`, on the side of positive z.
    fn camera(&mut self, target: Vector, distance: [f32; 2], height: [f32; 2], swing: f32) -> Camera {
        let (far, round) = (self.between(distance[0], distance[1]), self.between(-swing, swing));
        let eye = [
            target[0] + far * round.sin(),
            self.between(height[0], height[1]),
            target[2] + far * round.cos(),
        ];
        let target = target.map(|t| t + self.between(-0.2, 0.2));
        Camera { eye, target, angle: self.between(32.0, 50.0) }
    }

    fn sky(&mut self, brightness: f32, sun: f32) -> Sky {
        let (zenith, horizon) = match self.count(0, 2) {
            0 => ([0.25, 0.45, 0.9], [0.8, 0.9, 1.0]),
            1 => ([0.5, 0.5, 0.5], [0.9, 0.9, 0.9]),
            _ => ([0.2, 0.25, 0.5], [1.1, 0.7, 0.45]),
        };
        let brightness = brightness * self.between(0.4, 1.2);
        let sun = self.chance(sun).then(|| {
            let (up, round) = (self.between(0.3, 1.3), self.between(0.0, 2.0 * PI));
            let direction = [up.cos() * round.cos(), up.sin(), up.cos() * round.sin()];
            let strength = self.between(1.0, 3.5);
            (direction, scaled(self.white(), strength), self.between(0.5, 4.0))
        });
        Sky { zenith: scaled(zenith, brightness), horizon: scaled(horizon, brightness), sun }
    }

    /// A lamp at `place` that faces `towards`, of this power (radiance times area).
    fn lamp(&mut self, place: Vector, towards: Vector, sides: [f32; 2], power: f32) -> Primitive {
        let n = unit(difference(towards, place));
        let other = if n[1].abs() > 0.9 { [1.0, 0.0, 0.0] } else { [0.0, 1.0, 0.0] };
        let u = unit(super::scene::cross(other, n));
        let v = super::scene::cross(n, u);
        let [a, b] = [scaled(u, sides[0]), scaled(v, sides[1])];
        let corner = [0, 1, 2].map(|i| place[i] - (a[i] + b[i]) / 2.0);
        let radiance = scaled(self.white(), power / (sides[0] * sides[1]));
        Primitive::light(corner, a, b, radiance)
    }
}

/// What all scenes but the tests' are rendered with.
fn scene(camera: Camera, sky: Sky, primitives: Vec<Primitive>) -> Scene {
    Scene { camera, sky, primitives, bounces: 8, limit: 4.0 }
}

/// The ground, as large as anybody sees.
fn ground(dice: &mut Dice, share: f32) -> Primitive {
    let mut ground = dice.wall([-30.0, 0.0, -30.0], [0.0, 0.0, 60.0], [60.0, 0.0, 0.0], true);
    ground.texture = dice.texture(share, 1.5);
    ground
}

/// The five inner faces of a room that is open towards positive z: floor, ceiling, back, left, right.
fn faces(x: f32, y: f32, z: f32) -> [[Vector; 3]; 5] {
    [
        [[-x, 0.0, -z], [0.0, 0.0, 2.0 * z], [2.0 * x, 0.0, 0.0]],
        [[-x, y, -z], [2.0 * x, 0.0, 0.0], [0.0, 0.0, 2.0 * z]],
        [[-x, 0.0, -z], [2.0 * x, 0.0, 0.0], [0.0, y, 0.0]],
        [[-x, 0.0, -z], [0.0, y, 0.0], [0.0, 0.0, 2.0 * z]],
        [[x, 0.0, -z], [0.0, 0.0, 2.0 * z], [0.0, y, 0.0]],
    ]
}

/// Boxes open to the front, with lamps in the ceiling.
fn cell(dice: &mut Dice) -> Scene {
    let (x, y, z) = (dice.between(0.8, 1.5), dice.between(1.5, 2.2), dice.between(0.8, 1.4));
    let mut list: Vec<Primitive> = (0..)
        .zip(faces(x, y, z))
        .map(|(i, [corner, a, b])| {
            let pale = i < 3 || dice.chance(0.3);
            dice.wall(corner, a, b, pale)
        })
        .collect();
    for _ in 0..dice.count(1, 3) {
        let place = [dice.between(-0.6, 0.6) * x, y - 0.01, dice.between(-0.6, 0.6) * z];
        let sides = [dice.between(0.1, 0.7), dice.between(0.1, 0.7)];
        let power = dice.between(1.0, 4.0);
        list.push(dice.lamp(place, [place[0], 0.0, place[2]], sides, power));
    }
    let count = dice.count(2, 6);
    list.extend(dice.things(count, 0.95 * x, 0.95 * z, [0.15, 0.5]));
    let camera = dice.camera([0.0, 0.45 * y, 0.0], [z + 1.6, z + 2.6], [0.4, 0.8 * y], 0.25);
    scene(camera, if dice.chance(0.3) { dice.sky(0.2, 0.0) } else { Sky::NONE }, list)
}

/// Closed rooms with columns, seen from inside, with a window or lamps.
fn room(dice: &mut Dice) -> Scene {
    let (x, y, z) = (dice.between(2.0, 3.5), dice.between(2.2, 3.2), dice.between(2.5, 4.0));
    let mut list: Vec<Primitive> = faces(x, y, z)
        .map(|[corner, a, b]| {
            let pale = dice.chance(0.6);
            dice.wall(corner, a, b, pale)
        })
        .into();
    list.push(dice.wall([x, 0.0, z], [-2.0 * x, 0.0, 0.0], [0.0, y, 0.0], true));
    if dice.chance(0.5) {
        let side = if dice.chance(0.5) { x - 0.01 } else { 0.01 - x };
        let place = [side, dice.between(0.5, 0.6) * y, dice.between(-0.5, 0.3) * z];
        let sides = [dice.between(0.8, 2.0), dice.between(0.6, 1.2)];
        let power = dice.between(10.0, 24.0);
        list.push(dice.lamp(place, [0.0, place[1], place[2]], sides, power));
    } else {
        for _ in 0..dice.count(2, 5) {
            let place = [dice.between(-0.7, 0.7) * x, y - 0.01, dice.between(-0.8, 0.6) * z];
            let sides = [dice.between(0.2, 1.0), dice.between(0.2, 0.6)];
            let power = dice.between(2.0, 7.0);
            list.push(dice.lamp(place, [place[0], 0.0, place[2]], sides, power));
        }
    }
    for _ in 0..dice.count(0, 4) {
        let half = [dice.between(0.08, 0.25), y / 2.0, dice.between(0.08, 0.25)];
        let centre = [dice.between(-0.8, 0.8) * x, y / 2.0, dice.between(-0.8, 0.1) * z];
        let turn = dice.between(0.0, PI);
        list.push(dice.thing(Shape::Block { centre, half, turn }, 1.5));
    }
    let count = dice.count(3, 8);
    list.extend(dice.things(count, 0.8 * x, 0.7 * z, [0.2, 0.7]));
    let eye = [dice.between(-0.6, 0.6) * x, dice.between(0.3, 0.8) * y, 0.93 * z];
    let camera = Camera { eye, target: [0.0, 0.4 * y, -0.3 * z], angle: dice.between(45.0, 70.0) };
    scene(camera, Sky::NONE, list)
}

/// Things in the open, under the sky.
fn meadow(dice: &mut Dice) -> Scene {
    let mut list = vec![ground(dice, 0.8)];
    let count = dice.count(5, 14);
    list.extend(dice.things(count, 3.0, 3.0, [0.2, 0.9]));
    let camera = dice.camera([0.0, 0.4, 0.0], [4.0, 8.0], [0.7, 4.0], PI);
    scene(camera, dice.sky(1.0, 0.7), list)
}

/// A corner and softboxes.
fn studio(dice: &mut Dice) -> Scene {
    let mut list = vec![ground(dice, 0.3)];
    list.push(dice.wall([-10.0, 0.0, -2.5], [20.0, 0.0, 0.0], [0.0, 8.0, 0.0], true));
    for _ in 0..dice.count(1, 3) {
        let place = [dice.between(-3.5, 3.5), dice.between(1.5, 4.0), dice.between(-0.5, 4.0)];
        let sides = [dice.between(0.3, 1.8), dice.between(0.3, 1.8)];
        let power = dice.between(6.0, 20.0);
        list.push(dice.lamp(place, [0.0, 0.5, 0.0], sides, power));
    }
    let count = dice.count(3, 9);
    list.extend(dice.things(count, 1.8, 1.8, [0.15, 0.6]));
    for _ in 0..dice.count(0, 8) {
        let centre = [dice.between(-1.8, 1.8), dice.between(0.8, 2.2), dice.between(-1.5, 1.0)];
        let radius = dice.between(0.08, 0.3);
        list.push(dice.thing(Shape::Sphere { centre, radius }, 6.0));
    }
    let camera = dice.camera([0.0, 0.7, 0.0], [3.5, 6.0], [0.6, 2.5], 0.6);
    scene(camera, dice.sky(0.15, 0.0), list)
}

/// Many small things near to each other: edges and shadows.
fn heap(dice: &mut Dice) -> Scene {
    let mut list = vec![ground(dice, 0.5)];
    for _ in 0..dice.count(20, 45) {
        let (far, round) = (dice.between(0.0, 1.8), dice.between(0.0, 2.0 * PI));
        let size = dice.between(0.08, 0.4);
        let centre =
            [far * round.cos(), size + dice.between(0.0, 1.4) * (1.0 - far / 2.0), far * round.sin()];
        let shape = match dice.chance(0.5) {
            true => Shape::Sphere { centre, radius: size },
            false => {
                let half = [(); 3].map(|()| size * dice.between(0.3, 0.9));
                Shape::Block { centre, half, turn: dice.between(0.0, PI) }
            }
        };
        list.push(dice.thing(shape, 1.5 / size));
    }
    let open = dice.chance(0.5);
    let sky = if open { dice.sky(0.9, 0.6) } else { dice.sky(0.1, 0.0) };
    if !open {
        let (place, power) =
            ([dice.between(-3.0, 3.0), 4.0, dice.between(-1.0, 3.0)], dice.between(12.0, 30.0));
        let sides = [dice.between(0.4, 1.5), dice.between(0.4, 1.5)];
        list.push(dice.lamp(place, [0.0, 0.5, 0.0], sides, power));
    }
    let camera = dice.camera([0.0, 0.7, 0.0], [3.5, 6.0], [0.8, 3.0], PI);
    scene(camera, sky, list)
}

/// The Cornell box with spheres beside or instead of its blocks.
fn cornell(dice: &mut Dice) -> Scene {
    let [white, red, green] = [[0.73, 0.73, 0.73], [0.65, 0.05, 0.05], [0.12, 0.45, 0.15]];
    let colours = [white, white, white, red, green];
    let mut list: Vec<Primitive> = faces(1.0, 2.0, 1.0)
        .into_iter()
        .zip(colours)
        .map(|([corner, a, b], colour)| Primitive::diffuse(Shape::Quad { corner, a, b }, colour))
        .collect();
    let power = dice.between(2.5, 4.5);
    list.push(dice.lamp([0.0, 1.99, 0.0], [0.0, 0.0, 0.0], [0.5, 0.4], power));
    let tall =
        Shape::Block { centre: [-0.35, 0.6, -0.35], half: [0.3, 0.6, 0.3], turn: dice.between(-0.4, 0.0) };
    let short =
        Shape::Block { centre: [0.35, 0.3, 0.3], half: [0.3, 0.3, 0.3], turn: dice.between(0.0, 0.5) };
    list.push(Primitive::diffuse(tall, white));
    if dice.chance(0.5) {
        list.push(Primitive::diffuse(short, white));
        let ball = Shape::Sphere { centre: [0.4, 0.8, 0.3], radius: 0.2 };
        let material = if dice.chance(0.5) { Material::Glass } else { Material::Mirror };
        list.push(Primitive { material, ..Primitive::diffuse(ball, [0.95; 3]) });
    } else {
        let ball = Shape::Sphere { centre: [0.45, 0.35, 0.25], radius: 0.35 };
        let material = if dice.chance(0.5) { Material::Mirror } else { Material::Coated { roughness: 0.02 } };
        list.push(Primitive { material, ..Primitive::diffuse(ball, [0.9, 0.8, 0.5]) });
        let marble = Shape::Sphere { centre: [-0.3, 0.18, 0.6], radius: 0.18 };
        list.push(Primitive { material: Material::Glass, ..Primitive::diffuse(marble, [0.95; 3]) });
    }
    let camera = Camera {
        eye: [dice.between(-0.2, 0.2), dice.between(0.9, 1.1), 3.6],
        target: [0.0, 1.0, 0.0],
        angle: 42.0,
    };
    scene(camera, Sky::NONE, list)
}

/// Brick steps with balls on them, under the sky.
fn stairs(dice: &mut Dice) -> Scene {
    let mut list = vec![ground(dice, 1.0)];
    let (brick, mortar) = ([dice.between(0.3, 0.6), 0.2, 0.15], dice.pale());
    for i in 0..6 {
        let high = 0.22 * (i + 1) as f32;
        let shape = Shape::Block {
            centre: [0.0, high / 2.0, 0.6 - 0.5 * i as f32],
            half: [1.8, high / 2.0, 0.25],
            turn: 0.0,
        };
        let texture = Texture::Bricks(mortar, 2.5);
        list.push(Primitive { texture, ..Primitive::diffuse(shape, brick) });
        let radius = dice.between(0.1, 0.22);
        let centre = [dice.between(-1.4, 1.4), high + radius, 0.6 - 0.5 * i as f32];
        list.push(dice.thing(Shape::Sphere { centre, radius }, 4.0));
    }
    let camera = dice.camera([0.0, 0.7, -0.4], [4.0, 5.5], [1.2, 2.6], 0.7);
    scene(camera, dice.sky(0.9, 0.7), list)
}

/// A corridor with strips of light over a row of balls of every material, on rings.
fn gallery(dice: &mut Dice) -> Scene {
    let mut list: Vec<Primitive> = faces(1.6, 2.4, 4.0)
        .map(|[corner, a, b]| {
            let pale = dice.pale();
            Primitive::diffuse(Shape::Quad { corner, a, b }, pale)
        })
        .into();
    list[0].texture = Texture::Rings(dice.colour(), dice.between(1.5, 3.0));
    list[3].texture = Texture::Bricks(dice.colour(), 1.5);
    list[4].colour = dice.colour();
    for i in 0..4 {
        let z = -3.2 + 1.9 * i as f32;
        let power = dice.between(1.5, 4.0);
        list.push(dice.lamp([0.0, 2.39, z], [0.0, 0.0, z], [1.6, 0.12], power));
    }
    let materials = [
        Material::Diffuse,
        Material::Glossy { roughness: 0.15 },
        Material::Glass,
        Material::Coated { roughness: 0.05 },
        Material::Mirror,
    ];
    for (i, material) in (0..10).zip(materials.into_iter().cycle()) {
        let radius = dice.between(0.25, 0.42);
        let x = if i % 2 == 0 { dice.between(-1.1, -0.5) } else { dice.between(0.5, 1.1) };
        let shape = Shape::Sphere { centre: [x, radius, 1.6 - 0.55 * i as f32], radius };
        let colour = if material == Material::Glass { [0.95; 3] } else { dice.colour() };
        list.push(Primitive { material, ..Primitive::diffuse(shape, colour) });
    }
    let eye = [dice.between(-0.7, 0.7), dice.between(0.9, 1.6), 3.8];
    let camera = Camera { eye, target: [0.0, 0.7, 0.0], angle: dice.between(45.0, 60.0) };
    scene(camera, Sky::NONE, list)
}

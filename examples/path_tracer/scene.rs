//! What there is to see: a camera, a sky, quads, spheres and boxes.

use std::f32::consts::PI;

use bytemuck::{Pod, Zeroable};

use super::{MOST_PRIMITIVES, View};

pub type Vector = [f32; 3];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// A corner and two edges at right angles; its front is where `a × b` points.
    Quad {
        corner: Vector,
        a: Vector,
        b: Vector,
    },
    Sphere {
        centre: Vector,
        radius: f32,
    },
    /// Half of each side; turned round the vertical axis by `turn` radians.
    Block {
        centre: Vector,
        half: Vector,
        turn: f32,
    },
}

impl Shape {
    /// Its corner or centre.
    pub fn place(&self) -> Vector {
        match *self {
            Shape::Quad { corner, .. } => corner,
            Shape::Sphere { centre, .. } | Shape::Block { centre, .. } => centre,
        }
    }

    pub fn shift(&mut self, by: Vector) {
        let (Shape::Quad { corner: place, .. }
        | Shape::Sphere { centre: place, .. }
        | Shape::Block { centre: place, .. }) = self;
        *place = [0, 1, 2].map(|i| place[i] + by[i]);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Material {
    Diffuse,
    Mirror,
    Glossy {
        roughness: f32,
    },
    Glass,
    /// A quad alone can be one; its colour is the radiance.
    Light,
    /// Diffuse under varnish of this roughness.
    Coated {
        roughness: f32,
    },
}

/// A second colour, and how often the pattern repeats in a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Texture {
    Plain,
    Checker(Vector, f32),
    Noise(Vector, f32),
    Stripes(Vector, f32),
    Rings(Vector, f32),
    Bricks(Vector, f32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Primitive {
    pub shape: Shape,
    pub material: Material,
    pub colour: Vector,
    pub texture: Texture,
}

impl Primitive {
    pub fn diffuse(shape: Shape, colour: Vector) -> Self {
        Primitive { shape, material: Material::Diffuse, colour, texture: Texture::Plain }
    }

    pub fn light(corner: Vector, a: Vector, b: Vector, radiance: Vector) -> Self {
        Primitive { material: Material::Light, ..Self::diffuse(Shape::Quad { corner, a, b }, radiance) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Camera {
    pub eye: Vector,
    pub target: Vector,
    /// From the bottom of the picture to its top, in degrees.
    pub angle: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sky {
    /// Radiance straight up, and at the horizon and below.
    pub zenith: Vector,
    pub horizon: Vector,
    /// Direction, irradiance on what faces it, and the radius in degrees.
    pub sun: Option<(Vector, Vector, f32)>,
}

impl Sky {
    pub const NONE: Sky = Sky { zenith: [0.0; 3], horizon: [0.0; 3], sun: None };
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    pub camera: Camera,
    pub sky: Sky,
    /// At most [`MOST_PRIMITIVES`]; more are left out.
    pub primitives: Vec<Primitive>,
    /// A path has no more than these.
    pub bounces: u32,
    /// No light that came over two diffuse surfaces or more counts for more than this; infinity for all of it.
    pub limit: f32,
}

/// As `trace.wgsl` has them.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PackedPrimitive {
    shape: u32,
    material: u32,
    texture: u32,
    scale: f32,
    place: Vector,
    radius: f32,
    a: Vector,
    cosine: f32,
    b: Vector,
    sine: f32,
    colour: Vector,
    roughness: f32,
    other: Vector,
    unused: f32,
    moved: Vector,
    unused_too: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Packed {
    eye: Vector,
    primitives: u32,
    right: Vector,
    lights: u32,
    up: Vector,
    bounces: u32,
    forward: Vector,
    seed: u32,
    zenith: Vector,
    limit: f32,
    horizon: Vector,
    sun_cosine: f32,
    sun: Vector,
    width: u32,
    sun_light: Vector,
    height: u32,
    before_eye: Vector,
    jitter_x: f32,
    before_right: Vector,
    jitter_y: f32,
    before_up: Vector,
    spread: f32,
    before_forward: Vector,
    unused: f32,
    list: [PackedPrimitive; MOST_PRIMITIVES],
}

pub(super) const BYTES: usize = size_of::<Packed>();

impl Camera {
    /// Half of the picture's width and height at distance one, and where it looks.
    fn axes(&self, [width, height]: [u32; 2]) -> [Vector; 3] {
        let forward = unit(difference(self.target, self.eye));
        let side = unit(cross(forward, [0.0, 1.0, 0.0]));
        let half = (self.angle * PI / 360.0).tan();
        [scaled(side, half * width as f32 / height as f32), scaled(cross(side, forward), half), forward]
    }

    /// The same view from elsewhere: turned round what it looks at by `angle` radians, and raised.
    pub fn swung(&self, angle: f32, raised: f32) -> Camera {
        let [x, y, z] = difference(self.eye, self.target);
        let (sin, cos) = angle.sin_cos();
        let off = [cos * x + sin * z, y + raised, cos * z - sin * x];
        Camera { eye: [0, 1, 2].map(|i| self.target[i] + off[i]), ..*self }
    }
}

impl Scene {
    /// As a frame of a sequence has it: the camera swings round what it looks at, and the last thing drifts aside. Frame 0 is
    /// the scene itself.
    pub fn at(&self, frame: u32) -> Scene {
        let t = frame as f32;
        let mut scene = Scene { camera: self.camera.swung(0.012 * t, 0.008 * t), ..self.clone() };
        if let Some(last) = scene.primitives.last_mut() {
            last.shape.shift([0.015 * t, 0.0, 0.01 * t]);
        }
        scene
    }

    pub(super) fn packed(&self, size: [u32; 2], view: View, seed: u32) -> Packed {
        let [right, up, forward] = self.camera.axes(size);
        let View { before, jitter: [jitter_x, jitter_y], spread } = view;
        let [before_right, before_up, before_forward] = before.camera.axes(size);
        // Of a vector, how many of these it has.
        let counted = |v: Vector| scaled(v, 1.0 / v.iter().map(|x| x * x).sum::<f32>());
        let moved = |i: usize| match before.primitives.get(i) {
            Some(p) => difference(p.shape.place(), self.primitives[i].shape.place()),
            None => [0.0; 3],
        };
        let (sun, sun_light, radius) = self.sky.sun.unwrap_or(([0.0, 1.0, 0.0], [0.0; 3], 0.0));
        // Lights first.
        let (mut list, rest): (Vec<_>, Vec<_>) =
            self.primitives.iter().enumerate().partition(|(_, p)| p.material == Material::Light);
        let lights = list.len().min(MOST_PRIMITIVES) as u32;
        list.extend(rest);
        list.truncate(MOST_PRIMITIVES);
        let mut packed = Packed {
            eye: self.camera.eye,
            primitives: list.len() as u32,
            right,
            lights,
            up,
            bounces: self.bounces,
            forward,
            seed,
            zenith: self.sky.zenith,
            limit: self.limit.min(f32::MAX),
            horizon: self.sky.horizon,
            sun_cosine: (radius * PI / 180.0).cos(),
            sun: unit(sun),
            width: size[0],
            sun_light,
            height: size[1],
            before_eye: before.camera.eye,
            jitter_x,
            before_right: counted(before_right),
            jitter_y,
            before_up: counted(before_up),
            spread,
            before_forward,
            unused: 0.0,
            list: [PackedPrimitive::zeroed(); MOST_PRIMITIVES],
        };
        for (to, (i, from)) in packed.list.iter_mut().zip(list) {
            *to = PackedPrimitive { moved: moved(i), ..from.packed() };
        }
        packed
    }
}

impl Primitive {
    fn packed(&self) -> PackedPrimitive {
        let (material, roughness) = match self.material {
            Material::Diffuse => (0, 0.0),
            Material::Mirror => (1, 0.0),
            Material::Glossy { roughness } => (2, roughness),
            Material::Glass => (3, 0.0),
            Material::Light => (4, 0.0),
            Material::Coated { roughness } => (5, roughness),
        };
        let (texture, other, scale) = match self.texture {
            Texture::Plain => (0, [0.0; 3], 0.0),
            Texture::Checker(other, scale) => (1, other, scale),
            Texture::Noise(other, scale) => (2, other, scale),
            Texture::Stripes(other, scale) => (3, other, scale),
            Texture::Rings(other, scale) => (4, other, scale),
            Texture::Bricks(other, scale) => (5, other, scale),
        };
        let surface = PackedPrimitive {
            material,
            texture,
            scale,
            colour: self.colour,
            roughness,
            other,
            ..PackedPrimitive::zeroed()
        };
        match self.shape {
            Shape::Quad { corner, a, b } => PackedPrimitive { shape: 0, place: corner, a, b, ..surface },
            Shape::Sphere { centre, radius } => {
                PackedPrimitive { shape: 1, place: centre, radius, ..surface }
            }
            Shape::Block { centre, half, turn } => PackedPrimitive {
                shape: 2,
                place: centre,
                a: half,
                cosine: turn.cos(),
                sine: turn.sin(),
                ..surface
            },
        }
    }
}

pub fn difference(a: Vector, b: Vector) -> Vector {
    [0, 1, 2].map(|i| a[i] - b[i])
}

pub fn scaled(v: Vector, by: f32) -> Vector {
    v.map(|x| x * by)
}

pub fn cross(a: Vector, b: Vector) -> Vector {
    [0, 1, 2].map(|i| {
        let (j, k) = ((i + 1) % 3, (i + 2) % 3);
        a[j] * b[k] - a[k] * b[j]
    })
}

pub fn unit(v: Vector) -> Vector {
    scaled(v, 1.0 / v.iter().map(|x| x * x).sum::<f32>().sqrt())
}

//! The examples' path tracer against what is known of light.

#[path = "../examples/path_tracer/mod.rs"]
mod path_tracer;

mod hashed;

use aquatint::Gpu;
use hashed::gpu;
use path_tracer::{
    Camera, FAMILIES, Frame, MOST_PRIMITIVES, Material, Primitive, Scene, Shape, Sky, Texture, Tracer,
};

/// Colour, albedo and normal of each pixel.
fn render(
    gpu: &Gpu,
    scene: &Scene,
    [width, height]: [u32; 2],
    seed: u32,
    samples: u32,
) -> [Vec<[f32; 3]>; 3] {
    let (device, queue) = (gpu.device(), gpu.queue());
    let size = u64::from(width * height) * 12;
    let buffer = |size, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("frame"),
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    let buffers = [(); 3].map(|()| buffer(size, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC));
    let staging = buffer(3 * size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let frame = Frame { colour: &buffers[0], albedo: &buffers[1], normal: &buffers[2] };
    let tracer = Tracer::new(device, [width, height], frame);
    tracer.look(queue, scene, seed);
    let mut encoder = device.create_command_encoder(&Default::default());
    tracer.clear(&mut encoder);
    tracer.trace(&mut encoder, samples);
    tracer.resolve(&mut encoder);
    for (i, buffer) in (0..).zip(&buffers) {
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, i * size, size);
    }
    queue.submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let values: Vec<[f32; 3]> = bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..).unwrap());
    let pixels = values.len() / 3;
    [0, 1, 2].map(|i| values[i * pixels..(i + 1) * pixels].to_vec())
}

fn mean(values: &[[f32; 3]]) -> [f64; 3] {
    [0, 1, 2].map(|c| values.iter().map(|v| f64::from(v[c])).sum::<f64>() / values.len() as f64)
}

const WHITE: Sky = Sky { zenith: [1.0; 3], horizon: [1.0; 3], sun: None };

/// Everything there is, without a limit.
fn scene(camera: Camera, sky: Sky, primitives: Vec<Primitive>) -> Scene {
    Scene { camera, sky, primitives, bounces: 200, limit: f32::INFINITY }
}

fn ball(x: f32, material: Material) -> Primitive {
    let shape = Shape::Sphere { centre: [x, 0.0, 0.0], radius: 0.5 };
    Primitive { material, ..Primitive::diffuse(shape, [1.0; 3]) }
}

#[test]
fn white_things_cannot_be_seen_in_a_white_furnace() {
    let Some(gpu) = gpu() else { return };
    let block = Shape::Block { centre: [0.3, -0.9, 0.4], half: [0.6, 0.35, 0.5], turn: 0.5 };
    let list = vec![
        ball(-1.1, Material::Diffuse),
        ball(0.0, Material::Glass),
        ball(1.1, Material::Mirror),
        Primitive { material: Material::Glossy { roughness: 0.4 }, ..ball(2.2, Material::Diffuse) },
        Primitive::diffuse(block, [1.0; 3]),
        Primitive { material: Material::Coated { roughness: 0.2 }, ..ball(-2.2, Material::Diffuse) },
        Primitive::diffuse(
            Shape::Quad { corner: [-3.0, -1.4, -2.0], a: [0.0, 0.0, 4.0], b: [6.0, 0.0, 0.0] },
            [1.0; 3],
        ),
    ];
    let camera = Camera { eye: [0.0, 1.0, 5.0], target: [0.0, -0.3, 0.0], angle: 50.0 };
    let [colour, ..] = render(gpu, &scene(camera, WHITE, list), [40, 24], 1, 4);
    for (i, c) in colour.iter().enumerate() {
        assert!(c.iter().all(|v| (v - 1.0).abs() < 1e-4), "pixel {i}: {c:?}");
    }
}

/// A camera straight above the origin that sees next to nothing but it.
const DOWN: Camera = Camera { eye: [0.0, 0.5, 0.001], target: [0.0, 0.0, 0.0], angle: 0.2 };

fn floor(albedo: f32) -> Primitive {
    Primitive::diffuse(
        Shape::Quad { corner: [-50.0, 0.0, -50.0], a: [0.0, 0.0, 100.0], b: [100.0, 0.0, 0.0] },
        [albedo; 3],
    )
}

/// Radiance of a diffuse floor of albedo 0.5 under a square lamp of radiance 2 in parallel to it, from the form factor of
/// a rectangle to a point under its corner (Howell, A Catalog of Radiation Heat Transfer Configuration Factors, B-4).
fn under_a_lamp(half: f64, height: f64) -> f64 {
    let x = half / height;
    let term = x / (1.0 + x * x).sqrt();
    let quarter = 2.0 * term * (term).atan() / (2.0 * std::f64::consts::PI);
    0.5 * 2.0 * 4.0 * quarter
}

#[test]
fn a_floor_under_a_lamp_is_as_bright_as_its_form_factor_says() {
    let Some(gpu) = gpu() else { return };
    for (half, height) in [(0.5, 1.0), (2.0, 1.0), (0.2, 3.0)] {
        let [h, y] = [half as f32, height as f32];
        let lamp = Primitive::light([-h, y, -h], [2.0 * h, 0.0, 0.0], [0.0, 0.0, 2.0 * h], [2.0; 3]);
        let lit = scene(DOWN, Sky::NONE, vec![floor(0.5), lamp]);
        let [colour, albedo, normal] = render(gpu, &lit, [32, 32], 3, 64);
        let (found, expected) = (mean(&colour)[0], under_a_lamp(half, height));
        println!("half a side {half}, {height} above: {found:.5}, expected {expected:.5}");
        // The standard error of 65,536 samples is under 0.2 %.
        assert!((found / expected - 1.0).abs() < 0.01, "{found} instead of {expected}");
        assert!(albedo.iter().all(|a| *a == [0.5; 3]));
        assert!(normal.iter().all(|n| *n == [0.0, 1.0, 0.0]));
    }
}

#[test]
fn the_sun_and_a_sky_light_a_floor_as_they_should() {
    let Some(gpu) = gpu() else { return };
    // Irradiance 3 at 60° from straight up, and π under a sky of 1: 0.5 / π · (1.5 + π).
    let sun = ([0.75_f32.sqrt(), 0.5, 0.0], [3.0; 3], 2.0);
    let open = scene(DOWN, Sky { sun: Some(sun), ..WHITE }, vec![floor(0.5)]);
    let found = mean(&render(gpu, &open, [32, 32], 1, 32)[0])[1];
    let expected = 0.5 / std::f64::consts::PI * (1.5 + std::f64::consts::PI);
    assert!((found / expected - 1.0).abs() < 0.01, "{found} instead of {expected}");
}

#[test]
fn light_that_goes_to_and_fro_adds_up() {
    let Some(gpu) = gpu() else { return };
    // Inside a sphere of albedo ρ = 0.6, radius 10, a small lamp of radiance L and area A that shines upwards.
    let inside = Primitive::diffuse(Shape::Sphere { centre: [0.0; 3], radius: 10.0 }, [0.6; 3]);
    let lamp = Primitive::light([-0.1, 0.0, -0.1], [0.0, 0.0, 0.2], [0.2, 0.0, 0.0], [5000.0; 3]);
    let camera = Camera { eye: [0.0, -5.0, 0.0], target: [1.0, -9.0, 0.5], angle: 60.0 };
    let found = mean(&render(gpu, &scene(camera, Sky::NONE, vec![inside, lamp]), [32, 32], 1, 64)[0])[2];
    // Below the lamp there is no direct light; what has been reflected is the same everywhere in a sphere. The mean of the
    // direct irradiance is π·L·A over 4π·10²; n reflections leave ρⁿ of it, and the wall shows ρ / π of what it gets.
    let direct = 5000.0 * 0.04 / 400.0;
    let expected = direct * 0.6 / (1.0 - 0.6) * 0.6 / std::f64::consts::PI;
    assert!((found / expected - 1.0).abs() < 0.02, "{found} instead of {expected}");
}

#[test]
fn noise_goes_down_with_the_root_of_the_samples() {
    let Some(gpu) = gpu() else { return };
    let cornell = FAMILIES.iter().find(|family| family.name == "cornell").unwrap().scene(1);
    let size = [24, 24];
    let noise = |samples: u32| {
        let [a, b] =
            [1, 2].map(|seed| render(gpu, &cornell, size, seed, samples).into_iter().next().unwrap());
        let square: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a[1] - b[1]).powi(2)).sum();
        (square / (2.0 * a.len() as f64)).sqrt()
    };
    let [few, many] = [noise(16), noise(256)];
    println!("noise at 16 samples {few:.4}, at 256 {many:.4}");
    // A quarter, as well as 576 pixels tell.
    assert!((0.19..0.31).contains(&(many / few)), "{few} at 16 samples, {many} at 256");
}

#[test]
fn seeds_decide_on_everything() {
    let Some(gpu) = gpu() else { return };
    for family in FAMILIES {
        let [scene, same, other] = [5, 5, 6].map(|seed| family.scene(seed));
        assert_eq!(scene, same);
        assert_ne!(scene, other);
        let [a, b, c] = [1, 1, 2].map(|seed| render(gpu, &scene, [17, 9], seed, 2));
        assert_eq!(a, b, "{}", family.name);
        assert_ne!(a[0], c[0], "{}", family.name);
        for (albedo, normal) in a[1].iter().zip(&a[2]) {
            assert!(albedo.iter().all(|v| (0.0..=1.0).contains(v)), "{}: {albedo:?}", family.name);
            assert!(normal.iter().map(|v| v * v).sum::<f32>() < 1.0001, "{}: {normal:?}", family.name);
        }
    }
}

#[test]
fn every_scene_fits_and_shows_something() {
    for family in FAMILIES {
        for seed in 0..200 {
            let Scene { primitives, sky, .. } = family.scene(seed);
            assert!(primitives.len() <= MOST_PRIMITIVES, "{} {seed}: {}", family.name, primitives.len());
            let lamps = primitives.iter().filter(|p| p.material == Material::Light).count();
            assert!(lamps > 0 || sky.zenith[1] > 0.0, "{} {seed} is dark", family.name);
            let quads = |p: &&Primitive| matches!(p.shape, Shape::Quad { .. });
            assert_eq!(
                primitives.iter().filter(|p| p.material == Material::Light).filter(quads).count(),
                lamps
            );
        }
    }
}

#[test]
fn mirrors_show_what_stands_before_them() {
    let Some(gpu) = gpu() else { return };
    // A mirror of which only the red wall behind the camera can be seen.
    let mirror = Shape::Quad { corner: [-5.0, -5.0, -1.0], a: [10.0, 0.0, 0.0], b: [0.0, 10.0, 0.0] };
    let wall = Shape::Quad { corner: [-50.0, -50.0, 3.0], a: [0.0, 100.0, 0.0], b: [100.0, 0.0, 0.0] };
    let list = vec![
        Primitive { material: Material::Mirror, ..Primitive::diffuse(mirror, [0.9; 3]) },
        Primitive { texture: Texture::Plain, ..Primitive::diffuse(wall, [0.8, 0.1, 0.1]) },
    ];
    let camera = Camera { eye: [0.0, 0.0, 1.0], target: [0.0, 0.0, -1.0], angle: 40.0 };
    let [_, albedo, normal] = render(gpu, &scene(camera, WHITE, list), [8, 8], 1, 1);
    for (albedo, normal) in albedo.iter().zip(&normal) {
        let expected = [0.72, 0.09, 0.09];
        assert!(albedo.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{albedo:?}");
        assert!(normal[2] < -0.9999, "{normal:?}");
    }
}

//! Traces a frame with few samples a pixel and takes the noise off it, both recorded into one command encoder: the
//! tracer writes into the network's inputs. Shows noisy frame, denoised one and reference side by side; in a window frame
//! after frame, of a camera that moves.
//!
//! ```text
//! cargo run --release --example denoise_path_tracer -- --family cornell --samples 2 --out target/denoised.png
//! cargo run --release --example denoise_path_tracer -- --family stairs --width 480 --height 320 --window
//! ```

mod path_tracer;
mod scene;
mod window;

use aquatint::frame::{Bindings, Texels, Transfer};
use aquatint::models::path_denoise::path_denoise;
use aquatint::{DType, Gpu, Graph, Network};
use clap::Parser;
use image::{Rgb, RgbImage};
use path_tracer::likeness::{psnr, ssim};
use path_tracer::{FAMILIES, Frame, Scene, Tracer};

#[derive(Parser)]
struct Options {
    /// Kind of scene: cornell, stairs, gallery, cells, rooms, meadows, studios, heaps
    #[arg(long, default_value = "cornell")]
    family: String,
    /// Which of them
    #[arg(long, default_value_t = 1000)]
    scene: u64,
    #[arg(long, default_value_t = 128)]
    width: u32,
    #[arg(long, default_value_t = 96)]
    height: u32,
    /// A pixel, of the noisy frame
    #[arg(long, default_value_t = 2)]
    samples: u32,
    /// A pixel, of the picture that both are compared with
    #[arg(long, default_value_t = 256)]
    reference: u32,
    #[arg(long, default_value = "target/denoised.png")]
    out: std::path::PathBuf,
    /// Frame after frame in a window, noisy and denoised side by side, instead of one in a file
    #[arg(long)]
    window: bool,
}

/// Samples of each pixel in one submission.
const AT_A_TIME: u32 = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let family = FAMILIES.iter().find(|family| family.name == options.family).ok_or("no such family")?;
    let (scene, size) = (family.scene(options.scene), [options.width, options.height]);
    if options.window {
        let both = [2 * size[0], size[1]];
        return window::show("denoise_path_tracer", both, |gpu| Live::new(gpu, scene, size, options.samples));
    }
    let gpu = Gpu::headless()?;
    let (device, queue) = (gpu.device(), gpu.queue());
    let graph = path_denoise(options.width as usize, options.height as usize, DType::F32)?;
    let network = Network::new(&gpu, &graph)?;
    let [color, albedo, normal] = ["color", "albedo", "normal"].map(|name| network.buffer(name));
    let tracer = Tracer::new(device, size, Frame { colour: color?, albedo: albedo?, normal: normal? });

    // A frame of a renderer: trace, denoise, one submission and no wait in between.
    tracer.look(queue, &scene, 1);
    let mut encoder = device.create_command_encoder(&Default::default());
    tracer.clear(&mut encoder);
    tracer.trace(&mut encoder, options.samples);
    tracer.resolve(&mut encoder);
    network.encode(&mut encoder);
    queue.submit([encoder.finish()]);
    let noisy = read(&gpu, network.buffer("color")?)?;
    let denoised = network.read("denoised")?.to_f32();

    // The same with so many samples that little noise is left.
    tracer.look(queue, &scene, 0);
    let mut encoder = device.create_command_encoder(&Default::default());
    tracer.clear(&mut encoder);
    for first in (0..options.reference).step_by(AT_A_TIME as usize) {
        tracer.trace(&mut encoder, AT_A_TIME.min(options.reference - first));
        let done = std::mem::replace(&mut encoder, device.create_command_encoder(&Default::default()));
        gpu.wait(queue.submit([done.finish()]))?;
    }
    tracer.resolve(&mut encoder);
    queue.submit([encoder.finish()]);
    let reference = read(&gpu, network.buffer("color")?)?;

    let [noisy, denoised, reference] = [noisy, denoised, reference].map(|values| shown(size, &values));
    let samples = options.samples;
    for (name, picture) in [(format!("{samples} samples"), &noisy), ("denoised".to_owned(), &denoised)] {
        println!("{name:>12}: {:.2} dB, SSIM {:.3}", psnr(picture, &reference), ssim(picture, &reference));
    }
    let [width, height] = size;
    let sheet = RgbImage::from_fn(3 * width, height, |x, y| {
        *[&noisy, &denoised, &reference][(x / width) as usize].get_pixel(x % width, y)
    });
    sheet.save(&options.out)?;
    println!("{}: noisy, denoised, reference of {} samples", options.out.display(), options.reference);
    Ok(())
}

/// The same frame after frame. What each frame needs is made once: the tracer, the network, and the bindings of its input and
/// output to the two halves of a texture.
struct Live {
    queue: wgpu::Queue,
    scene: Scene,
    tracer: Tracer,
    samples: u32,
    frame: u32,
    noisy: Bindings,
    denoised: Bindings,
    picture: wgpu::Texture,
}

impl Live {
    fn new(
        gpu: &Gpu,
        scene: Scene,
        size: [u32; 2],
        samples: u32,
    ) -> Result<Live, Box<dyn std::error::Error>> {
        let [width, height] = size.map(|side| side as usize);
        let network = Network::new(gpu, &path_denoise(width, height, DType::F32)?)?;
        let [color, albedo, normal] = ["color", "albedo", "normal"].map(|name| network.buffer(name));
        let (color, albedo, normal) = (color?, albedo?, normal?);
        let tracer = Tracer::new(gpu.device(), size, Frame { colour: color, albedo, normal });

        // Linear light, which goes into the texture as sRGB.
        let picture = scene::picture(gpu.device(), [2 * size[0], size[1]], 1);
        let half = |left| Texels::colour(&picture).network(Transfer::Linear).rect([left, 0], size);
        let denoised = network.bind(&[("denoised", half(size[0]).into())])?;
        // A network that only shows what it is given.
        let mut graph = Graph::new();
        let frame = graph.input("frame", [1, height, width, 3], DType::F32);
        graph.output("noisy", frame);
        let noisy = Network::new(gpu, &graph)?;
        let noisy = noisy.bind(&[("frame", color.into()), ("noisy", half(0).into())])?;
        let queue = gpu.queue().clone();
        Ok(Live { queue, scene, tracer, samples, frame: 0, noisy, denoised, picture })
    }
}

impl window::Animation for Live {
    fn picture(&self) -> &wgpu::Texture {
        &self.picture
    }

    fn record(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        seconds: f32,
    ) -> Result<(), Box<dyn std::error::Error>> {
        // The camera swings to both sides, and each frame has noise of its own.
        let mut seen = self.scene.clone();
        let swing = 0.08 * (0.7 * seconds).sin();
        let [x, z] = [0, 2].map(|i| seen.camera.eye[i] - seen.camera.target[i]);
        seen.camera.eye[0] = seen.camera.target[0] + swing.cos() * x + swing.sin() * z;
        seen.camera.eye[2] = seen.camera.target[2] + swing.cos() * z - swing.sin() * x;
        self.frame += 1;
        self.tracer.look(&self.queue, &seen, self.frame);
        self.tracer.clear(encoder);
        self.tracer.trace(encoder, self.samples);
        self.tracer.resolve(encoder);
        self.denoised.record(encoder)?;
        self.noisy.record(encoder)?;
        Ok(())
    }
}

/// What an input of the network holds.
fn read(gpu: &Gpu, buffer: &wgpu::Buffer) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let staging = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("staging"),
        size: buffer.size(),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    gpu.queue().submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("the buffer can be mapped"));
    gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
    Ok(bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..)?))
}

/// Linear light as sRGB; what is brighter than one is white.
fn shown([width, height]: [u32; 2], values: &[f32]) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let at = 3 * (y * width + x) as usize;
        Rgb([0, 1, 2].map(|c| {
            let v = values[at + c].clamp(0.0, 1.0);
            let v = if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
            (255.0 * v).round() as u8
        }))
    })
}

//! A sequence from a camera that swings past things that move, traced with few samples a pixel and denoised frame by frame:
//! each for itself, and with what is known of the frames before. With `--upscale`, frames of half the size and many samples,
//! each a part of a pixel beside the one before, that become a sequence of the full size.
//!
//! Says how like the references the frames are, and how much more they flicker; shows the last.
//!
//! ```text
//! cargo run --release --example temporal -- --family cornell --frames 24 --out target/temporal.png
//! ```

mod path_tracer;

use aquatint::models::path_denoise::path_denoise;
use aquatint::models::temporal_denoise::{self, temporal_denoise};
use aquatint::models::temporal_upscale::{self, temporal_upscale};
use aquatint::ops::resize::{Coordinates, Interpolation};
use aquatint::{DType, Gpu, Graph, Network, Result, Tensor};
use clap::Parser;
use image::{Rgb, RgbImage};
use path_tracer::likeness::psnr;
use path_tracer::{FAMILIES, Frame, Motion, Scene, Tracer, View};

#[derive(Parser)]
struct Options {
    /// Kind of scene: cornell, stairs, gallery, cells, rooms, meadows, studios, heaps
    #[arg(long, default_value = "cornell")]
    family: String,
    /// Which of them
    #[arg(long, default_value_t = 1000)]
    scene: u64,
    /// Multiples of 2
    #[arg(long, default_value_t = 96)]
    width: u32,
    #[arg(long, default_value_t = 72)]
    height: u32,
    #[arg(long, default_value_t = 8)]
    frames: u32,
    /// A pixel, of each frame; 2 to be denoised, 16 to be enlarged
    #[arg(long)]
    samples: Option<u32>,
    /// A pixel, of the pictures that frames are compared with
    #[arg(long, default_value_t = 64)]
    reference: u32,
    /// Frames of half the size at twice it, instead of noisy ones denoised
    #[arg(long)]
    upscale: bool,
    #[arg(long, default_value = "target/temporal.png")]
    out: std::path::PathBuf,
}

/// Samples of each pixel in one submission.
const AT_A_TIME: u32 = 16;

/// Frames that are compared: the last so many.
const COMPARED: u32 = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let family = FAMILIES.iter().find(|family| family.name == options.family).ok_or("no such family")?;
    let scene = family.scene(options.scene);
    let gpu = Gpu::headless()?;
    let (frames, full) = (options.frames, [options.width, options.height]);
    let size = if options.upscale { full.map(|side| side / 2) } else { full };
    let samples = options.samples.unwrap_or(if options.upscale { 16 } else { 2 });
    let [w, h] = size.map(|side| side as usize);
    // The names of what both read and make, and their graphs: by frames alone, and by the sequence.
    let (alone, sequence, inputs, output, names) = match options.upscale {
        false => {
            let sequence = temporal_denoise(w, h, temporal_denoise::FRAMES, DType::F32)?;
            let inputs = ["color", "albedo", "normal"].as_slice();
            (
                path_denoise(w, h, DType::F32)?,
                sequence,
                inputs,
                "denoised",
                ["noisy", "each alone", "temporal"],
            )
        }
        true => {
            let sequence = temporal_upscale(w, h, temporal_upscale::FRAMES)?;
            let names = ["nearest", "bicubic", "temporal"];
            (bicubic(w, h)?, sequence, ["color"].as_slice(), "upscaled", names)
        }
    };
    let [alone, sequence] = [Network::new(&gpu, &alone)?, Network::new(&gpu, &sequence)?];

    let (camera, reference) = (Camera::new(&gpu, size), Camera::new(&gpu, full));
    let (mut likeness, mut flicker) = ([0.0; 3], [0.0; 3]);
    let mut shown: Vec<[RgbImage; 4]> = Vec::new();
    let mut before = scene.at(0);
    for number in 0..frames {
        let now = scene.at(number);
        let jitter = if options.upscale { temporal_upscale::jitter(number) } else { [0.0; 2] };
        let spread = if options.upscale { 0.5 } else { 1.0 };
        // What is enlarged by itself has no jitter.
        for (network, of_sequence) in [(&alone, false), (&sequence, true)] {
            let jitter = if of_sequence { jitter } else { [0.0; 2] };
            camera.shoot(&now, View { before: &before, jitter, spread }, number + 1, samples)?;
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            for (name, buffer) in camera.named() {
                if inputs.contains(&name) || of_sequence && ["motion", "depth"].contains(&name) {
                    let to = network.buffer(name)?;
                    encoder.copy_buffer_to_buffer(buffer, 0, to, 0, buffer.size());
                }
            }
            if of_sequence && options.upscale {
                sequence.write("jitter", &Tensor::from_f32([2], &jitter))?;
            }
            network.encode(&mut encoder);
            gpu.queue().submit([encoder.finish()]);
        }
        before = now;
        // The first of these is what the second is compared with, for flicker.
        if number + COMPARED + 1 < frames {
            continue;
        }
        let noisy = picture(size, &camera.read("color")?);
        let noisy = RgbImage::from_fn(full[0], full[1], |x, y| {
            *noisy.get_pixel(x * size[0] / full[0], y * size[1] / full[1])
        });
        let [alone, sequence] = [&alone, &sequence].map(|network| network.read(output));
        reference.shoot(&before, View::after(&before), 1_000_000 + number, options.reference)?;
        let truth = picture(full, &reference.read("color")?);
        let now = [noisy, picture(full, &alone?.to_f32()), picture(full, &sequence?.to_f32()), truth];
        if let Some(last) = shown.last() {
            for i in 0..3 {
                likeness[i] += psnr(&now[i], &now[3]);
                flicker[i] += changes([&last[i], &now[i]], [&last[3], &now[3]]);
            }
        }
        shown.push(now);
    }
    let compared = (shown.len() as f64 - 1.0).max(1.0);
    println!("the last {compared} of {frames} frames, {samples} samples a pixel");
    for i in 0..3 {
        let (likeness, flicker) = (likeness[i] / compared, flicker[i] / compared);
        println!("{:>12}: {likeness:.2} dB, changes {flicker:.2} of 255 more than it should", names[i]);
    }
    let last = shown.last().ok_or("no frames")?;
    let [width, height] = full;
    let sheet =
        RgbImage::from_fn(4 * width, height, |x, y| *last[(x / width) as usize].get_pixel(x % width, y));
    sheet.save(&options.out)?;
    println!("{}: {}, reference", options.out.display(), names.join(", "));
    Ok(())
}

/// What a frame by itself would be enlarged with.
fn bicubic(w: usize, h: usize) -> Result<Graph> {
    let mut g = Graph::new();
    let color = g.input("color", [1, h, w, 3], DType::F32);
    let large =
        g.resize(color, [2 * h, 2 * w], Interpolation::Bicubic { a: -0.5 }, Coordinates::HalfPixel)?;
    g.output("upscaled", large);
    Ok(g)
}

/// A tracer and the buffers of its frame.
struct Camera<'a> {
    gpu: &'a Gpu,
    buffers: [wgpu::Buffer; 5],
    tracer: Tracer,
}

const BUFFERS: [(&str, u64); 5] = [("color", 3), ("albedo", 3), ("normal", 3), ("motion", 3), ("depth", 1)];

impl<'a> Camera<'a> {
    fn new(gpu: &'a Gpu, size: [u32; 2]) -> Self {
        let device = gpu.device();
        let buffers = BUFFERS.map(|(name, numbers)| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(name),
                size: u64::from(size[0]) * u64::from(size[1]) * numbers * 4,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            })
        });
        let [colour, albedo, normal, motion, depth] = &buffers;
        let tracer = Tracer::new(device, size, Frame { colour, albedo, normal })
            .with_motion(device, Motion { motion, depth });
        Camera { gpu, buffers, tracer }
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &wgpu::Buffer)> {
        BUFFERS.iter().map(|(name, _)| *name).zip(&self.buffers)
    }

    fn shoot(&self, scene: &Scene, view: View, seed: u32, samples: u32) -> Result<()> {
        let (device, queue) = (self.gpu.device(), self.gpu.queue());
        self.tracer.look_after(queue, scene, view, seed);
        let mut encoder = device.create_command_encoder(&Default::default());
        self.tracer.clear(&mut encoder);
        for first in (0..samples).step_by(AT_A_TIME as usize) {
            self.tracer.trace(&mut encoder, AT_A_TIME.min(samples - first));
            let done = std::mem::replace(&mut encoder, device.create_command_encoder(&Default::default()));
            self.gpu.wait(queue.submit([done.finish()]))?;
        }
        self.tracer.resolve(&mut encoder);
        queue.submit([encoder.finish()]);
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
        let (_, buffer) = self.named().find(|(other, _)| *other == name).ok_or("no such buffer")?;
        let staging = self.gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: buffer.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        self.gpu.queue().submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("the buffer can be mapped"));
        self.gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok(bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..)?))
    }
}

/// How much more two pictures differ than the references do: the mean distance of one difference from the other.
fn changes(found: [&RgbImage; 2], truth: [&RgbImage; 2]) -> f64 {
    let change = |of: [&RgbImage; 2], i: usize| i32::from(of[1].as_raw()[i]) - i32::from(of[0].as_raw()[i]);
    let n = truth[0].as_raw().len();
    (0..n).map(|i| f64::from((change(found, i) - change(truth, i)).abs())).sum::<f64>() / n as f64
}

/// Linear light as sRGB; what is brighter than one is white.
fn picture([width, height]: [u32; 2], values: &[f32]) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let at = 3 * (y * width + x) as usize;
        Rgb([0, 1, 2].map(|c| {
            let v = values[at + c].clamp(0.0, 1.0);
            let v = if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
            (255.0 * v).round() as u8
        }))
    })
}

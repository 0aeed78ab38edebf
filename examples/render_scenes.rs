//! Path-traced frames to train and to measure denoisers with: several noisy ones of a sample each, and one of many
//! samples, of random scenes. Without options a few small ones, to see that it works.
//!
//! ```text
//! cargo run --release --example render_scenes -- --out DIR --families training --scenes 60 --side 128 --samples 256
//! ```

mod path_tracer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use aquatint::{DType, Gpu, Tensor};
use clap::Parser;
use image::{Rgb, RgbImage};
use path_tracer::{FAMILIES, Frame, Scene, Tracer};
use safetensors::tensor::{Dtype, TensorView};

#[derive(Parser)]
struct Options {
    /// Folder for a file FAMILY-NUMBER.safetensors a scene: `noisy` [draws, side, side, 9] f16 (linear colour, albedo,
    /// normal) and `target` [side, side, 3] f32; those that are there already are left as they are
    #[arg(long, default_value = "target/scenes")]
    out: PathBuf,
    /// training, held-out, or names with commas between them; all if left out
    #[arg(long)]
    families: Option<String>,
    /// Of each family
    #[arg(long, default_value_t = 1)]
    scenes: u64,
    /// Number of the first scene
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Pixels
    #[arg(long, default_value_t = 24)]
    side: u32,
    /// Noisy frames of one sample each
    #[arg(long, default_value_t = 2)]
    draws: u32,
    /// Of the target
    #[arg(long, default_value_t = 8)]
    samples: u32,
    /// Also a PNG of each scene: first draw, target, albedo, normal
    #[arg(long)]
    pictures: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    std::fs::create_dir_all(&options.out)?;
    let chosen: Vec<_> = FAMILIES
        .iter()
        .filter(|family| match options.families.as_deref() {
            None => true,
            Some("training") => !family.held_out,
            Some("held-out") => family.held_out,
            Some(names) => names.split(',').any(|name| name == family.name),
        })
        .collect();
    let gpu = Gpu::headless()?;
    let studio = Studio::new(&gpu, options.side);
    for number in options.first..options.first + options.scenes {
        for family in &chosen {
            let file = options.out.join(format!("{}-{number:04}.safetensors", family.name));
            if file.exists() {
                continue;
            }
            let start = Instant::now();
            let scene = family.scene(number);
            let target = studio.frame(&scene, 0, options.samples)?;
            let draws: Vec<[Vec<f32>; 3]> =
                (1..=options.draws).map(|seed| studio.frame(&scene, seed, 1)).collect::<Result<_, _>>()?;
            let samples = f64::from(options.side).powi(2) * f64::from(options.samples + options.draws);
            let rate = samples / start.elapsed().as_secs_f64() / 1e6;
            println!("{} at {rate:.2} million samples a second", file.display());
            if options.pictures {
                let shown = [
                    &draws[0][0],
                    &target[0],
                    &target[1],
                    &target[2].iter().map(|n| 0.5 + 0.5 * n).collect(),
                ];
                sheet(options.side, &shown).save(file.with_extension("png"))?;
            }
            write(&file, options.side as usize, &draws, &target[0])?;
        }
    }
    Ok(())
}

/// A tracer and the buffers of its frame.
struct Studio<'a> {
    gpu: &'a Gpu,
    buffers: [wgpu::Buffer; 3],
    staging: wgpu::Buffer,
    tracer: Tracer,
}

/// Samples of each pixel in one submission; on a CPU that takes about a second.
const AT_A_TIME: u32 = 16;

impl<'a> Studio<'a> {
    fn new(gpu: &'a Gpu, side: u32) -> Self {
        let size = u64::from(side) * u64::from(side) * 12;
        let buffer = |size, usage| {
            gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("frame"),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let buffers =
            [(); 3].map(|()| buffer(size, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC));
        let staging = buffer(3 * size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let frame = Frame { colour: &buffers[0], albedo: &buffers[1], normal: &buffers[2] };
        let tracer = Tracer::new(gpu.device(), [side; 2], frame);
        Studio { gpu, buffers, staging, tracer }
    }

    /// Colour, albedo and normal, rows from the top.
    fn frame(
        &self,
        scene: &Scene,
        seed: u32,
        samples: u32,
    ) -> Result<[Vec<f32>; 3], Box<dyn std::error::Error>> {
        let (device, queue) = (self.gpu.device(), self.gpu.queue());
        self.tracer.look(queue, scene, seed);
        let mut encoder = device.create_command_encoder(&Default::default());
        self.tracer.clear(&mut encoder);
        for first in (0..samples).step_by(AT_A_TIME as usize) {
            self.tracer.trace(&mut encoder, AT_A_TIME.min(samples - first));
            let done = std::mem::replace(&mut encoder, device.create_command_encoder(&Default::default()));
            self.gpu.wait(queue.submit([done.finish()]))?;
        }
        self.tracer.resolve(&mut encoder);
        let size = self.buffers[0].size();
        for (i, buffer) in (0..).zip(&self.buffers) {
            encoder.copy_buffer_to_buffer(buffer, 0, &self.staging, i * size, size);
        }
        queue.submit([encoder.finish()]);
        self.staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("the buffer can be mapped"));
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&self.staging.get_mapped_range(..)?);
        self.staging.unmap();
        let third = values.len() / 3;
        Ok([0, 1, 2].map(|i| values[i * third..(i + 1) * third].to_vec()))
    }
}

fn write(
    file: &Path,
    side: usize,
    draws: &[[Vec<f32>; 3]],
    target: &[f32],
) -> Result<(), Box<dyn std::error::Error>> {
    let pixels = side * side;
    let noisy: Vec<f32> = draws
        .iter()
        .flat_map(|draw| (0..pixels).flat_map(move |i| (0..9).map(move |c| draw[c / 3][3 * i + c % 3])))
        // The largest of f16.
        .map(|v| v.min(65504.0))
        .collect();
    let noisy = Tensor::from_f32([draws.len(), side, side, 9], &noisy).to_dtype(DType::F16);
    let target = Tensor::from_f32([side, side, 3], target);
    let views = HashMap::from([
        ("noisy", TensorView::new(Dtype::F16, vec![draws.len(), side, side, 9], &noisy.bytes)?),
        ("target", TensorView::new(Dtype::F32, vec![side, side, 3], &target.bytes)?),
    ]);
    let part = file.with_extension("part");
    safetensors::serialize_to_file(&views, None, &part)?;
    std::fs::rename(part, file)?;
    Ok(())
}

/// Pictures beside each other, as sRGB.
fn sheet(side: u32, pictures: &[&Vec<f32>; 4]) -> RgbImage {
    RgbImage::from_fn(side * 4, side, |x, y| {
        let picture = pictures[(x / side) as usize];
        let at = 3 * (y * side + x % side) as usize;
        Rgb([0, 1, 2].map(|c| srgb(picture[at + c])))
    })
}

fn srgb(v: f32) -> u8 {
    let v = v.clamp(0.0, 1.0);
    let v = if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
    (255.0 * v).round() as u8
}

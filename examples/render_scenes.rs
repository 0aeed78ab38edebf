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
use path_tracer::{FAMILIES, Frame, Motion, Scene, Tracer, View};
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
    /// Sequences of so many frames of a draw each instead: `noisy` [frames, side, side, 9], `motion` [frames, side, side, 4]
    /// f32 (motion, depth), `target` [frames, side, side, 3]
    #[arg(long)]
    frames: Option<u32>,
    /// Samples of a frame of a sequence
    #[arg(long, default_value_t = 1)]
    samples_a_frame: u32,
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
            if let Some(frames) = options.frames {
                let sequence = studio.sequence(&scene, frames, options.samples_a_frame, options.samples)?;
                write(&file, options.side as usize, &sequence.0, &sequence.1, true)?;
                println!("{} in {:.0?}", file.display(), start.elapsed());
                continue;
            }
            let target = studio.frame(&scene, View::after(&scene), 0, options.samples)?;
            let draws: Vec<[Vec<f32>; 5]> = (1..=options.draws)
                .map(|seed| studio.frame(&scene, View::after(&scene), seed, 1))
                .collect::<Result<_, _>>()?;
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
            write(&file, options.side as usize, &draws, &target[0], false)?;
        }
    }
    Ok(())
}

/// A tracer and the buffers of its frame.
struct Studio<'a> {
    gpu: &'a Gpu,
    buffers: [wgpu::Buffer; 5],
    staging: wgpu::Buffer,
    tracer: Tracer,
}

/// Samples of each pixel in one submission; on a CPU that takes about a second.
const AT_A_TIME: u32 = 16;

impl<'a> Studio<'a> {
    fn new(gpu: &'a Gpu, side: u32) -> Self {
        let pixel = u64::from(side) * u64::from(side) * 4;
        let buffer = |size, usage| {
            gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("frame"),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let buffers =
            NUMBERS.map(|n| buffer(n * pixel, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC));
        let total = NUMBERS.iter().sum::<u64>() * pixel;
        let staging = buffer(total, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let [colour, albedo, normal, motion, depth] = &buffers;
        let tracer = Tracer::new(gpu.device(), [side; 2], Frame { colour, albedo, normal })
            .with_motion(gpu.device(), Motion { motion, depth });
        Studio { gpu, buffers, staging, tracer }
    }

    /// Colour, albedo, normal, motion and depth, rows from the top.
    fn frame(
        &self,
        scene: &Scene,
        view: View,
        seed: u32,
        samples: u32,
    ) -> Result<[Vec<f32>; 5], Box<dyn std::error::Error>> {
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
        let mut at = 0;
        for buffer in &self.buffers {
            encoder.copy_buffer_to_buffer(buffer, 0, &self.staging, at, buffer.size());
            at += buffer.size();
        }
        queue.submit([encoder.finish()]);
        self.staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("the buffer can be mapped"));
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&self.staging.get_mapped_range(..)?);
        self.staging.unmap();
        let mut rest = &values[..];
        Ok(NUMBERS.map(|n| {
            let (these, others) = rest.split_at(values.len() * n as usize / 13);
            rest = others;
            these.to_vec()
        }))
    }

    /// Noisy frames and targets.
    fn sequence(
        &self,
        scene: &Scene,
        frames: u32,
        samples: u32,
        of_target: u32,
    ) -> Result<Sequence, Box<dyn std::error::Error>> {
        let mut before = scene.at(0);
        let (mut noisy, mut targets) = (Vec::new(), Vec::new());
        for frame in 0..frames {
            let now = scene.at(frame);
            noisy.push(self.frame(&now, View::after(&before), frame + 1, samples)?);
            let [target, ..] = self.frame(&now, View::after(&before), 1000 + frame, of_target)?;
            targets.extend(target);
            before = now;
        }
        Ok((noisy, targets))
    }
}

/// Frames, and the targets of all.
type Sequence = (Vec<[Vec<f32>; 5]>, Vec<f32>);

/// Of a pixel in colour, albedo, normal, motion and depth.
const NUMBERS: [u64; 5] = [3, 3, 3, 3, 1];

fn write(
    file: &Path,
    side: usize,
    draws: &[[Vec<f32>; 5]],
    target: &[f32],
    sequence: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let pixels = side * side;
    let noisy: Vec<f32> = draws
        .iter()
        .flat_map(|draw| (0..pixels).flat_map(move |i| (0..9).map(move |c| draw[c / 3][3 * i + c % 3])))
        // The largest of f16.
        .map(|v| v.min(65504.0))
        .collect();
    let noisy = Tensor::from_f32([draws.len(), side, side, 9], &noisy).to_dtype(DType::F16);
    let shape = |channels| match sequence {
        true => vec![draws.len(), side, side, channels],
        false => vec![side, side, channels],
    };
    let target = Tensor::from_f32(shape(3), target);
    let motion: Vec<f32> = draws
        .iter()
        .flat_map(|[.., motion, depth]| {
            (0..pixels).flat_map(|i| [motion[3 * i], motion[3 * i + 1], motion[3 * i + 2], depth[i]])
        })
        .collect();
    let motion = Tensor::from_f32([draws.len(), side, side, 4], &motion);
    let mut views = HashMap::from([
        ("noisy", TensorView::new(Dtype::F16, vec![draws.len(), side, side, 9], &noisy.bytes)?),
        ("target", TensorView::new(Dtype::F32, shape(3), &target.bytes)?),
    ]);
    if sequence {
        views.insert("motion", TensorView::new(Dtype::F32, shape(4), &motion.bytes)?);
    }
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

//! `temporal_denoise` on a sequence of the examples' path tracer: a camera that swings, and motion as the tracer has it.

use aquatint::models::path_denoise::path_denoise;
use aquatint::models::temporal_denoise::{FRAMES, temporal_denoise};
use aquatint::{DType, Gpu, Tensor};

use crate::Sequence;
use crate::clip::{Frame, flicker, psnr};
use crate::hashed::gpu;
use crate::path_tracer::{FAMILIES, Motion, Scene, Tracer, View};

const SIZE: [u32; 2] = [72, 56];

/// A tracer that is read back.
struct Camera<'a> {
    gpu: &'a Gpu,
    buffers: [wgpu::Buffer; 5],
    staging: wgpu::Buffer,
    tracer: Tracer,
}

const NUMBERS: [usize; 5] = [3, 3, 3, 3, 1];

impl<'a> Camera<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        let device = gpu.device();
        let pixels = u64::from(SIZE[0] * SIZE[1]) * 4;
        let buffer = |size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let buffers = NUMBERS
            .map(|n| buffer(n as u64 * pixels, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC));
        let staging = buffer(13 * pixels, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let [colour, albedo, normal, motion, depth] = &buffers;
        let tracer = Tracer::new(device, SIZE, crate::path_tracer::Frame { colour, albedo, normal })
            .with_motion(device, Motion { motion, depth });
        Camera { gpu, buffers, staging, tracer }
    }

    fn shoot(&self, scene: &Scene, before: &Scene, seed: u32, samples: u32) -> Frame {
        let (device, queue) = (self.gpu.device(), self.gpu.queue());
        self.tracer.look_after(queue, scene, View::after(before), seed);
        let mut encoder = device.create_command_encoder(&Default::default());
        self.tracer.clear(&mut encoder);
        self.tracer.trace(&mut encoder, samples);
        self.tracer.resolve(&mut encoder);
        let mut at = 0;
        for buffer in &self.buffers {
            encoder.copy_buffer_to_buffer(buffer, 0, &self.staging, at, buffer.size());
            at += buffer.size();
        }
        queue.submit([encoder.finish()]);
        self.staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&self.staging.get_mapped_range(..).unwrap());
        self.staging.unmap();
        let [w, h] = SIZE.map(|n| n as usize);
        let mut rest = &values[..];
        let [color, albedo, normal, motion, depth] = NUMBERS.map(|n| {
            let (these, others) = rest.split_at(n * w * h);
            rest = others;
            Tensor::from_f32([1, h, w, n], these)
        });
        Frame { color, albedo, normal, motion, depth }
    }
}

/// As it is seen, roughly.
fn seen(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| v.clamp(0.0, 1.0).powf(1.0 / 2.2)).collect()
}

#[test]
fn motion_is_where_things_were() {
    let Some(gpu) = gpu() else { return };
    let camera = Camera::new(gpu);
    let [w, h] = SIZE.map(|n| n as usize);
    let family = FAMILIES.iter().find(|family| family.name == "cornell").unwrap();
    let scene = family.scene(3);
    // Many samples, so that edges are of the nearest thing in both.
    let [before, now] = [0, 3].map(|i| scene.at(i));
    let (old, new) = (camera.shoot(&before, &before, 1, 16), camera.shoot(&now, &before, 2, 16));
    let [albedo_before, albedo, motion, depth, depth_before] =
        [&old.albedo, &new.albedo, &new.motion, &new.depth, &old.depth].map(|t| t.to_f32());
    let (mut known, mut right, mut moved) = (0, 0, 0.0f32);
    for i in 0..w * h {
        let [dx, dy, dz] = [0, 1, 2].map(|k| motion[3 * i + k]);
        moved = moved.max(dx.hypot(dy));
        let (x, y) = ((i % w) as f32 + 0.5 + dx, (i / w) as f32 + 0.5 + dy);
        if depth[i] == 0.0 || !(0.0..w as f32).contains(&x) || !(0.0..h as f32).contains(&y) {
            continue;
        }
        let at = y as usize * w + x as usize;
        let same_depth = (depth[i] + dz - depth_before[at]).abs() < 0.05 * depth[i];
        let same_albedo = (0..3).all(|k| (albedo[3 * i + k] - albedo_before[3 * at + k]).abs() < 0.1);
        known += 1;
        right += usize::from(same_depth && same_albedo);
    }
    println!("{right} of {known} pixels are found again, {moved} pixels off at most");
    assert!(moved > 1.5 && moved < 20.0, "{moved}");
    // The others are edges, what was hidden, and mirrors.
    assert!(right as f32 > 0.85 * known as f32, "{right} of {known}");
    // And a scene that does not change does not move.
    let still = camera.shoot(&now, &now, 3, 2);
    assert!(still.motion.to_f32().iter().all(|v| v.abs() < 1e-3));
}

#[test]
fn a_sequence_is_cleaner_and_steadier_than_its_frames() {
    let Some(gpu) = gpu() else { return };
    let camera = Camera::new(gpu);
    let [w, h] = SIZE.map(|n| n as usize);
    let sequence = Sequence::new(gpu, &temporal_denoise(w, h, FRAMES, DType::F32).unwrap());
    let alone = Sequence::new(gpu, &path_denoise(w, h, DType::F32).unwrap());
    let scene = FAMILIES.iter().find(|family| family.name == "cornell").unwrap().scene(1001);
    let (mut likeness, mut changes) = ([0.0; 2], [0.0; 2]);
    let mut before = scene.at(0);
    let mut last: Option<[Vec<f32>; 3]> = None;
    for t in 0..12 {
        let now = scene.at(t);
        let frame = camera.shoot(&now, &before, t + 1, 2);
        let found = [&sequence, &alone].map(|network| seen(&network.step(&frame, &[])));
        before = now;
        if t < 9 {
            continue;
        }
        // Sixteen times sixteen samples.
        let mut truth = vec![0.0; 3 * w * h];
        for k in 0..16 {
            let part = camera.shoot(&before, &before, 1000 + 16 * t + k, 16).color.to_f32();
            truth.iter_mut().zip(part).for_each(|(sum, v)| *sum += v / 16.0);
        }
        let [with, without] = found;
        let now = [with, without, seen(&truth)];
        if let Some(last) = last {
            for i in 0..2 {
                likeness[i] += psnr(&now[i], &now[2]) / 2.0;
                changes[i] += flicker([&last[i], &now[i]], [&last[2], &now[2]]) / 2.0;
            }
        }
        last = Some(now);
    }
    println!("{likeness:.2?} dB, flicker {changes:.4?}, of the sequence and of frames by themselves");
    assert!(likeness[0] > likeness[1] + 0.5, "{likeness:?}");
    assert!(changes[0] < 0.6 * changes[1], "{changes:?}");
}

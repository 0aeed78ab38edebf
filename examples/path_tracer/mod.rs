//! A path tracer in compute shaders, for frames with few samples a pixel and for pictures with many. It draws what
//! `models/path-denoise` is trained on and what the examples denoise; the library knows nothing of it.
//!
//! A frame is the mean over its samples of linear colour, and of albedo and normal where the path first meets what is
//! neither mirror nor glass (tinted by those on the way). What leaves the scene has no normal, and as its albedo
//! what it saw there, at most one; lights likewise.

// Each program that has this module uses another part of it.
#![allow(dead_code)]

mod families;
pub mod likeness;
mod scene;

#[allow(unused_imports)]
pub use families::{FAMILIES, Family};
#[allow(unused_imports)]
pub use scene::{Camera, Material, Primitive, Scene, Shape, Sky, Texture};

/// A scene has no more primitives than these.
pub const MOST_PRIMITIVES: usize = 64;

/// What is known of a pixel: three f32 each, rows from the top. Buffers with the usage `STORAGE`; a network's inputs
/// `[1, height, width, 3]` are such.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// Linear, from zero up.
    pub colour: &'a wgpu::Buffer,
    /// 0 to 1.
    pub albedo: &'a wgpu::Buffer,
    /// In the world, −1 to 1; shorter than one where a pixel sees several.
    pub normal: &'a wgpu::Buffer,
}

/// What is known beside that of a pixel of a sequence, of the nearest of its samples; for what a mirror shows, of the
/// mirror.
#[derive(Clone, Copy)]
pub struct Motion<'a> {
    /// Where it was in the frame before, less where it is: pixels to the right, pixels down, and depth. Three f32 a pixel.
    pub motion: &'a wgpu::Buffer,
    /// How far it is along the camera's axis; 0 for the sky. One f32 a pixel.
    pub depth: &'a wgpu::Buffer,
}

/// How a frame of a sequence is seen.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The frame before: its camera, and its primitives in the same order, which may have stood elsewhere.
    pub before: &'a Scene,
    /// The middle of a pixel's samples off the pixel's, in pixels to the right and down.
    pub jitter: [f32; 2],
    /// Side of the square in a pixel that its samples are of.
    pub spread: f32,
}

impl<'a> View<'a> {
    /// Whole pixels.
    pub fn after(before: &'a Scene) -> View<'a> {
        View { before, jitter: [0.0; 2], spread: 1.0 }
    }
}

/// The pipelines and buffers of one size of picture.
pub struct Tracer {
    size: [u32; 2],
    scene: wgpu::Buffer,
    pixels: wgpu::Buffer,
    trace: Pass,
    resolve: Pass,
    motion: Option<Pass>,
}

struct Pass {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
}

impl Pass {
    fn new(device: &wgpu::Device, name: &str, source: &str, buffers: &[&wgpu::Buffer]) -> Pass {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: None,
            module: &module,
            entry_point: Some(name),
            compilation_options: Default::default(),
            cache: None,
        });
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(name),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Pass { pipeline, group }
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder, groups: [u32; 2], times: u32) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        for _ in 0..times {
            pass.dispatch_workgroups(groups[0], groups[1], 1);
        }
    }
}

impl Tracer {
    /// For pictures of this width and height.
    pub fn new(device: &wgpu::Device, size: [u32; 2], frame: Frame) -> Tracer {
        let buffer = |label, size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage: usage | wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let scene = buffer("scene", scene::BYTES as u64, wgpu::BufferUsages::empty());
        // Four vectors of four numbers a pixel.
        let pixels = buffer(
            "sums of samples",
            u64::from(size[0]) * u64::from(size[1]) * 64,
            wgpu::BufferUsages::empty(),
        );
        let trace = Pass::new(device, "trace", include_str!("trace.wgsl"), &[&scene, &pixels]);
        let results = [&pixels, frame.colour, frame.albedo, frame.normal];
        let resolve = Pass::new(device, "resolve", include_str!("resolve.wgsl"), &results);
        Tracer { size, scene, pixels, trace, resolve, motion: None }
    }

    /// Resolves these, too.
    pub fn with_motion(self, device: &wgpu::Device, Motion { motion, depth }: Motion) -> Tracer {
        let buffers = [&self.pixels, motion, depth];
        let motion = Pass::new(device, "motion", include_str!("motion.wgsl"), &buffers);
        Tracer { motion: Some(motion), ..self }
    }

    /// What the samples from the next submission on are of. Another seed gives other noise.
    pub fn look(&self, queue: &wgpu::Queue, scene: &Scene, seed: u32) {
        self.look_after(queue, scene, View::after(scene), seed);
    }

    /// The same as a frame of a sequence.
    pub fn look_after(&self, queue: &wgpu::Queue, scene: &Scene, view: View, seed: u32) {
        queue.write_buffer(&self.scene, 0, bytemuck::bytes_of(&scene.packed(self.size, view, seed)));
    }

    /// Forgets all samples.
    pub fn clear(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.clear_buffer(&self.pixels, 0, None);
    }

    /// More samples of each pixel, a launch each: long work goes into several submissions.
    pub fn trace(&self, encoder: &mut wgpu::CommandEncoder, samples: u32) {
        self.trace.record(encoder, self.size.map(|side| side.div_ceil(8)), samples);
    }

    /// The means of all samples so far, into the frame.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let groups = (self.size[0] * self.size[1]).div_ceil(64);
        let rows = groups.div_ceil(65535);
        for pass in [Some(&self.resolve), self.motion.as_ref()].into_iter().flatten() {
            pass.record(encoder, [groups.div_ceil(rows), rows], 1);
        }
    }
}

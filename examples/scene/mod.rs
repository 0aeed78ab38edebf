//! The renderer of the examples, which stands for yours: a WGSL shader that colours a texture pixel by pixel; and the way of
//! textures to files. The library knows nothing of it.

// Each program that has this module uses another part of it.
#![allow(dead_code)]

use std::error::Error;

use aquatint::Gpu;
use aquatint::frame::ReadRing;
use aquatint::wgpu::{self, TextureFormat, TextureUsages};
use image::RgbImage;

/// What a renderer draws and a network reads. Sampling gives light, as of any render target with `Srgb`.
pub fn frame(device: &wgpu::Device, size: [u32; 2]) -> wgpu::Texture {
    texture(device, size, 1, TextureFormat::Rgba8UnormSrgb, TextureUsages::RENDER_ATTACHMENT)
}

/// What a network writes, in sRGB, and a renderer or a window samples; several layers or one.
pub fn picture(device: &wgpu::Device, size: [u32; 2], layers: u32) -> wgpu::Texture {
    texture(device, size, layers, TextureFormat::Rgba8Unorm, TextureUsages::STORAGE_BINDING)
}

fn texture(
    device: &wgpu::Device,
    [width, height]: [u32; 2],
    layers: u32,
    format: TextureFormat,
    usage: TextureUsages,
) -> wgpu::Texture {
    device.create_texture(&wgpu::TextureDescriptor {
        label: None,
        size: wgpu::Extent3d { width, height, depth_or_array_layers: layers },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format,
        usage: usage | TextureUsages::TEXTURE_BINDING | TextureUsages::COPY_SRC,
        view_formats: &[],
    })
}

/// A scene that is drawn into a texture.
pub struct Scene {
    pipeline: wgpu::RenderPipeline,
    group: wgpu::BindGroup,
    uniforms: wgpu::Buffer,
    view: wgpu::TextureView,
    size: [f32; 2],
}

impl Scene {
    /// `wgsl` has the function `light` that `frame.wgsl` calls, and bindings of its own from 1 on for the layers of a texture
    /// and a sampler, if there is a texture that it samples.
    pub fn new(
        device: &wgpu::Device,
        wgsl: &str,
        onto: &wgpu::Texture,
        sampled: Option<&wgpu::Texture>,
    ) -> Scene {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("scene"),
            source: wgpu::ShaderSource::Wgsl([include_str!("frame.wgsl"), wgsl].concat().into()),
        });
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("scene"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("cover"),
                compilation_options: Default::default(),
                buffers: &[],
            },
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("draw"),
                compilation_options: Default::default(),
                targets: &[Some(onto.format().into())],
            }),
            multiview_mask: None,
            cache: None,
        });
        let uniforms = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("scene"),
            size: 16,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let layers = sampled.map(|texture| texture.create_view(&Default::default()));
        let sampler = device.create_sampler(&wgpu::SamplerDescriptor {
            mag_filter: wgpu::FilterMode::Linear,
            ..Default::default()
        });
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniforms.as_entire_binding() }];
        if let Some(layers) = &layers {
            let resource = wgpu::BindingResource::TextureView(layers);
            entries.push(wgpu::BindGroupEntry { binding: 1, resource });
            let resource = wgpu::BindingResource::Sampler(&sampler);
            entries.push(wgpu::BindGroupEntry { binding: 2, resource });
        }
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("scene"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let size = [onto.width() as f32, onto.height() as f32];
        Scene { pipeline, group, uniforms, view: onto.create_view(&Default::default()), size }
    }

    /// Records the scene as it is at a time; once a submission.
    pub fn record(&self, queue: &wgpu::Queue, encoder: &mut wgpu::CommandEncoder, seconds: f32) {
        let [width, height] = self.size;
        queue.write_buffer(&self.uniforms, 0, bytemuck::bytes_of(&[width, height, seconds, 0.0]));
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("scene"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &self.view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations {
                    load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                    store: wgpu::StoreOp::Store,
                },
            })],
            ..Default::default()
        });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.draw(0..3, 0..1);
    }
}

/// Waits for the first layers of textures of four bytes a texel. Only for files: a renderer goes on with the textures.
pub fn read<const N: usize>(
    gpu: &Gpu,
    textures: [&wgpu::Texture; N],
) -> Result<[RgbImage; N], Box<dyn Error>> {
    let bytes = textures.iter().map(|texture| ReadRing::bytes_of(texture)).max().unwrap_or(0);
    let mut ring = ReadRing::new(gpu, N, bytes)?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    for (tag, texture) in (0..).zip(textures) {
        ring.push_texture(&mut encoder, texture, tag)?;
    }
    gpu.wait(gpu.queue().submit([encoder.finish()]))?;
    let mut pictures = [(); N].map(|()| RgbImage::default());
    while !ring.is_empty() {
        if let Some(read) = ring.poll()? {
            let texture = textures[read.tag as usize];
            let pixel = |x, y| {
                let at = 4 * (y * texture.width() + x) as usize;
                image::Rgb([read.bytes[at], read.bytes[at + 1], read.bytes[at + 2]])
            };
            pictures[read.tag as usize] = RgbImage::from_fn(texture.width(), texture.height(), pixel);
        }
    }
    Ok(pictures)
}

/// Pictures of one size in rows.
pub fn sheet(rows: &[Vec<RgbImage>]) -> RgbImage {
    let (width, height) = rows[0][0].dimensions();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let mut sheet = RgbImage::from_pixel(columns * width, rows.len() as u32 * height, image::Rgb([255; 3]));
    for (y, row) in (0..).zip(rows) {
        for (x, picture) in (0..).zip(row) {
            image::imageops::replace(&mut sheet, picture, x * i64::from(width), y * i64::from(height));
        }
    }
    sheet
}

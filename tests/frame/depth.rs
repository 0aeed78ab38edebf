//! Depth buffers as inputs, drawn by a render pass, against f64 on the host.

use aquatint::frame::{Texels, Transfer};
use aquatint::wgpu::TextureFormat::{
    Depth16Unorm, Depth24Plus, Depth24PlusStencil8, Depth32Float, Depth32FloatStencil8, Rgba32Float, Stencil8,
};
use aquatint::wgpu::{self, TextureFormat, TextureUsages};
use aquatint::{DType, Error, Gpu, Graph, Network, Result};

use crate::harness::*;

const SIZE: [u32; 2] = [13, 9];

/// The depth that is drawn at a pixel.
fn drawn(x: u32, y: u32) -> f64 {
    f64::from((x * 29 + y * 17) % 128) / 127.0
}

/// Draws depths into a texture.
fn draw(gpu: &Gpu, texture: &wgpu::Texture) {
    let device = gpu.device();
    let source = "@vertex fn corner(@builtin(vertex_index) i: u32) -> @builtin(position) vec4<f32> {
            return vec4<f32>(f32(i & 1u) * 4.0 - 1.0, f32(i >> 1u) * 4.0 - 1.0, 0.5, 1.0);
        }
        @fragment fn depth(@builtin(position) at: vec4<f32>) -> @builtin(frag_depth) f32 {
            return f32((u32(at.x) * 29u + u32(at.y) * 17u) % 128u) / 127.0;
        }";
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: None,
        layout: None,
        vertex: wgpu::VertexState {
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            buffers: &[],
        },
        primitive: Default::default(),
        depth_stencil: Some(wgpu::DepthStencilState {
            format: texture.format(),
            depth_write_enabled: Some(true),
            depth_compare: Some(wgpu::CompareFunction::Always),
            stencil: Default::default(),
            bias: Default::default(),
        }),
        multisample: Default::default(),
        fragment: Some(wgpu::FragmentState {
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            targets: &[],
        }),
        multiview_mask: None,
        cache: None,
    });
    let view = texture.create_view(&Default::default());
    let stencil = texture.format().has_stencil_aspect();
    submit(gpu, |encoder| {
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            depth_stencil_attachment: Some(wgpu::RenderPassDepthStencilAttachment {
                view: &view,
                depth_ops: Some(wgpu::Operations {
                    load: wgpu::LoadOp::Clear(0.0),
                    store: wgpu::StoreOp::Store,
                }),
                stencil_ops: stencil.then_some(wgpu::Operations {
                    load: wgpu::LoadOp::Clear(3),
                    store: wgpu::StoreOp::Store,
                }),
            }),
            ..Default::default()
        });
        pass.set_pipeline(&pipeline);
        pass.draw(0..3, 0..1);
    });
}

fn identity(channels: usize) -> Graph {
    let mut g = Graph::new();
    let x = g.input("depth", [1, SIZE[1] as usize, SIZE[0] as usize, channels], DType::F32);
    let y = g.affine(x, 1.0, 0.0).unwrap();
    g.output("y", y);
    g
}

fn depth_texture(gpu: &Gpu, format: TextureFormat) -> wgpu::Texture {
    texture(gpu, SIZE, format, TextureUsages::TEXTURE_BINDING | TextureUsages::RENDER_ATTACHMENT)
}

/// What a network sees of a depth buffer, against `wanted` of what was drawn.
fn hold(
    gpu: &Gpu,
    format: TextureFormat,
    see: impl Fn(Texels) -> Texels,
    wanted: impl Fn(f64) -> f64,
) -> Result<()> {
    let depth = depth_texture(gpu, format);
    draw(gpu, &depth);
    let network = Network::new(gpu, &identity(1))?;
    let bindings = network.bind(&[("depth", see(Texels::depth(&depth)).into())])?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    let numbers = network.read("y")?.to_f32();
    let step = if format == Depth16Unorm { 1.0 / 65535.0 } else { 1.0 / 16_777_215.0 };
    for (i, &found) in numbers.iter().enumerate() {
        let depth = drawn(i as u32 % SIZE[0], i as u32 / SIZE[0]);
        // What is stored is off by a step at most, and that by as much as the curve is steep there.
        let around = [depth, (depth - step).max(0.0), (depth + step).min(1.0)].map(&wanted);
        let off = around[1..].iter().map(|x| (x - around[0]).abs()).fold(0.0, f64::max)
            + 3e-6 * around[0].abs().max(1.0);
        assert!(
            (f64::from(found) - around[0]).abs() <= off,
            "{format:?}: {found} for {} at {depth}",
            around[0]
        );
    }
    Ok(())
}

#[test]
fn depths_as_they_are() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut formats = vec![Depth32Float, Depth24Plus, Depth24PlusStencil8, Depth16Unorm];
    if gpu.device().features().contains(wgpu::Features::DEPTH32FLOAT_STENCIL8) {
        formats.push(Depth32FloatStencil8);
    }
    for format in formats {
        hold(gpu, format, |texels| texels, |depth| depth)?;
        hold(gpu, format, |texels| texels.normalised(&[(2.0, -1.0)]), |depth| 2.0 * depth - 1.0)?;
    }
    Ok(())
}

#[test]
fn distances_of_projections() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let infinity = f32::INFINITY;
    let far = 65504.0;
    // Of depth d: near · far / (far − d (far − near)), and with near and far exchanged; with far at infinity near / (1 − d).
    let projected = |near: f64, beyond: f64, depth: f64| near * beyond / (beyond - depth * (beyond - near));
    hold(gpu, Depth32Float, |t| t.distances(0.5, 200.0), |d| projected(0.5, 200.0, d))?;
    hold(gpu, Depth32Float, |t| t.distances(200.0, 0.5), |d| projected(200.0, 0.5, d))?;
    hold(gpu, Depth32Float, |t| t.distances(infinity, 0.5), |d| (0.5 / d).min(far))?;
    hold(gpu, Depth24Plus, |t| t.distances(0.5, infinity), |d| (0.5 / (1.0 - d)).min(far))?;
    // As logarithms, which networks take better.
    let log = |t: Texels| t.distances(infinity, 0.1).network(Transfer::Log);
    hold(gpu, Depth32Float, log, |d| Transfer::Log.encode((0.1 / d).min(far)))?;
    Ok(())
}

#[test]
fn what_is_no_depth() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let network = Network::new(gpu, &identity(1))?;
    let depth = depth_texture(gpu, Depth32Float);
    let stencil = depth_texture(gpu, Stencil8);
    let drawn_only = texture(gpu, SIZE, Depth32Float, TextureUsages::RENDER_ATTACHMENT);
    let goal = texture(gpu, SIZE, Rgba32Float, WRITTEN);
    for (name, texels, said) in [
        ("depth", Texels::depth(&stencil), "sampled as floats"),
        ("depth", Texels::depth(&drawn_only), "TEXTURE_BINDING"),
        ("depth", Texels::depth(&depth).distances(-1.0, 3.0), "greater than 0"),
        ("y", Texels::depth(&depth), "STORAGE_BINDING"),
        ("y", Texels::data(&goal).distances(0.1, 9.0), "distances"),
    ] {
        let error = network.bind(&[(name, texels.into())]).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(said), "{error}");
    }
    Ok(())
}

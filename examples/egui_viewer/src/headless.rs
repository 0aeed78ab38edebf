//! The application without a window: its frames go into a texture, the last of them into a file.

use std::path::Path;
use std::time::{Duration, Instant};

use aquatint::formats::picture;
use aquatint::frame::ReadRing;
use aquatint::{Gpu, Network, Tensor, wgpu};
use eframe::egui::{self, Rect};
use eframe::egui_wgpu::{RenderState, RendererOptions, ScreenDescriptor, WgpuConfiguration};
use image::{RgbImage, imageops};

use crate::answer;
use crate::viewer::Viewer;
use crate::watched::{Watched, Wish};

type Failed = Box<dyn std::error::Error>;

/// Nothing takes longer, not even on a CPU that plays a GPU.
const PATIENCE: Duration = Duration::from_secs(300);

/// Decibels of a picture of which every number is off by one of 255: rounding, no more.
const LEAST: f64 = 48.13;

/// Runs frames until the network has answered, writes the last, and compares the answer in it.
pub fn run(config: &WgpuConfiguration, wish: Wish, file: &Path) -> Result<(), Failed> {
    let state = pollster::block_on(async {
        let instance = config.wgpu_setup.new_instance().await;
        RenderState::create(
            config,
            &instance,
            None,
            RendererOptions { dithering: false, ..Default::default() },
        )
        .await
    })?;
    let mut screen = Screen::new(&state);
    let mut viewer = Viewer::new(state, wish.clone());
    let start = Instant::now();
    let mut frames = 0;
    while !viewer.is_settled() {
        screen.frame(&mut viewer);
        frames += 1;
        if start.elapsed() > PATIENCE {
            return Err("nothing was shown for five minutes".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    screen.frame(&mut viewer);
    let window = screen.read()?;
    picture::save_png(file, &window.clone().into(), &[])?;
    println!("{}: the last of {} frames", file.display(), frames + 1);
    if let Some(error) = viewer.error() {
        return Err(error.into());
    }
    let (watched, place) = viewer.watched().ok_or("nothing is shown")?;
    compare(&wish, watched, &window, place.ok_or("the answer is not in the window")?)
}

/// A window that is a texture.
struct Screen {
    state: RenderState,
    ctx: egui::Context,
    texture: wgpu::Texture,
    start: Instant,
}

impl Screen {
    fn new(state: &RenderState) -> Screen {
        let [width, height] = crate::SIZE.map(|side| side as u32);
        let texture = state.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("window"),
            size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: state.target_format,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        Screen { state: state.clone(), ctx: egui::Context::default(), texture, start: Instant::now() }
    }

    /// What eframe does for a frame.
    fn frame(&mut self, viewer: &mut Viewer) {
        let RenderState { device, queue, renderer, .. } = &self.state;
        viewer.advance(&self.ctx);
        let input = egui::RawInput {
            screen_rect: Some(Rect::from_min_size(egui::Pos2::ZERO, crate::SIZE.into())),
            time: Some(self.start.elapsed().as_secs_f64()),
            ..Default::default()
        };
        let output = self.ctx.run_ui(input, |ui| viewer.show(ui));
        let shapes = self.ctx.tessellate(output.shapes, output.pixels_per_point);
        let screen = ScreenDescriptor {
            size_in_pixels: [self.texture.width(), self.texture.height()],
            pixels_per_point: output.pixels_per_point,
        };
        let mut textures = output.textures_delta;
        let mut renderer = renderer.write();
        for (id, deltas) in textures.set.drain() {
            deltas.iter().for_each(|delta| renderer.update_texture(device, queue, id, delta));
        }
        let mut encoder = device.create_command_encoder(&Default::default());
        let before = renderer.update_buffers(device, queue, &mut encoder, &shapes, &screen);
        let view = self.texture.create_view(&Default::default());
        let pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("window"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations {
                    load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                    store: wgpu::StoreOp::Store,
                },
            })],
            ..Default::default()
        });
        renderer.render(&mut pass.forget_lifetime(), &shapes, &screen);
        queue.submit(before.into_iter().chain([encoder.finish()]));
        for id in textures.free.drain() {
            renderer.free_texture(&id);
        }
    }

    fn read(&self) -> Result<RgbImage, Failed> {
        let RenderState { adapter, device, queue, .. } = &self.state;
        let gpu = Gpu::from_wgpu(adapter, device.clone(), queue.clone());
        let mut ring = ReadRing::new(&gpu, 1, ReadRing::bytes_of(&self.texture))?;
        let mut encoder = device.create_command_encoder(&Default::default());
        ring.push_texture(&mut encoder, &self.texture, 0)?;
        gpu.wait(queue.submit([encoder.finish()]))?;
        let bytes = ring.poll()?.ok_or("the window did not come back")?.bytes;
        let bgra = self.state.target_format == wgpu::TextureFormat::Bgra8Unorm;
        let [r, b] = if bgra { [2, 0] } else { [0, 2] };
        let pixels = bytes.chunks_exact(4).flat_map(|p| [p[r], p[1], p[b]]).collect();
        let [width, height] = [self.texture.width(), self.texture.height()];
        Ok(RgbImage::from_raw(width, height, pixels).ok_or("the window has too few pixels")?)
    }
}

/// Holds what the window has to what the same network says by itself on another device, from host to host.
fn compare(
    wish: &Wish,
    watched: &Watched,
    window: &RgbImage,
    (place, scale): (Rect, f32),
) -> Result<(), Failed> {
    let (model, picture) = wish.open()?;
    let size = [picture.height() as usize, picture.width() as usize];
    let (graph, kind) = answer::graph(&model, size)?;
    let words: Vec<u32> =
        picture.pixels().map(|p| u32::from_le_bytes([p.0[0], p.0[1], p.0[2], 255])).collect();
    let alone = Network::new(&Gpu::headless()?, &graph)?;
    let answer = alone.run(&[("pictures", &Tensor::from_u32([1, size[0], size[1]], &words))])?.remove(0);
    if let Some(numbers) = &watched.numbers {
        let expected = answer.to_f32();
        let off =
            numbers.iter().zip(&expected).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
        println!("{}: {} numbers, off by {off:.1e} at most", kind.output(), numbers.len());
        let said = answer::boxes(numbers, &model.labels);
        return match numbers.len() == expected.len()
            && off < 1e-3
            && said == answer::boxes(&expected, &model.labels)
        {
            true => Ok(()),
            false => Err("the network says something else by itself".into()),
        };
    }
    if scale != 1.0 {
        return Err(format!("the picture is shown at {scale} of its size, so it cannot be compared").into());
    }
    let bytes = answer.bytes.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    let [_, height, width] = answer.desc.shape[..] else { return Err("the answer is no picture".into()) };
    let expected = RgbImage::from_raw(width as u32, height as u32, bytes).ok_or("the answer is too short")?;
    let [x, y] = [place.min.x, place.min.y].map(|at| at.round() as u32);
    let found = imageops::crop_imm(window, x, y, width as u32, height as u32).to_image();
    let decibels = psnr(&found, &expected);
    println!("in the window and by itself: {decibels:.1} dB");
    match decibels >= LEAST {
        true => Ok(()),
        false => Err(format!("expected {LEAST} dB").into()),
    }
}

fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let mean = squares.sum::<f64>() / a.as_raw().len().max(1) as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}

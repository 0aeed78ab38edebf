//! Draws a frame at half size and enlarges it by a network, both recorded into one command encoder: the texture that the
//! renderer draws goes in, one of twice its size comes out. Shows the frame enlarged by bilinear interpolation, by the
//! network, and drawn at full size, side by side.
//!
//! ```text
//! cargo run --release --example upscale_frame -- --width 640 --height 360 --out target/upscaled.png
//! cargo run --release --example upscale_frame -- --window
//! ```

#[path = "path_tracer/likeness.rs"]
mod likeness;
mod scene;
mod window;

use std::error::Error;

use aquatint::frame::{Bindings, Texels};
use aquatint::models::upscale::upscale_x2;
use aquatint::{DType, Gpu, Graph, Network, wgpu};
use clap::Parser;
use image::imageops::{self, FilterType};
use likeness::{psnr, ssim};
use scene::Scene;

#[derive(Parser)]
struct Options {
    /// Of the enlarged frame, pixels; even
    #[arg(long, default_value_t = 320)]
    width: u32,
    #[arg(long, default_value_t = 192)]
    height: u32,
    /// When the frame is, in a scene that moves
    #[arg(long, default_value_t = 0.6)]
    seconds: f32,
    #[arg(long, default_value = "target/upscaled.png")]
    out: std::path::PathBuf,
    /// Frame after frame in a window, instead of one in a file
    #[arg(long)]
    window: bool,
}

const STILL_LIFE: &str = include_str!("scene/still_life.wgsl");

/// What a renderer makes once: its own pass at half size, and a network that is bound to both of its textures.
struct Upscaled {
    queue: wgpu::Queue,
    scene: Scene,
    upscaler: Bindings,
    small: wgpu::Texture,
    large: wgpu::Texture,
}

impl Upscaled {
    fn new(gpu: &Gpu, [width, height]: [u32; 2]) -> Result<Upscaled, Box<dyn Error>> {
        let half = [width / 2, height / 2];
        let small = scene::frame(gpu.device(), half);
        let large = scene::picture(gpu.device(), half.map(|side| 2 * side), 1);

        let mut graph = Graph::new();
        let frame = graph.input("frame", [1, half[1] as usize, half[0] as usize, 3], DType::F32);
        let outputs = upscale_x2()?.build(&mut graph, frame)?;
        graph.output("upscaled", outputs[0].1);
        let network = Network::new(gpu, &graph)?;
        let upscaler = network
            .bind(&[("frame", Texels::colour(&small).into()), ("upscaled", Texels::colour(&large).into())])?;
        let scene = Scene::new(gpu.device(), STILL_LIFE, &small, None);
        Ok(Upscaled { queue: gpu.queue().clone(), scene, upscaler, small, large })
    }
}

impl window::Animation for Upscaled {
    fn picture(&self) -> &wgpu::Texture {
        &self.large
    }

    fn record(&mut self, encoder: &mut wgpu::CommandEncoder, seconds: f32) -> Result<(), Box<dyn Error>> {
        self.scene.record(&self.queue, encoder, seconds);
        Ok(self.upscaler.record(encoder)?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let size = [options.width, options.height].map(|side| (side & !1).max(2));
    if options.window {
        return window::show("upscale_frame", size, |gpu| Upscaled::new(gpu, size));
    }
    let gpu = Gpu::headless()?;
    let mut upscaled = Upscaled::new(&gpu, size)?;
    let full = scene::frame(gpu.device(), size);
    let reference = Scene::new(gpu.device(), STILL_LIFE, &full, None);

    // The frame; and what it is compared with.
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    window::Animation::record(&mut upscaled, &mut encoder, options.seconds)?;
    reference.record(gpu.queue(), &mut encoder, options.seconds);
    gpu.queue().submit([encoder.finish()]);

    let [small, large, full] = scene::read(&gpu, [&upscaled.small, &upscaled.large, &full])?;
    let bilinear = imageops::resize(&small, size[0], size[1], FilterType::Triangle);
    for (name, picture) in [("bilinear", &bilinear), ("upscaled", &large)] {
        println!("{name}: {:.2} dB, SSIM {:.3}", psnr(picture, &full), ssim(picture, &full));
    }
    scene::sheet(&[vec![bilinear, large, full]]).save(&options.out)?;
    println!("{}: bilinear, upscaled, drawn at full size", options.out.display());
    Ok(())
}

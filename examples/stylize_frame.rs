//! A scene that moves, each frame drawn by a renderer and engraved by a network, both recorded into one command encoder.
//! Shows some frames, and below them what the network makes of them.
//!
//! ```text
//! cargo run --release --example stylize_frame -- --width 640 --height 480 --frames 3 --out target/stylized.png
//! cargo run --release --example stylize_frame -- --window
//! ```

mod scene;
mod window;

use std::error::Error;

use aquatint::frame::{Bindings, Texels};
use aquatint::models::style::style_engraving;
use aquatint::{DType, Gpu, Graph, Network, wgpu};
use clap::Parser;
use scene::Scene;

#[derive(Parser)]
struct Options {
    /// Of a frame, pixels; a multiple of 4
    #[arg(long, default_value_t = 480)]
    width: u32,
    #[arg(long, default_value_t = 320)]
    height: u32,
    #[arg(long, default_value_t = 2)]
    frames: u32,
    /// From one to the next
    #[arg(long, default_value_t = 1.2)]
    seconds: f32,
    #[arg(long, default_value = "target/stylized.png")]
    out: std::path::PathBuf,
    /// Frame after frame in a window, instead of some in a file
    #[arg(long)]
    window: bool,
}

/// What a renderer makes once: its own pass, and a network between two of its textures.
struct Stylized {
    queue: wgpu::Queue,
    scene: Scene,
    engraver: Bindings,
    frame: wgpu::Texture,
    engraved: wgpu::Texture,
}

impl Stylized {
    fn new(gpu: &Gpu, size: [u32; 2]) -> Result<Stylized, Box<dyn Error>> {
        let frame = scene::frame(gpu.device(), size);
        let engraved = scene::picture(gpu.device(), size, 1);

        let mut graph = Graph::new();
        let input = graph.input("frame", [1, size[1] as usize, size[0] as usize, 3], DType::F32);
        let outputs = style_engraving()?.build(&mut graph, input)?;
        graph.output("engraved", outputs[0].1);
        let network = Network::new(gpu, &graph)?;
        // This network sees colours from 0 to 255: `std` of its `preprocess`.
        let engraver = network.bind(&[
            ("frame", Texels::colour(&frame).normalised(&[(255.0, 0.0); 3]).into()),
            ("engraved", Texels::colour(&engraved).into()),
        ])?;
        let scene = Scene::new(gpu.device(), include_str!("scene/still_life.wgsl"), &frame, None);
        Ok(Stylized { queue: gpu.queue().clone(), scene, engraver, frame, engraved })
    }
}

impl window::Animation for Stylized {
    fn picture(&self) -> &wgpu::Texture {
        &self.engraved
    }

    fn record(&mut self, encoder: &mut wgpu::CommandEncoder, seconds: f32) -> Result<(), Box<dyn Error>> {
        self.scene.record(&self.queue, encoder, seconds);
        Ok(self.engraver.record(encoder)?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let size = [options.width, options.height].map(|side| (side / 4 * 4).max(16));
    if options.window {
        return window::show("stylize_frame", size, |gpu| Stylized::new(gpu, size));
    }
    let gpu = Gpu::headless()?;
    let mut stylized = Stylized::new(&gpu, size)?;
    let mut rows = [vec![], vec![]];
    for number in 0..options.frames.max(1) {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        window::Animation::record(&mut stylized, &mut encoder, number as f32 * options.seconds)?;
        gpu.queue().submit([encoder.finish()]);
        // Only for the file; a renderer would draw the texture.
        for (row, picture) in rows.iter_mut().zip(scene::read(&gpu, [&stylized.frame, &stylized.engraved])?) {
            row.push(picture);
        }
    }
    scene::sheet(&rows).save(&options.out)?;
    println!("{}: frames as they are drawn, and engraved", options.out.display());
    Ok(())
}

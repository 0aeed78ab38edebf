//! A viewer for networks that read pictures: pick one of the bundled ones or a model file, and a picture, and see both sides
//! of it. It shows how a network lives in an egui application:
//!
//! - on eframe's own device, which is asked for what networks can use ([`setup`]);
//! - made on another thread, while the window stays live;
//! - run a slice a frame, so that one which takes seconds does not stop the window, with its time by the device's clock;
//! - read from a texture and written to a texture that egui draws. Pictures never visit the host; boxes and names, which egui
//!   draws as shapes and text, come back through a ring of buffers, without a wait.
//!
//! ```text
//! cd examples/egui_viewer
//! cargo run                                                  # or drop a model or a picture on the window
//! cargo run -- --model upscale-x2 --picture photo.jpg
//! cargo run -- --model letters-detector --headless window.png
//! ```
//!
//! With `--headless` the same application runs without a window: what it would show is drawn into a texture and written to
//! a file, and what the network made there is compared with what it makes by itself.

mod answer;
mod clock;
mod headless;
mod viewer;
mod watched;

use std::path::PathBuf;
use std::sync::Arc;

use aquatint::{AdapterOptions, wgpu};
use clap::Parser;
use eframe::egui_wgpu::{WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew};
use eframe::{NativeOptions, egui};
use viewer::Viewer;

#[derive(Parser)]
#[command(about = "A viewer for networks that read pictures")]
struct Options {
    /// A bundled network, a file .safetensors or .onnx, or a folder of timm's
    #[arg(long, default_value = "style-engraving")]
    model: String,
    /// The picture; one that suits the network, if none is given
    #[arg(long)]
    picture: Option<String>,
    /// Draw the window into this PNG instead
    #[arg(long, value_name = "FILE")]
    headless: Option<PathBuf>,
}

/// Of the window, in points.
const SIZE: [f32; 2] = [1240.0, 500.0];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let wish = watched::Wish::new(&options.model, options.picture);
    let wgpu_options = WgpuConfiguration { wgpu_setup: setup(), ..NativeOptions::default().wgpu_options };
    if let Some(file) = options.headless {
        return headless::run(&wgpu_options, wish, &file);
    }
    let viewport = egui::ViewportBuilder::default().with_inner_size(SIZE);
    let native = NativeOptions { wgpu_options, viewport, ..Default::default() };
    eframe::run_native(
        "aquatint",
        native,
        Box::new(|cc| {
            let state = cc.wgpu_render_state.clone().ok_or("eframe draws with something else than wgpu")?;
            Ok(Box::new(Viewer::new(state, wish)))
        }),
    )?;
    Ok(())
}

impl eframe::App for Viewer {
    fn logic(&mut self, ctx: &egui::Context, _: &mut eframe::Frame) {
        self.advance(ctx);
    }

    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.show(ui);
    }
}

/// eframe makes the device, with all of the adapter that networks can use; egui itself needs less.
fn setup() -> WgpuSetup {
    let mut setup = WgpuSetupCreateNew::without_display_handle();
    setup.device_descriptor = Arc::new(|adapter| {
        let abilities =
            AdapterOptions::default().abilities(adapter).expect("these options take nothing away");
        wgpu::DeviceDescriptor {
            label: Some("egui with aquatint"),
            required_features: abilities.features,
            required_limits: abilities.limits,
            ..Default::default()
        }
    });
    setup.into()
}

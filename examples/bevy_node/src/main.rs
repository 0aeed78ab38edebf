//! A network in Bevy's render graph: what a camera sees goes through it before it is shown, here as an engraving.
//!
//! - The network lives on Bevy's own device, which is asked for what it needs ([`settings`]).
//! - [`network::NetworkPlugin`] records it into the frame of each camera with a [`network::ThroughNetwork`], between tone
//!   mapping and the camera's target, from one of the view's two textures to the other. Nothing is submitted besides, copied
//!   or waited for.
//! - It is made on another thread, for the size that the view has; until it is there, frames go without.
//!
//! ```text
//! cd examples/bevy_node
//! cargo run -- --out scene.png                     # the scene, and beside it what the network makes of it
//! cargo run -- --model denoise --out scene.png
//! cargo run --features window -- --window          # turning, in a window
//! ```
//!
//! Bevy's shader language asks for Rust 1.97.1 but compiles with 1.95, given `--ignore-rust-version`.
//!
//! The picture is compared with what the library makes of the same scene by itself, from host to host on another device.

mod headless;
mod network;
mod scene;

use std::path::PathBuf;

use aquatint::models::{self, vision::VisionModel};
use aquatint::{AdapterOptions, Plan, gpu};
use bevy::prelude::*;
use bevy::render::RenderPlugin;
use bevy::render::settings::WgpuSettings;
use bevy::window::ExitCondition;
use clap::Parser;

#[derive(Parser)]
#[command(about = "What a camera of Bevy's sees, through a network")]
struct Options {
    /// A network from pictures to pictures of the same size: a bundled one or a file .safetensors or .onnx
    #[arg(long, default_value = "style-engraving")]
    model: String,
    /// Of the picture or the window, in pixels
    #[arg(long, default_value_t = 480)]
    width: u32,
    #[arg(long, default_value_t = 360)]
    height: u32,
    /// The picture, a PNG
    #[arg(long, default_value = "scene.png")]
    out: PathBuf,
    /// Show it in a window instead
    #[cfg(feature = "window")]
    #[arg(long)]
    window: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let (model, size) = (models::open(&options.model)?, [options.width, options.height]);
    #[cfg(feature = "window")]
    if options.window {
        let window = Window { title: "aquatint".into(), resolution: size.into(), ..default() };
        app(model, size, Some(window))?.add_systems(Update, scene::turn).run();
        return Ok(());
    }
    headless::run(app(model.clone(), size, None)?, &model, size, &options.out)
}

/// The scene with the network, on a device that suits both.
fn app(model: VisionModel, size: [u32; 2], window: Option<Window>) -> aquatint::Result<App> {
    let exit_condition = if window.is_some() { ExitCondition::OnAllClosed } else { ExitCondition::DontExit };
    let window = WindowPlugin { primary_window: window, exit_condition, ..default() };
    let render = RenderPlugin {
        render_creation: settings(&model, size)?.into(),
        synchronous_pipeline_compilation: true,
        ..default()
    };
    let mut app = App::new();
    app.add_plugins((DefaultPlugins.set(window).set(render), network::NetworkPlugin(model)));
    app.add_systems(Startup, scene::spawn);
    Ok(app)
}

/// Bevy asks for all that an adapter has, unless `WGPU_SETTINGS_PRIO` tells it to be modest; even then it is to ask for what
/// the network needs, which is known from the adapter alone.
fn settings(model: &VisionModel, size: [u32; 2]) -> aquatint::Result<WgpuSettings> {
    let adapter = gpu::choose_adapter(&AdapterOptions::from_env())?;
    let target = AdapterOptions::default().target(&adapter)?;
    let plan = Plan::compile(&network::graph(model, size)?, &target)?;
    let settings = WgpuSettings::default();
    Ok(WgpuSettings {
        adapter_name: Some(adapter.get_info().name),
        features: settings.features | plan.required_features(),
        limits: plan.required_limits().or_better_values_from(&settings.limits),
        ..settings
    })
}

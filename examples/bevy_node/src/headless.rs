//! Frames without a window: the scene by itself, then through the network, side by side in a file.

use std::path::Path;
use std::time::{Duration, Instant};

use aquatint::formats::picture;
use aquatint::frame::Transfer;
use aquatint::models::vision::VisionModel;
use aquatint::{Bytes, DType, Gpu, Tensor, TensorDesc, tasks};
use bevy::app::PluginsState;
use bevy::prelude::*;
use bevy::render::RenderApp;
use bevy::render::render_resource::TextureFormat;
use bevy::render::view::screenshot::{Screenshot, ScreenshotCaptured};
use image::{GenericImage, RgbImage};

use crate::network::{State, ThroughNetwork, ViewNetwork};
use crate::scene::Target;

type Failed = Box<dyn std::error::Error>;

/// Nothing takes longer, not even on a CPU that plays a GPU.
const PATIENCE: Duration = Duration::from_secs(300);

/// Frames before the first that counts: meshes go to the device, shadows are drawn.
const FIRST: usize = 8;

/// Frames that a capture may take.
const MOST: usize = 100;

/// Decibels of a picture of which every number is off by one of 255: rounding, no more.
const LEAST: f64 = 48.13;

pub fn run(mut app: App, model: &VisionModel, [width, height]: [u32; 2], file: &Path) -> Result<(), Failed> {
    // As the view's textures: nothing is rounded on the way.
    let target = Image::new_target_texture(width, height, TextureFormat::Rgba16Float, None);
    let target = app.world_mut().resource_mut::<Assets<Image>>().add(target);
    app.insert_resource(Target(target.clone()));
    while app.plugins_state() == PluginsState::Adding {
        bevy::tasks::tick_global_task_pools_on_main_thread();
    }
    app.finish();
    app.cleanup();

    (0..FIRST).for_each(|_| app.update());
    let scene = settled(&mut app, &target)?;
    let camera = app.world_mut().query_filtered::<Entity, With<Camera3d>>().single(app.world())?;
    app.world_mut().entity_mut(camera).insert(ThroughNetwork);
    let frames = wait(&mut app)?;
    let through = settled(&mut app, &target)?;

    let mut sheet = RgbImage::new(2 * width, height);
    sheet.copy_from(&scene, 0, 0)?;
    sheet.copy_from(&through, width, 0)?;
    picture::save_png(file, &sheet.into(), &[])?;
    println!(
        "{}: the scene and what {} makes of it, there after {frames} frames without",
        file.display(),
        model.name
    );

    let colours: std::collections::HashSet<[u8; 3]> = scene.pixels().map(|p| p.0).collect();
    let alone = tasks::Redrawer::new(&Gpu::headless()?, model.clone())?.redraw(&scene)?;
    let [found, unchanged] = [&alone, &scene].map(|other| psnr(&through, other));
    println!(
        "{} colours; to the network by itself {found:.1} dB, to the scene {unchanged:.1} dB",
        colours.len()
    );
    match found >= LEAST && colours.len() > 100 {
        true => Ok(()),
        false => Err(format!("expected {LEAST} dB of a scene with more than 100 colours").into()),
    }
}

/// Frames until the network is there; how many they were.
fn wait(app: &mut App) -> Result<usize, Failed> {
    let start = Instant::now();
    for frames in 0.. {
        app.update();
        match app.sub_app(RenderApp).world().resource::<ViewNetwork>().state() {
            State::There(_) => return Ok(frames),
            State::Failed(error) => return Err(error.to_string().into()),
            State::Idle | State::Coming(_) if start.elapsed() > PATIENCE => break,
            State::Idle | State::Coming(_) => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err("the network was not there after five minutes".into())
}

/// The target, once two frames leave the same there.
fn settled(app: &mut App, target: &Handle<Image>) -> Result<RgbImage, Failed> {
    let mut last = capture(app, target)?;
    for _ in 0..MOST {
        let next = capture(app, target)?;
        if next == last {
            return Ok(next);
        }
        last = next;
    }
    Err("the picture never settles".into())
}

#[derive(Resource)]
struct Captured(Image);

fn capture(app: &mut App, target: &Handle<Image>) -> Result<RgbImage, Failed> {
    let keep = |captured: On<ScreenshotCaptured>, mut commands: Commands| {
        commands.insert_resource(Captured(captured.image.clone()));
    };
    app.world_mut().spawn(Screenshot::image(target.clone())).observe(keep);
    for _ in 0..MOST {
        app.update();
        if let Some(Captured(image)) = app.world_mut().remove_resource() {
            return srgb(image);
        }
    }
    Err("no capture came back".into())
}

/// Light in 16-bit floats as bytes of sRGB, as the network's input is made of it.
fn srgb(light: Image) -> Result<RgbImage, Failed> {
    let [width, height] = [light.width(), light.height()];
    let desc = TensorDesc::new([height as usize, width as usize, 4], DType::F16);
    let bytes =
        light.data.filter(|bytes| bytes.len() as u64 == desc.bytes()).ok_or("the capture is not whole")?;
    let light = Tensor { desc, bytes: Bytes::Owned(bytes.into()) }.to_f32();
    let byte = |x: f32| (255.0 * Transfer::Srgb.encode(x.into()).clamp(0.0, 1.0)).round() as u8;
    let pixels = light.chunks_exact(4).flat_map(|p| [byte(p[0]), byte(p[1]), byte(p[2])]).collect();
    RgbImage::from_raw(width, height, pixels).ok_or("the capture is short".into())
}

fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let mean = squares.sum::<f64>() / a.as_raw().len().max(1) as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}

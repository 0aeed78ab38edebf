//! What a painter takes of a device: as predicted, within its budget, and the same pictures for any.

mod hashed;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aquatint::formats::diffusers::Folder;
use aquatint::models::autoencoder_tiny::AutoencoderTinyConfig;
use aquatint::models::controlnet::ControlNetConfig;
use aquatint::models::latent_diffusion::{self, LatentDiffusion};
use aquatint::tasks::{
    Beside, Canvas, Control, Memory, NoiseSource, PaintOptions, Painter, StartFrom, Turns, Wish,
};
use aquatint::text::TextEmbedding;
use aquatint::{DType, Error, Gpu, Target, Tensor};
use hashed::{compare, gpu, numbers, save};
use image::{Rgb, RgbImage};

const SIZE: [usize; 2] = [320, 160];
const TOKENS: usize = 5;

#[derive(serde::Deserialize)]
struct Fixture {
    parts: BTreeMap<String, Part>,
    cases: BTreeMap<String, serde_json::Value>,
}

#[derive(serde::Deserialize)]
struct Part {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

/// The small model of `tests/pipelines.rs`.
fn model(folder: &Path) -> LatentDiffusion {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pipelines.json"));
    let fixture: Fixture = serde_json::from_str(&text.unwrap()).unwrap();
    let case = &fixture.cases["text.ddim"];
    let index = serde_json::json!({
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", case["scheduler_class"]],
    });
    std::fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
    for (name, part) in [("unet", &fixture.parts["sd"]), ("vae", &fixture.parts["vae"])] {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), part.config.to_string()).unwrap();
        let file = save(&folder, &part.tensors, &BTreeMap::new(), &[]);
        std::fs::rename(file, folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    }
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    let scheduler = case["scheduler"].as_str().unwrap();
    std::fs::write(folder.join("scheduler/scheduler_config.json"), scheduler).unwrap();
    LatentDiffusion::open(&Folder::open(folder).unwrap()).unwrap()
}

fn options(model: &LatentDiffusion) -> PaintOptions {
    let [height, width] = SIZE;
    PaintOptions {
        height,
        width,
        steps: 2,
        noise: NoiseSource::Cpu,
        strength: 0.99,
        ..PaintOptions::of(model)
    }
}

fn wish() -> Wish {
    let text = |name: &str| TextEmbedding {
        states: Tensor::from_f32([TOKENS, 12], &numbers(name, TOKENS * 12)),
        pooled: None,
    };
    Wish { text: text("text"), negative: Some(text("negative")) }
}

fn picture() -> RgbImage {
    // Bright above, dark below: bands alone would each have a mean of their own.
    let wave = |x: u32, y: u32| ((320 - y) / 2 + (x * 5 + y * 3) % 40) as u8;
    RgbImage::from_fn(SIZE[1] as u32, SIZE[0] as u32, |x, y| {
        Rgb([wave(x, y), wave(y % 48, x), wave(x, y / 2)])
    })
}

/// All ways in which the painter keeps within some budget, the largest first.
fn ways(target: &Target, model: &LatentDiffusion, kind: StartFrom) -> Vec<(PaintOptions, Memory)> {
    let mut options = options(model);
    let mut ways: Vec<(PaintOptions, Memory)> = Vec::new();
    loop {
        match Painter::predict(target, model, 1, TOKENS, kind, &options, &Beside::default()) {
            Ok(memory) => {
                assert!(options.memory_budget.is_none_or(|budget| memory.peak <= budget));
                let less = memory.peak / 64 * 63;
                ways.push((options.clone(), memory));
                options.memory_budget = Some(less);
            }
            Err(Error::Budget { needed, budget, .. }) => {
                assert!(needed > budget);
                return ways;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn paint(
    gpu: &Gpu,
    model: &LatentDiffusion,
    kind: StartFrom,
    options: &PaintOptions,
) -> (Vec<f32>, RgbImage) {
    let mut painter = Painter::new(gpu, model, 1, TOKENS, kind, options).unwrap();
    let picture = picture();
    let canvas = (kind == StartFrom::Picture).then_some(Canvas { picture: &picture, mask: None });
    let mut run = painter.start(&[wish()], &[7], canvas).unwrap();
    run.step().unwrap();
    // Shows a picture between steps, after which they go on.
    run.preview().unwrap();
    let picture = run.pictures().unwrap().remove(0);
    (run.latents().unwrap().to_f32(), picture)
}

fn same_for_any_budget(kind: StartFrom) {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let ways = ways(gpu.target(), &model, kind);
    let has = |found: &dyn Fn(&Memory) -> bool| ways.iter().any(|(_, memory)| found(memory));
    assert!(has(&|m| m.turns == Turns::Together) && has(&|m| m.turns == Turns::OneAtATime), "{ways:?}");
    let pictures = kind == StartFrom::Picture;
    assert!(
        !pictures || has(&|m| m.turns == Turns::DecoderInTurn) && has(&|m| m.encoder_bands > 1),
        "{ways:?}"
    );
    assert!(has(&|m| m.decoder_bands > 1), "{ways:?}");
    let (latents, picture) = paint(gpu, &model, kind, &ways[0].0);
    let mut seen = Vec::new();
    for (options, memory) in &ways[1..] {
        let way = (memory.turns, memory.encoder_bands, memory.decoder_bands);
        if seen.contains(&way) {
            continue;
        }
        seen.push(way);
        let (found, shown) = paint(gpu, &model, kind, options);
        let (error, _) = compare(&found, &latents);
        let worst = shown.iter().zip(picture.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        println!("{way:?}, {} bytes: latents {error:.1e} of the range, picture {worst} of 255", memory.peak);
        assert!(error <= 1e-5 && worst <= 1, "{way:?}: {error:e}, {worst}");
    }
}

#[test]
fn pictures_from_noise_are_the_same_for_any_budget() {
    same_for_any_budget(StartFrom::Noise);
}

#[test]
fn pictures_from_pictures_are_the_same_for_any_budget() {
    same_for_any_budget(StartFrom::Picture);
}

/// Runs `work` and gives the most that the device held meanwhile beyond what it held before, with what it held after.
fn held<T>(gpu: &Gpu, work: impl FnOnce() -> T) -> (u64, u64, T) {
    let now = || {
        let hal = gpu.device().get_internal_counters().hal;
        (hal.buffer_memory.read() + hal.texture_memory.read()) as u64
    };
    let before = now();
    let (most, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(now(), Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    });
    (most.into_inner().saturating_sub(before), now() - before, result)
}

/// What inputs take on their way to the device and results on theirs back, and how memory is rounded up.
fn slack(memory: &Memory) -> u64 {
    let networks =
        [Some(memory.step), Some(memory.start), Some(memory.decoder), memory.encoder, memory.preview];
    let ports: u64 = networks.iter().flatten().map(|network| network.ports).sum();
    memory.peak / 20 + (128 << 10) + ports
}

#[test]
fn memory_is_as_predicted() {
    let Some(_) = gpu() else { return };
    let gpu = Gpu::headless().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let picture = picture();
    let canvas = Canvas { picture: &picture, mask: None };
    for (options, memory) in ways(gpu.target(), &model, StartFrom::Picture) {
        let (most, held, _painter) = held(&gpu, || {
            let mut painter = Painter::new(&gpu, &model, 1, TOKENS, StartFrom::Picture, &options).unwrap();
            painter.start(&[wish()], &[7], Some(canvas)).unwrap().pictures().unwrap();
            painter
        });
        let way = (memory.turns, memory.encoder_bands, memory.decoder_bands);
        let slack = slack(&memory);
        let ready = memory.held();
        println!("{way:?}: predicted {} and {ready}, found {most} and {held}; {memory:?}", memory.peak);
        assert!(most <= memory.peak + slack && most + slack >= memory.peak, "{way:?}");
        assert!(held <= ready + slack && held + slack >= ready, "{way:?}: predicted {ready}");
    }
}

/// With ControlNets, and a tiny autoencoder for previews, which is kept or not as there is room.
#[test]
fn memory_with_controls_and_previews_is_as_predicted() {
    let Some(_) = gpu() else { return };
    let gpu = Gpu::headless().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/control.json"));
    let fixture: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text.unwrap()).unwrap();
    let part = |name: &str| {
        let part: Part = serde_json::from_value(fixture["networks"][name].clone()).unwrap();
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), part.config.to_string()).unwrap();
        let file = save(&folder, &part.tensors, &BTreeMap::new(), &[]);
        std::fs::rename(file, folder.join("diffusion_pytorch_model.safetensors")).unwrap();
        folder
    };
    let net = latent_diffusion::Part::<ControlNetConfig>::open(part("run.sd")).unwrap();
    let guess = Control { guess: true, ..Control::of(net.clone()) };
    let controls = [Control::of(net), guess];
    let tiny = latent_diffusion::Part::<AutoencoderTinyConfig>::open(part("run.tiny")).unwrap();
    let picture = picture();
    let predict = |options: &PaintOptions, controls: &[Control], preview| {
        let beside = Beside { controls, preview, ..Beside::default() };
        Painter::predict(gpu.target(), &model, 1, TOKENS, StartFrom::Noise, options, &beside)
    };
    let own = options(&model);
    let plain = predict(&own, &[], None).unwrap();
    let whole = predict(&own, &controls, Some(&tiny)).unwrap();
    assert!(whole.step.held > plain.step.held + plain.step.held / 4, "controls count");
    assert!(whole.held() > predict(&own, &controls, None).unwrap().held(), "previews count");
    let mut seen = Vec::new();
    let mut budget = None;
    // Each way in which it keeps within some budget.
    loop {
        let options = PaintOptions { memory_budget: budget, ..own.clone() };
        let memory = match predict(&options, &controls, Some(&tiny)) {
            Ok(memory) => memory,
            Err(Error::Budget { .. }) => break,
            Err(error) => panic!("{error}"),
        };
        assert!(budget.is_none_or(|budget| memory.peak <= budget));
        budget = Some(memory.peak / 32 * 31);
        let way = (memory.turns, memory.preview_kept, memory.decoder_bands);
        if seen.contains(&way) {
            continue;
        }
        seen.push(way);
        let looks = [&picture, &picture];
        let (most, held, painter) = held(&gpu, || {
            let kind = StartFrom::Noise;
            let mut painter =
                Painter::controlled(&gpu, &model, 1, TOKENS, kind, &options, &controls).unwrap();
            painter.control(&looks).unwrap();
            painter.preview_with(&tiny).unwrap();
            let mut run = painter.start(&[wish()], &[7], None).unwrap();
            run.step().unwrap();
            run.preview().unwrap();
            run.pictures().unwrap();
            painter
        });
        assert_eq!(painter.memory(), &memory, "{way:?}");
        let slack = slack(&memory);
        let ready = memory.held();
        println!("{way:?}: predicted {} and {ready}, found {most} and {held}", memory.peak);
        assert!(most <= memory.peak + slack && most + slack >= memory.peak, "{way:?}");
        assert!(held <= ready + slack && held + slack >= ready, "{way:?}: predicted {ready}");
        painter.release().unwrap();
    }
    let has = |kept, turns| seen.iter().any(|way| (way.1, way.0) == (kept, turns));
    assert!(has(true, Turns::Together) && has(false, Turns::OneAtATime), "{seen:?}");
}

/// A UNet in f16 beside an autoencoder in f32, which overflows in f16 as its configuration says.
#[test]
fn half_precision_is_close() {
    let Some(gpu) = gpu().filter(|gpu| gpu.target().f16) else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    assert!(model.vae.config.force_upcast());
    let options = PaintOptions { height: 64, width: 64, ..options(&model) };
    let half = PaintOptions { dtype: DType::F16, ..options.clone() };
    let (latents, picture) = paint(gpu, &model, StartFrom::Noise, &options);
    let (found, shown) = paint(gpu, &model, StartFrom::Noise, &half);
    let (error, _) = compare(&found, &latents);
    let worst = shown.iter().zip(picture.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    println!("f16: latents {error:.1e} of the range, picture {worst} of 255");
    // 2^-11 of rounding, times guidance, grows through the network.
    assert!(error <= 7.5 / 2048.0 * 2.0 && worst <= 8, "{error:e}, {worst}");
}

#[test]
fn what_is_too_much_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let target = Target::typical();
    let predict = |budget| {
        let options = PaintOptions { memory_budget: Some(budget), ..options(&model) };
        Painter::predict(&target, &model, 2, TOKENS, StartFrom::Picture, &options, &Beside::default())
    };
    let error = predict(1000).unwrap_err().to_string();
    assert!(error.contains("UNet") && error.contains("1000 B") && error.contains("smaller batch"), "{error}");
    let all = predict(u64::MAX).unwrap();
    assert!(all.turns == Turns::Together && all.decoder_bands == 1 && predict(all.peak).unwrap() == all);
}

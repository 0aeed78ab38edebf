//! Latent diffusion that is told more than a text, and runs that go on where others ended, against diffusers'
//! pipelines (`scripts/references/conditions.py`).

mod hashed;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use aquatint::formats::diffusers::Folder;
use aquatint::models::latent_conditions::Micro;
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::tasks::{
    Canvas, Enlarge, NoiseSource, PaintOptions, Painter, Sampling, StartFrom, Variation, Wish,
};
use aquatint::text::TextEmbedding;
use aquatint::{Tensor, Weights};
use hashed::{compare, gpu, numbers, save};
use image::{Rgb, RgbImage};

#[derive(serde::Deserialize)]
struct Fixture {
    parts: BTreeMap<String, Part>,
    cases: BTreeMap<String, Case>,
    low_res_scheduler: String,
}

#[derive(serde::Deserialize)]
struct Part {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

#[derive(serde::Deserialize)]
struct Case {
    kind: String,
    vae: String,
    unets: Vec<String>,
    class_name: String,
    scheduler_class: String,
    scheduler: String,
    steps: usize,
    guidance: f32,
    strength: Option<f64>,
    noise_level: Option<usize>,
    aesthetic: Option<[f32; 2]>,
    share: Option<f64>,
    mode: Option<String>,
}

/// Height and width of the results, of the small picture, and of the first run of two.
const SIZE: [usize; 2] = [40, 48];
const SMALL: [usize; 2] = [20, 24];
const FIRST: [usize; 2] = [24, 32];
const TOKENS: usize = 5;
const SEED: u64 = 7;
const OTHER_SEED: u64 = 8;

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        serde_json::from_str(&std::fs::read_to_string(path("conditions.json")).unwrap()).unwrap()
    })
}

/// A model out of a pipeline's folder, as `save_pretrained` writes it.
fn model(case: &Case, unet: &str) -> LatentDiffusion {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let mut index = serde_json::json!({
        "_class_name": case.class_name,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", case.scheduler_class],
        "requires_aesthetics_score": unet == "refiner",
    });
    std::fs::create_dir_all(folder.path().join("scheduler")).unwrap();
    write("scheduler/scheduler_config.json", &case.scheduler);
    if unet == "upscaler" {
        index["low_res_scheduler"] = serde_json::json!(["diffusers", "DDPMScheduler"]);
        index["max_noise_level"] = 350.into();
        std::fs::create_dir_all(folder.path().join("low_res_scheduler")).unwrap();
        write("low_res_scheduler/scheduler_config.json", &fixture().low_res_scheduler);
    }
    write("model_index.json", &index.to_string());
    for (name, part) in [("unet", unet), ("vae", &case.vae)] {
        let part = &fixture().parts[part];
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), part.config.to_string()).unwrap();
        let file = save(&folder, &part.tensors, &BTreeMap::new(), &[]);
        std::fs::rename(file, folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    }
    LatentDiffusion::open(&Folder::open(folder.path()).unwrap()).unwrap()
}

fn wish(model: &LatentDiffusion) -> Wish {
    let unet = model.denoiser.config.unet().unwrap();
    let width = unet.cross_attention_dim;
    let text = |states: &str, pooled: &str| TextEmbedding {
        states: Tensor::from_f32([TOKENS, width], &numbers(states, TOKENS * width)),
        pooled: unet.addition_embed_type.is_some().then(|| Tensor::from_f32([16], &numbers(pooled, 16))),
    };
    Wish { text: text("text", "pooled"), negative: Some(text("negative", "unpooled")) }
}

fn canvas([h, w]: [usize; 2]) -> RgbImage {
    let wave = |n: u32| (n % 256) as u8;
    let pixel = |x: u32, y: u32| Rgb([wave(x * 5 + y * 2), wave(x * 3 + y * 5), wave(x * y)]);
    RgbImage::from_fn(w as u32, h as u32, pixel)
}

fn options(case: &Case, model: &LatentDiffusion, [height, width]: [usize; 2]) -> PaintOptions {
    PaintOptions {
        height,
        width,
        steps: case.steps,
        guidance: case.guidance,
        noise: NoiseSource::Cpu,
        ..PaintOptions::of(model)
    }
}

/// Latents within 1e-3 of their range: a run goes through the network some dozen times, and guidance multiplies what
/// differs. Pictures within 2 of 255.
fn close(name: &str, run: &mut Sampling) {
    let pictures = run.pictures().unwrap();
    let latents = run.latents().unwrap();
    let file = Weights::open(path("conditions.safetensors")).unwrap();
    let wanted = file.tensor(&format!("{name}.latents"), &latents.desc.shape[1..]).unwrap().to_f32();
    let (error, _) = compare(&latents.to_f32(), &wanted);
    let all = std::fs::read(path("conditions.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&all).unwrap();
    let wanted = all.tensor(&format!("{name}.picture")).unwrap();
    assert_eq!(wanted.shape()[..2], [pictures[0].height() as usize, pictures[0].width() as usize]);
    let worst = pictures[0].iter().zip(wanted.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    println!("{name}: latents {error:.1e} of the range, picture {worst} of 255");
    assert!(error <= 1e-3, "{name}: {error:e}");
    assert!(worst <= 2, "{name}: {worst} of 255");
}

fn check(name: &str) {
    let Some(gpu) = gpu() else { return };
    let case = &fixture().cases[name];
    let first = model(case, &case.unets[0]);
    let wishes = [wish(&first)];
    let painter = |model: &LatentDiffusion, kind: StartFrom, options: &PaintOptions| {
        // A batch of two, of which one is used.
        Painter::new(gpu, model, 2, TOKENS, kind, options).unwrap()
    };
    match case.kind.as_str() {
        "upscale" => {
            let noise_level = case.noise_level.unwrap();
            let options = PaintOptions { noise_level, ..options(case, &first, SMALL.map(|side| 4 * side)) };
            let mut painter = painter(&first, StartFrom::Small, &options);
            let canvas = Canvas { picture: &canvas(SMALL), mask: None };
            close(name, &mut painter.start(&wishes, &[SEED], Some(canvas)).unwrap());
        }
        "refiner" => {
            assert_eq!(first.micro, Micro::Beauty);
            let own = options(case, &first, SIZE);
            let (strength, aesthetic) = (case.strength.unwrap(), case.aesthetic.unwrap_or(own.aesthetic));
            let mut painter =
                painter(&first, StartFrom::Picture, &PaintOptions { strength, aesthetic, ..own });
            let canvas = Canvas { picture: &canvas(SIZE), mask: None };
            close(name, &mut painter.start(&wishes, &[SEED], Some(canvas)).unwrap());
        }
        "ensemble" => {
            let share = case.share.unwrap();
            let base = PaintOptions { span: [0.0, share], ..options(case, &first, SIZE) };
            let mut painter = painter(&first, StartFrom::Noise, &base);
            let mut run = painter.start(&wishes, &[SEED], None).unwrap();
            run.run().unwrap();
            let latents = run.latents().unwrap();
            let second = model(case, &case.unets[1]);
            let rest = PaintOptions { span: [share, 1.0], ..options(case, &second, SIZE) };
            let mut painter = Painter::new(gpu, &second, 2, TOKENS, StartFrom::Noise, &rest).unwrap();
            let wishes = [wish(&second)];
            close(name, &mut painter.start_from(&wishes, &[SEED], &latents).unwrap());
            let error = painter.start(&wishes, &[SEED], None).unwrap_err().to_string();
            assert!(error.contains("latents"), "{error}");
        }
        "larger" => {
            let mut small = painter(&first, StartFrom::Noise, &options(case, &first, FIRST));
            let mut run = small.start(&wishes, &[SEED], None).unwrap();
            let strength = case.strength.unwrap();
            let large = PaintOptions { strength, ..options(case, &first, SIZE) };
            let mut large = painter(&first, StartFrom::Latents, &large);
            let enlarge = match case.mode.as_deref().unwrap() {
                "nearest" => Enlarge::Nearest,
                "bilinear" => Enlarge::Bilinear,
                _ => Enlarge::Bicubic,
            };
            close(name, &mut large.start_larger(&wishes, &[SEED], &mut run, enlarge).unwrap());
        }
        "between" => {
            let mut painter = painter(&first, StartFrom::Noise, &options(case, &first, SIZE));
            let variation = Variation { seed: OTHER_SEED, share: case.share.unwrap() as f32 };
            close(name, &mut painter.start_between(&wishes, &[SEED], &[variation]).unwrap());
        }
        kind => panic!("{kind}"),
    }
}

macro_rules! cases {
    ($($test:ident $name:literal)*) => { $(#[test] fn $test() { check($name); })* };
}

cases! {
    upscale_ddim "upscale.ddim"
    upscale_euler_ancestral "upscale.euler-a"
    refiner_euler "refiner.euler"
    refiner_ddim "refiner.ddim"
    ensemble_euler "ensemble.euler"
    ensemble_ddim "ensemble.ddim"
    ensemble_heun "ensemble.heun"
    larger_bilinear "larger.bilinear"
    larger_bicubic "larger.bicubic"
    larger_nearest "larger.nearest"
    between_euler "between.euler"
}

#[test]
fn every_case_is_checked() {
    let source = include_str!("conditions.rs");
    for name in fixture().cases.keys() {
        assert!(source.contains(&format!("\"{name}\"\n")), "{name} is not checked");
    }
}

/// A variation that is all the other seed's is that seed's picture, and one of none the own; with noise of the device.
#[test]
fn the_ends_between_seeds_are_the_seeds() {
    let Some(gpu) = gpu() else { return };
    let case = &fixture().cases["between.euler"];
    let model = model(case, &case.unets[0]);
    let options = PaintOptions { noise: NoiseSource::Cuda, steps: 2, ..options(case, &model, SIZE) };
    let mut painter = Painter::new(gpu, &model, 2, TOKENS, StartFrom::Noise, &options).unwrap();
    let wishes = [wish(&model), wish(&model)];
    let first = |run: Sampling| run.latents().unwrap().to_f32();
    let plain = first(painter.start(&wishes, &[SEED, OTHER_SEED], None).unwrap());
    let variations = [Variation { seed: 99, share: 0.0 }, Variation { seed: OTHER_SEED, share: 1.0 }];
    let varied = first(painter.start_between(&wishes, &[SEED, SEED], &variations).unwrap());
    assert!(compare(&varied, &plain).0 < 1e-5);
    // Halfway between a seed and itself is the seed.
    let same = [Variation { seed: SEED, share: 0.5 }, Variation { seed: OTHER_SEED, share: 0.5 }];
    let varied = first(painter.start_between(&wishes, &[SEED, OTHER_SEED], &same).unwrap());
    assert!(compare(&varied, &plain).0 < 1e-5);
    let wrong = [Variation { seed: 1, share: 1.5 }, Variation { seed: 1, share: 0.0 }];
    assert!(painter.start_between(&wishes, &[SEED, SEED], &wrong).is_err());
}

/// A picture of one tile is the plain run's, with noise of either generator; a larger one is the same each time.
#[test]
fn pictures_of_any_size_are_enlarged_in_tiles() {
    let Some(gpu) = gpu() else { return };
    let case = &fixture().cases["upscale.ddim"];
    let upscaler = model(case, "upscaler");
    let own = PaintOptions { steps: 2, ..options(case, &upscaler, SMALL.map(|side| 4 * side)) };
    for noise in [NoiseSource::Cpu, NoiseSource::Cuda] {
        let options = PaintOptions { noise, ..own.clone() };
        let mut painter = Painter::new(gpu, &upscaler, 2, TOKENS, StartFrom::Small, &options).unwrap();
        let wish = wish(&upscaler);
        let small = canvas(SMALL);
        let canvas_ = Canvas { picture: &small, mask: None };
        let plain = painter.start(std::slice::from_ref(&wish), &[SEED], Some(canvas_)).unwrap().pictures();
        let tiled = painter.enlarge(&wish, SEED, &small, 4).unwrap();
        let differs = |a: &RgbImage, b: &RgbImage| a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(differs(&tiled, &plain.unwrap()[0]) <= Some(1), "{noise:?}");

        // Three tiles in two batches.
        let wide = canvas([SMALL[0], 2 * SMALL[1] + 3]);
        let tiled = painter.enlarge(&wish, SEED, &wide, 4).unwrap();
        assert_eq!(tiled.dimensions(), (4 * wide.width(), 4 * wide.height()));
        assert_eq!(painter.enlarge(&wish, SEED, &wide, 4).unwrap(), tiled);
        let error = painter.enlarge(&wish, SEED, &canvas([8, 8]), 4).unwrap_err().to_string();
        assert!(error.contains("at least 24×20"), "{error}");
        assert!(painter.enlarge(&wish, SEED, &wide, 11).is_err());
    }
}

#[test]
fn what_does_not_fit_is_said() {
    let Some(gpu) = gpu() else { return };
    let case = &fixture().cases["upscale.ddim"];
    let upscaler = model(case, "upscaler");
    let own = options(case, &upscaler, SMALL.map(|side| 4 * side));
    let refused = |model: &LatentDiffusion, options: &PaintOptions, kind: StartFrom, says: &str| {
        let error = Painter::new(gpu, model, 1, TOKENS, kind, options).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(&upscaler, &own, StartFrom::Noise, "to enlarge a picture");
    refused(&upscaler, &PaintOptions { noise_level: 351, ..own.clone() }, StartFrom::Small, "at most 350");
    let span = [0.2, 1.0];
    refused(&upscaler, &PaintOptions { span, ..own.clone() }, StartFrom::Small, "the whole");
    let mut painter = Painter::new(gpu, &upscaler, 1, TOKENS, StartFrom::Small, &own).unwrap();
    let wrong = Canvas { picture: &canvas(SIZE), mask: None };
    let error = painter.start(&[wish(&upscaler)], &[1], Some(wrong)).unwrap_err().to_string();
    assert!(error.contains("24×20 pixels") && error.contains("48×40"), "{error}");
    // A saved run goes on, with its picture.
    let small = canvas(SMALL);
    let wishes = [wish(&upscaler)];
    let given = Some(Canvas { picture: &small, mask: None });
    let mut run = painter.start(&wishes, &[SEED], given).unwrap();
    run.step().unwrap();
    let state = run.state().unwrap();
    let whole = run.pictures().unwrap();
    let error = painter.resume(&wishes, None, &state).unwrap_err().to_string();
    assert!(error.contains("that which it began with"), "{error}");
    assert_eq!(painter.resume(&wishes, given, &state).unwrap().pictures().unwrap(), whole);

    let case = &fixture().cases["larger.bilinear"];
    let plain = model(case, "sd");
    let own = options(case, &plain, SIZE);
    refused(&plain, &own, StartFrom::Small, "another");
    for span in [[0.5, 0.5], [0.0, 1.5], [f64::NAN, 1.0]] {
        refused(&plain, &PaintOptions { span, ..own.clone() }, StartFrom::Noise, "part of a run");
    }
    refused(&plain, &PaintOptions { span: [0.999, 1.0], ..own }, StartFrom::Noise, "a step in it");
}

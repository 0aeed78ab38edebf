//! Whole runs of latent diffusion against diffusers' pipelines (`scripts/references/pipelines.py`).

mod hashed;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use aquatint::formats::diffusers::Folder;
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::tasks::{Canvas, NoiseSource, PaintOptions, Painter, StartFrom, Wish};
use aquatint::text::TextEmbedding;
use aquatint::{Error, Tensor, Weights};
use hashed::{compare, gpu, numbers, save};
use image::{GrayImage, Luma, Rgb, RgbImage};

#[derive(serde::Deserialize)]
struct Fixture {
    parts: BTreeMap<String, Part>,
    cases: BTreeMap<String, Case>,
}

#[derive(serde::Deserialize)]
struct Part {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

#[derive(serde::Deserialize)]
struct Case {
    unet: String,
    class_name: String,
    scheduler_class: String,
    scheduler: String,
    steps: usize,
    guidance: f32,
    #[serde(default)]
    rescale: f32,
    strength: Option<f64>,
    original: Option<[usize; 4]>,
}

const SIZE: [usize; 2] = [40, 48];
const TOKENS: usize = 5;
const SEED: u64 = 7;

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        serde_json::from_str(&std::fs::read_to_string(path("pipelines.json")).unwrap()).unwrap()
    })
}

/// The folder of a case's pipeline, as `save_pretrained` writes it.
fn write(folder: &Path, case: &Case) {
    let index = serde_json::json!({
        "_class_name": case.class_name,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", case.scheduler_class],
        "safety_checker": [null, null],
    });
    std::fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
    for (name, part) in [("unet", &fixture().parts[&case.unet]), ("vae", &fixture().parts["vae"])] {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), part.config.to_string()).unwrap();
        let file = save(&folder, &part.tensors, &BTreeMap::new(), &[]);
        std::fs::rename(file, folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    }
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    std::fs::write(folder.join("scheduler/scheduler_config.json"), &case.scheduler).unwrap();
}

fn text(model: &LatentDiffusion, [states, pooled]: [&str; 2]) -> TextEmbedding {
    let width = model.denoiser.config.text_width();
    TextEmbedding {
        states: Tensor::from_f32([TOKENS, width], &numbers(states, TOKENS * width)),
        pooled: model
            .denoiser
            .config
            .pooled_width(model.micro.count())
            .map(|width| Tensor::from_f32([width], &numbers(pooled, width))),
    }
}

fn canvas() -> (RgbImage, GrayImage) {
    let [h, w] = SIZE.map(|side| side as u32);
    let wave = |n: u32| (n % 256) as u8;
    let picture =
        RgbImage::from_fn(w, h, |x, y| Rgb([wave(x * 5 + y * 2), wave(x * 3 + y * 5), wave(x * y)]));
    let inside = |x: u32, y: u32| (12..32).contains(&x) && (8..28).contains(&y);
    (picture, GrayImage::from_fn(w, h, |x, y| Luma([if inside(x, y) { 255 } else { 0 }])))
}

/// Latents within 1e-3 of their range: a run goes through the network some dozen times, and guidance multiplies what
/// differs. Pictures within 2 of 255.
fn check(name: &str) {
    let Some(gpu) = gpu() else { return };
    let case = &fixture().cases[name];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), case);
    let model = LatentDiffusion::open(&Folder::open(folder.path()).unwrap()).unwrap();
    let options = PaintOptions {
        height: SIZE[0],
        width: SIZE[1],
        steps: case.steps,
        guidance: case.guidance,
        rescale: case.rescale,
        strength: case.strength.unwrap_or(1.0),
        noise: NoiseSource::Cpu,
        original: case.original,
        ..PaintOptions::of(&model)
    };
    let (picture, mask) = canvas();
    let kind = match case.class_name.as_str() {
        "StableDiffusionImg2ImgPipeline" => StartFrom::Picture,
        "StableDiffusionInpaintPipeline" => StartFrom::Masked,
        _ => StartFrom::Noise,
    };
    let canvas = Canvas { picture: &picture, mask: (kind == StartFrom::Masked).then_some(&mask) };
    let canvas = (kind != StartFrom::Noise).then_some(canvas);
    // A batch of two, of which one is used.
    let mut painter = Painter::new(gpu, &model, 2, TOKENS, kind, &options).unwrap();
    let wish = Wish {
        text: text(&model, ["text", "pooled"]),
        negative: Some(text(&model, ["negative", "unpooled"])),
    };
    let mut run = painter.start(&[wish], &[SEED], canvas).unwrap();
    let pictures = run.pictures().unwrap();
    let latents = run.latents().unwrap();

    let file = Weights::open(path("pipelines.safetensors")).unwrap();
    let wanted = file.tensor(&format!("{name}.latents"), &latents.desc.shape[1..]).unwrap().to_f32();
    let (error, _) = compare(&latents.to_f32(), &wanted);
    let all = std::fs::read(path("pipelines.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&all).unwrap();
    let wanted = all.tensor(&format!("{name}.picture")).unwrap().data().to_vec();
    let worst = pictures[0].iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    println!("{name}: latents {error:.1e} of the range, picture {worst} of 255");
    assert!(error <= 1e-3, "{name}: {error:e}");
    assert!(worst <= 2, "{name}: {worst} of 255");
}

macro_rules! cases {
    ($($test:ident $name:literal)*) => { $(#[test] fn $test() { check($name); })* };
}

cases! {
    text_ddim "text.ddim"
    text_euler "text.euler"
    text_euler_ancestral "text.euler-a"
    text_heun "text.heun"
    text_dpm_2m "text.dpm++2m"
    text_without_guidance "text.no-guidance"
    text_zero_snr_and_rescale "text.zero-snr"
    picture_ddim "picture.ddim"
    picture_euler "picture.euler"
    picture_euler_ancestral "picture.euler-a"
    picture_dpm_2m "picture.dpm++2m"
    blend_ddim "blend.ddim"
    blend_euler "blend.euler"
    inpaint_ddim "inpaint.ddim"
    inpaint_euler_ancestral "inpaint.euler-a"
    sdxl_euler "sdxl.euler"
    sdxl_ddim "sdxl.ddim"
}

#[test]
fn every_case_is_checked() {
    let source = include_str!("pipelines.rs");
    for name in fixture().cases.keys() {
        assert!(source.contains(&format!("\"{name}\"\n")), "{name} is not checked");
    }
}

#[test]
fn what_does_not_fit_is_said() {
    let Some(gpu) = gpu() else { return };
    let case = &fixture().cases["text.euler"];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), case);
    let model = LatentDiffusion::open(&Folder::open(folder.path()).unwrap()).unwrap();
    let options = PaintOptions { height: 40, width: 48, steps: 2, ..PaintOptions::of(&model) };
    let refused = |options: &PaintOptions, kind: StartFrom, says: &str| {
        let error = Painter::new(gpu, &model, 1, TOKENS, kind, options).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    };
    refused(&PaintOptions { height: 42, ..options.clone() }, StartFrom::Noise, "multiples of 4");
    refused(&PaintOptions { guidance: f32::NAN, ..options.clone() }, StartFrom::Noise, "NaN");
    refused(&PaintOptions { strength: 0.0, ..options.clone() }, StartFrom::Picture, "strength");

    let mut painter = Painter::new(gpu, &model, 1, TOKENS, StartFrom::Noise, &options).unwrap();
    let wish = Wish { text: text(&model, ["text", ""]), negative: None };
    let error = painter.start(std::slice::from_ref(&wish), &[1], None).unwrap_err().to_string();
    assert!(error.contains("negative"), "{error}");
    let short = TextEmbedding { states: Tensor::from_f32([1, 12], &[0.5; 12]), pooled: None };
    let short = Wish { text: wish.text, negative: Some(short) };
    let error = painter.start(&[short], &[1], None).unwrap_err().to_string();
    assert!(error.contains("[5, 12]"), "{error}");

    // Other parts, and no safe weights.
    std::fs::rename(
        folder.path().join("unet/diffusion_pytorch_model.safetensors"),
        folder.path().join("unet/diffusion_pytorch_model.bin"),
    )
    .unwrap();
    let error = LatentDiffusion::open(&Folder::open(folder.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("safe_serialization"), "{error}");
    let index = r#"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}"#;
    std::fs::write(folder.path().join("model_index.json"), index).unwrap();
    let error = LatentDiffusion::open(&Folder::open(folder.path()).unwrap()).unwrap_err();
    assert!(
        matches!(error, Error::Unsupported { .. }) && error.to_string().contains("FluxTransformer2DModel"),
        "{error}"
    );
}

#[test]
fn shards_are_one_file() {
    let case = &fixture().cases["text.euler"];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), case);
    let unet = folder.path().join("unet");
    let whole = unet.join("diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&whole).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut map = BTreeMap::new();
    for shard in 0..3 {
        let file = format!("diffusion_pytorch_model-0000{}-of-00003.safetensors", shard + 1);
        let part: Vec<_> = all.iter().enumerate().filter(|(i, _)| i % 3 == shard).map(|(_, t)| t).collect();
        map.extend(part.iter().map(|(name, _)| ((*name).to_owned(), file.clone())));
        let bytes = safetensors::serialize(part, None).unwrap();
        std::fs::write(unet.join(file), bytes).unwrap();
    }
    std::fs::remove_file(&whole).unwrap();
    let index = unet.join("diffusion_pytorch_model.safetensors.index.json");
    let write_index = |map: &BTreeMap<String, String>| {
        let text = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
        std::fs::write(&index, text).unwrap();
    };
    write_index(&map);
    let sharded = Folder::open(folder.path()).unwrap().weights("unet").unwrap();
    assert_eq!(sharded.names().len(), all.len());
    for (name, tensor) in all.iter() {
        assert_eq!(&*sharded.tensor(name, tensor.shape()).unwrap().bytes, tensor.data(), "{name}");
    }
    let first = map.keys().next().unwrap().clone();
    let mut wrong = map.clone();
    wrong.insert(first.clone(), "../../secret.safetensors".to_owned());
    write_index(&wrong);
    let error = Folder::open(folder.path()).unwrap().weights("unet").unwrap_err().to_string();
    assert!(error.contains("same folder"), "{error}");
    map.insert("no.such.tensor".to_owned(), map[&first].clone());
    write_index(&map);
    let error = Folder::open(folder.path()).unwrap().weights("unet").unwrap_err().to_string();
    assert!(error.contains("no.such.tensor"), "{error}");
}

//! Whole runs of pipelines.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use aquatint::Tensor;
use aquatint::formats::diffusers::Folder;
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::tasks::{Canvas, Control, NoiseSource, PaintOptions, Painter, StartFrom, Wish};
use aquatint::text::TextEmbedding;
use image::{GrayImage, Luma, Rgb, RgbImage};

use super::hashed::{compare, gpu, numbers};
use super::{Described, control, fixture, path, read, tiny, wanted, write};

#[derive(serde::Deserialize)]
pub struct Run {
    unet: String,
    vae: String,
    class_name: String,
    scheduler_class: String,
    scheduler: String,
    steps: usize,
    guidance: f32,
    strength: Option<f64>,
    #[serde(default)]
    controls: Vec<ControlOptions>,
}

#[derive(serde::Deserialize)]
struct ControlOptions {
    control: String,
    scale: f32,
    start: f64,
    end: f64,
}

const SIZE: [usize; 2] = [40, 48];
const TOKENS: usize = 5;
const SEED: u64 = 7;

/// The model of a run, whose UNet and large autoencoder are those of `pipelines.json`.
fn model(run: &Run) -> LatentDiffusion {
    #[derive(serde::Deserialize)]
    struct Pipelines {
        parts: BTreeMap<String, Described>,
    }
    static PIPELINES: OnceLock<Pipelines> = OnceLock::new();
    let parts = &PIPELINES.get_or_init(|| read("pipelines.json")).parts;
    let folder = tempfile::tempdir().unwrap();
    let vae = parts.get(&run.vae).unwrap_or_else(|| &fixture().networks[&run.vae]);
    let index = serde_json::json!({
        "_class_name": run.class_name,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", if run.vae == "vae" { "AutoencoderKL" } else { "AutoencoderTiny" }],
        "scheduler": ["diffusers", run.scheduler_class],
        "safety_checker": [null, null],
    });
    std::fs::write(folder.path().join("model_index.json"), index.to_string()).unwrap();
    write(&folder.path().join("unet"), &parts[&run.unet]);
    write(&folder.path().join("vae"), vae);
    std::fs::create_dir_all(folder.path().join("scheduler")).unwrap();
    std::fs::write(folder.path().join("scheduler/scheduler_config.json"), &run.scheduler).unwrap();
    LatentDiffusion::open(&Folder::open(folder.path()).unwrap()).unwrap()
}

fn text(model: &LatentDiffusion, [states, pooled]: [&str; 2]) -> TextEmbedding {
    let unet = model.denoiser.config.unet().unwrap();
    let states = Tensor::from_f32(
        [TOKENS, unet.cross_attention_dim],
        &numbers(states, TOKENS * unet.cross_attention_dim),
    );
    let pooled = unet.addition_embed_type.is_some().then(|| Tensor::from_f32([16], &numbers(pooled, 16)));
    TextEmbedding { states, pooled }
}

fn wish(model: &LatentDiffusion) -> Wish {
    Wish { text: text(model, ["text", "pooled"]), negative: Some(text(model, ["negative", "unpooled"])) }
}

fn drawn(value: impl Fn(u32, u32) -> [u32; 3]) -> RgbImage {
    RgbImage::from_fn(SIZE[1] as u32, SIZE[0] as u32, |x, y| Rgb(value(x, y).map(|v| (v % 256) as u8)))
}

fn options(run: &Run, model: &LatentDiffusion) -> PaintOptions {
    PaintOptions {
        height: SIZE[0],
        width: SIZE[1],
        steps: run.steps,
        guidance: run.guidance,
        strength: run.strength.unwrap_or(1.0),
        noise: NoiseSource::Cpu,
        ..PaintOptions::of(model)
    }
}

fn controls(run: &Run) -> Vec<Control> {
    let control = |c: &ControlOptions| Control {
        model: control(&c.control),
        scale: c.scale,
        start: c.start,
        end: c.end,
        guess: false,
    };
    run.controls.iter().map(control).collect()
}

fn control_pictures(run: &Run) -> Vec<RgbImage> {
    let picture = |i: u32| drawn(|x, y| [x * 7 + y + 50 * i, x + y * 6, x * 2 + y * y + 90 * i]);
    (0..run.controls.len() as u32).map(picture).collect()
}

/// The largest difference from every second pixel.
fn worst(found: &RgbImage, name: &str) -> u8 {
    let all = std::fs::read(path("control.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&all).unwrap();
    let wanted = all.tensor(name).unwrap();
    let [h, w] = SIZE.map(|side| side / 2);
    assert_eq!(wanted.shape(), [h, w, 3]);
    let pixel = |i: usize| found.get_pixel((i % w * 2) as u32, (i / w * 2) as u32).0;
    let found = (0..h * w).flat_map(pixel);
    found.zip(wanted.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// Latents within 1e-3 of their range: a run goes through the network some dozen times, and guidance multiplies what
/// differs. Pictures within 2 of 255.
fn check_run(name: &str) {
    let Some(gpu) = gpu() else { return };
    let run = &fixture().runs[name];
    let model = model(run);
    let picture = drawn(|x, y| [x * 5 + y * 2, x * 3 + y * 5, x * y]);
    let inside = |x: u32, y: u32| (12..32).contains(&x) && (8..28).contains(&y);
    let mask =
        GrayImage::from_fn(SIZE[1] as u32, SIZE[0] as u32, |x, y| Luma([if inside(x, y) { 255 } else { 0 }]));
    let kind = match &run.class_name {
        class if class.contains("Img2Img") => StartFrom::Picture,
        class if class.contains("Inpaint") => StartFrom::Masked,
        _ => StartFrom::Noise,
    };
    let canvas = Canvas { picture: &picture, mask: (kind == StartFrom::Masked).then_some(&mask) };
    let canvas = (kind != StartFrom::Noise).then_some(canvas);
    // A batch of two, of which one is used.
    let options = options(run, &model);
    let mut painter = Painter::controlled(gpu, &model, 2, TOKENS, kind, &options, &controls(run)).unwrap();
    let looks = control_pictures(run);
    painter.control(&looks.iter().collect::<Vec<_>>()).unwrap();
    painter.preview_with(&tiny("run.tiny")).unwrap();
    let mut sampling = painter.start(&[wish(&model)], &[SEED], canvas).unwrap();
    let pictures = sampling.pictures().unwrap();
    let latents = sampling.latents().unwrap();

    let shape = &latents.desc.shape[1..];
    let (error, _) = compare(&latents.to_f32(), &wanted(&format!("{name}.latents"), shape));
    let worst_pixel = worst(&pictures[0], &format!("{name}.picture"));
    println!("{name}: latents {error:.1e} of the range, picture {worst_pixel} of 255");
    assert!(error <= 1e-3, "{name}: {error:e}");
    assert!(worst_pixel <= 2, "{name}: {worst_pixel} of 255");
    if name == "text.euler" {
        let preview = sampling.preview().unwrap();
        assert!(worst(&preview[0], "text.euler.preview") <= 2);
        assert!(preview != pictures);
    }
}

macro_rules! runs {
    ($($test:ident $name:literal)*) => { $(#[test] fn $test() { check_run($name); })* };
}

runs! {
    text_euler "text.euler"
    text_heun "text.heun"
    text_without_guidance "text.no-guidance"
    text_with_two_controls "text.two"
    text_with_means_alone "text.pooled"
    picture_ddim "picture.ddim"
    blend_euler "blend.euler"
    inpaint_ddim "inpaint.ddim"
    sdxl_euler "sdxl.euler"
    tiny_euler "tiny.euler"
    tiny_picture "tiny.picture"
    tiny_blend "tiny.blend"
    tiny_inpaint "tiny.inpaint"
}

#[test]
fn every_run_is_checked() {
    let source = include_str!("runs.rs");
    for name in fixture().runs.keys() {
        assert!(source.contains(&format!("\"{name}\"\n")), "{name} is not checked");
    }
}

#[test]
fn what_does_not_fit_is_said() {
    let Some(gpu) = gpu() else { return };
    let run = &fixture().runs["text.euler"];
    let model = model(run);
    let options = options(run, &model);
    let control = controls(run).remove(0);
    let refused = |control: &Control, says: &str| {
        let controls = std::slice::from_ref(control);
        let error = Painter::controlled(gpu, &model, 1, TOKENS, StartFrom::Noise, &options, controls);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(&Control { scale: f32::NAN, ..control.clone() }, "NaN");
    refused(&Control { start: 0.5, end: 0.5, ..control.clone() }, "0.5, 0.5");
    refused(&Control::of(super::control("sd1")), "[8, 16, 16, 16]");
    let mut wide = control.clone();
    wide.model.config.conditioning_embedding_out_channels.push(8);
    refused(&wide, "pixels of the picture");

    let controls = std::slice::from_ref(&control);
    let mut painter =
        Painter::controlled(gpu, &model, 1, TOKENS, StartFrom::Noise, &options, controls).unwrap();
    let error = painter.start(&[wish(&model)], &[SEED], None).unwrap_err().to_string();
    assert!(error.contains("pictures for controls"), "{error}");
    let error = painter.control(&[]).unwrap_err().to_string();
    assert!(error.contains("expected 1, found 0"), "{error}");
    let error = painter.control(&[&RgbImage::new(40, 48)]).unwrap_err().to_string();
    assert!(error.contains("48×40 pixels"), "{error}");
    let error = painter.preview_with(&tiny("tiny_wide")).unwrap_err().to_string();
    assert!(error.contains("latent_channels") && error.contains("16"), "{error}");

    // A saved run goes on under the same controls alone.
    painter.control(&[&control_pictures(run)[0]]).unwrap();
    let mut sampling = painter.start(&[wish(&model)], &[SEED], None).unwrap();
    sampling.step().unwrap();
    let state = sampling.state().unwrap();
    let wanted = sampling.pictures().unwrap();
    let again = painter.resume(&[wish(&model)], None, &state).unwrap().pictures().unwrap();
    assert!(wanted == again);
    let mut other = Painter::new(gpu, &model, 1, TOKENS, StartFrom::Noise, &options).unwrap();
    let error = other.resume(&[wish(&model)], None, &state).unwrap_err().to_string();
    assert!(error.contains("0.8 from 0.25 to 0.75"), "{error}");
}

//! `aquatint generate` against diffusers' pipelines that were given the same words (`scripts/references/painting.py`): a
//! base with its refiner, zero terminal SNR, perturbed-attention guidance, ControlNets that guess.

mod hashed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use aquatint::formats::picture;
use aquatint::models::controlnet::ControlNetConfig;
use aquatint::models::latent_diffusion::Part;
use aquatint::tasks::{Canvas, Control, NoiseSource, Pag, PaintOptions, Painter, Pipeline, StartFrom, Wish};
use aquatint::{DType, Weights};
use hashed::{compare, gpu, save};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

#[derive(serde::Deserialize)]
struct Fixture {
    parts: BTreeMap<String, Described>,
    cases: BTreeMap<String, Case>,
}

#[derive(Clone, serde::Deserialize)]
struct Described {
    config: Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

#[derive(serde::Deserialize)]
struct Case {
    class_name: String,
    scheduler_class: String,
    scheduler: String,
    unets: Vec<String>,
    controls: usize,
    args: Vec<String>,
}

const SIZE: [u32; 2] = [48, 40];

fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        serde_json::from_str(&std::fs::read_to_string(fixture_path("painting.json")).unwrap()).unwrap()
    })
}

/// The encoders of tests/text.rs.
fn encoders() -> &'static BTreeMap<String, Described> {
    #[derive(serde::Deserialize)]
    struct Text {
        encoders: BTreeMap<String, Described>,
    }
    static TEXT: OnceLock<Text> = OnceLock::new();
    let read = || serde_json::from_str(&std::fs::read_to_string(fixture_path("text.json")).unwrap()).unwrap();
    &TEXT.get_or_init(read).encoders
}

fn write_part(folder: &Path, part: &Described) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), part.config.to_string()).unwrap();
    save(folder, &part.tensors, &BTreeMap::new(), &[]);
}

/// A pipeline's folder, as `save_pretrained` writes it.
fn write_pipeline(folder: &Path, case: &Case, unet: &str) {
    let refiner = unet == "refiner";
    let kind = if unet == "sd" { "StableDiffusionPipeline" } else { "StableDiffusionXLPipeline" };
    let mut index = json!({
        "_class_name": if refiner { "StableDiffusionXLImg2ImgPipeline" } else { kind },
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", case.scheduler_class],
        "text_encoder": [null, null],
        "tokenizer": [null, null],
        "requires_aesthetics_score": refiner,
        "force_zeros_for_empty_prompt": !refiner,
    });
    let parts = &fixture().parts;
    let mut all = vec![("unet", &parts[unet]), ("vae", &parts["vae"])];
    if !refiner {
        all.push(("text_encoder", &encoders()["one"]));
        index["text_encoder"] = json!(["transformers", "CLIPTextModel"]);
    }
    if unet != "sd" {
        all.push(("text_encoder_2", &encoders()["two"]));
        index["text_encoder_2"] = json!(["transformers", "CLIPTextModelWithProjection"]);
    }
    for (name, part) in all {
        write_part(&folder.join(name), part);
        if let Some(number) = name.strip_prefix("text_encoder") {
            let tokenizer = folder.join(format!("tokenizer{number}"));
            std::fs::create_dir_all(&tokenizer).unwrap();
            for file in ["vocab.json", "merges.txt", "special_tokens_map.json"] {
                std::fs::copy(fixture_path("tokenizer").join(file), tokenizer.join(file)).unwrap();
            }
        }
    }
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    std::fs::write(folder.join("scheduler/scheduler_config.json"), &case.scheduler).unwrap();
    std::fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
}

fn drawn(value: impl Fn(u32, u32) -> [u32; 3]) -> RgbImage {
    RgbImage::from_fn(SIZE[0], SIZE[1], |x, y| Rgb(value(x, y).map(|v| (v % 256) as u8)))
}

/// The case's folders and pictures, and the arguments that have it painted.
fn write(folder: &Path, case: &Case) -> Vec<String> {
    let mut args: Vec<String> = ["--rng", "cpu", "--seed", "7"].map(str::to_owned).to_vec();
    let mut push = |option: &str, value: &str| args.extend([option.to_owned(), value.to_owned()]);
    for (unet, option) in case.unets.iter().zip(["--model", "--refiner"]) {
        write_pipeline(&folder.join(unet), case, unet);
        push(option, unet);
    }
    if case.class_name.contains("Img2Img") {
        drawn(|x, y| [x * 5 + y * 2, x * 3 + y * 5, x * y]).save(folder.join("init.png")).unwrap();
        push("--init", "init.png");
    } else {
        push("--width", &SIZE[0].to_string());
        push("--height", &SIZE[1].to_string());
    }
    for i in 0..case.controls {
        write_part(&folder.join(format!("control{i}")), &fixture().parts[&format!("control{i}")]);
        let n = i as u32;
        let looks = drawn(|x, y| [x * 7 + y + 50 * n, x + y * 6, x * 2 + y * y + 90 * n]);
        looks.save(folder.join(format!("looks{i}.png"))).unwrap();
        push("--control", &format!("control{i}"));
        push("--control-picture", &format!("looks{i}.png"));
    }
    args.extend(case.args.iter().cloned());
    args
}

fn generate(folder: &Path, args: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aquatint"));
    command.env_remove("RUST_BACKTRACE").current_dir(folder).arg("generate").args(args);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs and expects success; returns what it said on stderr.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn fail(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains("error: ") && !message.contains("panicked"), "{message}");
    message
}

/// A picture within 2 of 255 of that of diffusers, and the same file once more out of what it says of itself.
fn check(name: &str) {
    if gpu().is_none() {
        return;
    }
    let case = &fixture().cases[name];
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let args = write(folder, case);
    succeed(generate(folder, &args).args(["--out", "out.png"]));
    let found = picture::open(folder.join("out.png")).unwrap();
    let all = std::fs::read(fixture_path("painting.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&all).unwrap();
    let wanted = all.tensor(&format!("{name}.picture")).unwrap();
    assert_eq!((found.width(), found.height()), SIZE.into());
    let worst = found.iter().zip(wanted.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    println!("{name}: {worst} of 255");
    assert!(worst <= 2, "{name}: {worst} of 255");
    succeed(&mut generate(folder, &["--from", "out.png", "--out", "again.png"]));
    let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert!(bytes("out.png") == bytes("again.png"), "{name}: the same file");
}

/// What the program makes of the arguments, by the library: its latents within 1e-3 of the range of diffusers', as a run
/// goes through the network some dozen times, and guidance multiplies what differs.
fn check_latents(name: &str) {
    let Some(gpu) = gpu() else { return };
    let case = &fixture().cases[name];
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let args = write(folder, case);
    let told = |option: &str| args.iter().position(|arg| arg == option).map(|at| args[at + 1].as_str());
    let number = |option: &str| told(option).map(|text| text.parse::<f32>().unwrap());
    let Pipeline { model, text } = Pipeline::open(folder.join(&case.unets[0]), None).unwrap();
    let own = PaintOptions::of(&model);
    let pag = number("--pag").map(|scale| Pag {
        adaptive: number("--pag-adaptive").unwrap_or(0.0),
        layers: told("--pag-layers").unwrap_or("mid").split(',').map(str::to_owned).collect(),
        scale,
    });
    let options = PaintOptions {
        width: SIZE[0] as usize,
        height: SIZE[1] as usize,
        steps: told("--steps").unwrap().parse().unwrap(),
        guidance: number("--guidance").unwrap(),
        rescale: number("--rescale").unwrap_or(own.rescale),
        strength: told("--strength").map_or(own.strength, |text| text.parse().unwrap()),
        noise: NoiseSource::Cpu,
        pag,
        ..own
    };
    let prompt = (told("--prompt").unwrap(), told("--negative"));
    let [wanted, unwanted] = text.encode(gpu, &[prompt], DType::F32).unwrap().remove(0);
    let tokens = wanted.states.desc.shape[0];
    let mut scales = args.iter().zip(&args[1..]).filter(|(option, _)| *option == "--control-scale");
    let controls: Vec<Control> = (0..case.controls)
        .map(|i| Control {
            guess: args.iter().any(|arg| arg == "--guess"),
            scale: scales.next().map_or(1.0, |(_, scale)| scale.parse().unwrap()),
            ..Control::of(Part::<ControlNetConfig>::open(folder.join(format!("control{i}"))).unwrap())
        })
        .collect();
    let begin = told("--init").map(|name| picture::open(folder.join(name)).unwrap());
    let kind = if begin.is_some() { StartFrom::Picture } else { StartFrom::Noise };
    // A batch of two, of which one is used.
    let mut painter = Painter::controlled(gpu, &model, 2, tokens, kind, &options, &controls).unwrap();
    let looks = |i: usize| picture::open(folder.join(format!("looks{i}.png"))).unwrap();
    let looks: Vec<RgbImage> = (0..case.controls).map(looks).collect();
    painter.control(&looks.iter().collect::<Vec<_>>()).unwrap();
    let wishes = [Wish { text: wanted, negative: Some(unwanted) }];
    let canvas = begin.as_ref().map(|picture| Canvas { picture, mask: None });
    let mut run = painter.start(&wishes, &[7], canvas).unwrap();
    run.run().unwrap();
    let latents = run.latents().unwrap();
    let file = Weights::open(fixture_path("painting.safetensors")).unwrap();
    let wanted = file.tensor(&format!("{name}.latents"), &latents.desc.shape[1..]).unwrap().to_f32();
    let (error, _) = compare(&latents.to_f32(), &wanted);
    println!("{name}: latents {error:.1e} of the range");
    assert!(error <= 1e-3, "{name}: {error:e}");
}

macro_rules! cases {
    ($($test:ident $name:literal)*) => { $(#[test] fn $test() { check($name); })* };
}

cases! {
    refined_euler "refined.euler"
    refined_ddim "refined.ddim"
    refiner_alone "refiner"
    zero_snr_ddim "zero-snr.ddim"
    zero_snr_euler "zero-snr.euler"
    pag_euler "pag.euler"
    pag_layers "pag.layers"
    pag_alone "pag.alone"
    pag_rescale "pag.rescale"
    pag_sdxl "pag.sdxl"
    pag_picture "pag.picture"
    pag_control "pag.control"
    guess_euler "guess.euler"
    guess_two "guess.two"
    guess_alone "guess.alone"
}

#[test]
fn every_case_is_checked() {
    let source = include_str!("painting.rs");
    for name in fixture().cases.keys() {
        assert!(source.contains(&format!("\"{name}\"\n")), "{name} is not checked");
    }
}

#[test]
fn latents_with_perturbed_attention() {
    for name in fixture().cases.keys().filter(|name| name.starts_with("pag.")) {
        check_latents(name);
    }
}

#[test]
fn latents_of_guesses() {
    for name in fixture().cases.keys().filter(|name| name.starts_with("guess.")) {
        check_latents(name);
    }
}

#[test]
fn guidance_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, &fixture().cases["pag.euler"]);
    let common = "--model sd --prompt cat --width 16 --height 16 --steps 1";
    for (more, wanted) in [
        ("--pag 0", "above 0"),
        ("--pag NaN", "above 0"),
        ("--pag 3 --pag-adaptive=-1", "none or above"),
        ("--pag 3 --pag-layers middle", "mid_block.attentions.0.transformer_blocks.0.attn1"),
        ("--pag 3 --pag-layers mid,up_blocks.0", "found up_blocks.0"),
        ("--pag-layers mid", "--pag too"),
        ("--pag-adaptive 0.1", "--pag too"),
        ("--guess", "--control too"),
        ("--zero-snr", "v_prediction or sample, found epsilon"),
    ] {
        let args: Vec<&str> = common.split(' ').chain(more.split(' ')).collect();
        let message = fail(&mut generate(folder, &args), 1);
        assert!(message.contains(wanted), "{more}: no {wanted} in {message}");
    }
}

/// In turn or together, in batches or one after the other, a base and its refiner paint the same.
#[test]
fn a_refiner_paints_the_same_in_any_order() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let args = write(folder, &fixture().cases["refined.ddim"]);
    let run = |more: &[&str]| succeed(generate(folder, &args).args(["--count", "3"]).args(more));
    run(&["--out", "together/"]);
    run(&["--out", "batches/", "--batch", "2"]);
    // The least that does for either alone.
    let mut command = generate(folder, &args);
    let message = fail(command.args(["--memory-budget", "1kB"]), 1);
    assert!(message.contains("UNet"), "{message}");
    let inspect = |model: &str| -> u64 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatint"));
        let size = ["--width", "48", "--height", "40", "--json"];
        let output = command.current_dir(folder).args(["inspect", model]).args(size).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["memory"]["peak"].as_u64().unwrap()
    };
    let budget = inspect("sdxl").max(inspect("refiner")).to_string();
    run(&["--out", "turns/", "--memory-budget", &budget]);
    for name in ["7.png", "8.png", "9.png"] {
        let bytes = |kind: &str| std::fs::read(folder.join(kind).join(name)).unwrap();
        assert!(bytes("together") == bytes("batches"), "{name}");
        // Where memory is short, convolutions are computed in other ways, whose rounding is theirs.
        let pixels = |kind: &str| picture::open(folder.join(kind).join(name)).unwrap().into_raw();
        let off = pixels("together").iter().zip(pixels("turns")).map(|(a, b)| a.abs_diff(b)).max().unwrap();
        assert!(off <= 1, "{name} is off by {off}");
    }
    let text = picture::read_text(folder.join("turns/8.png"), "parameters").unwrap().unwrap();
    assert!(text.contains("Seed: 8,") && text.contains("Refiner: refiner, Refiner switch at: 0.8"), "{text}");
}

#[test]
fn a_refiner_that_does_not_fit_is_refused() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let args = write(folder, &fixture().cases["refined.ddim"]);
    drawn(|x, y| [x, y, x]).save(folder.join("init.png")).unwrap();
    for (more, wanted) in [
        (&["--init", "init.png"][..], "--refiner and --init"),
        (&["--hires", "2"], "--refiner and --hires"),
        (&["--refiner-start", "1"], "below 1"),
        (&["--refiner-start", "0.001"], "a step in it"),
    ] {
        let message = fail(generate(folder, &args).args(more), 1);
        assert!(message.contains(wanted), "{more:?}: no {wanted} in {message}");
    }
    let alone: Vec<&str> = "--model sdxl --prompt cat --refiner-start 0.5".split(' ').collect();
    let message = fail(&mut generate(folder, &alone), 1);
    assert!(message.contains("--refiner too"), "{message}");
    let gone: Vec<&str> = "--model sdxl --prompt cat --refiner gone".split(' ').collect();
    assert!(fail(&mut generate(folder, &gone), 1).contains("gone"));
    assert!(!folder.join("aquatint-7.png").exists());
}

//! `aquatint generate --prompt` from outside, with a small model of hashed weights in diffusers' layout.

mod hashed;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use aquatint::formats::picture;
use hashed::{gpu, save};
use serde_json::{Value, json};

type Tensors = BTreeMap<String, Vec<usize>>;

fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A pipeline's folder: the UNet and autoencoder of tests/pipelines.rs, the encoder of text of tests/text.rs, to whose width the
/// UNet is made.
fn model(folder: &Path) {
    model_with(folder, &BTreeMap::new());
}

/// The same with some tensors multiplied.
fn model_with(folder: &Path, gains: &BTreeMap<String, f32>) {
    let (pipelines, text) = (fixture("pipelines"), fixture("text"));
    let mut unet = pipelines["parts"]["sd"].clone();
    let encoder = &text["encoders"]["one"];
    let width = encoder["config"]["hidden_size"].clone();
    unet["config"]["cross_attention_dim"] = width.clone();
    for (name, shape) in unet["tensors"].as_object_mut().unwrap() {
        if name.contains("attn2.to_k") || name.contains("attn2.to_v") {
            shape[1] = width.clone();
        }
    }
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "safety_checker": [null, null],
    });
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
    for (name, part) in [("unet", &unet), ("vae", &pipelines["parts"]["vae"]), ("text_encoder", encoder)] {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), part["config"].to_string()).unwrap();
        let tensors: Tensors = serde_json::from_value(part["tensors"].clone()).unwrap();
        save(&folder, &tensors, gains, &[]);
    }
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    let scheduler = pipelines["cases"]["text.euler"]["scheduler"].as_str().unwrap();
    std::fs::write(folder.join("scheduler/scheduler_config.json"), scheduler).unwrap();
    std::fs::create_dir_all(folder.join("tokenizer")).unwrap();
    for file in ["vocab.json", "merges.txt", "special_tokens_map.json"] {
        let from = format!("{}/tests/fixtures/tokenizer/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(from, folder.join("tokenizer").join(file)).unwrap();
    }
}

fn generate(folder: &Path, args: &[&str]) -> Command {
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

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_picture_is_painted_and_painted_again() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    let said = succeed(&mut generate(
        folder.path(),
        &[
            "--model",
            "model",
            "--prompt",
            "a (red:1.3) cat,\nby the sea",
            "--negative",
            "blurry",
            "--steps",
            "3",
            "--seed",
            "5",
            "--width",
            "30",
            "--height",
            "41",
            "--guidance",
            "4.5",
            "--out",
            "cat.png",
        ],
    ));
    assert!(said.contains("30×41 is rounded to 32×40"), "{said}");
    let cat = folder.path().join("cat.png");
    let parameters = picture::read_text(&cat, "parameters").unwrap().unwrap();
    assert!(
        parameters
            .starts_with("a (red:1.3) cat,\nby the sea\nNegative prompt: blurry\nSteps: 3, Sampler: Euler, "),
        "{parameters}"
    );
    assert!(parameters.contains("CFG scale: 4.5, Seed: 5, Size: 32x40, Model: model"), "{parameters}");
    assert_eq!(picture::open(&cat).unwrap().dimensions(), (32, 40));
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    succeed(&mut generate(folder.path(), &["--from", "cat.png", "--out", "again.png"]));
    assert!(bytes("cat.png") == bytes("again.png"), "the same file");
    succeed(&mut generate(folder.path(), &["--from", "cat.png", "--seed", "6", "--out", "other.png"]));
    assert!(bytes("cat.png") != bytes("other.png"));

    // A picture of another program, which does not say where its model is.
    let other = "a red cat\nNegative prompt: blurry\nSteps: 3, Sampler: Euler a, CFG scale: 4.5, Seed: 5, Size: 32x40";
    picture::save_png(
        folder.path().join("theirs.png"),
        &image::RgbImage::new(8, 8).into(),
        &[("parameters", other)],
    )
    .unwrap();
    fail(&mut generate(folder.path(), &["--from", "theirs.png"]), 1);
    succeed(&mut generate(folder.path(), &["--from", "theirs.png", "--model", "model", "--out", "ours.png"]));
    let ours = picture::read_text(folder.path().join("ours.png"), "parameters").unwrap().unwrap();
    assert!(ours.contains("Sampler: Euler a") && ours.contains("Seed: 5, Size: 32x40"), "{ours}");
}

#[test]
fn several_pictures_have_a_seed_each_however_many_at_a_time() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    let common = [
        "--model", "model", "--prompt", "cat", "--steps", "2", "--seed", "9", "--width", "32", "--height",
        "32",
    ];
    let run = |more: &[&str]| succeed(&mut generate(folder.path(), &[&common[..], more].concat()));
    run(&["--count", "3", "--batch", "2", "--out", "many/"]);
    assert_eq!(names(&folder.path().join("many")), ["10.png", "11.png", "9.png"]);
    run(&["--out", "one.png"]);
    run(&["--count", "2", "--out", "two.png"]);
    let pixels = |name: &str| picture::open(folder.path().join(name)).unwrap();
    assert!(folder.path().join("two-9.png").exists() && folder.path().join("two-10.png").exists());
    assert_eq!(pixels("two-10.png"), pixels("many/10.png"));
    assert_eq!(pixels("one.png"), pixels("many/9.png"));
    // Beside the picture, as there is no terminal.
    run(&["--out", "shown.png", "--preview-every", "1"]);
    assert_eq!(pixels("shown.preview.png").dimensions(), (32, 32));
}

#[test]
fn pictures_begin_with_pictures() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    let grey = |x: u32, y: u32| image::Rgb([(x * 5) as u8, (y * 7) as u8, 90]);
    let begin = image::RgbImage::from_fn(34, 30, grey);
    begin.save(folder.path().join("begin.png")).unwrap();
    let common =
        ["--model", "model", "--prompt", "cat", "--steps", "4", "--seed", "1", "--init", "begin.png"];
    let run = |more: &[&str]| {
        succeed(&mut generate(folder.path(), &[&common[..], more, &["--out", "out.png"]].concat()));
        picture::open(folder.path().join("out.png")).unwrap()
    };
    let half = run(&["--strength", "0.5"]);
    assert_eq!(half.dimensions(), (36, 32), "that of the picture, in multiples of four");
    assert_ne!(half, run(&["--strength", "1"]));
    let text = picture::read_text(folder.path().join("out.png"), "parameters").unwrap().unwrap();
    assert!(text.contains("Denoising strength: 1"), "{text}");
    assert_eq!(run(&["--extend", "6,0,0,10"]).dimensions(), (40, 40));
    let mask = image::GrayImage::from_fn(17, 15, |x, _| image::Luma([if x < 8 { 255 } else { 0 }]));
    mask.save(folder.path().join("mask.png")).unwrap();
    assert_eq!(run(&["--mask", "mask.png"]).dimensions(), (36, 32));

    let with = |more: &[&str]| generate(folder.path(), &[&common[..], more].concat());
    assert!(fail(&mut with(&["--strength", "0"]), 1).contains("strength"));
    assert!(fail(&mut with(&["--mask", "gone.png"]), 1).contains("gone.png"));
    assert!(fail(&mut with(&["--extend", "1,2"]), 1).contains("four"));
    assert!(fail(&mut with(&["--extend", "1,2,4294967295,4294967295"]), 1).contains("at most"));
}

/// Too large for 16 bits is computed again in 32; what is no number in any is named and not written.
#[test]
fn numbers_that_are_none_are_found() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let with = |name: &str, tensor: &str, gain: f32| {
        model_with(&folder.path().join(name), &BTreeMap::from([(tensor.to_owned(), gain)]));
    };
    with("large", "conv_out.weight", 1e6);
    with("none", "up_blocks.1.resnets.0.conv1.weight", f32::NAN);
    let common = [
        "--prompt", "cat", "--steps", "2", "--seed", "3", "--width", "16", "--height", "16", "--out", "o.png",
    ];
    let run = |more: &[&str]| generate(folder.path(), &[&common[..], more].concat());
    let said = succeed(&mut run(&["--model", "large", "--precision", "f16"]));
    assert!(said.contains("the denoising network") && said.contains("again in f32"), "{said}");
    assert!(said.contains("conv_out"), "{said}");
    std::fs::remove_file(folder.path().join("o.png")).unwrap();
    let message = fail(&mut run(&["--model", "none"]), 1);
    assert!(message.contains("the denoising network"), "{message}");
    assert!(message.contains("up_blocks.1.resnets.0.conv1"), "{message}");
    assert!(!folder.path().join("o.png").exists());
}

#[test]
fn what_cannot_be_painted_is_said() {
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    std::fs::write(folder.path().join("old.ckpt"), "pickle").unwrap();
    std::fs::write(folder.path().join("cut.safetensors"), [9, 0, 0, 0]).unwrap();
    for (args, wanted) in [
        (&["--prompt", "cat"][..], "--model"),
        (&["--model", "model"], "--prompt"),
        (&["--model", "model", "--prompt", "cat", "A"], "labels"),
        (&["--model", "model", "--prompt", "cat", "--sampler", "leapfrog"], "dpm++2m"),
        (&["--model", "model", "--prompt", "cat", "--sigmas", "steep"], "karras"),
        (&["--model", "model", "--prompt", "cat", "--count", "0"], "1 to"),
        (&["--model", "model", "--prompt", "cat", "--out", "cat.jpg"], ".png"),
        (&["--model", "gone", "--prompt", "cat"], "gone"),
        (&["--model", "old.ckpt", "--prompt", "cat"], "safetensors"),
        (&["--model", "cut.safetensors", "--prompt", "cat"], "cut.safetensors"),
        (&["--resume", "gone"], "gone"),
    ] {
        let message = fail(&mut generate(folder.path(), args), 1);
        assert!(message.contains(wanted), "{args:?}: no {wanted} in {message}");
    }
    for args in [&["--prompt", "a", "--mask", "m.png"][..], &["--rng", "dice"], &["--precision", "f8"]] {
        fail(&mut generate(folder.path(), args), 2);
    }
    assert_eq!(names(folder.path()), ["cut.safetensors", "model", "old.ckpt"], "nothing is written");
}

#[cfg(unix)]
#[test]
fn a_run_that_is_stopped_can_go_on() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    let common = [
        "--model", "model", "--prompt", "cat", "--steps", "150", "--seed", "3", "--width", "16", "--height",
        "16",
    ];
    succeed(&mut generate(folder.path(), &[&common[..], &["--out", "whole.png"]].concat()));
    let mut command =
        generate(folder.path(), &[&common[..], &["--out", "new/cat.png", "--pause-to", "kept/run"]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The folder is made after the program began to listen.
    let start = std::time::Instant::now();
    while !folder.path().join("new").exists() {
        assert!(start.elapsed().as_secs() < 60, "the program never started");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("of 150 steps") && said.contains("generate --resume kept/run"), "{said}");
    assert!(names(&folder.path().join("new")).is_empty());
    succeed(&mut generate(folder.path(), &["--resume", "kept/run", "--out", "rest.png"]));
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("whole.png") == bytes("rest.png"), "the same picture");
    // Another seed is another run.
    let message = fail(&mut generate(folder.path(), &["--resume", "kept/run", "--steps", "20"]), 1);
    assert!(message.contains("saved run"), "{message}");
}

/// Wherever the device is lost, what was kept of the run lies in a file, and the run goes on from there.
#[test]
fn a_run_whose_device_is_lost_can_go_on() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    let common = [
        "--model",
        "model",
        "--prompt",
        "cat",
        "--steps",
        "5",
        "--seed",
        "3",
        "--width",
        "16",
        "--height",
        "16",
        "--sampler",
        "euler-a",
    ];
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    succeed(&mut generate(folder.path(), &[&common[..], &["--out", "whole.png"]].concat()));
    let mut kept_after = Vec::new();
    for places in (5..).step_by(15) {
        let out = format!("{places}.png");
        let args = ["--out", &out, "--keep-every", "2", "--lose-device-after", &places.to_string()];
        let output = generate(folder.path(), &[&common[..], &args].concat()).output().unwrap();
        let said = stderr(&output);
        let file = format!("{places}.run.safetensors");
        if output.status.success() {
            assert!(bytes(&out) == bytes("whole.png") && !folder.path().join(file).exists());
            break;
        }
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("panicked") && !folder.path().join(&out).exists(), "{said}");
        let after = said.split_once("was lost after ").map(|(_, rest)| rest[..1].parse::<usize>().unwrap());
        let Some(after) = after else {
            assert!(said.contains("lost") && !folder.path().join(file).exists(), "{said}");
            kept_after.push(0);
            continue;
        };
        assert!(
            said.contains(&format!("of 5 steps; go on with: aquatint generate --resume {file}")),
            "{said}"
        );
        succeed(&mut generate(folder.path(), &["--resume", &file, "--out", &out]));
        assert!(bytes(&out) == bytes("whole.png"), "{places}: the same picture");
        kept_after.push(after);
    }
    println!(
        "figure lost runs: a painting of 5 steps lost {} times, gone on after steps {kept_after:?}",
        kept_after.len()
    );
    assert!(
        kept_after.is_sorted() && [0, 2, 4].iter().all(|step| kept_after.contains(step)),
        "{kept_after:?}"
    );

    // Where it is said to be kept; and not at all.
    let lost = |more: &[&str]| {
        let args = [&common[..], &["--out", "lost.png", "--lose-device-after", "20"], more].concat();
        fail(&mut generate(folder.path(), &args), 1)
    };
    let said = lost(&["--keep-every", "1", "--pause-to", "there"]);
    assert!(said.contains("--resume there") && folder.path().join("there").exists(), "{said}");
    assert!(!lost(&["--keep-every", "0"]).contains("--resume"));
    assert!(!folder.path().join("lost.run.safetensors").exists());
}

#[test]
fn adapters_are_put_on_and_what_matches_nothing_is_named() {
    use safetensors::tensor::{Dtype, TensorView};
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    let layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
    let ones: Vec<u8> = [1f32; 8].iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = |shape: [usize; 2]| TensorView::new(Dtype::F32, shape.to_vec(), &ones).unwrap();
    let tensors = [
        (format!("{layer}.lora_down.weight"), view([1, 8])),
        (format!("{layer}.lora_up.weight"), view([8, 1])),
        ("lora_unet_nowhere.lora_down.weight".to_owned(), view([1, 8])),
        ("lora_unet_nowhere.lora_up.weight".to_owned(), view([8, 1])),
    ];
    safetensors::serialize_to_file(tensors, None, &folder.path().join("ink.safetensors")).unwrap();
    let common = [
        "--model", "model", "--prompt", "cat", "--steps", "2", "--seed", "9", "--width", "16", "--height",
        "16",
    ];
    let run = |more: &[&str], out: &str| {
        let said = succeed(&mut generate(folder.path(), &[&common[..], more, &["--out", out]].concat()));
        (picture::open(folder.path().join(out)).unwrap(), said)
    };
    let (plain, _) = run(&[], "plain.png");
    let (none, said) = run(&["--lora", "ink.safetensors:0"], "none.png");
    assert!(said.contains("lora_unet_nowhere"), "{said}");
    assert_eq!(plain, none);
    let (inked, _) = run(&["--lora", "ink.safetensors"], "inked.png");
    assert_ne!(plain, inked);
    let again = succeed(&mut generate(folder.path(), &["--from", "inked.png", "--out", "again.png"]));
    assert_eq!(picture::open(folder.path().join("again.png")).unwrap(), inked, "{again}");
    let with = |more: &[&str]| generate(folder.path(), &[&common[..], more].concat());
    assert!(fail(&mut with(&["--lora", "gone.safetensors:0.5"]), 1).contains("gone.safetensors"));
    assert!(fail(&mut with(&["--embedding", "gone.safetensors"]), 1).contains("gone.safetensors"));
    assert!(fail(&mut with(&["--control", "gone"]), 1).contains("--control-picture"));
}

#[test]
fn small_pictures_become_large_ones_and_seeds_lie_between_others() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    let common = [
        "--model", "model", "--prompt", "cat", "--steps", "2", "--seed", "9", "--width", "32", "--height",
        "24",
    ];
    let run = |more: &[&str]| {
        succeed(&mut generate(folder.path(), &[&common[..], more, &["--out", "out.png"]].concat()));
        picture::open(folder.path().join("out.png")).unwrap()
    };
    let plain = run(&[]);
    let large = run(&["--hires", "2"]);
    assert_eq!(large.dimensions(), (32, 24));
    let text = picture::read_text(folder.path().join("out.png"), "parameters").unwrap().unwrap();
    assert!(text.contains("Denoising strength: 0.6"), "{text}");
    assert_ne!(plain, large);
    assert_ne!(plain, run(&["--variation", "10:0.3"]));
    let with = |more: &[&str]| generate(folder.path(), &[&common[..], more].concat());
    assert!(fail(&mut with(&["--hires", "0.5"]), 1).contains("above 1"));
    assert!(fail(&mut with(&["--variation", "ten"]), 1).contains("7:0.2"));
    assert!(fail(&mut with(&["--variation", "10:1.5"]), 1).contains("1.5"));
}

#[test]
fn a_series_goes_from_a_seed_to_another() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    // With noise on the way, which is the own seed's.
    let common = "--model model --prompt cat --steps 2 --width 32 --height 24 --sampler euler-a";
    let with = |args: &str| {
        let common = common.split(' ').chain(args.split(' '));
        generate(folder.path(), &common.collect::<Vec<_>>())
    };
    for rng in ["cuda", "cpu"] {
        succeed(&mut with(&format!("--rng {rng} --seed 1 --out first.png")));
        succeed(&mut with(&format!("--rng {rng} --seed 2 --out last.png")));
        succeed(&mut with(&format!("--rng {rng} --seed 1 --to-seed 2 --count 4 --batch 3 --out {rng}/")));
        assert_eq!(names(&folder.path().join(rng)), ["00.png", "01.png", "02.png", "03.png"]);
        let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        assert!(bytes("first.png") == bytes(&format!("{rng}/00.png")), "{rng}");
        assert!(bytes("last.png") == bytes(&format!("{rng}/03.png")), "{rng}");
        let again = ["--from", &format!("{rng}/02.png"), "--out", "again.png"].map(str::to_owned);
        succeed(&mut generate(folder.path(), &again.each_ref().map(String::as_str)));
        assert!(bytes("again.png") == bytes(&format!("{rng}/02.png")), "{rng}");
        let pixels = |i: u32| picture::open(folder.path().join(format!("{rng}/0{i}.png"))).unwrap();
        let differ = |a: u32, b: u32| -> u64 {
            pixels(a).iter().zip(pixels(b).iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
        };
        assert!(0 < differ(0, 1) && differ(0, 1) < differ(0, 2), "{rng}: the further, the more it differs");
        let text = picture::read_text(folder.path().join(format!("{rng}/01.png")), "parameters");
        let text = text.unwrap().unwrap();
        assert!(text.contains("Variation seed: 2, Variation seed strength: 0.333"), "{text}");
    }
    succeed(&mut with("--seed 1 --to-seed 9 --count 2"));
    assert!(folder.path().join("aquatint-1-to-9-01.png").exists());
    for (args, wanted) in [
        ("--to-seed 2", "2 to"),
        ("--to-seed 2 --count 3 --variation 4:0.5", "--to-seed and --variation"),
        ("--to-seed 2 --count 3 --hires 2", "--to-seed and --hires"),
        ("--to-seed 2 --count 3 --pause-to run", "--to-seed and --pause-to"),
    ] {
        let message = fail(&mut with(args), 1);
        assert!(message.contains(wanted), "{args}: {message}");
    }
}

#[test]
fn memory_is_told_without_a_gpu() {
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    let inspect = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatint"));
        command.env("VK_ICD_FILENAMES", "/nonexistent").env("VK_DRIVER_FILES", "/nonexistent");
        command.args(["--backend", "vulkan", "inspect", "model"]).args(more).current_dir(folder.path());
        command
    };
    let output = inspect(&["--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let peak = report["memory"]["peak"].as_u64().unwrap();
    assert!(peak >= report["memory"]["step"]["held"].as_u64().unwrap() && peak > 100_000, "{peak}");
    let output = inspect(&["--width", "64", "--precision", "f16"]).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("peak of a whole run") && text.contains("64×32"), "{text}{}", stderr(&output));
    let message = fail(&mut inspect(&["--memory-budget", "1kB"]), 1);
    assert!(message.contains("UNet"), "{message}");
}

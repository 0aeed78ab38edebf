//! Whole runs of score models against diffusers and PyTorch (`scripts/references/scores.py`), and the program on their
//! folders.

mod hashed;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use aquatint::diffusion::Sampler;
use aquatint::tasks::{DiffusionModel, GenerateOptions, Generator, NoiseSource};
use aquatint::{Gpu, Weights};
use hashed::{compare, gpu, save};

#[derive(serde::Deserialize)]
struct Fixture {
    networks: BTreeMap<String, Part>,
    runs: BTreeMap<String, Run>,
}

#[derive(serde::Deserialize)]
struct Part {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

#[derive(serde::Deserialize)]
struct Run {
    network: String,
    /// `None`: that of the scheduler's class.
    sampler: Option<String>,
    steps: usize,
    scheduler: String,
}

const SEEDS: [u64; 2] = [7, 8];

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn fixture() -> Fixture {
    serde_json::from_str(&std::fs::read_to_string(path("score_runs.json")).unwrap()).unwrap()
}

/// The folder of a run's model: a pipeline's, or the network's own.
fn write(folder: &Path, run: &Run, pipeline: bool) {
    let fixture = fixture();
    let part = &fixture.networks[&run.network];
    let (network, scheduler) = match pipeline {
        true => (folder.join("unet"), folder.join("scheduler")),
        false => (folder.to_owned(), folder.to_owned()),
    };
    for folder in [&network, &scheduler] {
        std::fs::create_dir_all(folder).unwrap();
    }
    if pipeline {
        let index = serde_json::json!({
            "_class_name": "ScoreSdeVePipeline",
            "scheduler": ["diffusers", "ScoreSdeVeScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        });
        std::fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
    }
    std::fs::write(network.join("config.json"), part.config.to_string()).unwrap();
    std::fs::write(scheduler.join("scheduler_config.json"), &run.scheduler).unwrap();
    let file = save(&network, &part.tensors, &BTreeMap::new(), &[]);
    std::fs::rename(file, network.join("diffusion_pytorch_model.safetensors")).unwrap();
}

fn model(run: &Run) -> DiffusionModel {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), run, false);
    DiffusionModel::open(folder.path()).unwrap()
}

fn options(model: &DiffusionModel, run: &Run, noise: NoiseSource) -> GenerateOptions {
    let own = model.options();
    let sampler = run.sampler.as_ref().map_or(own.sampler, |name| name.parse().unwrap());
    GenerateOptions { steps: run.steps, sampler, noise, ..own }
}

/// Latents of each step within 1e-3 of their range, pictures within 1 of 255, the noise that of a generator of the CPU.
fn check(name: &str) {
    let Some(gpu) = gpu() else { return };
    let run = &fixture().runs[name];
    let model = model(run);
    let options = options(&model, run, NoiseSource::Cpu);
    if run.sampler.is_none() {
        assert_eq!(options.sampler.name(), if name == "vp" { "reverse-sde" } else { name });
    }
    let file = Weights::open(path("score_runs.safetensors")).unwrap();
    let shape = file.shape(name).unwrap().to_vec();
    let wanted = file.tensor(name, &shape).unwrap().to_f32();
    // A place in the batch that nobody takes.
    let mut generator = Generator::new(gpu, &model, 3, &options).unwrap();
    let mut sampling = generator.start(&["", ""], &SEEDS).unwrap();
    assert_eq!(sampling.steps(), run.steps);
    let mut worst: f64 = 0.0;
    for wanted in wanted.chunks(wanted.len() / run.steps) {
        sampling.step().unwrap();
        let (error, _) = compare(&sampling.latents().unwrap().to_f32(), wanted);
        worst = worst.max(error);
    }
    assert!(sampling.is_done());
    println!("{name}: {worst:.1e} of the range");
    assert!(worst <= 1e-3, "{name}: {worst:e}");

    let pictures = format!("{name}.pictures");
    let bytes = file.tensor(&pictures, file.shape(&pictures).unwrap()).unwrap().to_f32();
    let channels = shape[4];
    let found = sampling.pictures().unwrap();
    let found =
        found.iter().flat_map(|picture| picture.pixels().flat_map(|pixel| pixel.0[..channels].to_vec()));
    let far = found.zip(bytes.iter()).map(|(a, b)| a.abs_diff(*b as u8)).max().unwrap();
    assert!(far <= 1, "{name}: {far} of 255");
}

#[test]
fn predictor_and_corrector() {
    check("pc");
}

#[test]
fn reverse_sde() {
    check("reverse-sde");
    check("vp");
}

#[test]
fn ode() {
    check("heun");
}

/// The corrections are those of each picture alone.
#[test]
fn a_seed_gives_its_picture_whatever_the_batch() {
    let Some(gpu) = gpu() else { return };
    let run = &fixture().runs["pc"];
    let model = model(run);
    let options = options(&model, run, NoiseSource::Cuda);
    assert_eq!(options.sampler, Sampler::Pc);
    let draw = |gpu: &Gpu, batch: usize, seeds: &[u64]| {
        let mut generator = Generator::new(gpu, &model, batch, &options).unwrap();
        let labels = vec![""; seeds.len()];
        let mut sampling = generator.start(&labels, seeds).unwrap();
        sampling.run().unwrap();
        sampling.latents().unwrap().to_f32()
    };
    let together = draw(gpu, 3, &[3, 4, 5]);
    let alone = draw(gpu, 1, &[4]);
    let size = alone.len();
    // But for the order in which convolutions of another batch add; the mean of norms would move all by percents.
    let (error, _) = compare(&together[size..2 * size], &alone);
    assert!(error <= 1e-5, "{error:e}");
    assert!(compare(&draw(gpu, 1, &[5]), &alone).0 > 0.1);
}

#[test]
fn the_program_draws_with_them() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("ncsnpp");
    write(&model, &fixture().runs["pc"], true);
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatint"));
        command.args(["generate", "--seed", "7", "--model"]).arg(&model).args(args);
        command.output().unwrap()
    };
    let out = folder.path().join("score.png");
    let out = out.to_str().unwrap();
    for (args, caption) in [
        (&["--steps", "3"][..], "pc"),
        (&["--steps", "3", "--sampler", "heun", "--schedule", "karras"], "heun"),
    ] {
        let output = run(&[args, &["--out", out]].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{message}");
        assert!(message.contains(&format!("ncsnpp · {caption} · 3 steps")), "{message}");
        assert_eq!(image::open(out).unwrap().width(), 16);
    }
    let output = run(&["--steps", "3", "--sampler", "ddim"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("expected euler, heun, reverse-sde or pc, found ddim"), "{message}");
}

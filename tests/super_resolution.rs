//! Super-resolution by latent diffusion, and its autoencoder, against diffusers
//! (`scripts/references/super_resolution.py`).

mod hashed;

use std::collections::BTreeMap;
use std::path::Path;

use aquatint::diffusion::Sampler;
use aquatint::formats::diffusers::Folder;
use aquatint::formats::picture;
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::models::super_resolution::SuperResolution;
use aquatint::models::vq_model::{VqModelConfig, decode, quantised};
use aquatint::nn::Source;
use aquatint::tasks::{NoiseSource, SuperResolveOptions, SuperResolver};
use aquatint::{DType, Graph, Network, Tensor, Weights};
use hashed::{compare, gpu, numbers, save};
use image::{GenericImageView, Rgb, RgbImage};

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
    scheduler_class: String,
    scheduler: String,
    steps: usize,
    eta: Option<f64>,
}

const SIDE: u32 = 32;
const SEED: u64 = 7;

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn fixture() -> Fixture {
    serde_json::from_str(&std::fs::read_to_string(path("super_resolution.json")).unwrap()).unwrap()
}

fn weights(folder: &Path, part: &Part) -> Weights {
    Weights::open(save(folder, &part.tensors, &BTreeMap::new(), &[])).unwrap()
}

/// A pipeline's folder, as `save_pretrained` writes it.
fn write(folder: &Path, fixture: &Fixture, case: &Case) {
    let index = serde_json::json!({
        "_class_name": "LDMSuperResolutionPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", "VQModel"],
        "scheduler": ["diffusers", case.scheduler_class],
    });
    std::fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    std::fs::write(folder.join("scheduler/scheduler_config.json"), &case.scheduler).unwrap();
    for name in ["unet", "vqvae"] {
        let (folder, part) = (folder.join(name), &fixture.parts[name]);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), part.config.to_string()).unwrap();
        let file = save(&folder, &part.tensors, &BTreeMap::new(), &[]);
        std::fs::rename(file, folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    }
}

fn small() -> RgbImage {
    let wave = |n: u32| (n % 256) as u8;
    RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb([wave(x * 5 + y * 2), wave(x * 3 + y * 5), wave(x * y)]))
}

/// Latents within 1e-3 of their range, pictures within 2 of 255.
fn check(name: &str) {
    let Some(gpu) = gpu() else { return };
    let fixture = fixture();
    let case = &fixture.cases[name];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &fixture, case);
    let model = SuperResolution::open(&Folder::open(folder.path()).unwrap()).unwrap();
    let options = SuperResolveOptions {
        height: SIDE as usize,
        width: SIDE as usize,
        steps: case.steps,
        sampler: Sampler::Ddim { eta: case.eta.unwrap_or(0.0) },
        noise: NoiseSource::Cpu,
        ..SuperResolveOptions::of(&model)
    };
    // A batch of two, of which one is used.
    let mut resolver = SuperResolver::new(gpu, &model, 2, &options).unwrap();
    let mut run = resolver.start(&[small()], &[SEED]).unwrap();
    let pictures = run.pictures().unwrap();
    let latents = run.latents().unwrap();
    let all = std::fs::read(path("super_resolution.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&all).unwrap();
    let file = Weights::open(path("super_resolution.safetensors")).unwrap();
    let wanted = file.tensor(&format!("{name}.latents"), &latents.desc.shape[1..]).unwrap().to_f32();
    let (error, _) = compare(&latents.to_f32(), &wanted);
    let wanted = all.tensor(&format!("{name}.picture")).unwrap();
    assert_eq!(wanted.shape()[..2], [pictures[0].height() as usize, pictures[0].width() as usize]);
    let worst = pictures[0].iter().zip(wanted.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    println!("{name}: latents {error:.1e} of the range, picture {worst} of 255");
    assert!(error <= 1e-3, "{name}: {error:e}");
    assert!(worst <= 2, "{name}: {worst} of 255");

    let other = RgbImage::new(SIDE, SIDE + 1);
    let error = resolver.start(&[other], &[SEED]).unwrap_err().to_string();
    assert!(error.contains("32×33"), "{error}");
    let odd = SuperResolveOptions { height: 31, ..options };
    assert!(SuperResolver::new(gpu, &model, 1, &odd).unwrap_err().to_string().contains("multiples of 2"));
    let error = LatentDiffusion::open(&Folder::open(folder.path()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("UNet2DModel"), "{error}");
}

#[test]
fn pictures_follow_diffusers() {
    check("ddim");
}

#[test]
fn pictures_with_noise_on_the_way_follow_diffusers() {
    check("ddim.noisy");
}

/// The same entries of the codebook, and what the decoder makes of them within 1e-4 of the range.
#[test]
fn latents_are_taken_for_the_nearest_codes() {
    let Some(gpu) = gpu() else { return };
    let part = &fixture().parts["vqvae"];
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path(), part);
    let config = VqModelConfig::from_json(&part.config.to_string()).unwrap();
    let shape = [2, 7, 9, 3];
    let mut g = Graph::new();
    let z = g.input("z", shape, DType::F32);
    let source = Source { weights: &weights, dtype: DType::F32 };
    let codes = quantised(&mut g, &config, source, z).unwrap();
    let picture = decode(&mut g, &config, source, z).unwrap();
    g.output("codes", codes);
    g.output("picture", picture);
    let network = Network::new(gpu, &g).unwrap();
    let z = Tensor::from_f32(shape, &numbers("z", shape.iter().product()));
    let found = network.run(&[("z", &z)]).unwrap();
    let file = Weights::open(path("super_resolution.safetensors")).unwrap();
    for (found, name, tolerance) in [(&found[0], "quantised", 1e-6), (&found[1], "decoded", 1e-4)] {
        let wanted = file.tensor(name, &found.desc.shape).unwrap().to_f32();
        let (error, _) = compare(&found.to_f32(), &wanted);
        println!("{name}: {error:.1e} of the range");
        assert!(error <= tolerance, "{name}: {error:e}");
    }
}

/// Also so many pixels that their distances are taken in parts.
#[test]
fn any_number_of_pixels_and_codes_is_quantised() {
    let Some(gpu) = gpu() else { return };
    for (codes, [height, width]) in [
        (1, [1, 1]),
        (20, [3, 5]),
        (33, [8, 8]),
        (1 << 10, [16, 16]),
        (1 << 13, [30, 16]),
        (1 << 15, [24, 24]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let tensors = BTreeMap::from([("quantize.embedding.weight".to_owned(), vec![codes, 3])]);
        let weights = Weights::open(save(folder.path(), &tensors, &BTreeMap::new(), &[])).unwrap();
        let config = VqModelConfig { num_vq_embeddings: codes, ..VqModelConfig::default() };
        let shape = [1, height, width, 3];
        let mut g = Graph::new();
        let z = g.input("z", shape, DType::F32);
        let found = quantised(&mut g, &config, Source { weights: &weights, dtype: DType::F32 }, z).unwrap();
        g.output("codes", found);
        let network = Network::new(gpu, &g).unwrap();
        let pixels = numbers("pixels", height * width * 3);
        let found = network.run(&[("z", &Tensor::from_f32(shape, &pixels))]).unwrap()[0].to_f32();
        let codebook = weights.tensor("quantize.embedding.weight", &[codes, 3]).unwrap().to_f32();
        let distance =
            |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum() };
        for (i, (pixel, found)) in pixels.chunks_exact(3).zip(found.chunks_exact(3)).enumerate() {
            let nearest = codebook.chunks_exact(3).map(|code| distance(pixel, code)).fold(f64::MAX, f64::min);
            assert!(codebook.chunks_exact(3).any(|code| code == found), "{codes} codes");
            // Two that are almost equally near may change places.
            let chosen = distance(pixel, found);
            assert!(chosen <= nearest + 1e-6, "{codes} codes, pixel {i}: {chosen}, nearest {nearest}");
        }
    }
}

/// The same through the program, and once more out of what the picture says of itself.
#[test]
fn the_program_enlarges_as_diffusers_does() {
    if gpu().is_none() {
        return;
    }
    let fixture = fixture();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("sr")).unwrap();
    write(&folder.join("sr"), &fixture, &fixture.cases["ddim"]);
    small().save(folder.join("small.png")).unwrap();
    let run = |args: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aquatint"));
        let output = command.current_dir(folder).arg("generate").args(args.split(' ')).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let common = "--model sr --init small.png --steps 4 --rng cpu";
    let (code, said) = run(&format!("{common} --seed 7 --out large.png"));
    assert_eq!(code, Some(0), "{said}");
    let large = picture::open(folder.join("large.png")).unwrap();
    let all = std::fs::read(path("super_resolution.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&all).unwrap();
    let wanted = all.tensor("ddim.picture").unwrap();
    assert_eq!(wanted.shape()[..2], [large.height() as usize, large.width() as usize]);
    let worst = large.iter().zip(wanted.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    println!("{worst} of 255");
    assert!(worst <= 2, "{worst} of 255");
    let (code, said) = run("--from large.png --out again.png");
    assert_eq!(code, Some(0), "{said}");
    let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert!(bytes("large.png") == bytes("again.png"), "the same file");

    let (code, said) = run(&format!("{common} --seed 6 --count 2 --batch 2 --out two.png"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(picture::open(folder.join("two-7.png")).unwrap(), large);
    // Of any size.
    small().view(0, 0, 21, 27).to_image().save(folder.join("odd.png")).unwrap();
    let (code, said) = run("--model sr --init odd.png --steps 2 --out odd-large.png");
    assert!(code == Some(0) && said.contains("21×27 is made 22×28 first"), "{said}");
    assert_eq!(picture::open(folder.join("odd-large.png")).unwrap().dimensions(), (88, 112));

    for (args, wanted) in [
        ("--model sr", "--init"),
        ("--model sr --init gone.png", "gone.png"),
        ("--model sr --init small.png --prompt cat --clip-skip 1", "--prompt, --clip-skip"),
        ("--model sr --init small.png --guidance 3 --memory-budget 1GB", "--guidance, --memory-budget"),
        ("--model sr --init small.png --count 0", "1 to"),
        ("--model sr --init small.png --steps 0", "steps"),
    ] {
        let (code, said) = run(args);
        assert!(code == Some(1) && said.contains("error: ") && said.contains(wanted), "{args}: {said}");
    }
}

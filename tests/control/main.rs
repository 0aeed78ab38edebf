//! ControlNets and tiny autoencoders, alone and in whole runs, against diffusers (`scripts/references/control.py`).

mod files;
#[path = "../hashed/mod.rs"]
mod hashed;
mod runs;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use aquatint::models::autoencoder_tiny::{self, AutoencoderTinyConfig};
use aquatint::models::controlnet::{ControlNetConfig, controlnet};
use aquatint::models::latent_diffusion::Part;
use aquatint::models::unet2d_condition::{Conditions, UNet2dConditionConfig, unet2d_condition};
use aquatint::nn::Source;
use aquatint::{DType, Graph, Network, Tensor, Weights};
use hashed::{compare, gpu, numbers, save};

#[derive(serde::Deserialize)]
struct Described {
    /// The UNet of `latent.json` that a ControlNet belongs to.
    unet: Option<String>,
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
    /// What its original code calls the tensors, in the same order.
    checkpoint: Option<Vec<String>>,
}

#[derive(serde::Deserialize)]
struct Fixture {
    networks: BTreeMap<String, Described>,
    runs: BTreeMap<String, runs::Run>,
}

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| read("control.json"))
}

/// A part's folder, as `save_pretrained` writes it.
fn write(folder: &Path, described: &Described) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), described.config.to_string()).unwrap();
    let file = save(folder, &described.tensors, &BTreeMap::new(), &[]);
    std::fs::rename(file, folder.join("diffusion_pytorch_model.safetensors")).unwrap();
}

fn control(name: &str) -> Part<ControlNetConfig> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &fixture().networks[name]);
    Part::<ControlNetConfig>::open(folder.path()).unwrap()
}

fn tiny(name: &str) -> Part<AutoencoderTinyConfig> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &fixture().networks[name]);
    Part::<AutoencoderTinyConfig>::open(folder.path()).unwrap()
}

/// The script's tensor `[n, c, h, w]`, channels last.
fn map(name: &str, [n, h, w, c]: [usize; 4]) -> Tensor {
    let planes = numbers(name, n * h * w * c);
    let values: Vec<f32> =
        (0..n * h * w * c).map(|i| planes[(i / (c * h * w) * c + i % c) * h * w + i / c % (h * w)]).collect();
    Tensor::from_f32([n, h, w, c], &values)
}

fn wanted(name: &str, shape: &[usize]) -> Vec<f32> {
    Weights::open(path("control.safetensors")).unwrap().tensor(name, shape).unwrap().to_f32()
}

/// Within 1e-4 of the range: sums of some thousand products in another order, through some hundred layers.
fn check(what: &str, found: &[f32], shape: &[usize]) {
    let (error, cosine) = compare(found, &wanted(what, shape));
    println!("{what}: {error:.1e} of the range, cosine 1 - {:.1e}", 1.0 - cosine);
    assert!(error <= 1e-4, "{what}: {error:e}");
}

/// A call of a ControlNet, and one of its UNet with what the first has found.
fn check_control(name: &str) {
    let Some(gpu) = gpu() else { return };
    let Part { config, weights } = control(name);
    let unets: BTreeMap<String, Described> = read("latent.json");
    let unet = &unets[fixture().networks[name].unet.as_ref().unwrap()];
    let folder = tempfile::tempdir().unwrap();
    let unet_weights = Weights::open(save(folder.path(), &unet.tensors, &BTreeMap::new(), &[])).unwrap();
    let unet = UNet2dConditionConfig::from_json(&unet.config.to_string()).unwrap();
    let rows = |name: &str, shape: &[usize]| Tensor::from_f32(shape, &numbers(name, shape.iter().product()));

    let mut g = Graph::new();
    let mut given: Vec<(&str, Tensor)> = Vec::new();
    let mut input = |name, tensor: Tensor| {
        let id = g.input(name, tensor.desc.shape.clone(), tensor.desc.dtype);
        given.push((name, tensor));
        id
    };
    let [h, w] = [5, 7];
    let x = input("x", map("x", [2, h, w, 4]));
    let hint = map("hint", [1, config.factor() * h, config.factor() * w, 3]);
    let half: Vec<f32> = hint.to_f32().iter().map(|v| v / 2.0 + 0.5).collect();
    let hint = input("hint", Tensor::from_f32(hint.desc.shape.clone(), &half));
    let sizes = [1024.0, 768.0, 0.0, 16.0, 512.0, 512.0].repeat(2);
    let conditions = Conditions {
        timesteps: input("timesteps", Tensor::from_f32([2, 1], &[981.0, 7.0])),
        text: input("text", rows("text", &[2, 7, unet.cross_attention_dim])),
        pooled: unet.addition_embed_type.is_some().then(|| {
            [input("pooled", rows("pooled", &[2, 16])), input("sizes", Tensor::from_f32([2, 6], &sizes))]
        }),
        guidance: None,
        class: None,
        residuals: &[],
        perturbed: None,
    };
    let source = |weights| Source { weights, dtype: DType::F32 };
    let mut found = controlnet(&mut g, &config, source(&weights), x, hint, &conditions).unwrap();
    for residual in found.down.iter_mut().chain([&mut found.middle]) {
        *residual = g.affine(*residual, 0.7, 0.0).unwrap();
    }
    let residuals = [found];
    let conditions = Conditions { residuals: &residuals, ..conditions };
    let y = unet2d_condition(&mut g, &unet, source(&unet_weights), x, &conditions).unwrap();
    g.output("output", y);
    let [found] = residuals;
    for (i, residual) in found.down.into_iter().chain([found.middle]).enumerate() {
        g.output(&i.to_string(), residual);
    }
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let found = network.run(&given).unwrap();
    check(&format!("{name}.output"), &found[0].to_f32(), &found[0].desc.shape);
    for (i, residual) in found[1..].iter().enumerate() {
        // The file has the second of two.
        let values = residual.to_f32();
        let shape = [&[1][..], &residual.desc.shape[1..]].concat();
        check(&format!("{name}.{i}"), &values[values.len() / 2..], &shape);
    }
}

macro_rules! controls {
    ($($test:ident $name:literal)*) => { $(#[test] fn $test() { check_control($name); })* };
}

controls! {
    control_of_stable_diffusion_1 "sd1"
    control_of_stable_diffusion_2 "sd2"
    control_of_sdxl "sdxl"
    control_without_transformers "small"
    control_with_means_alone "pooled"
}

fn check_tiny(name: &str) {
    let Some(gpu) = gpu() else { return };
    let Part { config, weights } = tiny(name);
    let w = Source { weights: &weights, dtype: DType::F32 };
    let factor = config.factor();
    let picture = map("picture", [1, 5 * factor, 3 * factor, 3]);
    let latent = map("latent", [1, 5, 3, config.latent_channels]);
    let four: Vec<f32> = latent.to_f32().iter().map(|v| 4.0 * v).collect();
    let latent = Tensor::from_f32(latent.desc.shape.clone(), &four);
    let mut g = Graph::new();
    let x = g.input("picture", picture.desc.shape.clone(), DType::F32);
    let z = g.input("latent", latent.desc.shape.clone(), DType::F32);
    let encoded = autoencoder_tiny::encode(&mut g, &config, w, x).unwrap();
    let decoded = autoencoder_tiny::decode(&mut g, &config, w, z).unwrap();
    let scaled = autoencoder_tiny::to_unit(&mut g, &config, z).unwrap();
    let unscaled = autoencoder_tiny::from_unit(&mut g, &config, scaled).unwrap();
    let names = ["encoded", "decoded", "scaled", "unscaled"];
    for (name, value) in names.into_iter().zip([encoded, decoded, scaled, unscaled]) {
        g.output(name, value);
    }
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let found = network.run(&[("picture", &picture), ("latent", &latent)]).unwrap();
    for (part, found) in names.into_iter().zip(&found) {
        check(&format!("{name}.{part}"), &found.to_f32(), &found.desc.shape);
    }
}

#[test]
fn a_tiny_autoencoder() {
    check_tiny("tiny");
}

#[test]
fn a_tiny_autoencoder_of_other_sizes() {
    check_tiny("tiny_wide");
}

//! The networks of latent diffusion against diffusers (`scripts/references/latent.py`).

mod hashed;

use std::collections::BTreeMap;

use aquatint::models::autoencoder_kl::{self, AutoencoderKlConfig};
use aquatint::models::unet2d_condition::{Conditions, UNet2dConditionConfig, unet2d_condition};
use aquatint::nn::Source;
use aquatint::{DType, Graph, Network, Tensor, Weights};
use hashed::{compare, gpu, numbers, save};

#[derive(serde::Deserialize)]
struct Case {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Configuration and weights.
fn open(name: &str) -> (String, Weights) {
    let text = std::fs::read_to_string(fixture("latent.json")).unwrap();
    let case = serde_json::from_str::<BTreeMap<String, Case>>(&text).unwrap().remove(name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = save(folder.path(), &case.tensors, &BTreeMap::new(), &[]);
    (case.config.to_string(), Weights::open(&path).unwrap())
}

/// The script's tensor `[n, c, h, w]`, channels last.
fn map(name: &str, [n, h, w, c]: [usize; 4]) -> Tensor {
    let planes = numbers(name, n * h * w * c);
    let values: Vec<f32> =
        (0..n * h * w * c).map(|i| planes[(i / (c * h * w) * c + i % c) * h * w + i / c % (h * w)]).collect();
    Tensor::from_f32([n, h, w, c], &values)
}

/// Within 1e-4 of the range: sums of some thousand products in another order, through some hundred layers.
fn check(what: &str, found: &Tensor) {
    let file = Weights::open(fixture("latent.safetensors")).unwrap();
    let wanted = file.tensor(what, &found.desc.shape).unwrap().to_f32();
    let (error, cosine) = compare(&found.to_f32(), &wanted);
    println!("{what}: {error:.1e} of the range, cosine 1 - {:.1e}", 1.0 - cosine);
    assert!(error <= 1e-4, "{what}: {error:e}");
}

fn check_unet(name: &str) {
    let Some(gpu) = gpu() else { return };
    let (config, weights) = open(name);
    let config = UNet2dConditionConfig::from_json(&config).unwrap();
    let w = Source { weights: &weights, dtype: DType::F32 };
    let rows = |name: &str, shape: &[usize]| Tensor::from_f32(shape, &numbers(name, shape.iter().product()));

    let mut g = Graph::new();
    let mut given: Vec<(&str, Tensor)> = Vec::new();
    let mut input = |name, tensor: Tensor| {
        let id = g.input(name, tensor.desc.shape.clone(), tensor.desc.dtype);
        given.push((name, tensor));
        id
    };
    let x = input("x", map("x", [2, 10, 13, config.in_channels]));
    let sizes = [1024.0, 768.0, 0.0, 16.0, 512.0, 512.0].repeat(2);
    let conditions = Conditions {
        timesteps: input("timesteps", Tensor::from_f32([2, 1], &[981.0, 7.0])),
        text: input("text", rows("text", &[2, 7, config.cross_attention_dim])),
        pooled: (name == "sdxl").then(|| {
            [input("pooled", rows("pooled", &[2, 16])), input("sizes", Tensor::from_f32([2, 6], &sizes))]
        }),
        guidance: (name == "lcm").then(|| input("guidance", rows("guidance", &[2, 10]))),
        class: (name == "upscaler").then(|| input("class", Tensor::from_u32([2], &[20, 3]))),
        residuals: &[],
        perturbed: None,
    };
    let y = unet2d_condition(&mut g, &config, w, x, &conditions).unwrap();
    g.output("y", y);
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
    check(&format!("{name}.output"), &network.run(&given).unwrap()[0]);
}

macro_rules! unets {
    ($($name:ident)*) => { $(#[test] fn $name() { check_unet(stringify!($name)); })* };
}

unets! { sd1 sd2 sdxl inpaint upscaler lcm }

fn check_autoencoder(name: &str) {
    let Some(gpu) = gpu() else { return };
    let (config, weights) = open(name);
    let config = AutoencoderKlConfig::from_json(&config).unwrap();
    let w = Source { weights: &weights, dtype: DType::F32 };
    let picture = map("picture", [1, 40, 24, 3]);
    let latent = map("latent", [1, 5, 3, config.latent_channels]);
    let mut g = Graph::new();
    let x = g.input("picture", picture.desc.shape.clone(), DType::F32);
    let moments = autoencoder_kl::encode(&mut g, &config, w, x).unwrap();
    let z = g.input("latent", latent.desc.shape.clone(), DType::F32);
    let decoded = autoencoder_kl::decode(&mut g, &config, w, z).unwrap();
    g.output("moments", moments);
    g.output("decoded", decoded);
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let found = network.run(&[("picture", &picture), ("latent", &latent)]).unwrap();
    check(&format!("{name}.moments"), &found[0]);
    check(&format!("{name}.decoded"), &found[1]);
}

#[test]
fn an_autoencoder() {
    check_autoencoder("vae");
}

#[test]
fn an_autoencoder_with_one_wide_head() {
    check_autoencoder("vae_wide");
}

#[test]
fn what_is_not_supported_is_named() {
    for (text, named) in [
        (r#"{"class_embed_type": "timestep"}"#, "class_embed_type"),
        (r#"{"attention_head_dim": [5, 10]}"#, "block_out_channels"),
        (r#"{"addition_embed_type": "text_time"}"#, "addition_time_embed_dim"),
        (
            r#"{"down_block_types": ["KDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]}"#,
            "KDownBlock2D",
        ),
        (r#"{"_class_name": "UNet2DModel"}"#, "UNet2DConditionModel"),
        ("[1, 2", "configuration"),
    ] {
        let error = UNet2dConditionConfig::from_json(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    let error = AutoencoderKlConfig::from_json(r#"{"act_fn": "mish"}"#).unwrap_err().to_string();
    assert!(error.contains("act_fn") && error.contains("mish"), "{error}");
}

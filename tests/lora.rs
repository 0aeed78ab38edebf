//! Adapters on the networks of latent diffusion against diffusers and PEFT (`scripts/references/lora.py`).

mod hashed;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use aquatint::formats::lora::{Applied, Lora};
use aquatint::models::clip_text::ClipTextConfig;
use aquatint::models::unet2d_condition::{Conditions, UNet2dConditionConfig, unet2d_condition};
use aquatint::nn::Source;
use aquatint::text::{TextEncoder, TextEncoders, Tokenizer};
use aquatint::{DType, Graph, Network, Tensor, Weights};
use hashed::{compare, gpu, numbers, save};
use safetensors::tensor::{Dtype, TensorView};

#[derive(serde::Deserialize)]
struct Fixture {
    prompt: String,
    gain: f32,
    alpha: f32,
    files: BTreeMap<String, File>,
    cases: BTreeMap<String, Case>,
}

#[derive(serde::Deserialize)]
struct File {
    tensors: BTreeMap<String, Vec<usize>>,
    metadata: Option<String>,
}

#[derive(serde::Deserialize)]
struct Case {
    pipeline: String,
    adapters: serde_json::Map<String, serde_json::Value>,
}

#[derive(serde::Deserialize)]
struct Part {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

fn fixture() -> Fixture {
    serde_json::from_value(json("lora.json")).unwrap()
}

fn part(file: &str, pointer: &str) -> Part {
    serde_json::from_value(json(file).pointer(pointer).unwrap().clone()).unwrap()
}

/// A file of tensors of one number type.
fn write(path: &Path, tensors: &[(&str, &[usize], Vec<f32>)], metadata: Option<HashMap<String, String>>) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(.., v)| v.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

/// The script's file of a name.
fn adapter(folder: &Path, name: &str) -> Lora {
    let Fixture { gain, alpha, files, .. } = fixture();
    let file = &files[name];
    let values = |key: &str, shape: &[usize]| -> Vec<f32> {
        match (key.ends_with("alpha"), name) {
            (true, "lycoris") => numbers(key, 1),
            (true, _) => vec![alpha],
            (false, _) => numbers(key, shape.iter().product()).iter().map(|v| v * gain).collect(),
        }
    };
    let tensors: Vec<_> =
        file.tensors.iter().map(|(k, s)| (k.as_str(), s.as_slice(), values(k, s))).collect();
    let metadata =
        file.metadata.clone().map(|text| HashMap::from([("lora_adapter_metadata".to_owned(), text)]));
    let path = folder.join(format!("{name}.safetensors"));
    write(&path, &tensors, metadata);
    Lora::open(&path).unwrap()
}

struct Unet {
    config: UNet2dConditionConfig,
    weights: Weights,
}

impl Unet {
    fn open(name: &str) -> Unet {
        let part = part("latent.json", &format!("/{name}"));
        let folder = tempfile::tempdir().unwrap();
        let weights = Weights::open(save(folder.path(), &part.tensors, &BTreeMap::new(), &[])).unwrap();
        Unet { config: UNet2dConditionConfig::from_json(&part.config.to_string()).unwrap(), weights }
    }

    fn graph(&self) -> (Graph, Vec<(&'static str, Tensor)>) {
        let config = &self.config;
        let rows =
            |name: &str, shape: &[usize]| Tensor::from_f32(shape, &numbers(name, shape.iter().product()));
        let mut g = Graph::new();
        let mut given: Vec<(&str, Tensor)> = Vec::new();
        let mut input = |name, tensor: Tensor| {
            let id = g.input(name, tensor.desc.shape.clone(), tensor.desc.dtype);
            given.push((name, tensor));
            id
        };
        let sizes = [1024.0, 768.0, 0.0, 16.0, 512.0, 512.0].repeat(2);
        let x = input("x", map("x", [2, 10, 13, config.in_channels]));
        let conditions = Conditions {
            timesteps: input("timesteps", Tensor::from_f32([2, 1], &[981.0, 7.0])),
            text: input("text", rows("text", &[2, 7, config.cross_attention_dim])),
            pooled: config.addition_embed_type.is_some().then(|| {
                [input("pooled", rows("pooled", &[2, 16])), input("sizes", Tensor::from_f32([2, 6], &sizes))]
            }),
            guidance: None,
            class: None,
        };
        let w = Source { weights: &self.weights, dtype: DType::F32 };
        let y = unet2d_condition(&mut g, config, w, x, &conditions).unwrap();
        g.output("y", y);
        (g, given)
    }

    fn run(&self) -> Tensor {
        let (g, given) = self.graph();
        let network = Network::new(gpu().unwrap(), &g).unwrap();
        network.poison().unwrap();
        let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
        network.run(&given).unwrap().remove(0)
    }
}

/// The script's tensor `[n, c, h, w]`, channels last.
fn map(name: &str, [n, h, w, c]: [usize; 4]) -> Tensor {
    let planes = numbers(name, n * h * w * c);
    let values: Vec<f32> =
        (0..n * h * w * c).map(|i| planes[(i / (c * h * w) * c + i % c) * h * w + i / c % (h * w)]).collect();
    Tensor::from_f32([n, h, w, c], &values)
}

fn encoders(xl: bool) -> TextEncoders {
    let open = |name: &str, pad: bool| {
        let part = part("text.json", &format!("/encoders/{name}"));
        let folder = tempfile::tempdir().unwrap();
        let mut tokenizer = Tokenizer::open(path("tokenizer")).unwrap();
        if !pad {
            tokenizer.pad = tokenizer.end;
        }
        TextEncoder {
            config: ClipTextConfig::from_json(&part.config.to_string()).unwrap(),
            weights: Weights::open(save(folder.path(), &part.tensors, &BTreeMap::new(), &[])).unwrap(),
            tokenizer,
        }
    };
    let mut encoders = vec![open("one", false)];
    if xl {
        encoders.push(open("two", true));
    }
    TextEncoders { encoders, xl, clip_skip: 0, zeros_for_none: true }
}

/// Within 1e-4 of the range, as the networks without adapters.
fn check(what: &str, found: &[f32], shape: &[usize]) {
    let file = Weights::open(path("lora.safetensors")).unwrap();
    let wanted = file.tensor(what, shape).unwrap().to_f32();
    let (error, _) = compare(&found[..wanted.len()], &wanted);
    println!("{what}: {error:.1e} of the range");
    assert!(error <= 1e-4, "{what}: {error:e}");
}

fn check_case(name: &str) {
    let Some(gpu) = gpu() else { return };
    let Fixture { prompt, cases, .. } = fixture();
    let case = &cases[name];
    let folder = tempfile::tempdir().unwrap();
    let mut unet = Unet::open(&case.pipeline);
    let mut texts = encoders(case.pipeline == "sdxl");
    for (file, strength) in &case.adapters {
        let lora = adapter(folder.path(), file);
        let strength = strength.as_f64().unwrap() as f32;
        let applied = lora.apply(&mut unet.weights, &mut texts.weights_mut(), strength).unwrap();
        println!("{file}: {applied}");
        assert_eq!(applied.unmatched, Vec::<String>::new());
    }
    let y = unet.run();
    check(&format!("{name}.unet"), &y.to_f32(), &y.desc.shape);
    let [text, _] = &texts.encode(gpu, &[(&prompt, None)], DType::F32).unwrap()[0];
    let width = text.states.desc.shape.last();
    check(&format!("{name}.states"), &text.states.to_f32(), &[12, width]);
    if let Some(pooled) = &text.pooled {
        check(&format!("{name}.pooled"), &pooled.to_f32(), &pooled.desc.shape);
    }
}

macro_rules! cases {
    ($($test:ident $name:literal)*) => { $(#[test] fn $test() { check_case($name); })* };
}

cases! {
    names_of_peft "peft"
    alpha_in_the_metadata "metadata"
    names_of_diffusers_between "middle"
    old_names_of_diffusers "old"
    names_of_kohya "kohya"
    several_with_strengths "several"
    names_of_checkpoints "xl"
    several_on_two_encoders "xl_several"
}

#[test]
fn every_case_is_checked() {
    let source = include_str!("lora.rs");
    for name in fixture().cases.keys() {
        assert!(source.contains(&format!("\"{name}\"\n")), "{name} is not checked");
    }
}

/// Kernels with cores, Hadamard and Kronecker products and whole differences, each layer with an alpha of its own.
#[test]
fn other_kinds_of_adapters() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut unet = Unet::open("sd1");
    let lora = adapter(folder.path(), "lycoris");
    let applied = lora.apply(&mut unet.weights, &mut [], 0.7).unwrap();
    assert_eq!(applied, Applied { layers: 14, unmatched: Vec::new() });
    let y = unet.run();
    check("lycoris.unet", &y.to_f32(), &y.desc.shape);
}

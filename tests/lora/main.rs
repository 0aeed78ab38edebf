//! Adapters on the networks of latent diffusion against diffusers and PEFT (`scripts/references/lora.py`).

#[path = "../hashed/mod.rs"]
mod hashed;
mod reload;
mod sd3;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use aquatint::formats::ldm::Blocks;
use aquatint::formats::lora::{Applied, Lora, Strength};
use aquatint::models::clip_text::ClipTextConfig;
use aquatint::models::unet2d_condition::{Conditions, UNet2dConditionConfig, unet2d_condition};
use aquatint::nn::Source;
use aquatint::ops::quantized::BlockFormat;
use aquatint::text::{TextEncoder, TextEncoders, Tokenizer};
use aquatint::{Change, DType, Delta, Factors, Graph, Network, Plan, Target, Tensor, Weights, passes};
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
        self.graph_in(DType::F32, None)
    }

    /// With activations of a type, and weights in blocks of small integers.
    fn graph_in(&self, dtype: DType, blocks: Option<BlockFormat>) -> (Graph, Vec<(&'static str, Tensor)>) {
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
        let timesteps = input("timesteps", Tensor::from_f32([2, 1], &[981.0, 7.0]));
        let text = input("text", rows("text", &[2, 7, config.cross_attention_dim]));
        let pooled = config.addition_embed_type.is_some().then(|| {
            [input("pooled", rows("pooled", &[2, 16])), input("sizes", Tensor::from_f32([2, 6], &sizes))]
        });
        let [x, text] = [x, text].map(|id| g.cast(id, dtype).unwrap());
        let conditions = Conditions {
            timesteps,
            text,
            pooled: pooled.map(|[whole, sizes]| [g.cast(whole, dtype).unwrap(), sizes]),
            guidance: None,
            class: None,
            residuals: &[],
            perturbed: None,
        };
        let w = Source { weights: &self.weights.in_blocks(blocks), dtype };
        let y = unet2d_condition(&mut g, config, w, x, &conditions).unwrap();
        let y = g.cast(y, DType::F32).unwrap();
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
    TextEncoders { encoders, xl, clip_skip: 0, zeros_for_none: true, t5: None }
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
    let source = include_str!("main.rs");
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

/// Nothing is left of adapters of strength 0 nor of those that are taken off, to the last bit; and those that are on
/// cost nothing in a run.
#[test]
fn without_adapters_nothing_changes() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lora = adapter(folder.path(), "kohya");
    let plain = Unet::open("sd1");
    let mut zero = Unet { config: plain.config.clone(), weights: plain.weights.clone() };
    let mut texts = encoders(false);
    lora.apply(&mut zero.weights, &mut texts.weights_mut(), 0.0).unwrap();
    let mut adapted = Unet { config: plain.config.clone(), weights: plain.weights.clone() };
    let strength = Strength { unet: 0.5, text: 0.0 };
    lora.apply(&mut adapted.weights, &mut texts.weights_mut(), strength).unwrap();
    let text = &texts.encoders[0].weights;
    assert!(text.names().iter().all(|name| text.deltas(name).is_empty()));
    let bare = Unet { config: plain.config.clone(), weights: adapted.weights.without_adapters() };

    let bits = |unet: &Unet| unet.run().to_f32().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let wanted = bits(&plain);
    assert_eq!(bits(&zero), wanted);
    assert_ne!(bits(&adapted), wanted);
    assert_eq!(bits(&bare), wanted);

    let runs = |unet: &Unet| {
        let target = Target::typical();
        let plan = Plan::new(&passes::optimise(&unet.graph().0, &target).unwrap(), &target).unwrap();
        plan.run.iter().map(|launch| (launch.label.clone(), launch.params.clone())).collect::<Vec<_>>()
    };
    assert_eq!(runs(&adapted), runs(&plain));
}

/// A network of two layers, named as those of a UNet, with weights of a type.
fn two_layers(folder: &Path, dtype: DType) -> Weights {
    let tensors =
        [("conv_in.weight", vec![5, 3, 3, 2]), ("conv_in.bias", vec![5]), ("a.b_c.weight", vec![7, 5])];
    save_as(&folder.join("two.safetensors"), dtype, &tensors);
    Weights::open(folder.join("two.safetensors")).unwrap()
}

fn save_as(path: &Path, dtype: DType, tensors: &[(&str, Vec<usize>)]) {
    let kind = match dtype {
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    };
    let tensors: Vec<(&str, Tensor)> = tensors
        .iter()
        .map(|(name, shape)| {
            let values = numbers(name, shape.iter().product());
            (*name, Tensor::from_f32(shape.as_slice(), &values).to_dtype(dtype))
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, t)| (*name, TensorView::new(kind, t.desc.shape.to_vec(), &t.bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Odd sizes, one of everything, and files of 16 bits: the sum itself against one in f64.
#[test]
fn sums_of_odd_sizes_and_halves() {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.safetensors");
    for (base, dtype) in
        [DType::F32, DType::F16, DType::BF16].into_iter().zip([DType::F16, DType::BF16, DType::F32])
    {
        let mut weights = two_layers(folder.path(), base);
        save_as(
            &path,
            dtype,
            &[
                ("unet.conv_in.lora_A.weight", vec![1, 3, 3, 2]),
                ("unet.conv_in.lora_B.weight", vec![5, 1, 1, 1]),
                ("lora_unet_a_b_c.lora_down.weight", vec![3, 5]),
                ("lora_unet_a_b_c.lora_up.weight", vec![7, 3]),
                ("lora_unet_a_b_c.alpha", vec![]),
                ("lora_unet_conv_in.diff_b", vec![5]),
            ],
        );
        let lora = Lora::open(&path).unwrap();
        let applied = lora.apply(&mut weights, &mut [], -1.25).unwrap();
        assert_eq!(applied, Applied { layers: 2, unmatched: Vec::new() });

        let file = Weights::open(&path).unwrap();
        let of = |weights: &Weights, name: &str| -> Vec<f64> {
            let shape = weights.shape(name).unwrap().to_vec();
            weights.tensor(name, &shape).unwrap().to_f32().iter().map(|v| f64::from(*v)).collect()
        };
        let sum = |name: &str, up: &str, down: &str, rank: usize, scale: f64| -> Vec<f64> {
            let (base, up, down) = (of(&weights, name), of(&file, up), of(&file, down));
            let columns = down.len() / rank;
            let product = |i: usize| {
                (0..rank).map(|k| up[i / columns * rank + k] * down[k * columns + i % columns]).sum::<f64>()
            };
            base.iter().enumerate().map(|(i, v)| v + scale * product(i)).collect()
        };
        let alpha = of(&file, "lora_unet_a_b_c.alpha")[0];
        let kohya = ["lora_unet_a_b_c.lora_up.weight", "lora_unet_a_b_c.lora_down.weight"];
        let wanted = [
            sum("conv_in.weight", "unet.conv_in.lora_B.weight", "unet.conv_in.lora_A.weight", 1, -1.25),
            sum("a.b_c.weight", kohya[0], kohya[1], 3, -1.25 * alpha / 3.0),
            of(&weights, "conv_in.bias")
                .iter()
                .zip(of(&file, "lora_unet_conv_in.diff_b"))
                .map(|(a, b)| a - 1.25 * b)
                .collect(),
        ];
        let mut g = Graph::new();
        let source = Source { weights: &weights, dtype: DType::F32 };
        for name in ["conv_in.weight", "a.b_c.weight", "conv_in.bias"] {
            let shape = weights.shape(name).unwrap().to_vec();
            let zeros = g.input(name, shape.clone(), DType::F32);
            let sum = source.get(&mut g, name, &shape).unwrap();
            let sum = g.add(zeros, sum).unwrap();
            g.output(name, sum);
        }
        let network = Network::new(gpu, &g).unwrap();
        network.poison().unwrap();
        let zeros = ["conv_in.weight", "a.b_c.weight", "conv_in.bias"].map(|name| {
            let shape = weights.shape(name).unwrap();
            (name, Tensor::from_f32(shape.clone(), &vec![0.0; shape.elements()]))
        });
        let given: Vec<(&str, &Tensor)> = zeros.iter().map(|(name, t)| (*name, t)).collect();
        for (found, wanted) in network.run(&given).unwrap().iter().zip(&wanted) {
            for (a, b) in found.to_f32().iter().zip(wanted) {
                // Five roundings of numbers below 4.
                assert!((f64::from(*a) - b).abs() <= 5.0 * 4.0 * 2f64.powi(-24), "{a} {b}");
            }
        }
    }
}

/// Every layer of SDXL's UNet under kohya's name for it, which has one meaning.
#[test]
fn every_layer_of_a_checkpoint_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.safetensors");
    let Unet { weights, .. } = Unet::open("sdxl");
    let blocks = Blocks::of_unet(&weights);
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for name in weights.names().into_iter().filter(|name| name.ends_with(".weight")) {
        let old = blocks.checkpoint_name(name, &weights).unwrap();
        let old = old.strip_suffix(".weight").unwrap().replace('.', "_");
        assert_eq!(names.insert(format!("lora_unet_{old}.diff"), name.to_owned()), None, "{old}");
    }
    let tensors: Vec<(&str, &[usize], Vec<f32>)> = names
        .iter()
        .map(|(old, name)| {
            let shape = weights.shape(name).unwrap();
            (old.as_str(), &shape[..], numbers(name, shape.elements()))
        })
        .collect();
    write(&path, &tensors, None);
    let mut adapted = weights.clone();
    let applied = Lora::open(&path).unwrap().apply(&mut adapted, &mut [], 1.0).unwrap();
    assert_eq!(applied, Applied { layers: names.len(), unmatched: Vec::new() });
    for name in names.values() {
        let [Delta { change: Change::Plain(Factors::Whole(found)), .. }] = adapted.deltas(name) else {
            panic!("{name}: {:?}", adapted.deltas(name));
        };
        assert_eq!(found.to_f32(), numbers(name, found.desc.shape.elements()), "{name}");
    }
}

/// Newer files leave out a word of the names of encoders' tensors.
#[test]
fn encoders_are_known_by_both_names() {
    let folder = tempfile::tempdir().unwrap();
    let (mut unet, mut texts) = (Unet::open("sd1"), encoders(false));
    let text = &mut texts.encoders[0].weights;
    *text = text.renamed(|name, tensor| {
        let short = name.strip_prefix("text_model.").unwrap_or(name);
        vec![(short.to_owned(), tensor)]
    });
    for file in ["kohya", "peft", "middle", "old"] {
        let lora = adapter(folder.path(), file);
        let applied = lora.apply(&mut unet.weights, &mut texts.weights_mut(), 1.0).unwrap();
        assert_eq!(applied.unmatched, Vec::<String>::new(), "{file}");
    }
    assert_eq!(texts.encoders[0].weights.deltas("encoder.layers.0.mlp.fc1.weight").len(), 3);
    assert_eq!(texts.encoders[0].weights.deltas("encoder.layers.1.self_attn.q_proj.weight").len(), 1);
}

//! Adapters of Stable Diffusion 3's transformer and of its T5 against PEFT (`scripts/references/lora_t5.py`).

use std::collections::BTreeMap;
use std::path::Path;

use aquatint::formats::lora::{Lora, Strength};
use aquatint::models::sd3_transformer::{Conditions, Sd3TransformerConfig, sd3_transformer};
use aquatint::models::t5_encoder::{T5EncoderConfig, t5_encoder_graph};
use aquatint::nn::Source;
use aquatint::{DType, Error, Graph, Network, Tensor, Weights};

use super::{compare, gpu, json, map, numbers, part, path, save, write};

#[derive(serde::Deserialize)]
struct Fixture {
    ids: Vec<u32>,
    alpha: f32,
    files: BTreeMap<String, File>,
}

#[derive(serde::Deserialize)]
struct File {
    tensors: BTreeMap<String, Vec<usize>>,
    /// Of T5's layers, and of the transformer's if there are some.
    strength: f32,
    transformer: Option<f32>,
    layers: usize,
}

fn fixture() -> Fixture {
    serde_json::from_value(json("lora_t5.json")).unwrap()
}

/// The script's file of a name, with tensors that it has not.
fn adapter(folder: &Path, name: &str, more: &[&str]) -> Lora {
    let Fixture { alpha, files, .. } = fixture();
    let more = more.iter().map(|name| ((*name).to_owned(), vec![4, 20]));
    let all: BTreeMap<String, Vec<usize>> = files[name].tensors.clone().into_iter().chain(more).collect();
    let tensors: Vec<(&str, &[usize], Vec<f32>)> = (all.iter())
        .map(|(key, shape)| match key.ends_with("alpha") {
            true => (key.as_str(), &shape[..], vec![alpha]),
            false => {
                let values = numbers(key, shape.iter().product()).iter().map(|v| v * 0.3).collect();
                (key.as_str(), &shape[..], values)
            }
        })
        .collect();
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    if name == "alone" {
        let config = serde_json::json!({ "peft_type": "LORA", "r": 4, "lora_alpha": alpha });
        std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    }
    write(&folder.join("adapter_model.safetensors"), &tensors, None);
    Lora::open(folder.join("adapter_model.safetensors")).unwrap()
}

fn weights(name: &str) -> Weights {
    let folder = tempfile::tempdir().unwrap();
    let tensors = part("sd3.json", &format!("/parts/{name}")).tensors;
    Weights::open(save(folder.path(), &tensors, &BTreeMap::new(), &[])).unwrap()
}

/// Transformer and encoders of text.
fn model() -> [Weights; 4] {
    ["tiny", "clip_l", "clip_g", "t5"].map(weights)
}

fn check(what: &str, found: &Tensor) {
    let file = Weights::open(path("lora_t5.safetensors")).unwrap();
    let wanted = file.tensor(what, &found.desc.shape).unwrap().to_f32();
    let (error, _) = compare(&found.to_f32(), &wanted);
    println!("{what}: {error:.1e} of the range");
    assert!(error <= 1e-4, "{what}: {error:e}");
}

fn states(weights: &Weights) -> Tensor {
    let config = part("sd3.json", "/parts/t5").config.to_string();
    let config = T5EncoderConfig::from_json(&config).unwrap();
    let x = config.embed(weights, &fixture().ids).unwrap();
    let x = Tensor::from_f32([2, 12, config.d_model], &x.to_f32());
    let graph = t5_encoder_graph(&config, Source { weights, dtype: DType::F32 }, [2, 12]).unwrap();
    Network::new(gpu().unwrap(), &graph).unwrap().run(&[("embeddings", &x)]).unwrap().remove(0)
}

fn transformed(weights: &Weights) -> Tensor {
    let config = part("sd3.json", "/parts/tiny").config.to_string();
    let config = Sd3TransformerConfig::from_json(&config).unwrap();
    let rows = |name: &str, shape: &[usize]| Tensor::from_f32(shape, &numbers(name, shape.iter().product()));
    let given = [
        ("x", map("x", [2, 8, 8, config.in_channels])),
        ("text", rows("text", &[2, 7, config.joint_attention_dim])),
        ("pooled", rows("pooled", &[2, config.pooled_projection_dim])),
        ("timesteps", Tensor::from_f32([2, 1], &[981.5, 7.0])),
    ];
    let mut g = Graph::new();
    let [x, text, pooled, timesteps] =
        given.each_ref().map(|(name, tensor)| g.input(name, tensor.desc.shape.clone(), DType::F32));
    let conditions = Conditions { timesteps, text, pooled };
    let source = Source { weights, dtype: DType::F32 };
    let y = sd3_transformer(&mut g, &config, source, x, &conditions).unwrap();
    g.output("y", y);
    let given = given.each_ref().map(|(name, tensor)| (*name, tensor));
    Network::new(gpu().unwrap(), &g).unwrap().run(&given).unwrap().remove(0)
}

#[test]
fn adapters_of_t5() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in fixture().files {
        let [mut transformer, mut one, mut two, mut t5] = model();
        let strength = Strength { unet: file.transformer.unwrap_or(1.0), text: file.strength };
        let lora = adapter(folder.path(), &name, &[]);
        let applied = lora.apply(&mut transformer, &mut [&mut one, &mut two, &mut t5], strength).unwrap();
        println!("{name}: {applied}");
        assert_eq!((applied.layers, applied.unmatched.len()), (file.layers, 0));
        check(&format!("{name}.states"), &states(&t5));
        if file.transformer.is_some() {
            check("transformer.output", &transformed(&transformer));
        }
        assert!(one.names().iter().chain(&two.names()).all(|name| one.deltas(name).is_empty()));
    }
}

/// What no layer of the model is called is counted and named: layers that it has not, the table of tokens, which is read
/// beside the network, and all of T5's where there is none.
#[test]
fn tensors_of_nothing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let strange = [
        "lora_te3_encoder_block_7_layer_0_SelfAttention_q.lora_down.weight",
        "lora_te3_shared.lora_down.weight",
        "lora_te3_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
    ];
    let [mut transformer, mut one, mut two, mut t5] = model();
    let lora = adapter(folder.path(), "kohya", &strange);
    let applied = lora.apply(&mut transformer, &mut [&mut one, &mut two, &mut t5], 1.0).unwrap();
    assert_eq!(
        (applied.layers, &applied.unmatched[..]),
        (fixture().files["kohya"].layers, &strange.map(String::from)[..])
    );
    assert!(applied.to_string().contains("3 tensors belong to nothing"), "{applied}");

    let [mut transformer, mut one, mut two, _] = model();
    let lora = adapter(folder.path(), "peft", &[]);
    let applied = lora.apply(&mut transformer, &mut [&mut one, &mut two], 1.0).unwrap();
    assert_eq!(applied.unmatched.len(), 2 * 21);
    assert!(applied.unmatched.iter().all(|name| name.starts_with("text_encoder_3.encoder.block.")));
    let error = adapter(folder.path(), "kohya", &[]).apply(&mut transformer, &mut [&mut one, &mut two], 1.0);
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Format { .. }) && error.to_string().contains("lora_te3_"), "{error}");
}

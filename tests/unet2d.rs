//! diffusers' `UNet2DModel` with the options of class-conditional and score models
//! (`scripts/references/unet2d.py`).

mod hashed;

use std::collections::BTreeMap;

use aquatint::models::unet2d::{UNet2dConfig, unet2d};
use aquatint::nn::Source;
use aquatint::{DType, Graph, Network, Tensor, Weights};
use hashed::{compare, gpu, numbers, save};
use serde_json::json;

#[derive(serde::Deserialize)]
struct Case {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
    times: Vec<f32>,
}

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn case(name: &str) -> Case {
    let text = std::fs::read_to_string(path("unet2d.json")).unwrap();
    serde_json::from_str::<BTreeMap<String, Case>>(&text).unwrap().remove(name).unwrap()
}

/// Each picture within 1e-4 of its range: sums of some hundred products in another order, through some dozen layers.
fn check(name: &str) {
    let Some(gpu) = gpu() else { return };
    let case = case(name);
    let config = UNet2dConfig::from_json(&case.config.to_string()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let weights = Weights::open(save(folder.path(), &case.tensors, &BTreeMap::new(), &[])).unwrap();
    let shape = [2, 12, 16, config.in_channels];
    let mut g = Graph::new();
    let x = g.input("x", shape, DType::F32);
    let times = g.input("times", [2, 1], DType::F32);
    let labels = config.num_class_embeds.map(|_| g.input("labels", [2], DType::U32));
    let source = Source { weights: &weights, dtype: DType::F32 };
    let y = unet2d(&mut g, &config, source, x, times, labels).unwrap();
    g.output("y", y);
    let network = Network::new(gpu, &g).unwrap();
    let x = Tensor::from_f32(shape, &numbers("x", shape.iter().product()));
    let mut given = vec![("x", x), ("times", Tensor::from_f32([2, 1], &case.times))];
    given.extend(labels.map(|_| ("labels", Tensor::from_u32([2], &[4, 1]))));
    let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let found = network.run(&given).unwrap()[0].to_f32();
    let wanted = Weights::open(path("unet2d.safetensors")).unwrap().tensor(name, &shape).unwrap().to_f32();
    let half = found.len() / 2;
    for (found, wanted) in found.chunks(half).zip(wanted.chunks(half)) {
        let (error, _) = compare(found, wanted);
        println!("{name}: {error:.1e} of the range");
        assert!(error <= 1e-4, "{name}: {error:e}");
    }
}

#[test]
fn scale_and_shift() {
    check("scale-shift");
}

#[test]
fn fourier_embedding() {
    check("fourier");
}

#[test]
fn ncsnpp() {
    check("ncsnpp");
}

#[test]
fn skip_blocks_of_odd_sizes() {
    check("odd-skips");
}

#[test]
fn skip_blocks_with_attention() {
    check("attending-skips");
}

#[test]
fn skip_blocks_among_others() {
    check("some-skips");
    check("one-channel");
}

#[test]
fn what_there_is_not_is_refused() {
    let refused = |name: &str, settings: &[(&str, serde_json::Value)]| {
        let mut config = case(name).config;
        for (setting, value) in settings {
            config[setting] = value.clone();
        }
        let error = UNet2dConfig::from_json(&config.to_string()).unwrap_err().to_string();
        assert!(error.contains(settings[0].0), "{error}");
    };
    refused(
        "scale-shift",
        &[("down_block_types", json!(["KDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]))],
    );
    refused("scale-shift", &[("attn_norm_num_groups", json!(null))]);
    refused("scale-shift", &[("time_embedding_type", json!("learned"))]);
    refused("scale-shift", &[("norm_num_groups", json!(null))]);
    // The picture and the maps beside it would be of two sizes.
    refused("ncsnpp", &[("down_block_types", json!(["DownBlock2D", "SkipDownBlock2D", "SkipDownBlock2D"]))]);
    refused("ncsnpp", &[("up_block_types", json!(["SkipUpBlock2D", "SkipUpBlock2D", "UpBlock2D"]))]);
    refused("ncsnpp", &[("in_channels", json!(1))]);
    refused("ncsnpp", &[("out_channels", json!(4))]);
    refused("ncsnpp", &[("mid_block_scale_factor", json!(0.0))]);
}

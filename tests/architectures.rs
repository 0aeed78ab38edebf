//! Networks against PyTorch, torchvision and timm (`scripts/references/architectures.py`).
//! Both sides make the weights from a hash of their names; the fixture has shapes and outputs.

use std::collections::BTreeMap;

mod hashed;

use aquatint::{DType, Error, Graph, Network, Tensor, Weights, models};
use hashed::{compare, gpu, numbers};
use serde_json::json;

#[derive(serde::Deserialize)]
struct Case {
    tensors: BTreeMap<String, Vec<usize>>,
    layer: Option<String>,
    side: usize,
    /// As `config.json` has it, where the tensors do not say it.
    architecture: Option<String>,
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn cases() -> BTreeMap<String, Case> {
    serde_json::from_str(&std::fs::read_to_string(fixture("architectures.json")).unwrap()).unwrap()
}

fn save(folder: &std::path::Path, tensors: &BTreeMap<String, Vec<usize>>) -> String {
    hashed::save(folder, tensors, &BTreeMap::new(), &[])
}

fn check(name: &str) {
    let Some(gpu) = gpu() else { return };
    let case = &cases()[name];
    let folder = tempfile::tempdir().unwrap();
    let path = save(folder.path(), &case.tensors);
    if let Some(name) = &case.architecture {
        let config = serde_json::json!({ "architecture": name, "num_classes": 10 });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    }
    let model = models::open(&path).unwrap();

    let mut g = Graph::new();
    let side = case.side;
    let x = g.input("x", [1, side, side, 3], DType::F32);
    let [(_, output)] = model.build(&mut g, x).unwrap()[..] else { panic!("one output") };
    g.output("output", output);
    if let Some(layer) = &case.layer {
        let found = g.values().filter(|(_, v)| v.name == *layer).map(|(id, _)| id).last();
        g.output("layer", found.unwrap_or_else(|| panic!("no value is called {layer}")));
    }

    // The script's picture is channel by channel.
    let planes = numbers("picture", 3 * side * side);
    let pixels: Vec<f32> =
        (0..side * side).flat_map(|p| [0, 1, 2].map(|c| planes[c * side * side + p])).collect();
    let outputs =
        Network::new(gpu, &g).unwrap().run(&[("x", &Tensor::from_f32([1, side, side, 3], &pixels))]).unwrap();

    let reference = Weights::open(fixture("architectures.safetensors")).unwrap();
    let wanted = |part: &str| {
        let name = format!("{name}.{part}");
        reference.shape(&name).map(|shape| reference.tensor(&name, shape).unwrap().to_f32())
    };
    let mut checked = 0;
    let output = outputs[0].to_f32();
    let thin = if output.len() > 1000 { 7 } else { 1 };
    let output: Vec<f32> = output.into_iter().step_by(thin).collect();
    let layer: Vec<f32> = outputs.get(1).map_or(Vec::new(), |t| t.to_f32().into_iter().step_by(7).collect());
    for (part, found) in [("output", output), ("layer", layer)] {
        let Some(wanted) = wanted(part) else { continue };
        let (error, cosine) = compare(&found, &wanted);
        println!("{name} {part}: {error:.1e} of the range, cosine 1 - {:.1e}", 1.0 - cosine);
        assert!(error <= 1e-3 && cosine >= 0.99999, "{name} {part}: {error:e}, {cosine}");
        checked += 1;
    }
    assert!(checked >= 1);
}

macro_rules! architectures {
    ($($name:ident)*) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

architectures! {
    resnet18 resnet50 resnext50 vgg vgg_bn mobilenet_v2 mobilenet_v3_large mobilenet_v3_small
    efficientnet_b0 densenet121 convnext_tiny timm_convnext_atto timm_resnet26
    timm_vgg timm_densenet timm_resnet_d timm_seresnext_t timm_resnet_rs timm_senet
    timm_efficientnet_b0 timm_tf_efficientnet_b0 timm_efficientnet_lite0 timm_tf_efficientnetv2_b0
    timm_mobilenetv2_050 timm_mobilenetv3_large_100 timm_mobilenetv3_small_100
    timm_tf_mobilenetv3_small_075 timm_tf_mobilenetv3_small_minimal_100
    unet unet_bilinear iresnet rrdb rrdb_x2
}

/// Files that share their tensors' names with what is known, and compute something else.
#[test]
fn what_tensors_leave_open_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |case: &str, config: serde_json::Value| {
        save(folder.path(), &cases()[case].tensors);
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        models::open(folder.path().to_str().unwrap()).unwrap_err().to_string()
    };
    let error = refused("timm_efficientnet_b0", json!({}));
    assert!(error.contains("\"architecture\"") && error.contains("efficientnet_b0"), "{error}");
    let error = refused("timm_efficientnet_b0", json!({ "architecture": "tinynet_a" }));
    assert!(error.contains("tinynet_a") && error.contains("mobilenetv3_large_100"), "{error}");
    let error = refused("timm_resnet_d", json!({ "architecture": "resnetblur50d" }));
    assert!(error.contains("resnetblur50d"), "{error}");
    let changed =
        json!({ "architecture": "resnet50d", "model_args": { "act_layer": "silu", "num_classes": 10 } });
    let error = refused("timm_resnet_d", changed);
    assert!(error.contains("act_layer") && !error.contains("num_classes"), "{error}");
    let error = refused("timm_resnet_d", json!({ "architecture": "resnet50d", "global_pool": "max" }));
    assert!(error.contains("global_pool"), "{error}");

    let mut grey = cases()["timm_efficientnet_b0"].tensors.clone();
    grey.insert("conv_stem.weight".to_owned(), vec![32, 1, 3, 3]);
    std::fs::write(
        folder.path().join("config.json"),
        json!({ "architecture": "efficientnet_b0" }).to_string(),
    )
    .unwrap();
    save(folder.path(), &grey);
    let error = models::open(folder.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("conv_stem.weight"), "{error}");
}

/// Everything is convolution, pool and the last layer: norms, activations and sums are gone.
#[test]
fn a_resnet_is_convolutions_and_pools() {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = models::open(&save(folder.path(), &cases()["resnet50"].tensors)).unwrap();
    let mut g = Graph::new();
    let x = g.input("x", [1, 96, 96, 3], DType::F32);
    let outputs = model.build(&mut g, x).unwrap();
    g.output("logits", outputs[0].1);
    let network = Network::new(gpu, &g).unwrap();
    let kernels: Vec<&str> = network.plan().run.iter().map(|d| d.shader.kernel.name).collect();
    // Winograd's way has a step before the products and one after them, sums in parts one that adds them.
    let way = ["winograd_source", "winograd_result", "sum_parts"];
    let kernels: Vec<&str> = kernels.into_iter().filter(|k| !way.contains(k)).collect();
    let others = ["pool", "reduce", "reduce_threads", "pad", "strided"];
    let convolves = |k: &str| k.starts_with("conv2d") || ["winograd_products", "matmul_shared"].contains(&k);
    assert_eq!(kernels.iter().filter(|k| convolves(k)).count(), 54, "{kernels:?}");
    assert!(kernels.iter().all(|k| convolves(k) || others.contains(k)), "{kernels:?}");
    assert!(kernels.len() <= 58, "{kernels:?}");
}

#[test]
fn what_is_missing_or_unknown_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = cases()["resnet18"].tensors.clone();
    tensors.remove("layer3.1.bn2.running_mean");
    let path = save(folder.path(), &tensors);
    let error = models::open(&path).unwrap_err().to_string();
    assert!(error.contains("layer3.1.bn2.running_mean"), "{error}");

    // As channel attention is named in timm's ECA-ResNet.
    let mut variant = cases()["resnet18"].tensors.clone();
    variant.insert("layer1.0.se.conv.weight".to_owned(), vec![1, 1, 3]);
    let error = models::open(&save(folder.path(), &variant)).unwrap_err().to_string();
    assert!(error.contains("layer1.0.se.conv.weight"), "{error}");

    let few = BTreeMap::from([("a.weight".to_owned(), vec![4, 4])]);
    let error = models::open(&save(folder.path(), &few)).unwrap_err().to_string();
    assert!(error.contains("ResNet") && error.contains("a.weight"), "{error}");

    let config = r#"{"architecture": "resnet18", "num_classes": 10, "label_names": ["one", "two"]}"#;
    save(folder.path(), &cases()["resnet18"].tensors);
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let error = models::open(folder.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("labels") && error.contains("10"), "{error}");
    assert!(matches!(models::open("no-such-model"), Err(Error::Unknown { .. })));
}

//! Whole networks that read pictures: load, time of a run, and where it goes.
//!
//! ```text
//! cargo bench --bench networks                          ResNet-50, MobileNetV2, EfficientNet-B0 with random weights
//! cargo bench --bench networks -- FILE…                 ONNX or safetensors files, timm's folders
//! ```
//!
//! One picture of 224×224 (or what the file wants), f32. A run is everything from a picture's
//! numbers on the device to the scores on the device. `benches/peers/run.sh` has other engines beside it.
//! Loading has three parts: from the file to a plan with its kernels' text, pipelines out of that text (the
//! driver may have them from an earlier start), and the weights' way to the device.

mod peer;

use std::collections::BTreeMap;
use std::time::Instant;

use aquatint::models::vision::VisionModel;
use aquatint::{DType, Gpu, Graph, Network, Plan, Result, Tensor, models};
use peer::race;
use safetensors::tensor::{Dtype, TensorView};

const ROUNDS: usize = 15;
/// Networks whose tensors' shapes are in `tests/fixtures/architectures.json`.
const RANDOM: [&str; 3] = ["resnet50", "mobilenet_v2", "efficientnet_b0"];

fn main() {
    let files: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let gpu = Gpu::headless().unwrap_or_else(|error| panic!("{error}"));
    println!("device   {} ({})", gpu.info().name, gpu.info().driver_info);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let paths: Vec<(String, String)> = match &files[..] {
        [] => RANDOM.iter().map(|name| (name.to_string(), random(folder.path(), name))).collect(),
        files => files.iter().map(|file| (file.clone(), file.clone())).collect(),
    };
    for (name, path) in paths {
        measure(&gpu, &name, &path).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn measure(gpu: &Gpu, name: &str, path: &str) -> Result<()> {
    let start = Instant::now();
    let model = models::open(path)?;
    let plan = Plan::compile(&graph(&model)?, gpu.target())?;
    let planned = start.elapsed().as_secs_f64();
    let network = Network::from_plan(gpu, plan.clone())?;
    let loaded = start.elapsed().as_secs_f64();
    // The device has the pipelines now: what a second network takes is the weights alone.
    let start = Instant::now();
    drop(Network::from_plan(gpu, plan)?);
    let upload = start.elapsed().as_secs_f64();
    let flops = network.plan().flops() as f64;
    println!("\nnetwork  {name}, {:.3} GFLOP, {} parameters", flops * 1e-9, network.plan().parameters);
    println!(
        "load     {loaded:.2} s: file to plan {planned:.2} s, pipelines {:.2} s, weights {upload:.2} s",
        loaded - planned - upload
    );
    let [height, width] = size(&model);
    network.write("x", &Tensor::from_f32([1, height, width, 3], &noise(7, height * width * 3, 1.0)))?;
    race(gpu, &network, None, ROUNDS)
}

/// Height and width of the picture.
fn size(model: &VisionModel) -> [usize; 2] {
    model.preprocess.size.unwrap_or([224, 224])
}

/// The network for one picture.
fn graph(model: &VisionModel) -> Result<Graph> {
    let [height, width] = size(model);
    let mut graph = Graph::new();
    let x = graph.input("x", [1, height, width, 3], DType::F32);
    for (name, output) in model.build(&mut graph, x)? {
        graph.output(&name, output);
    }
    Ok(graph)
}

/// A file of random weights (He's uniform ones) in the shapes of a network of torchvision's.
fn random(folder: &std::path::Path, name: &str) -> String {
    let shapes = include_str!("../tests/fixtures/architectures.json");
    let cases: serde_json::Value = serde_json::from_str(shapes).expect("JSON");
    let shapes: BTreeMap<String, Vec<usize>> =
        serde_json::from_value(cases[name]["tensors"].clone()).expect("names and shapes");
    let tensors: BTreeMap<&String, (&Vec<usize>, Vec<u8>)> = shapes
        .iter()
        .enumerate()
        .map(|(seed, (name, shape))| {
            let fan_in: usize = shape.iter().skip(1).product();
            let mut values = noise(seed as u32, shape.iter().product(), (6.0 / fan_in as f32).sqrt());
            if name.ends_with("running_var") {
                values.iter_mut().for_each(|v| *v = v.abs() + 0.5);
            }
            (name, (shape, bytemuck::cast_slice(&values).to_vec()))
        })
        .collect();
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (name, TensorView::new(Dtype::F32, (*shape).clone(), bytes).expect("sizes agree"))
    });
    let path = folder.join(format!("{name}.safetensors"));
    safetensors::serialize_to_file(views, None, &path).expect("a temporary file");
    path.to_str().expect("UTF-8").to_owned()
}

/// Uniform in [-scale, scale).
fn noise(seed: u32, count: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let next = |_| {
        state = state.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        ((state >> 8) as f32 * 2f32.powi(-23) - 1.0) * scale
    };
    (0..count).map(next).collect()
}

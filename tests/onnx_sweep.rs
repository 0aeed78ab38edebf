//! Convolutions, pools, norms, resizings and operators with computed indices of random shapes, and whole networks with
//! random weights, against ONNX Runtime, as scripts/onnx_sweep.py writes them. Nothing here may be refused but what `REFUSED` names.

use std::path::PathBuf;

use aquatint::formats::onnx::OnnxModel;
use aquatint::{Error, Gpu, Network, Tensor};
use safetensors::{Dtype, SafeTensors};

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    kind: String,
    inputs: Vec<String>,
}

/// Reasons for which single cases may be refused.
const REFUSED: [&str; 2] = ["leaves nothing", "does not fit"];

fn folder() -> PathBuf {
    match std::env::var_os("AQUATINT_ONNX_SUITE") {
        Some(folder) => folder.into(),
        None => [env!("CARGO_MANIFEST_DIR"), "target", "onnx-suite"].iter().collect(),
    }
}

/// The cases, and the device to run them on; `None` where either is missing and may be.
fn cases() -> Option<(Vec<Case>, Gpu)> {
    let Ok(list) = std::fs::read(folder().join("sweep.json")) else {
        assert!(std::env::var_os("REQUIRE_ONNX_SUITE").is_none(), "{} holds no sweep", folder().display());
        eprintln!("SKIPPED: {} holds no sweep; scripts/onnx_suite.sh makes it", folder().display());
        return None;
    };
    match Gpu::headless() {
        Ok(gpu) => Some((serde_json::from_slice(&list).unwrap(), gpu)),
        Err(error) => {
            assert!(std::env::var_os("REQUIRE_GPU").is_none(), "{error}");
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

fn tensor(file: &SafeTensors, name: &str) -> Tensor {
    let view = file.tensor(name).unwrap();
    match view.dtype() {
        Dtype::I64 => {
            let values = view.data().chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap()));
            Tensor::from_i32(view.shape(), &values.map(|v| v.try_into().unwrap()).collect::<Vec<i32>>())
        }
        Dtype::F32 => {
            let values = view.data().chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap()));
            Tensor::from_f32(view.shape(), &values.collect::<Vec<f32>>())
        }
        other => panic!("{name}: type {other:?}"),
    }
}

/// What the engine makes of a case, and what ONNX Runtime did.
fn run(gpu: &Gpu, case: &Case) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let path = folder().join(format!("{}.onnx", case.name));
    let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let inputs: Vec<(&str, Tensor)> = case
        .inputs
        .iter()
        .enumerate()
        .map(|(i, n)| (n.as_str(), tensor(&file, &format!("input_{i}"))))
        .collect();
    let shapes: Vec<(&str, Vec<usize>)> =
        inputs.iter().map(|(name, tensor)| (*name, tensor.desc.shape.to_vec())).collect();
    let (graph, outputs) = OnnxModel::open(&path)?.graph_and_outputs(&shapes)?;
    let network = Network::new(gpu, &graph)?;
    network.poison()?;
    let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let results = network.run(&given)?;
    let found = match &outputs[0].count {
        Some(count) => count.cut(&results[0], &results[1]),
        None => results[0].clone(),
    };
    let expected = tensor(&file, "output_0");
    if found.desc.shape != expected.desc.shape {
        return Err(Error::Invalid {
            what: "shape of the result".to_owned(),
            expected: expected.desc.shape.to_string(),
            found: found.desc.shape.to_string(),
        });
    }
    Ok((found.to_f32(), expected.to_f32()))
}

/// Largest difference as a part of the range of what is expected.
fn error(found: &[f32], expected: &[f32]) -> f64 {
    let high = expected.iter().copied().fold(f32::MIN, f32::max);
    let low = expected.iter().copied().fold(f32::MAX, f32::min);
    let range = f64::from(high - low).max(f64::from(high.abs().max(low.abs()))).max(1e-6);
    let worst = found.iter().zip(expected).map(|(&a, &b)| f64::from(a - b).abs());
    worst.fold(0.0, |worst, d| if d.is_nan() { f64::NAN } else { worst.max(d) }) / range
}

#[test]
fn layers_of_random_shapes() {
    let Some((cases, gpu)) = cases() else { return };
    let mut wrong = Vec::new();
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for case in cases.iter().filter(|c| c.kind != "network") {
        match run(&gpu, case) {
            Ok((found, expected)) => {
                *counts.entry(&case.kind).or_default() += 1;
                let error = error(&found, &expected);
                // Sums of some thousand terms in f32, in another order.
                if error.is_nan() || error > 2e-5 {
                    wrong.push(format!("{}: error {error:.1e}", case.name));
                }
            }
            Err(error) if REFUSED.iter().any(|r| error.to_string().contains(r)) => {}
            Err(error) => wrong.push(format!("{}: {error}", case.name)),
        }
    }
    println!("{counts:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(counts.values().sum::<usize>() > 330, "{counts:?}");
}

/// Logits of the architectures in the onnx package, with seeded random weights: cosine ≥ 0.99999, largest error
/// ≤ 1e-3 of the range.
#[test]
fn whole_networks_with_random_weights() {
    let Some((cases, gpu)) = cases() else { return };
    let networks: Vec<&Case> = cases.iter().filter(|c| c.kind == "network").collect();
    assert_eq!(networks.len(), 9);
    for case in networks {
        let start = std::time::Instant::now();
        let (found, expected) = run(&gpu, case).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let cosine = dot(&found, &expected) / (dot(&found, &found) * dot(&expected, &expected)).sqrt();
        let error = error(&found, &expected);
        println!("{}: cosine {cosine:.9}, error {error:.1e}, {:.1?}", case.name, start.elapsed());
        assert!(cosine >= 0.99999 && error <= 1e-3, "{}: cosine {cosine}, error {error:.1e}", case.name);
    }
}

/// The same network read as one of pictures, from channels that lie last, gives the same logits.
#[test]
fn a_file_as_a_vision_model() {
    let Some((cases, gpu)) = cases() else { return };
    let case = cases.iter().find(|c| c.name.ends_with("squeezenet")).expect("it is in the sweep");
    let path = folder().join(format!("{}.onnx", case.name));
    let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (x, expected) = (tensor(&file, "input_0").to_f32(), tensor(&file, "output_0").to_f32());
    let model = aquatint::formats::onnx::vision_model(&path, None).unwrap();
    assert_eq!((model.preprocess.size, model.batch), (Some([224, 224]), Some(1)));
    let mut graph = aquatint::Graph::new();
    let picture = graph.input("x", [1, 224, 224, 3], aquatint::DType::F32);
    let outputs = model.build(&mut graph, picture).unwrap();
    assert_eq!(outputs[0].0, "logits");
    assert_eq!(graph.shape(outputs[0].1)[..], [1, 1000]);
    graph.output("logits", outputs[0].1);
    let last: Vec<f32> = (0..224 * 224 * 3).map(|i| x[i % 3 * 224 * 224 + i / 3]).collect();
    let given = Tensor::from_f32([1, 224, 224, 3], &last);
    let found = Network::new(&gpu, &graph).unwrap().run(&[("x", &given)]).unwrap().remove(0);
    assert!(error(&found.to_f32(), &expected) <= 1e-3);
}

//! Convolutions, pools, norms, resizings, operators with computed indices or places and quantised ones of random shapes, and
//! whole networks with random weights, against ONNX Runtime, as scripts/onnx_sweep.py writes them. Nothing here may be refused but what `REFUSED` names.

use std::path::PathBuf;

use aquatint::formats::onnx::OnnxModel;
use aquatint::{Error, Gpu, Network, Tensor};
use safetensors::{Dtype, SafeTensors};

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    kind: String,
    inputs: Vec<String>,
    /// Most units by which integers may be off.
    #[serde(default)]
    units: Option<u32>,
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
        Dtype::I32 => {
            let values = view.data().chunks_exact(4).map(|c| i32::from_le_bytes(c.try_into().unwrap()));
            Tensor::from_i32(view.shape(), &values.collect::<Vec<i32>>())
        }
        Dtype::BOOL => {
            Tensor::from_u32(view.shape(), &view.data().iter().map(|&v| v.into()).collect::<Vec<u32>>())
        }
        Dtype::U8 => {
            Tensor::from_i32(view.shape(), &view.data().iter().map(|&v| v.into()).collect::<Vec<i32>>())
        }
        Dtype::I8 => {
            let values = view.data().iter().map(|&v| (v as i8).into());
            Tensor::from_i32(view.shape(), &values.collect::<Vec<i32>>())
        }
        other => panic!("{name}: type {other:?}"),
    }
}

/// What the engine makes of a case, and what ONNX Runtime did.
fn run(gpu: &Gpu, case: &Case) -> Result<(Vec<f32>, Vec<f32>), Error> {
    tensors(gpu, case).map(|(found, expected)| (found.to_f32(), expected.to_f32()))
}

fn tensors(gpu: &Gpu, case: &Case) -> Result<(Tensor, Tensor), Error> {
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
    // A choice of nothing is known before a run.
    if let Some(values) = &outputs[0].constant {
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        return Ok((Tensor::from_f32(outputs[0].shape.clone(), &values), tensor(&file, "output_0")));
    }
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
    Ok((found, expected))
}

/// Integers of a tensor.
fn whole(tensor: &Tensor) -> Vec<i64> {
    let words = tensor.bytes.chunks_exact(4);
    words.map(|c| i32::from_le_bytes(c.try_into().unwrap()).into()).collect()
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
    for case in
        cases.iter().filter(|c| !matches!(c.kind.as_str(), "network" | "quantised") && c.units.is_none())
    {
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
    assert!(counts.values().sum::<usize>() > 500, "{counts:?}");
}

/// Integers are ONNX Runtime's, but for the units that scripts/onnx_sweep_sampled.py gives its reasons for.
#[test]
fn quantised_layers() {
    let Some((cases, gpu)) = cases() else { return };
    let mut wrong = Vec::new();
    let mut counts = std::collections::BTreeMap::<&str, [usize; 3]>::new();
    for case in &cases {
        let Some(units) = case.units else { continue };
        match tensors(&gpu, case) {
            Ok((found, expected)) => {
                let (found, expected) = (whole(&found), whole(&expected));
                let off: Vec<u64> = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
                let worst = off.iter().copied().max().unwrap_or(0);
                let count = counts.entry(&case.kind).or_default();
                *count =
                    [count[0] + 1, count[1] + off.len(), count[2] + off.iter().filter(|&&d| d > 0).count()];
                if worst > units.into() {
                    wrong.push(format!("{}: {worst} units", case.name));
                }
            }
            Err(error) if REFUSED.iter().any(|r| error.to_string().contains(r)) => {}
            Err(error) => wrong.push(format!("{}: {error}", case.name)),
        }
    }
    println!("cases, integers, of them off: {counts:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(counts.values().map(|c| c[0]).sum::<usize>() > 200, "{counts:?}");
}

/// A network that ONNX Runtime's static quantiser wrote, as float operators between grids and as operators of integers.
#[test]
fn quantised_networks() {
    let Some((cases, gpu)) = cases() else { return };
    let networks: Vec<&Case> = cases.iter().filter(|c| c.kind == "quantised").collect();
    assert_eq!(networks.len(), 10);
    let mut wrong = Vec::new();
    for case in networks {
        match run(&gpu, case) {
            Ok((found, expected)) => {
                let error = error(&found, &expected);
                println!("{}: error {error:.1e}", case.name);
                // A number in the middle between two steps may go to either, and what follows from it.
                if error.is_nan() || error > 2.0 / 255.0 {
                    wrong.push(format!("{}: error {error:.1e}", case.name));
                }
            }
            Err(error) => wrong.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

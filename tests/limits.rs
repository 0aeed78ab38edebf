//! Bounds on what files of strangers may ask for: each holds at its value, and is refused by its name one beyond it, before
//! anything is made on a device.

use std::path::{Path, PathBuf};
use std::process::Command;

use aquatint::formats::onnx::OnnxModel;
use aquatint::formats::picture;
use aquatint::limits::{Bound, Limits};
use aquatint::models::read_labels;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{DType, Error, Graph, Plan, Result, Target, Tensor, Weights};

fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

/// That `work` passes with a bound of `needs` and is refused with one less; the same of what it says of itself.
#[track_caller]
fn held<T>(bound: Bound, needs: u64, work: impl Fn() -> Result<T>) {
    let with = |most| Limits::DEFAULT.with(bound, most).within(&work);
    if let Err(error) = with(needs) {
        panic!("{bound:?} of {needs}: {error}");
    }
    match with(needs - 1) {
        Err(Error::Bound { bound: named, found, most, .. }) => {
            assert_eq!((named, found, most), (bound, needs, needs - 1));
        }
        Err(error) => panic!("{bound:?}: {error}"),
        Ok(_) => panic!("{bound:?} of {needs} was not needed"),
    }
}

/// Two convolutions, each of 5·7·3 pixels, 8 outputs and 9·8 products.
fn graph() -> Result<Graph> {
    let mut graph = Graph::new();
    let mut x = graph.input("x", [3, 5, 7, 8], DType::F32);
    for name in ["first", "second"] {
        let w = graph.weight(name, Tensor::from_f32([8, 8, 3, 3], &[0.1; 8 * 8 * 9]));
        x = graph.conv2d(x, w, None, Conv2dOptions::padded(1))?;
        graph.output(name, x);
    }
    Ok(graph)
}

#[test]
fn weights_are_bounded() {
    let path = bundled("style-engraving/model.safetensors");
    let file = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap());
    let names: serde_json::Value = serde_json::from_slice(&file[8..8 + header as usize]).unwrap();
    held(Bound::File, file.len() as u64, || Weights::open(&path));
    held(Bound::Text, header, || Weights::open(&path));
    held(Bound::Tensors, names.as_object().unwrap().len() as u64, || Weights::open(&path));
}

#[test]
fn small_files_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.txt");
    std::fs::write(&path, "cat\ndog\n").unwrap();
    held(Bound::Text, 8, || read_labels(&path));
    assert_eq!(read_labels(&path).unwrap(), ["cat", "dog"]);
}

#[test]
fn networks_are_bounded_before_there_is_a_device() {
    let target = Target::typical();
    let plan = Plan::compile(&graph().unwrap(), &target).unwrap();
    assert_eq!(plan.flops(), 2 * 2 * (3 * 5 * 7 * 8) * (9 * 8));
    // An input, two weights, two convolutions.
    held(Bound::Nodes, 5, graph);
    let graph = graph().unwrap();
    held(Bound::Outputs, 2, || Plan::compile(&graph, &target));
    held(Bound::Flops, plan.flops(), || Plan::compile(&graph, &target));
    held(Bound::Device, plan.peak_bytes(), || Plan::compile(&graph, &target));
}

#[test]
fn onnx_models_are_bounded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/onnx");
    let mut seen = 0;
    for file in std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(model) = OnnxModel::open(&file) else { continue };
        held(Bound::File, std::fs::metadata(&file).unwrap().len(), || OnnxModel::open(&file));
        let without = Limits::DEFAULT.with(Bound::Nodes, 0).within(|| OnnxModel::open(&file));
        assert!(matches!(without, Err(Error::Bound { bound: Bound::Nodes, .. })), "{}", file.display());
        seen += usize::from(!model.outputs().is_empty());
    }
    assert!(seen > 0);
}

#[test]
fn pictures_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    image::GrayImage::new(31, 17).save(&path).unwrap();
    held(Bound::Pixels, 31 * 17, || picture::open(&path));
}

/// Their ends would be waited for.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, Path::new("/dev/zero"), folder.path()] {
        for found in [Weights::open(path).err(), OnnxModel::open(path).err()] {
            let said = found.expect("no model").to_string();
            assert!(said.contains("is not a file"), "{said}");
        }
    }
}

#[test]
fn the_program_holds_to_what_it_is_told() {
    let run = |limits: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_aquatint"));
        let output = program.args(["inspect", "letters-classifier", "--limits", limits]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run("flops=20T").0, Some(0));
    let (code, said) = run("flops=1k");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1.00 kFLOP are allowed") && said.contains("--limits flops="), "{said}");
    let (code, said) = run("flop=1");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("flops=N"), "{said}");
}

//! Detectors against their references (`scripts/references/detectors.py`): what their heads give, and what is found.
//! Both sides make the weights from a hash of their names; the fixture has shapes and outputs.

use std::collections::BTreeMap;

mod hashed;

use aquatint::models::vision::{Fit, VisionModel};
use aquatint::tasks::{self, DetectOptions};
use aquatint::{DType, Error, Gpu, Graph, Network, Tensor, Weights, models};
use hashed::{compare, gpu, numbers, save};
use image::RgbImage;

#[derive(serde::Deserialize)]
struct Case {
    tensors: BTreeMap<String, Vec<usize>>,
    /// Tensors that are so many times what the hash says.
    gains: BTreeMap<String, f32>,
    /// Tensors that are 0, 1, 2 ….
    ramps: Vec<String>,
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn case(name: &str) -> Case {
    let text = std::fs::read_to_string(fixture("detectors.json")).unwrap();
    serde_json::from_str::<BTreeMap<String, Case>>(&text).unwrap().remove(name).unwrap()
}

fn reference(name: &str) -> Vec<f32> {
    let file = Weights::open(fixture("detectors.safetensors")).unwrap();
    file.tensor(name, file.shape(name).unwrap()).unwrap().to_f32()
}

/// Blocks of hashed colours, as `picture` of the script.
fn picture(height: u32, width: u32) -> RgbImage {
    let (rows, columns) = (height / 8, width / 8);
    let blocks = numbers("picture", (rows * columns * 3) as usize);
    RgbImage::from_fn(width, height, |x, y| {
        let at = ((y / 8 * columns + x / 8) * 3) as usize;
        image::Rgb([0, 1, 2].map(|c| ((blocks[at + c] + 1.0) * 127.5).round_ties_even() as u8))
    })
}

/// Every seventh number of an output.
fn thin(values: &[f32]) -> Vec<f32> {
    values.iter().copied().step_by(7).collect()
}

fn close(name: &str, found: &[f32], wanted: &str) {
    let (error, cosine) = compare(&thin(found), &reference(wanted));
    println!("{name}: {error:.1e} of the range, cosine 1 - {:.1e}", 1.0 - cosine);
    assert!(error <= 1e-3 && cosine >= 0.99999, "{name}: {error:e}, {cosine}");
}

/// Holds rows of left, top, right, bottom, score, class to those of a reference. The order of scores that differ by
/// rounding is left open.
fn same(found: &[f32], wanted: &[f32]) {
    let mut rest: Vec<&[f32]> = found.chunks_exact(6).filter(|row| row[4] > 0.0).collect();
    assert_eq!(rest.len(), wanted.len() / 6);
    for row in wanted.chunks_exact(6) {
        let most = [0.05, 0.05, 0.05, 0.05, 1e-4, 0.5];
        let alike = |found: &&[f32]| (0..6).all(|i| (found[i] - row[i]).abs() < most[i]);
        let at = rest.iter().position(alike).unwrap_or_else(|| panic!("{row:?} is not found"));
        assert!(at < 4, "{row:?} comes {at} too late");
        rest.remove(at);
    }
}

/// Runs a detector with the options; what these layers give, and what is found.
fn run(
    gpu: &Gpu,
    model: &VisionModel,
    options: &DetectOptions,
    picture: &RgbImage,
    layers: &[&str],
) -> (Vec<Vec<f32>>, Vec<f32>) {
    let [height, width] = [picture.height(), picture.width()].map(|v| v as usize);
    let mut g = Graph::new();
    let pictures = g.input("pictures", [1, height, width], DType::U32);
    let found = tasks::detect(&mut g, model, pictures, options).unwrap();
    for layer in layers {
        let value = g.values().filter(|(_, v)| v.name == *layer).map(|(id, _)| id).last();
        g.output(layer, value.unwrap_or_else(|| panic!("no value is called {layer}")));
    }
    g.output("found", found);
    let words: Vec<u32> =
        picture.pixels().map(|p| u32::from_le_bytes([p.0[0], p.0[1], p.0[2], 255])).collect();
    let words = Tensor::from_u32([1, height, width], &words);
    let outputs = Network::new(gpu, &g).unwrap().run(&[("pictures", &words)]).unwrap();
    let mut outputs: Vec<Vec<f32>> = outputs.iter().map(Tensor::to_f32).collect();
    let found = outputs.pop().unwrap();
    (outputs, found)
}

#[test]
fn ssdlite_finds_what_torchvision_finds() {
    let Some(gpu) = gpu() else { return };
    let case = case("ssdlite");
    let folder = tempfile::tempdir().unwrap();
    let path = save(folder.path(), &case.tensors, &case.gains, &case.ramps);
    let model = models::open(&path).unwrap();
    // All that torchvision's own thresholds let through.
    let options = DetectOptions { threshold: 0.001, overlap: 0.55, across_classes: false, most: 300 };
    let layers = ["head.classification_head", "head.regression_head"];
    let (layers, found) = run(gpu, &model, &options, &picture(320, 320), &layers);
    close("logits", &layers[0], "ssdlite.logits");
    close("regression", &layers[1], "ssdlite.regression");
    same(&found, &reference("ssdlite.found"));
}

fn yolo(name: &str, prefix: &str, parts: &[&str]) {
    let Some(gpu) = gpu() else { return };
    let case = case(name);
    let folder = tempfile::tempdir().unwrap();
    let path = save(folder.path(), &case.tensors, &case.gains, &case.ramps);
    if prefix != "model." {
        rename(&path, "model.", prefix);
    }
    let mut model = models::open(&path).unwrap();
    assert_eq!((model.preprocess.size, model.preprocess.mean[0]), (Some([640, 640]), 0.0));
    // Rows of grey above and below.
    model.preprocess.size = Some([96, 96]);
    for part in parts {
        let across_classes = *part == "across";
        let options = DetectOptions { threshold: 0.25, overlap: 0.6, across_classes, most: 100 };
        let layers = ["cv2", "cv3"].map(|branch| format!("{prefix}22.{branch}"));
        let layers = [&layers[0][..], &layers[1]];
        let (layers, found) = run(gpu, &model, &options, &picture(64, 96), &layers);
        close("distances", &layers[0], &format!("{name}.distances"));
        close("logits", &layers[1], &format!("{name}.logits"));
        same(&found, &reference(&format!("{name}.{part}")));
    }
}

/// Gives the tensors of a file another prefix.
fn rename(path: &str, old: &str, new: &str) {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let views: Vec<(String, _)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (format!("{new}{}", name.strip_prefix(old).unwrap()), view))
        .collect();
    safetensors::serialize_to_file(views, None, std::path::Path::new(path)).unwrap();
}

#[test]
fn yolo_finds_what_its_reference_finds() {
    yolo("yolo", "model.", &["found", "across"]);
}

/// As exports have it, which also leave off the prefix.
#[test]
fn yolo_with_folded_batch_norms() {
    yolo("yolo_folded", "", &["found"]);
}

/// An export gives middles and extents; that is told by its shape, and its classes' names by its metadata.
#[test]
fn an_exported_yolo_is_a_detector() {
    let Some(gpu) = gpu() else { return };
    let model = models::open(&fixture("yolo.onnx")).unwrap();
    assert_eq!(model.labels, ["cat", "shepherd's dog", r"a \ b"]);
    assert_eq!((model.preprocess.size, model.batch), (Some([64, 96]), Some(1)));
    assert!(matches!(model.preprocess.fit, Fit::Letterbox { .. }));
    let options = DetectOptions { threshold: 0.3, overlap: 1.0, across_classes: false, most: 126 };
    let (_, found) = run(gpu, &model, &options, &picture(64, 96), &[]);
    // Nothing overlaps by more than all of it: every candidate is there.
    let mut expected: Vec<f32> = Vec::new();
    for row in reference("exported.output").chunks_exact(4 + model.labels.len()) {
        let class = (0..3).max_by(|&a, &b| row[4 + a].total_cmp(&row[4 + b])).unwrap();
        let edge = |middle: f32, extent: f32, most: f32| (middle + extent / 2.0).clamp(0.0, most);
        if row[4 + class] >= 0.3 {
            let [low, high] =
                [-1.0, 1.0].map(|s| [edge(row[0], s * row[2], 96.0), edge(row[1], s * row[3], 64.0)]);
            expected.extend([low[0], low[1], high[0], high[1], row[4 + class], class as f32]);
        }
    }
    assert!(expected.len() > 6 * 50);
    let mut rows: Vec<&[f32]> = expected.chunks_exact(6).collect();
    rows.sort_by(|a, b| b[4].total_cmp(&a[4]));
    same(&found, &rows.concat());
}

#[test]
fn names_of_classes_come_with_the_file_or_from_a_list() {
    let case = case("ssdlite");
    let folder = tempfile::tempdir().unwrap();
    let path = save(folder.path(), &case.tensors, &case.gains, &case.ramps);
    let names = |text: &str| {
        let file = folder.path().join("names");
        std::fs::write(&file, text).unwrap();
        models::read_labels(&file).and_then(|labels| models::open_with(&path, Some(labels)))
    };
    // Class 0 is the background, which the list may leave out.
    let expected = ["background", "a", "b", "c", "d", "e", "f"];
    assert_eq!(names("a\nb\r\nc\nd\ne\nf\n").unwrap().labels, expected);
    assert_eq!(names(r#"["background", "a", "b", "c", "d", "e", "f"]"#).unwrap().labels, expected);
    assert!(matches!(names("a\nb"), Err(Error::Invalid { .. })));
    assert!(matches!(names("[1, 2]"), Err(Error::Format { .. })));
    assert!(matches!(names(""), Err(Error::Format { .. })));
    // As transformers writes them.
    let config =
        r#"{"id2label": {"0": "background", "1": "a", "2": "b", "3": "c", "4": "d", "5": "e", "6": "f"}}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    assert_eq!(models::open(folder.path().to_str().unwrap()).unwrap().labels, expected);
}

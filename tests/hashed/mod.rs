//! Weights out of their names, as `scripts/references/architectures.py` makes them, and how results are compared.
#![allow(dead_code, reason = "each test needs a part of it")]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use aquatint::{Error, Gpu};
use safetensors::tensor::{Dtype, TensorView};

pub fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| match Gpu::headless() {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    })
    .as_ref()
}

pub use aquatint::bench::hashed::numbers;

/// As `weight` of the script.
pub fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let values = numbers(name, shape.iter().product());
    let fan_in: usize = shape.iter().skip(1).product();
    let (scale, shift) = if shape.len() >= 2 && shape[0].min(fan_in) > 1 && !name.ends_with("layer_scale") {
        ((6.0 / fan_in as f32).sqrt(), 0.0)
    } else if ["running_var", "weight", "layer_scale", "gamma"].iter().any(|end| name.ends_with(end)) {
        (0.25, 1.0)
    } else {
        (0.1, 0.0)
    };
    values.into_iter().map(|v| v * scale + shift).collect()
}

/// A file of a network's weights, as its library would save it: those of `ramps` 0, 1, 2 …, the others times `gains`.
pub fn save(
    folder: &std::path::Path,
    tensors: &BTreeMap<String, Vec<usize>>,
    gains: &BTreeMap<String, f32>,
    ramps: &[String],
) -> String {
    let bytes = |name: &String, shape: &[usize]| -> Vec<u8> {
        let gain = gains.get(name).unwrap_or(&1.0);
        let values: Vec<f32> = match ramps.contains(name) {
            true => (0..shape.iter().product()).map(|i: usize| i as f32).collect(),
            false => weight(name, shape).iter().map(|v| v * gain).collect(),
        };
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    };
    let bytes: BTreeMap<&String, Vec<u8>> =
        tensors.iter().map(|(name, shape)| (name, bytes(name, shape))).collect();
    let view = |name: &String| TensorView::new(Dtype::F32, tensors[name].clone(), &bytes[name]).unwrap();
    let path = folder.join("model.safetensors");
    safetensors::serialize_to_file(tensors.keys().map(|n| (n, view(n))), None, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Largest difference as a part of the range, and the cosine of the angle between the two.
pub fn compare(found: &[f32], wanted: &[f32]) -> (f64, f64) {
    assert_eq!(found.len(), wanted.len());
    let (mut worst, mut low, mut high) = (0f64, f64::MAX, f64::MIN);
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in found.iter().zip(wanted) {
        let (a, b) = (f64::from(a), f64::from(b));
        worst = if (a - b).is_nan() { f64::NAN } else { worst.max((a - b).abs()) };
        (low, high) = (low.min(b), high.max(b));
        (dot, aa, bb) = (dot + a * b, aa + a * a, bb + b * b);
    }
    (worst / (high - low), dot / (aa * bb).sqrt())
}

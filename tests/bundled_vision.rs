//! The bundled networks that read pictures against PyTorch (`training/export_vision.py`).

use std::sync::OnceLock;

use aquatint::models::bundled::{BUNDLED, bundled};
use aquatint::{DType, Error, Gpu, Graph, Network, Tensor, Weights};

fn gpu() -> Option<&'static Gpu> {
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

/// A tensor of a fixture; those with four dimensions from PyTorch's order of channels to ours.
fn load(file: &Weights, name: &str) -> Tensor {
    let shape = file.shape(name).unwrap_or_else(|| panic!("{name} is not in the fixture")).to_vec();
    let tensor = file.tensor(name, &shape).unwrap();
    let [n, c, h, w] = shape[..] else { return tensor };
    let values = tensor.to_f32();
    let at = |i: usize| {
        let (channel, pixel, sample) = (i % c, i / c % (h * w), i / (c * h * w));
        values[(sample * c + channel) * h * w + pixel]
    };
    Tensor::from_f32([n, h, w, c], &(0..values.len()).map(at).collect::<Vec<_>>())
}

/// Runs a bundled network on its fixture; the largest error of each output, as a share of what PyTorch's values span.
fn errors(name: &str, dtype: DType) -> Option<Vec<(String, f32)>> {
    let gpu = gpu()?;
    if dtype == DType::F16 && !gpu.target().f16 {
        return None;
    }
    let file =
        format!("{}/tests/fixtures/{}.safetensors", env!("CARGO_MANIFEST_DIR"), name.replace('-', "_"));
    let file = Weights::open(file).unwrap();
    let input = load(&file, "input");
    let model = bundled(name).unwrap().unwrap();
    let mut g = Graph::new();
    let x = g.input("x", input.desc.shape.clone(), DType::F32);
    let (mean, std) = (model.preprocess.mean[0], model.preprocess.std[0]);
    let x = g.affine(x, 1.0 / std, -mean / std).unwrap();
    let x = g.cast(x, dtype).unwrap();
    let outputs = model.build(&mut g, x).unwrap();
    for (name, value) in &outputs {
        let value = g.cast(*value, DType::F32).unwrap();
        g.output(name, value);
    }
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let found = network.run(&[("x", &input)]).unwrap();
    let errors = outputs.iter().zip(&found).map(|((output, _), found)| {
        let expected = load(&file, if outputs.len() == 1 { "output" } else { output });
        assert_eq!(found.desc.shape, expected.desc.shape, "{output}");
        let (found, expected) = (found.to_f32(), expected.to_f32());
        let low = expected.iter().copied().fold(f32::MAX, f32::min);
        let high = expected.iter().copied().fold(f32::MIN, f32::max);
        let worst = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |worst: f32, d| if d.is_nan() { d } else { worst.max(d) });
        (output.clone(), worst / (high - low))
    });
    Some(errors.collect())
}

#[test]
fn every_network_is_pytorchs() {
    for (name, ..) in BUNDLED {
        let Some(errors) = errors(name, DType::F32) else { return };
        for (output, error) in errors {
            println!("{name}, {output}, f32: {error:.1e} of the range");
            assert!(error <= 1e-4, "{name}, {output}: {error:.1e}");
        }
    }
}

#[test]
fn every_network_in_f16() {
    for (name, ..) in BUNDLED {
        let Some(errors) = errors(name, DType::F16) else { return };
        for (output, error) in errors {
            println!("{name}, {output}, f16: {error:.1e} of the range");
            // Each of 8 to 20 layers in a row rounds its results to 11 bits; the style network's 15 instance norms
            // divide by spreads that may be small.
            let allowed = if name.starts_with("style") { 2e-2 } else { 5e-3 };
            assert!(error <= allowed, "{name}, {output}: {error:.1e}");
        }
    }
}

#[test]
fn a_name_that_does_not_ship_is_none() {
    assert!(bundled("upscale-x3").is_none());
}

//! The bundled networks that read pictures against PyTorch (`training/export_vision.py`).

use std::sync::OnceLock;

use aquatint::models::bundled::{BUNDLED, bundled};
use aquatint::{DType, Error, Gpu, Graph, Network, Tensor, Weights};
use image::RgbImage;
use image::imageops::{FilterType, crop_imm, resize};

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

fn example(file: &str) -> RgbImage {
    image::open(format!("{}/examples/pictures/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap().to_rgb8()
}

/// What a network that reads values from 0 to 1 answers to a picture.
fn answers(gpu: &Gpu, name: &str, picture: &RgbImage) -> Vec<Tensor> {
    let values: Vec<f32> = picture.as_raw().iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let input = Tensor::from_f32([1, picture.height() as usize, picture.width() as usize, 3], &values);
    let mut g = Graph::new();
    let x = g.input("x", input.desc.shape.clone(), DType::F32);
    for (name, value) in bundled(name).unwrap().unwrap().build(&mut g, x).unwrap() {
        g.output(&name, value);
    }
    Network::new(gpu, &g).unwrap().run(&[("x", &input)]).unwrap()
}

/// The `picture` that a network makes of one.
fn made(gpu: &Gpu, name: &str, picture: &RgbImage) -> RgbImage {
    let found = answers(gpu, name, picture);
    let [_, h, w, 3] = found[0].desc.shape[..] else { panic!("{}", found[0].desc.shape) };
    let bytes = found[0].to_f32().iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    RgbImage::from_raw(w as u32, h as u32, bytes).unwrap()
}

/// Peak signal-to-noise ratio in dB, without four pixels at each side.
fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let inner = |v: &RgbImage| crop_imm(v, 4, 4, v.width() - 8, v.height() - 8).to_image().into_raw();
    let (a, b) = (inner(a), inner(b));
    let square: f64 = a.iter().zip(&b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / square).log10()
}

#[test]
fn an_enlarged_photograph_is_nearer_to_the_large_one_than_bicubic() {
    let Some(gpu) = gpu() else { return };
    let small = example("coffee-small.png");
    let large = crop_imm(&example("coffee.jpg"), 170, 50, 320, 240).to_image();
    let bicubic = psnr(&resize(&small, 320, 240, FilterType::CatmullRom), &large);
    let network = psnr(&made(gpu, "upscale-x2", &small), &large);
    println!("x2: bicubic {bicubic:.2} dB, network {network:.2} dB");
    assert!(network > bicubic + 1.0, "bicubic {bicubic:.2} dB, network {network:.2} dB");
}

#[test]
fn a_denoised_photograph_is_nearer_to_the_clean_one() {
    let Some(gpu) = gpu() else { return };
    let noisy = example("coffee-noisy.png");
    let clean = crop_imm(&example("coffee.jpg"), 190, 60, 256, 192).to_image();
    let (before, after) = (psnr(&noisy, &clean), psnr(&made(gpu, "denoise", &noisy), &clean));
    println!("noisy {before:.2} dB, denoised {after:.2} dB");
    assert!(after > before + 6.0, "noisy {before:.2} dB, denoised {after:.2} dB");
}

#[derive(serde::Deserialize)]
struct Character {
    label: String,
    #[serde(rename = "box")]
    place: [f32; 4],
}

/// What stands where in `letters.png`.
fn characters() -> Vec<Character> {
    let file = format!("{}/examples/pictures/letters.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Intersection over union.
fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let area = |b: [f32; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    both / (area(a) + area(b) - both)
}

#[test]
fn the_detector_finds_and_reads_most_letters() {
    let Some(gpu) = gpu() else { return };
    let labels = bundled("letters-detector").unwrap().unwrap().labels;
    let found = answers(gpu, "letters-detector", &example("letters.png"));
    let (boxes, scores) = (found[0].to_f32(), found[1].to_f32());
    let candidates: Vec<([f32; 4], &[f32])> =
        boxes.as_chunks().0.iter().copied().zip(scores.chunks_exact(labels.len())).collect();
    let characters = characters();
    let (mut seen, mut read) = (0, 0);
    for character in &characters {
        let best = candidates
            .iter()
            .filter(|(place, _)| overlap(*place, character.place) >= 0.5)
            .flat_map(|(_, scores)| scores.iter().zip(&labels))
            .max_by(|a, b| a.0.total_cmp(b.0));
        let Some((_, label)) = best.filter(|(score, _)| **score > 0.25) else { continue };
        seen += 1;
        read += usize::from(*label == character.label);
    }
    println!("{seen} of {} letters found, {read} read", characters.len());
    assert!(
        seen * 100 >= characters.len() * 85 && read * 100 >= characters.len() * 75,
        "found {seen}, read {read}"
    );
    // Where nothing is written nothing must be found: in the cup and on the table.
    for empty in [[300.0, 30.0, 384.0, 130.0], [0.0, 200.0, 200.0, 256.0]] {
        let wrong = candidates.iter().filter(|(place, scores)| {
            let [x, y] = [0, 1].map(|i| (place[i] + place[i + 2]) / 2.0);
            let inside = (empty[0]..empty[2]).contains(&x) && (empty[1]..empty[3]).contains(&y);
            inside && scores.iter().any(|&score| score > 0.25)
        });
        assert_eq!(wrong.count(), 0, "{empty:?}");
    }
}

#[test]
fn the_segmenter_marks_most_ink_and_little_else() {
    let Some(gpu) = gpu() else { return };
    let picture = example("letters.png");
    let map = answers(gpu, "letters-segmenter", &picture)[0].to_f32();
    let inside = |x: u32, y: u32| {
        let [x, y] = [x, y].map(|v| v as f32 + 0.5);
        characters()
            .iter()
            .any(|c| (c.place[0]..c.place[2]).contains(&x) && (c.place[1]..c.place[3]).contains(&y))
    };
    let marked: Vec<(u32, u32)> = (0..picture.height())
        .flat_map(|y| (0..picture.width()).map(move |x| (x, y)))
        .zip(map.as_chunks::<2>().0)
        .filter(|(_, scores)| scores[1] > scores[0])
        .map(|(place, _)| place)
        .collect();
    let right = marked.iter().filter(|(x, y)| inside(*x, *y)).count();
    println!("{} pixels marked, {right} of them in boxes of letters", marked.len());
    assert!(right * 100 >= marked.len() * 90, "{right} of {} in boxes", marked.len());
    for c in characters() {
        let here = marked.iter().filter(|(x, y)| {
            let [x, y] = [*x, *y].map(|v| v as f32 + 0.5);
            (c.place[0]..c.place[2]).contains(&x) && (c.place[1]..c.place[3]).contains(&y)
        });
        let area = (c.place[2] - c.place[0]) * (c.place[3] - c.place[1]);
        assert!(here.count() as f32 >= 0.25 * area, "{} at {:?}", c.label, c.place);
    }
}

#[test]
fn a_name_that_does_not_ship_is_none() {
    assert!(bundled("upscale-x3").is_none());
}

//! The bundled denoiser of path-traced frames: against PyTorch (`training/export_path_denoise.py`), at odd sizes, and
//! with numbers that are none.

mod hashed;

use aquatint::models::path_denoise::path_denoise;
use aquatint::{DType, Error, Gpu, Network, Tensor, Weights};
use hashed::gpu;

/// A tensor of the fixture, its channels last.
fn load(name: &str) -> Tensor {
    let file = format!("{}/tests/fixtures/path_denoise.safetensors", env!("CARGO_MANIFEST_DIR"));
    let file = Weights::open(file).unwrap();
    let [1, 3, h, w] = file.shape(name).unwrap()[..] else { panic!("{name}") };
    let values = file.tensor(name, &[1, 3, h, w]).unwrap().to_f32();
    let last: Vec<f32> = (0..3 * h * w).map(|i| values[i % 3 * h * w + i / 3]).collect();
    Tensor::from_f32([1, h, w, 3], &last)
}

fn denoised(gpu: &Gpu, dtype: DType, frame: [&Tensor; 3]) -> Vec<f32> {
    let [1, h, w, 3] = frame[0].desc.shape[..] else { panic!("{}", frame[0].desc) };
    let network = Network::new(gpu, &path_denoise(w, h, dtype).unwrap()).unwrap();
    network.poison().unwrap();
    let [color, albedo, normal] = frame;
    let found = network.run(&[("color", color), ("albedo", albedo), ("normal", normal)]).unwrap().remove(0);
    assert_eq!(found.desc, color.desc);
    found.to_f32()
}

#[test]
fn it_is_pytorchs() {
    let Some(gpu) = gpu() else { return };
    let frame = ["color", "albedo", "normal"].map(load);
    let expected = load("denoised").to_f32();
    for dtype in [DType::F32, DType::F16] {
        if dtype == DType::F16 && !gpu.target().f16 {
            continue;
        }
        let found = denoised(gpu, dtype, frame.each_ref());
        // Of a logarithm's scale, on which the network answers: a share of bright values, a difference of dark ones.
        let off = |(a, b): (&f32, &f32)| (a - b).abs() / (b.abs() + 1.0 / 16.0);
        let worst = found
            .iter()
            .zip(&expected)
            .map(off)
            .fold(0.0, |worst: f32, d| if d.is_nan() { d } else { worst.max(d) });
        println!("{dtype:?}: {worst:.1e}");
        // Logarithms are up to 12; 17 layers in a row round to 24 or 11 bits.
        let allowed = if dtype == DType::F32 { 1e-3 } else { 0.1 };
        assert!(worst <= allowed, "{dtype:?}: {worst:.1e}");
    }
}

fn flat(h: usize, w: usize, value: [f32; 3]) -> Tensor {
    Tensor::from_f32([1, h, w, 3], &value.repeat(h * w))
}

#[test]
fn it_takes_frames_of_any_size() {
    let Some(gpu) = gpu() else { return };
    for [h, w] in [[1, 1], [1, 19], [23, 2], [16, 16], [17, 33]] {
        let frame = [flat(h, w, [0.3, 0.2, 0.1]), flat(h, w, [0.6, 0.4, 0.2]), flat(h, w, [0.0, 1.0, 0.0])];
        let found = denoised(gpu, DType::F32, frame.each_ref());
        assert_eq!(found.len(), 3 * h * w);
        // What has no noise stays nearly as it is, whatever lies beyond the edges.
        for (i, (found, expected)) in found.iter().zip([0.3, 0.2, 0.1].into_iter().cycle()).enumerate() {
            assert!(
                (found - expected).abs() < 0.25 * expected,
                "{h}×{w}, number {i}: {found} for {expected}"
            );
        }
    }
}

#[test]
fn whatever_comes_in_what_goes_out_is_finite() {
    let Some(gpu) = gpu() else { return };
    let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -1.0, 0.0, 1e-40, 65504.0];
    let (h, w) = (18, 21);
    // Every bad number beside every other, in all three.
    let mess = |step: usize| {
        let values: Vec<f32> = (0..3 * h * w).map(|i| bad[i * step / 7 % bad.len()]).collect();
        Tensor::from_f32([1, h, w, 3], &values)
    };
    let frames = [
        [mess(1), mess(3), mess(5)],
        [flat(h, w, [f32::NAN; 3]), flat(h, w, [f32::NAN; 3]), flat(h, w, [f32::NAN; 3])],
        [flat(h, w, [f32::INFINITY; 3]), flat(h, w, [0.0; 3]), flat(h, w, [f32::NEG_INFINITY; 3])],
    ];
    for dtype in [DType::F32, DType::F16] {
        if dtype == DType::F16 && !gpu.target().f16 {
            continue;
        }
        for (i, frame) in frames.iter().enumerate() {
            let found = denoised(gpu, dtype, frame.each_ref());
            let wrong = found.iter().filter(|v| !v.is_finite() || **v < 0.0).count();
            assert_eq!(wrong, 0, "frame {i}, {dtype:?}: {wrong} numbers");
        }
    }
}

#[test]
fn frames_without_pixels_are_refused() {
    for [w, h] in [[0, 4], [4, 0]] {
        let error = path_denoise(w, h, DType::F32).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(error.to_string().contains("at least one pixel"), "{error}");
    }
}

#[test]
fn it_is_planned_for_very_large_frames() {
    let target = aquatint::Target::typical();
    for [w, h] in [[1920, 1080], [3840, 2160]] {
        let graph = path_denoise(w, h, DType::F32).unwrap();
        let flops = graph.flops() as f64 / (w * h) as f64;
        println!("{w}×{h}: {:.1} kFLOP a pixel, {} parameters", flops / 1e3, graph.parameters());
        assert!((50e3..65e3).contains(&flops), "{flops}");
        aquatint::Plan::compile(&graph, &target).unwrap();
    }
}

//! Paintings whose device is lost, in the middle of a run or while the picture is decoded: the painter is rebuilt on another
//! device and paints the same picture.

use std::collections::BTreeMap;
use std::path::Path;

use aquatint::cache::Cache;
use aquatint::formats::diffusers::Folder;
use aquatint::gpu::Trouble;
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::tasks::{Canvas, NoiseSource, PaintOptions, Painter, SamplingState, StartFrom, Wish};
use aquatint::text::TextEmbedding;
use aquatint::{AdapterOptions, Error, Gpu, Result, Tensor};
use image::{GrayImage, Luma, Rgb, RgbImage};

use crate::harness::{noise, open};
use crate::hashed::save;

const SIZE: [usize; 2] = [40, 48];
const TOKENS: usize = 5;
/// A picture each; their steps draw noise of their own.
const SEEDS: [u64; 2] = [7, 11];

/// A pipeline of tests/pipelines.rs with weights of its own.
fn pipeline(folder: &Path, case: &str) -> LatentDiffusion {
    let path = format!("{}/tests/fixtures/pipelines.json", env!("CARGO_MANIFEST_DIR"));
    let fixture: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let case = &fixture["cases"][case];
    let index = serde_json::json!({
        "_class_name": case["class_name"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", case["scheduler_class"]],
        "safety_checker": [null, null],
    });
    std::fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
    for (name, part) in [("unet", case["unet"].as_str().unwrap()), ("vae", "vae")] {
        let part = &fixture["parts"][part];
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), part["config"].to_string()).unwrap();
        let tensors = serde_json::from_value(part["tensors"].clone()).unwrap();
        let file = save(&folder, &tensors, &BTreeMap::new(), &[]);
        std::fs::rename(file, folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    }
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    let scheduler = case["scheduler"].as_str().unwrap();
    std::fs::write(folder.join("scheduler/scheduler_config.json"), scheduler).unwrap();
    LatentDiffusion::open(&Folder::open(folder).unwrap()).unwrap()
}

fn text(model: &LatentDiffusion, seed: u32) -> TextEmbedding {
    let width = model.denoiser.config.text_width();
    TextEmbedding { states: Tensor::from_f32([TOKENS, width], &noise(TOKENS * width, seed)), pooled: None }
}

/// Loses the device at places all along a painting, and says after which steps the runs went on.
fn check(case: &str, kind: StartFrom, source: NoiseSource) -> Result<Vec<usize>> {
    let folder = tempfile::tempdir().unwrap();
    // Kernels of earlier devices are at hand: there are many.
    let device = || {
        let cache = Cache::at(folder.path());
        Gpu::with_options(&AdapterOptions { cache, ..AdapterOptions::from_env() })
    };
    let model = pipeline(folder.path(), case);
    let options = PaintOptions {
        height: SIZE[0],
        width: SIZE[1],
        steps: 4,
        guidance: 3.0,
        noise: source,
        ..PaintOptions::of(&model)
    };
    let [h, w] = SIZE.map(|side| side as u32);
    let picture = RgbImage::from_fn(w, h, |x, y| Rgb([x * 5 + y * 2, x * 3, x * y].map(|v| (v % 256) as u8)));
    let inside = |x: u32, y: u32| (12..32).contains(&x) && (8..28).contains(&y);
    let mask = GrayImage::from_fn(w, h, |x, y| Luma([if inside(x, y) { 255 } else { 0 }]));
    let canvas = (kind != StartFrom::Noise).then_some(Canvas { picture: &picture, mask: Some(&mask) });
    let wishes: Vec<Wish> = (0..SEEDS.len() as u32)
        .map(|i| Wish { text: text(&model, i), negative: Some(text(&model, 9)) })
        .collect();

    let first = device()?;
    let mut painter = Painter::new(&first, &model, SEEDS.len(), TOKENS, kind, &options)?;
    let mut run = painter.start(&wishes, &SEEDS, canvas)?;
    first.plant_trouble(Trouble::Loss, u64::MAX);
    run.run_keeping(1, &mut |_| ())?;
    let places = u64::MAX - first.spare_trouble().expect("it is far away");
    let latents = run.latents()?.to_f32();
    first.plant_trouble(Trouble::Loss, u64::MAX);
    let pictures = run.pictures()?;
    let decoding = u64::MAX - first.spare_trouble().expect("it is far away");
    assert!(pictures[0] != pictures[1] && latents.iter().all(|v| v.is_finite()));
    first.keep_pipelines();

    let mut all = vec![places / 2, places + decoding / 2];
    if std::env::var("AQUATINT_TEST_FAULTS").is_ok_and(|v| v == "all") {
        all.extend([places / 6, places - 1, places + decoding - 1]);
    }
    all.sort_unstable();
    let mut resumed_at = Vec::new();
    for place in all {
        let gpu = device()?;
        let mut painter = Painter::new(&gpu, &model, SEEDS.len(), TOKENS, kind, &options)?;
        let mut last: Option<SamplingState> = None;
        let mut run = painter.start(&wishes, &SEEDS, canvas)?;
        gpu.plant_trouble(Trouble::Loss, place);
        match run.run_keeping(1, &mut |state| last = Some(state)).and_then(|()| run.pictures()) {
            Err(Error::DeviceLost { .. }) => {}
            other => panic!("{case}, place {place}: expected a lost device, got {other:?}"),
        }
        let other = device()?;
        let mut rebuilt = painter.rebuild(&other)?;
        drop((painter, gpu));
        let mut rest = match &last {
            None => rebuilt.start(&wishes, &SEEDS, canvas)?,
            Some(state) => {
                let path = folder.path().join("run.safetensors");
                state.save(&path)?;
                rebuilt.resume(&wishes, canvas, &SamplingState::load(&path)?)?
            }
        };
        resumed_at.push(rest.steps_done());
        assert_eq!(rest.pictures()?, pictures, "{case}, place {place} of {places} and {decoding}");
        assert_eq!(rest.latents()?.to_f32(), latents, "{case}, place {place} of {places} and {decoding}");
    }
    assert!(resumed_at.iter().any(|&at| (1..4).contains(&at)), "in the middle: {resumed_at:?}");
    assert_eq!(resumed_at.last(), Some(&4), "while the picture was decoded: {resumed_at:?}");
    Ok(resumed_at)
}

#[test]
fn a_painter_is_rebuilt_and_paints_the_same() -> Result<()> {
    if open().is_none() {
        return Ok(());
    }
    let out_of_noise = check("text.euler-a", StartFrom::Noise, NoiseSource::Cuda)?;
    let masked = check("inpaint.euler-a", StartFrom::Masked, NoiseSource::Cpu)?;
    println!(
        "figure faults painted: paintings of 4 steps, each lost and gone on after steps {out_of_noise:?} out of noise and \
         {masked:?} under a mask to the same bits"
    );
    Ok(())
}

//! Stable Diffusion 3 against diffusers and transformers, from its networks to whole runs (`scripts/references/sd3.py`).

mod hashed;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use aquatint::formats::diffusers::Folder;
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::models::sd3_transformer::{Conditions, Sd3TransformerConfig, sd3_transformer};
use aquatint::models::t5_encoder::{T5EncoderConfig, t5_encoder_graph};
use aquatint::nn::Source;
use aquatint::tasks::{Canvas, NoiseSource, PaintOptions, Painter, Pipeline, StartFrom, Wish};
use aquatint::text::{T5Tokenizer, TextEmbedding, TextEncoders};
use aquatint::{DType, Error, Graph, Network, Target, Tensor, Weights};
use hashed::{compare, gpu, numbers, save};
use image::{GrayImage, Luma, Rgb, RgbImage};

#[derive(serde::Deserialize)]
struct Fixture {
    parts: BTreeMap<String, Part>,
    cases: BTreeMap<String, Case>,
    tokens: Vec<(String, Vec<u32>)>,
    texts: Vec<(String, String)>,
    words: (String, String),
}

#[derive(serde::Deserialize)]
struct Part {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

#[derive(Clone, serde::Deserialize)]
struct Case {
    transformer: String,
    kind: String,
    scheduler_class: String,
    scheduler: String,
    steps: usize,
    guidance: f32,
    strength: Option<f64>,
}

const SIZE: [usize; 2] = [24, 40];
const TOKENS: usize = 7;
const LONG_TOKENS: usize = 24;
const SEED: u64 = 7;

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| serde_json::from_str(&std::fs::read_to_string(path("sd3.json")).unwrap()).unwrap())
}

/// Configuration and weights of a part.
fn part(name: &str) -> (String, Weights) {
    let part = &fixture().parts[name];
    let folder = tempfile::tempdir().unwrap();
    let file = save(folder.path(), &part.tensors, &BTreeMap::new(), &[]);
    (part.config.to_string(), Weights::open(file).unwrap())
}

/// Within `tolerance` of the range.
fn check(file: &str, name: &str, found: &Tensor, tolerance: f64) {
    let wanted = Weights::open(path(file)).unwrap().tensor(name, &found.desc.shape).unwrap().to_f32();
    let (error, _) = compare(&found.to_f32(), &wanted);
    println!("{name}: {error:.1e} of the range");
    assert!(error <= tolerance, "{name}: {error:e}");
}

fn rows(name: &str, shape: &[usize]) -> Tensor {
    Tensor::from_f32(shape, &numbers(name, shape.iter().product()))
}

/// The script's latents `[n, c, h, w]`, channels last.
fn map(name: &str, [n, h, w, c]: [usize; 4]) -> Tensor {
    let planes = numbers(name, n * h * w * c);
    let values: Vec<f32> =
        (0..n * h * w * c).map(|i| planes[(i / (c * h * w) * c + i % c) * h * w + i / c % (h * w)]).collect();
    Tensor::from_f32([n, h, w, c], &values)
}

fn check_transformer(name: &str, size: [usize; 2]) {
    check_transformer_in(DType::F32, name, size, 1e-4);
}

fn check_transformer_in(dtype: DType, name: &str, [h, w]: [usize; 2], tolerance: f64) {
    let Some(gpu) = gpu() else { return };
    let (config, weights) = part(name);
    let config = Sd3TransformerConfig::from_json(&config).unwrap();
    let source = Source { weights: &weights, dtype };
    let given = [
        ("x", map("x", [2, h, w, config.in_channels])),
        ("text", rows("text", &[2, TOKENS, config.joint_attention_dim])),
        ("pooled", rows("pooled", &[2, config.pooled_projection_dim])),
        ("timesteps", Tensor::from_f32([2, 1], &[981.5, 7.0])),
    ];
    let mut g = Graph::new();
    let [x, text, pooled, timesteps] =
        given.each_ref().map(|(name, tensor)| g.input(name, tensor.desc.shape.clone(), DType::F32));
    let [x, text, pooled] = [x, text, pooled].map(|id| g.cast(id, dtype).unwrap());
    let conditions = Conditions { timesteps, text, pooled };
    let y = sd3_transformer(&mut g, &config, source, x, &conditions).unwrap();
    let y = g.cast(y, DType::F32).unwrap();
    g.output("y", y);
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let given = given.each_ref().map(|(name, tensor)| (*name, tensor));
    check("sd3.safetensors", &format!("{name}.output"), &network.run(&given).unwrap()[0], tolerance);
}

#[test]
fn a_transformer() {
    check_transformer("plain", [10, 14]);
}

/// With norms of queries and keys, and a latent of rows that fill no patch.
#[test]
fn a_transformer_as_large() {
    check_transformer("large", [9, 24]);
}

/// With a second attention in its first layers.
#[test]
fn a_transformer_as_medium() {
    check_transformer("medium", [21, 4]);
}

#[test]
fn a_transformer_with_patches_of_three() {
    check_transformer("threes", [6, 17]);
}

/// Numbers of eleven bits, each rounded in every layer.
const HALF_TOLERANCE: f64 = 1e-2;

#[test]
fn networks_in_half_precision() {
    if gpu().is_some_and(|gpu| gpu.target().f16) {
        check_transformer_in(DType::F16, "medium", [21, 4], HALF_TOLERANCE);
        check_t5_in(DType::F16, HALF_TOLERANCE);
    }
}

#[test]
fn t5() {
    check_t5_in(DType::F32, 1e-4);
}

fn check_t5_in(dtype: DType, tolerance: f64) {
    let Some(gpu) = gpu() else { return };
    let (config, weights) = part("t5");
    let config = T5EncoderConfig::from_json(&config).unwrap();
    let tokens: Vec<u32> = (0..200).map(|i| i % config.vocab_size as u32).collect();
    let x = config.embed(&weights, &tokens).unwrap();
    let x = Tensor::from_f32([2, 100, config.d_model], &x.to_f32());
    let graph = t5_encoder_graph(&config, Source { weights: &weights, dtype }, [2, 100]).unwrap();
    let network = Network::new(gpu, &graph).unwrap();
    network.poison().unwrap();
    check("sd3.safetensors", "t5.states", &network.run(&[("embeddings", &x)]).unwrap()[0], tolerance);
    assert!(config.embed(&weights, &[config.vocab_size as u32]).is_err());
}

#[test]
fn tokens_of_t5_are_those_of_transformers() {
    let tokenizer = T5Tokenizer::open(path("t5_tokenizer")).unwrap();
    assert!(fixture().tokens.len() > 300);
    for (text, wanted) in &fixture().tokens {
        let found: Vec<u32> = tokenizer.tokens(text).unwrap().into_iter().map(|(token, _)| token).collect();
        assert_eq!(found, *wanted, "{text:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spiece.model"), "").unwrap();
    let error = T5Tokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("T5TokenizerFast"), "{error}");
}

/// The folder of a pipeline, as `save_pretrained` writes it: with `encoders` that read text, or none.
fn write(folder: &Path, case: &Case, encoders: &[&str]) {
    let mut index = serde_json::json!({
        "_class_name": format!("StableDiffusion3{}Pipeline", case.kind),
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", case.scheduler_class],
        "text_encoder_3": [null, null],
        "tokenizer_3": [null, null],
    });
    let file = |folder: &Path, name: &str, text: &str| {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
    };
    let write_part = |name: &str, part: &str, file_name: &str| {
        let (folder, part) = (folder.join(name), &fixture().parts[part]);
        file(&folder, "config.json", &part.config.to_string());
        let saved = save(&folder, &part.tensors, &BTreeMap::new(), &[]);
        std::fs::rename(saved, folder.join(file_name)).unwrap();
    };
    write_part("transformer", &case.transformer, "diffusion_pytorch_model.safetensors");
    write_part("vae", "vae", "diffusion_pytorch_model.safetensors");
    file(&folder.join("scheduler"), "scheduler_config.json", &case.scheduler);
    for &encoder in encoders {
        let (number, class, tokenizer) = match encoder {
            "clip_l" => ("", "CLIPTextModelWithProjection", "tokenizer"),
            "clip_g" => ("_2", "CLIPTextModelWithProjection", "tokenizer"),
            _ => ("_3", "T5EncoderModel", "t5_tokenizer"),
        };
        index[format!("text_encoder{number}")] = serde_json::json!(["transformers", class]);
        write_part(&format!("text_encoder{number}"), encoder, "model.safetensors");
        let own = folder.join(format!("tokenizer{number}"));
        std::fs::create_dir_all(&own).unwrap();
        for entry in std::fs::read_dir(path(tokenizer)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), own.join(entry.file_name())).unwrap();
        }
        if encoder == "clip_l" {
            std::fs::remove_file(own.join("special_tokens_map.json")).unwrap();
        }
    }
    file(folder, "model_index.json", &index.to_string());
}

fn encoders(third: bool) -> TextEncoders {
    let folder = tempfile::tempdir().unwrap();
    let names = if third { &["clip_l", "clip_g", "t5"][..] } else { &["clip_l", "clip_g"] };
    write(folder.path(), &fixture().cases["text.euler"], names);
    let mut encoders = TextEncoders::open(&Folder::open(folder.path()).unwrap()).unwrap();
    let t5 = encoders.t5.as_mut().unwrap();
    assert_eq!((t5.encoder.is_some(), t5.tokens, t5.width), (third, 256, 20));
    t5.tokens = LONG_TOKENS;
    encoders
}

#[test]
fn embeddings_of_three_encoders() {
    let Some(gpu) = gpu() else { return };
    for (kind, third, count) in [("with", true, 2), ("without", false, 1)] {
        let texts = &fixture().texts[..count];
        let pairs: Vec<(&str, Option<&str>)> =
            texts.iter().map(|(a, b)| (a.as_str(), Some(b.as_str()))).collect();
        for (i, both) in encoders(third).encode(gpu, &pairs, DType::F32).unwrap().iter().enumerate() {
            for (embedding, [states, pooled]) in
                both.iter().zip([["states", "pooled"], ["negative", "negative_pooled"]])
            {
                let check =
                    |what, found| check("sd3.safetensors", &format!("{kind}.{i}.{what}"), found, 1e-5);
                check(states, &embedding.states);
                check(pooled, embedding.pooled.as_ref().unwrap());
            }
        }
    }
}

#[test]
fn the_memory_of_three_encoders_is_predicted() {
    let target = Target::typical();
    let memory = |third| encoders(third).predict(&target, 1, 77 + LONG_TOKENS, DType::F32).unwrap();
    let (three, two) = (memory(true), memory(false));
    assert_eq!((three.len(), two.len()), (3, 2));
    // CLIP reads one chunk of each text, whether there is T5 or not; T5 all its tokens, of 20 numbers, in and out.
    assert_eq!([three[0].held, three[1].held], [two[0].held, two[1].held]);
    assert!(three[0].ports < 77 * 5 * 20 * 4, "{three:?}");
    assert!(three[2].ports >= 2 * (2 * LONG_TOKENS as u64 * 20 * 4), "{three:?}");
}

/// Adapters find T5's weights after those of CLIP's.
#[test]
fn weights_of_three_encoders() {
    let (mut three, mut two) = (encoders(true), encoders(false));
    assert_eq!((three.weights_mut().len(), two.weights_mut().len()), (3, 2));
    assert!(three.weights_mut()[2].contains("shared.weight"));
}

#[test]
fn words_weigh_in_t5_too() {
    let Some(gpu) = gpu() else { return };
    let encoders = encoders(true);
    let states =
        |text: &str| encoders.encode(gpu, &[(text, None)], DType::F32).unwrap()[0][0].states.to_f32();
    let (plain, same, heavy) = (states("a red cat"), states("a (red:1.0) cat"), states("a (red:1.5) cat"));
    assert_eq!(plain, same);
    // T5's tokens stand after 77 of CLIP's. Those of "red" weigh half as much again as its neighbours.
    let tokenizer = &encoders.t5.as_ref().unwrap().encoder.as_ref().unwrap().tokenizer;
    let tokens = tokenizer.tokens("a red cat").unwrap();
    let scales: Vec<f32> =
        (0..tokens.len()).map(|i| heavy[(77 + i) * 20 + 1] / plain[(77 + i) * 20 + 1]).collect();
    for ((_, start), scale) in tokens.iter().zip(&scales) {
        let wanted = if (1..5).contains(start) { 1.5 } else { 1.0 };
        assert!((scale / scales[0] - wanted).abs() < 1e-4, "{tokens:?}: {scales:?}");
    }
}

fn canvas() -> (RgbImage, GrayImage) {
    let [h, w] = SIZE.map(|side| side as u32);
    let wave = |n: u32| (n % 256) as u8;
    let picture =
        RgbImage::from_fn(w, h, |x, y| Rgb([wave(x * 5 + y * 2), wave(x * 3 + y * 5), wave(x * y)]));
    let inside = |x: u32, y: u32| (12..32).contains(&x) && (8..28).contains(&y);
    (picture, GrayImage::from_fn(w, h, |x, y| Luma([if inside(x, y) { 255 } else { 0 }])))
}

/// Latents within 1e-3 of their range: a run goes through the network some times, and guidance multiplies what differs.
/// Pictures within 2 of 255.
fn check_run(name: &str, case: &Case, model: &LatentDiffusion, wish: Wish) {
    let Some(gpu) = gpu() else { return };
    let options = PaintOptions {
        height: SIZE[0],
        width: SIZE[1],
        steps: case.steps,
        guidance: case.guidance,
        strength: case.strength.unwrap_or(1.0),
        noise: NoiseSource::Cpu,
        ..PaintOptions::of(model)
    };
    let (picture, mask) = canvas();
    let kind = match case.kind.as_str() {
        "Img2Img" => StartFrom::Picture,
        "Inpaint" => StartFrom::Masked,
        _ => StartFrom::Noise,
    };
    let canvas = Canvas { picture: &picture, mask: (kind == StartFrom::Masked).then_some(&mask) };
    let canvas = (kind != StartFrom::Noise).then_some(canvas);
    let tokens = wish.text.states.desc.shape[0];
    // A batch of two, of which one is used.
    let mut painter = Painter::new(gpu, model, 2, tokens, kind, &options).unwrap();
    let mut run = painter.start(&[wish], &[SEED], canvas).unwrap();
    let pictures = run.pictures().unwrap();
    let latents = run.latents().unwrap();
    let latents = Tensor::from_f32(&latents.desc.shape[1..], &latents.to_f32());
    check("sd3_runs.safetensors", &format!("{name}.latents"), &latents, 1e-3);
    let all = std::fs::read(path("sd3_runs.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&all).unwrap();
    let wanted = all.tensor(&format!("{name}.picture")).unwrap().data().to_vec();
    let worst = pictures[0].iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    println!("{name}: picture {worst} of 255");
    assert!(worst <= 2, "{name}: {worst} of 255");
}

/// A run told by numbers.
fn check_case(name: &str) {
    let case = &fixture().cases[name];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), case, &[]);
    let model = LatentDiffusion::open(&Folder::open(folder.path()).unwrap()).unwrap();
    let [width, pooled] = [20, 14];
    assert_eq!(
        (model.denoiser.config.text_width(), model.denoiser.config.pooled_width(0)),
        (width, Some(pooled))
    );
    let told = |name: &str| TextEmbedding {
        states: rows(name, &[TOKENS, width]),
        pooled: Some(rows(&format!("{name}.pooled"), &[pooled])),
    };
    check_run(name, case, &model, Wish { text: told("text"), negative: Some(told("negative")) });
}

macro_rules! cases {
    ($($test:ident $name:literal)*) => { $(#[test] fn $test() { check_case($name); })* };
}

cases! {
    text_euler "text.euler"
    text_with_a_shift_by_size "text.dynamic"
    text_without_guidance "text.turbo"
    text_heun "text.heun"
    text_with_fresh_noise "text.stochastic"
    text_dual "text.dual"
    picture_euler "picture.euler"
    picture_by_half "picture.half"
    blend_euler "blend.euler"
    blend_part "blend.part"
}

#[test]
fn every_case_is_checked() {
    let source = include_str!("sd3.rs");
    for name in fixture().cases.keys() {
        assert!(source.contains(&format!("\"{name}\"\n")), "{name} is not checked");
    }
}

/// From words to a picture.
#[test]
fn words() {
    let Some(gpu) = gpu() else { return };
    let case = &fixture().cases["text.euler"];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), case, &["clip_l", "clip_g", "t5"]);
    assert!(Pipeline::is_at(folder.path()));
    let Pipeline { model, text } = Pipeline::open(folder.path(), None).unwrap();
    let (wanted, unwanted) = &fixture().words;
    let [text, negative] = text.encode(gpu, &[(wanted, Some(unwanted))], DType::F32).unwrap().remove(0);
    check_run("words", case, &model, Wish { text, negative: Some(negative) });
}

#[test]
fn habits_are_those_of_the_authors() {
    let habits = |name: &str, transformer: &str| {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let case = Case { transformer: transformer.to_owned(), ..fixture().cases["text.euler"].clone() };
        write(&folder, &case, &[]);
        let model = LatentDiffusion::open(&Folder::open(&folder).unwrap()).unwrap();
        assert_eq!((model.size(), model.multiple()), ([32, 32], 8));
        model.habits()
    };
    assert_eq!(habits("stable-diffusion-3", "tiny"), (28, 7.0));
    assert_eq!(habits("stable-diffusion-3.5-medium", "tiny_dual"), (40, 4.5));
    assert_eq!(habits("stable-diffusion-3.5-large-Turbo", "tiny"), (4, 1.0));
}

#[test]
fn what_does_not_fit_is_said() {
    let Some(gpu) = gpu() else { return };
    for (text, named) in [
        (r#"{"qk_norm": "layer_norm"}"#, "qk_norm"),
        (r#"{"caption_projection_dim": 7}"#, "caption_projection_dim"),
        (r#"{"dual_attention_layers": [18]}"#, "dual_attention_layers"),
        (r#"{"num_layers": 0}"#, "num_layers"),
        (r#"{"_class_name": "FluxTransformer2DModel"}"#, "FluxTransformer2DModel"),
    ] {
        let error = Sd3TransformerConfig::from_json(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }

    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &fixture().cases["text.euler"], &[]);
    let open = || LatentDiffusion::open(&Folder::open(folder.path()).unwrap());
    let model = open().unwrap();
    let options = PaintOptions { height: 24, width: 40, steps: 2, ..PaintOptions::of(&model) };
    let refused = |options: &PaintOptions, says: &str| {
        let error = Painter::new(gpu, &model, 1, TOKENS, StartFrom::Noise, options).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(&PaintOptions { height: 28, ..options.clone() }, "multiples of 8");
    // The table of positions ends at 12 patches.
    refused(&PaintOptions { height: 104, ..options.clone() }, "2 to 24 pixels high and wide");
    refused(&PaintOptions { sampler: "dpm++2m".parse().unwrap(), ..options.clone() }, "euler or heun");

    // An encoder of another class, and no encoder at all.
    let error = TextEncoders::open(&Folder::open(folder.path()).unwrap()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let index = folder.path().join("model_index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let llama = text.replace(r#""text_encoder_3":[null,null]"#, r#""text_encoder_3":["t","LlamaModel"]"#);
    assert_ne!(text, llama);
    std::fs::write(&index, llama).unwrap();
    let error = TextEncoders::open(&Folder::open(folder.path()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("LlamaModel") || error.contains("text_encoder"), "{error}");

    std::fs::write(&index, text.replace("SD3Transformer2DModel", "FluxTransformer2DModel")).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("FluxTransformer2DModel") && error.contains("SD3Transformer2DModel"), "{error}");
}

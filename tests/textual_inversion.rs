//! Prompts with learnt words against diffusers (`scripts/references/textual_inversion.py`).

mod hashed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aquatint::formats::textual_inversion::TextualInversion;
use aquatint::models::clip_text::ClipTextConfig;
use aquatint::text::{TextEmbedding, TextEncoder, TextEncoders, Tokenizer};
use aquatint::{DType, Error, Weights};
use hashed::{compare, gpu, numbers, save};
use safetensors::tensor::{Dtype, TensorView};

#[derive(serde::Deserialize)]
struct Fixture {
    files: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    prompts: Vec<String>,
    xl_prompts: Vec<String>,
}

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

fn fixture() -> Fixture {
    serde_json::from_value(json("textual_inversion.json")).unwrap()
}

/// A file of hashed vectors, with integers beside them if `tokens`.
fn write(folder: &Path, stem: &str, tensors: &[(&str, &[usize])], tokens: bool) -> PathBuf {
    let bytes = |name: &str, shape: &[usize]| -> Vec<u8> {
        numbers(name, shape.iter().product()).iter().flat_map(|v| v.to_le_bytes()).collect()
    };
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(name, shape)| bytes(name, shape)).collect();
    let mut views: Vec<(&str, TensorView)> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape), bytes)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()))
        .collect();
    if tokens {
        views.push(("string_to_token.*", TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap()));
    }
    let path = folder.join(format!("{stem}.safetensors"));
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

/// The script's file of a name.
fn inversion(name: &str) -> TextualInversion {
    let folder = tempfile::tempdir().unwrap();
    let fixture = fixture();
    let tensors: Vec<(&str, &[usize])> =
        fixture.files[name].iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    TextualInversion::open(write(folder.path(), name, &tensors, false)).unwrap()
}

fn encoders(names: &[&str]) -> TextEncoders {
    let open = |name: &&str| {
        let part = &json("text.json")["encoders"][name];
        let tensors: BTreeMap<String, Vec<usize>> = serde_json::from_value(part["tensors"].clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut tokenizer = Tokenizer::open(path("tokenizer")).unwrap();
        if *name == "one" {
            tokenizer.pad = tokenizer.end;
        }
        TextEncoder {
            config: ClipTextConfig::from_json(&part["config"].to_string()).unwrap(),
            weights: Weights::open(save(folder.path(), &tensors, &BTreeMap::new(), &[])).unwrap(),
            tokenizer,
        }
    };
    let encoders: Vec<TextEncoder> = names.iter().map(open).collect();
    TextEncoders { xl: encoders.len() == 2, encoders, clip_skip: 0, zeros_for_none: true, t5: None }
}

fn encode(encoders: &TextEncoders, prompt: &str) -> TextEmbedding {
    let [wanted, _] = &encoders.encode(gpu().unwrap(), &[(prompt, None)], DType::F32).unwrap()[0];
    wanted.clone()
}

/// Within 1e-5 of the range, as prompts without such words.
fn check(name: &str, found: &[f32], shape: &[usize]) {
    let file = Weights::open(path("textual_inversion.safetensors")).unwrap();
    let wanted = file.tensor(name, shape).unwrap().to_f32();
    let (error, _) = compare(&found[..wanted.len()], &wanted);
    println!("{name}: {error:.1e} of the range");
    assert!(error <= 1e-5, "{name}: {error:e}");
}

#[test]
fn words_of_stable_diffusion() {
    if gpu().is_none() {
        return;
    }
    let mut encoders = encoders(&["one"]);
    assert_eq!(encoders.learn(&inversion("toy")).unwrap(), ["<cat-toy>", "toy"]);
    assert_eq!(encoders.learn(&inversion("easyneg")).unwrap(), ["easyneg"]);
    for (i, prompt) in fixture().prompts.iter().enumerate() {
        check(&format!("one.{i}.states"), &encode(&encoders, prompt).states.to_f32(), &[20, 24]);
    }
    // The file's name is a word too, and letters of either case are one, also before several vectors.
    let states = |prompt: &str| encode(&encoders, prompt).states.to_f32();
    assert_eq!(states("a toy, EasyNeg"), states("a <cat-toy>, easyneg"));
    assert_ne!(states("a toyshop"), states("a <cat-toy>shop"));
}

#[test]
fn words_of_xl() {
    if gpu().is_none() {
        return;
    }
    let mut encoders = encoders(&["one", "two"]);
    // As wide as the first alone: the second reads the word as it is written.
    assert_eq!(encoders.learn(&inversion("toy")).unwrap(), ["<cat-toy>", "toy"]);
    assert_eq!(encoders.learn(&inversion("night-style")).unwrap(), ["night-style"]);
    for (i, prompt) in fixture().xl_prompts.iter().enumerate() {
        let found = encode(&encoders, prompt);
        check(&format!("xl.{i}.states"), &found.states.to_f32(), &[20, 40]);
        check(&format!("xl.{i}.pooled"), &found.pooled.unwrap().to_f32(), &[12]);
    }
}

#[test]
fn words_weigh_and_stay_in_one_chunk() {
    if gpu().is_none() {
        return;
    }
    let mut encoders = encoders(&["one"]);
    encoders.learn(&inversion("easyneg")).unwrap();
    let states = |prompt: &str| encode(&encoders, prompt).states.to_f32();
    let (plain, heavy) = (states("a easyneg cat"), states("a (easyneg:1.5) cat"));
    // After the beginning and "a": three vectors half as heavy again as what stands around them.
    let ratio = |row: usize| heavy[row * 24 + 1] / plain[row * 24 + 1];
    for row in 2..5 {
        assert!((ratio(row) / ratio(1) - 1.5).abs() < 1e-4, "row {row}");
    }
    assert!((ratio(5) / ratio(1) - 1.0).abs() < 1e-4);

    // Room for two more: all three go to the next chunk.
    let chunk = 77 * 24;
    let parted = states(&format!("{}easyneg cat", "cat ".repeat(73)));
    assert_eq!(parted.len(), 2 * chunk);
    assert_eq!(parted[chunk..], states("easyneg cat"));
    assert_eq!(parted[..chunk], states(&"cat ".repeat(73)));
    // Room for three.
    assert_eq!(states(&format!("{}easyneg", "cat ".repeat(72))).len(), chunk);
}

#[test]
fn layouts_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let words = |stem: &str, tensors: &[(&str, &[usize])], tokens| {
        let file = TextualInversion::open(write(folder.path(), stem, tensors, tokens)).unwrap();
        encoders(&["one"]).learn(&file).unwrap()
    };
    assert_eq!(words("old", &[("string_to_param.*", &[2, 24])], true), ["old"]);
    assert_eq!(words("Bad Hands", &[("*", &[1, 24])], false), ["Bad Hands"]);
    assert_eq!(words("<s>", &[("<S>", &[24])], false), ["<S>"]);
    assert_eq!(words("both", &[("<s0>", &[24]), ("<s1>", &[2, 24])], false), ["<s0>", "<s1>"]);
    assert_eq!(words("first", &[("clip_l", &[24])], false), ["first"]);
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        |tensors: &[(&str, &[usize])]| TextualInversion::open(write(folder.path(), "word", tensors, false));
    for shape in [&[2, 3, 24][..], &[], &[0, 24], &[3, 0]] {
        let error = open(&[("<word>", shape)]).unwrap_err();
        assert!(matches!(&error, Error::WrongTensor { name, .. } if name == "<word>"), "{error}");
    }
    assert!(matches!(open(&[]).unwrap_err(), Error::Format { .. }));
    assert!(matches!(open(&[(" ", &[24])]).unwrap_err(), Error::Format { .. }));

    let mut encoders = encoders(&["one", "two"]);
    let mut refused = |tensors: &[(&str, &[usize])], says: &str| {
        let error = encoders.learn(&open(tensors).unwrap()).unwrap_err();
        assert!(matches!(error, Error::WrongTensor { .. }) && error.to_string().contains(says), "{error}");
    };
    refused(&[("<word>", &[2, 25])], "[k, 24] or [k, 16]");
    refused(&[("clip_l", &[2, 16]), ("clip_g", &[2, 16])], "[k, 24]");
    refused(&[("<word>", &[76, 24])], "at most 75 vectors");
    // Nothing was changed by the sound part of a file.
    refused(&[("<a>", &[24]), ("<b>", &[5])], "[k, 24] or [k, 16]");
    assert!(!encoders.encoders[0].tokenizer.knows("<a>"));
    let mut one = self::encoders(&["one"]);
    let error = one.learn(&open(&[("clip_l", &[24]), ("clip_g", &[16])]).unwrap()).unwrap_err();
    assert!(error.to_string().contains("2 encoders"), "{error}");
    one.learn(&open(&[("<word>", &[24])]).unwrap()).unwrap();
    let error = one.learn(&open(&[("<WORD>", &[24])]).unwrap()).unwrap_err();
    assert!(matches!(&error, Error::Invalid { found, .. } if found == "<WORD>"), "{error}");
}

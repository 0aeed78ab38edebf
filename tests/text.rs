//! Tokens and embeddings of text against transformers and diffusers (`scripts/references/text.py`).

mod hashed;

use std::collections::BTreeMap;

use aquatint::models::clip_text::ClipTextConfig;
use aquatint::text::{TextEmbedding, TextEncoder, TextEncoders, Tokenizer};
use aquatint::{DType, Error, Target, Tensor, Weights};
use hashed::{compare, gpu, save};

#[derive(serde::Deserialize)]
struct Fixture {
    tokens: Vec<(String, Vec<u32>)>,
    texts: Vec<(String, String)>,
    encoders: BTreeMap<String, Encoder>,
}

#[derive(serde::Deserialize)]
struct Encoder {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

fn path(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn fixture() -> Fixture {
    serde_json::from_str(&std::fs::read_to_string(path("text.json")).unwrap()).unwrap()
}

fn same_tokens(tokenizer: &Tokenizer, texts: &[(String, Vec<u32>)]) {
    assert!(texts.len() > 1000);
    let wrong: Vec<_> = texts
        .iter()
        .filter_map(|(text, wanted)| {
            let found = tokenizer.tokens(text).unwrap();
            (found != *wanted).then_some((text, found, wanted))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}: {:?}", wrong.len(), texts.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn tokens_are_those_of_transformers() {
    same_tokens(&Tokenizer::open(path("tokenizer")).unwrap(), &fixture().tokens);
}

/// The bundled vocabulary, whose numbers of "a photo of a cat" stand in CLIP's own documentation.
#[test]
fn tokens_of_clip_are_those_of_transformers() {
    let tokenizer = Tokenizer::clip(None).unwrap();
    let texts = std::fs::read_to_string(path("clip_tokens.json")).unwrap();
    let texts: Vec<(String, Vec<u32>)> = serde_json::from_str(&texts).unwrap();
    assert_eq!(texts[0], ("a photo of a cat".to_owned(), vec![320, 1125, 539, 320, 2368]));
    same_tokens(&tokenizer, &texts);
    assert_eq!((tokenizer.begin, tokenizer.end, tokenizer.pad), (49406, 49407, 49407));
    assert_eq!(Tokenizer::clip(Some("!")).unwrap().pad, 0);
    assert!(matches!(Tokenizer::clip(Some("<no>")), Err(Error::Unknown { .. })));
}

/// The same tokens from the one file that newer libraries write.
#[test]
fn both_kinds_of_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = std::fs::read_to_string(path("tokenizer/vocab.json")).unwrap();
    let merges = std::fs::read_to_string(path("tokenizer/merges.txt")).unwrap();
    let vocabulary: serde_json::Value = serde_json::from_str(&vocabulary).unwrap();
    let merges: Vec<&str> = merges.lines().skip(1).collect();
    let text = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "unk_token": "<|endoftext|>", "end_of_word_suffix": "</w>",
                   "continuing_subword_prefix": "", "vocab": vocabulary, "merges": merges },
    });
    std::fs::write(folder.path().join("tokenizer.json"), text.to_string()).unwrap();
    let [one, other] =
        [folder.path().to_str().unwrap().to_owned(), path("tokenizer")].map(|p| Tokenizer::open(p).unwrap());
    assert_eq!(one.tokens("Photograph").unwrap(), other.tokens("photograph").unwrap());
    assert_eq!((one.begin, one.end, one.length), (other.begin, other.end, 77));
    // This folder does not say what the room that is left is filled with.
    assert_eq!((one.pad, other.pad), (one.end, other.tokens("!").unwrap()[0] - 256));

    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(Tokenizer::open(folder.path()), Err(Error::Format { .. })));
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert!(matches!(Tokenizer::open(folder.path()), Err(Error::Io { .. })));
}

fn encoder(name: &str, pad: Option<&str>) -> TextEncoder {
    let part = &fixture().encoders[name];
    let folder = tempfile::tempdir().unwrap();
    let file = save(folder.path(), &part.tensors, &BTreeMap::new(), &[]);
    let mut tokenizer = Tokenizer::open(path("tokenizer")).unwrap();
    if pad.is_none() {
        tokenizer.pad = tokenizer.end;
    }
    TextEncoder {
        config: ClipTextConfig::from_json(&part.config.to_string()).unwrap(),
        weights: Weights::open(file).unwrap(),
        tokenizer,
    }
}

/// Within 1e-5 of the range: some layers of sums of some dozen products.
fn check(name: &str, found: &Tensor) {
    let file = Weights::open(path("text.safetensors")).unwrap();
    let wanted = file.tensor(name, &found.desc.shape).unwrap().to_f32();
    let (error, _) = compare(&found.to_f32(), &wanted);
    println!("{name}: {error:.1e} of the range");
    assert!(error <= 1e-5, "{name}: {error:e}");
}

fn first_chunk(embedding: &TextEmbedding) -> Tensor {
    let width = embedding.states.desc.shape.last();
    Tensor::from_f32([77, width], &embedding.states.to_f32()[..77 * width])
}

#[test]
fn embeddings_of_stable_diffusion() {
    let Some(gpu) = gpu() else { return };
    let encoders = TextEncoders {
        encoders: vec![encoder("one", None)],
        xl: false,
        clip_skip: 0,
        zeros_for_none: true,
        t5: None,
    };
    for (i, (text, negative)) in fixture().texts.iter().enumerate() {
        let [wanted, unwanted] = &encoders.encode(gpu, &[(text, Some(negative))], DType::F32).unwrap()[0];
        assert!(wanted.pooled.is_none());
        check(&format!("one.{i}.states"), &first_chunk(wanted));
        check(&format!("one.{i}.negative"), &first_chunk(unwanted));
    }
}

#[test]
fn embeddings_of_xl() {
    let Some(gpu) = gpu() else { return };
    let parts = vec![encoder("one", None), encoder("two", Some("!"))];
    let encoders = TextEncoders { encoders: parts, xl: true, clip_skip: 0, zeros_for_none: true, t5: None };
    let texts = fixture().texts;
    // All at once: prompts do not disturb each other.
    let pairs: Vec<(&str, Option<&str>)> =
        texts.iter().map(|(a, b)| (a.as_str(), Some(b.as_str()))).collect();
    for (i, [wanted, unwanted]) in encoders.encode(gpu, &pairs, DType::F32).unwrap().iter().enumerate() {
        check(&format!("xl.{i}.states"), &first_chunk(wanted));
        check(&format!("xl.{i}.negative"), &first_chunk(unwanted));
        check(&format!("xl.{i}.pooled"), wanted.pooled.as_ref().unwrap());
        check(&format!("xl.{i}.negative_pooled"), unwanted.pooled.as_ref().unwrap());
    }
    // What is not given is nothing.
    let [_, absent] = &encoders.encode(gpu, &[("a cat", None)], DType::F32).unwrap()[0];
    assert!(
        absent.states.to_f32().iter().chain(&absent.pooled.as_ref().unwrap().to_f32()).all(|v| *v == 0.0)
    );
}

#[test]
fn memory_is_known_before() {
    let parts = vec![encoder("one", None), encoder("two", Some("!"))];
    let encoders = TextEncoders { encoders: parts, xl: true, clip_skip: 0, zeros_for_none: true, t5: None };
    let predict = |prompts: usize, tokens: usize, dtype: DType| {
        encoders.predict(&Target::typical(), prompts, tokens, dtype).unwrap()
    };
    let [one, two] = predict(1, 77, DType::F32)[..] else { panic!("two encoders") };
    for (memory, name) in [(one, "one"), (two, "two")] {
        let layers = fixture().encoders[name].tensors.clone();
        let layers = layers.iter().filter(|(name, _)| name.contains("encoder.layers"));
        // The last layer's weights are not all read; activations of two texts come to them.
        let weights: u64 = layers.map(|(_, shape)| 4 * shape.iter().product::<usize>() as u64).sum();
        assert!(memory.held > weights / 2 && memory.peak >= memory.held && memory.ports > 0, "{memory:?}");
    }
    assert!(predict(1, 154, DType::F32)[0].held > one.held);
    assert!(predict(2, 77, DType::F32)[0].held > one.held);
    assert!(predict(1, 77, DType::F16)[0].held < one.held);
}

#[test]
fn long_prompts_are_taken_in_chunks_and_words_weigh() {
    let Some(gpu) = gpu() else { return };
    let encoders = TextEncoders {
        encoders: vec![encoder("one", None)],
        xl: false,
        clip_skip: 0,
        zeros_for_none: true,
        t5: None,
    };
    let encode = |text: &str| encoders.encode(gpu, &[(text, None)], DType::F32).unwrap()[0].clone();
    let states = |embedding: &TextEmbedding| embedding.states.to_f32();
    // Two chunks, and the negative text has as many.
    let [long, negative] = encode(&"cat ".repeat(100));
    assert_eq!(
        (&long.states.desc.shape[..], &negative.states.desc.shape[..]),
        (&[154, 24][..], &[154, 24][..])
    );
    let [parted, _] = encode("red cat BREAK blue cat");
    let [[red, _], [blue, _]] = ["red cat", "blue cat"].map(encode);
    assert_eq!(states(&parted), [states(&red), states(&blue)].concat());

    let [plain, _] = encode("a red cat");
    let [same, _] = encode("a (red:1.0) cat");
    assert_eq!(states(&plain), states(&same));
    let [heavy, _] = encode("a (red:1.5) cat");
    let mean = |v: &[f32]| v.iter().map(|x| f64::from(*x)).sum::<f64>() / v.len() as f64;
    let (plain, heavy) = (states(&plain), states(&heavy));
    assert!((mean(&plain) - mean(&heavy)).abs() < 1e-5);
    // The third row is "red": half as much again as its neighbours.
    let ratio = |row: usize| heavy[row * 24 + 1] / plain[row * 24 + 1];
    assert!((ratio(2) / ratio(1) - 1.5).abs() < 1e-4 && (ratio(3) / ratio(1) - 1.0).abs() < 1e-4);
}

#[test]
fn settings_that_are_not_here_are_named() {
    let error = ClipTextConfig::from_json(r#"{"hidden_act": "relu"}"#).unwrap_err().to_string();
    assert!(error.contains("hidden_act") && error.contains("relu"), "{error}");
    let error = ClipTextConfig::from_json(r#"{"hidden_size": 10, "num_attention_heads": 3}"#).unwrap_err();
    assert!(error.to_string().contains("num_attention_heads"), "{error}");
}

//! Models by their names, from a hub on this machine.
#![cfg(feature = "hub")]

mod hashed;
mod hub_server;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aquatint::formats::diffusers::Folder;
use aquatint::formats::hub::{Options, fetch};
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::{Error, HubError};
use hub_server::{
    Answer, COMMIT, Files, REPOSITORY, Request, Server, WEIGHTS, checksum, files, get, list, problem,
    repository, right, small,
};
use tempfile::{TempDir, tempdir};

fn offline(options: &Options) -> Options {
    Options { offline: true, ..options.clone() }
}

/// That the cache has these, whole, where the hub's own libraries look for them.
fn check(folder: &Path, wanted: &Files, options: &Options) {
    assert_eq!(folder, repository(options).join("snapshots").join(COMMIT));
    assert_eq!(files(folder), wanted.keys().cloned().collect());
    for (name, bytes) in wanted {
        assert!(std::fs::read(folder.join(name)).unwrap() == *bytes, "{name}");
        let blob = repository(options).join("blobs").join(checksum(name, bytes));
        assert_eq!(folder.join(name).canonicalize().unwrap(), blob.canonicalize().unwrap());
    }
    let blobs = files(&repository(options).join("blobs"));
    assert_eq!(blobs, wanted.iter().map(|(name, bytes)| checksum(name, bytes)).collect());
}

fn only(all: &Files, unwanted: impl Fn(&str) -> bool) -> Files {
    all.iter()
        .filter(|(name, _)| !unwanted(name))
        .map(|(name, bytes)| (name.clone(), bytes.clone()))
        .collect()
}

/// The files of a pipeline of latent diffusion that opens; its UNet in two files.
fn pipeline() -> Files {
    #[derive(serde::Deserialize)]
    struct Fixture {
        parts: BTreeMap<String, Part>,
        cases: BTreeMap<String, serde_json::Value>,
    }
    #[derive(serde::Deserialize)]
    struct Part {
        config: serde_json::Value,
        tensors: BTreeMap<String, Vec<usize>>,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pipelines.json");
    let fixture: Fixture = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let folder = tempdir().unwrap();
    let save = |tensors: &BTreeMap<String, Vec<usize>>| {
        std::fs::read(hashed::save(folder.path(), tensors, &BTreeMap::new(), &[])).unwrap()
    };
    let index = serde_json::json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": true,
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": [null, null],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    let (unet, vae) = (&fixture.parts["sd"], &fixture.parts["vae"]);
    let shard = |i: usize| format!("diffusion_pytorch_model-{i:05}-of-00002.safetensors");
    let half = |wanted: usize| {
        let tensors = unet.tensors.iter().enumerate().filter(|(i, _)| i % 2 == wanted);
        tensors.map(|(_, (name, shape))| (name.clone(), shape.clone())).collect::<BTreeMap<_, _>>()
    };
    let map: BTreeMap<&String, String> =
        unet.tensors.keys().enumerate().map(|(i, name)| (name, shard(i % 2 + 1))).collect();
    let map = serde_json::json!({ "metadata": {}, "weight_map": map });
    let scheduler = fixture.cases["text.ddim"]["scheduler"].as_str().unwrap();
    let other = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
    BTreeMap::from([
        ("model_index.json".to_owned(), index.to_string().into_bytes()),
        ("scheduler/scheduler_config.json".to_owned(), scheduler.into()),
        ("unet/config.json".to_owned(), unet.config.to_string().into_bytes()),
        ("unet/diffusion_pytorch_model.safetensors.index.json".to_owned(), map.to_string().into_bytes()),
        (format!("unet/{}", shard(1)), save(&half(0))),
        (format!("unet/{}", shard(2)), save(&half(1))),
        ("vae/config.json".to_owned(), vae.config.to_string().into_bytes()),
        ("vae/diffusion_pytorch_model.safetensors".to_owned(), save(&vae.tensors)),
        other("text_encoder/config.json"),
        // In f16 only.
        other("text_encoder/model.fp16.safetensors"),
        other("tokenizer/merges.txt"),
        other("tokenizer/special_tokens_map.json"),
        other("tokenizer/tokenizer_config.json"),
        other("tokenizer/vocab.json"),
    ])
}

#[test]
fn a_pipeline_is_fetched_once_and_then_needs_no_hub() {
    let wanted = pipeline();
    let mut all = wanted.clone();
    for unwanted in [
        "README.md",
        "whole.safetensors",
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ] {
        all.insert(unwanted.to_owned(), unwanted.into());
    }
    let (server, cache) = (Server::new(all), tempdir().unwrap());
    let options = server.options(&cache);

    let mut heard = Vec::new();
    let folder = fetch(REPOSITORY, &options, &mut |at| {
        heard.push((at.file.to_owned(), at.done, at.total));
        true
    });
    let folder = folder.unwrap();
    check(&folder, &wanted, &options);
    assert_eq!(std::fs::read_to_string(repository(&options).join("refs/main")).unwrap(), COMMIT);
    let model = LatentDiffusion::open(&Folder::open(&folder).unwrap()).unwrap();
    assert_eq!((model.denoiser.config.in_channels(), model.vae.config.latent_channels()), (4, 4));

    let bytes: usize = wanted.values().map(Vec::len).sum();
    assert_eq!(heard.last().map(|(_, done, total)| (*done, *total)), Some((bytes as u64, bytes as u64)));
    assert!(heard.iter().all(|(_, done, total)| done <= total));
    assert!(heard.is_sorted_by_key(|(_, done, _)| *done));
    // What is small and says what the model is comes before the weights.
    let first_weights = heard.iter().position(|(file, ..)| file.ends_with(".safetensors")).unwrap();
    assert!(heard[first_weights..].iter().all(|(file, ..)| file.ends_with(".safetensors")));

    // Nothing is asked for twice.
    assert_eq!(server.files_asked_for().len(), wanted.len());
    assert_eq!(get(REPOSITORY, &options).unwrap(), folder);
    assert_eq!(server.requests().len(), 1);

    drop(server);
    for options in [offline(&options), options.clone()] {
        let again = fetch(REPOSITORY, &options, &mut |_| panic!("nothing is there to download"));
        assert_eq!(again.unwrap(), folder);
    }
}

#[test]
fn networks_alone_and_files_by_their_names() {
    let all: Files = [
        "config.json",
        "scheduler_config.json",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "README.md",
        "more/a file.safetensors",
        "net.onnx",
        "net.onnx.data",
    ]
    .map(|name| (name.to_owned(), name.as_bytes().to_vec()))
    .into();
    let server = Server::new(all.clone());
    let fetched = |name: &str, path: &str, wanted: &[&str]| {
        let cache = tempdir().unwrap();
        let options = server.options(&cache);
        let snapshot = repository(&options).join("snapshots").join(COMMIT);
        for options in [options.clone(), offline(&options)] {
            assert_eq!(get(name, &options).unwrap(), snapshot.join(path));
        }
        check(&snapshot, &only(&all, |file| !wanted.contains(&file)), &options);
    };
    let network = ["config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"];
    fetched(REPOSITORY, "", &network);
    for revision in ["v1", "refs/pr/1", COMMIT] {
        fetched(&format!("{REPOSITORY}@{revision}"), "", &network);
    }
    fetched(
        &format!("{REPOSITORY}/more/a file.safetensors"),
        "more/a file.safetensors",
        &["more/a file.safetensors"],
    );
    fetched(&format!("{REPOSITORY}/net.onnx@v1"), "net.onnx", &["net.onnx", "net.onnx.data"]);
}

#[test]
fn pipelines_of_one_network_may_have_its_files_beside_the_index() {
    let flat: Files = small()
        .into_iter()
        .map(|(name, bytes)| (name.rsplit('/').next().unwrap().to_owned(), bytes))
        .collect();
    let (server, cache) = (Server::new(flat.clone()), tempdir().unwrap());
    let options = server.options(&cache);
    check(&get(REPOSITORY, &options).unwrap(), &flat, &options);
}

/// Answers to requests for the weights.
fn weights_fault(server: &Server, mut fault: impl FnMut(&Request) -> Answer + Send + 'static) {
    server.fault(move |request| (request.file() == Some(WEIGHTS)).then(|| fault(request)));
}

/// A small pipeline whose download broke off after 20,000 bytes of the weights.
fn broken_off() -> (Server, TempDir) {
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let mut room = 20_000;
    weights_fault(&server, move |request| right(request, &small()).cut(std::mem::take(&mut room)));
    let options = server.options(&cache);
    let found = problem(get(REPOSITORY, &options));
    assert!(
        matches!(&found, HubError::BrokeOff { file, received: 20_000, size: 50_000, .. } if file == WEIGHTS),
        "{found:?}"
    );
    // Nothing counts as whole: not for this crate, not for others.
    let blobs = files(&repository(&options).join("blobs"));
    assert!(!blobs.contains(&checksum(WEIGHTS, &small()[WEIGHTS])), "{blobs:?}");
    assert!(!files(&repository(&options).join("snapshots")).contains(&format!("{COMMIT}/{WEIGHTS}")));
    let found = problem(get(REPOSITORY, &offline(&options)));
    assert!(matches!(&found, HubError::NotCached { file, .. } if file == WEIGHTS), "{found:?}");
    server.heal();
    server.requests();
    (server, cache)
}

#[test]
fn a_download_that_broke_off_goes_on() {
    let (server, cache) = broken_off();
    let options = server.options(&cache);
    let mut first = None;
    let folder = fetch(REPOSITORY, &options, &mut |at| {
        first.get_or_insert(at.done);
        assert_eq!(at.total, 50_000);
        true
    });
    check(&folder.unwrap(), &small(), &options);
    assert!(first > Some(20_000));
    let requests = server.requests();
    let weights = requests.iter().find(|request| request.file() == Some(WEIGHTS)).unwrap();
    assert_eq!(weights.header("range"), Some("bytes=20000-"));
}

#[test]
fn a_hub_that_does_not_continue_files_sends_them_anew() {
    let (server, cache) = broken_off();
    let options = server.options(&cache);
    let weights = small()[WEIGHTS].clone();
    weights_fault(&server, move |_| Answer::new(200, &*weights));
    check(&get(REPOSITORY, &options).unwrap(), &small(), &options);
}

#[test]
fn connections_that_each_bring_something_are_enough() {
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let options = server.options(&cache);
    weights_fault(&server, |request| right(request, &small()).cut(7_000));
    check(&get(REPOSITORY, &options).unwrap(), &small(), &options);
    let asked = server.files_asked_for();
    assert_eq!(asked.iter().filter(|file| *file == WEIGHTS).count(), 50_000usize.div_ceil(7_000));
}

#[test]
fn what_was_left_beside_is_used_or_dropped() {
    let weights = &small()[WEIGHTS];
    for (left, requests) in [
        // The program ended between the last byte and the renaming.
        (weights.clone(), 0),
        // More than there can be.
        (vec![1; 60_000], 1),
    ] {
        let (server, cache) = (Server::new(small()), tempdir().unwrap());
        let options = server.options(&cache);
        let blobs = repository(&options).join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(checksum(WEIGHTS, weights)).with_extension("incomplete"), left).unwrap();
        check(&get(REPOSITORY, &options).unwrap(), &small(), &options);
        assert_eq!(server.files_asked_for().iter().filter(|file| *file == WEIGHTS).count(), requests);
    }
}

#[test]
fn damaged_files_are_no_files() {
    let mut other = small()[WEIGHTS].clone();
    other[777] ^= 1;
    let longer = vec![7; 60_000];
    let unasked = Answer::new(206, &other[1..]).with("Content-Range", "bytes 1-49999/50000");
    let config = |bytes: &'static str| ("unet/config.json", Answer::new(200, bytes));
    for (file, bad) in [
        (WEIGHTS, Answer::new(200, &*other)),
        (WEIGHTS, Answer::new(200, longer)),
        (WEIGHTS, unasked),
        config("[]"),
    ] {
        let (server, cache) = (Server::new(small()), tempdir().unwrap());
        let options = server.options(&cache);
        let bad = Arc::new(Mutex::new(Some(bad)));
        server.fault(
            move |request| if request.file() == Some(file) { bad.lock().unwrap().take() } else { None },
        );
        let found = problem(get(REPOSITORY, &options));
        assert!(matches!(found, HubError::Damaged { .. } | HubError::Answer { .. }), "{found:?}");
        assert!(!files(&repository(&options).join("snapshots")).contains(&format!("{COMMIT}/{file}")));
        // A new try starts without what came.
        check(&get(REPOSITORY, &options).unwrap(), &small(), &options);
    }
}

#[test]
fn who_asks_is_told_to_the_hub_alone() {
    let other = Server::new(small());
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let elsewhere = format!("http://localhost:{}", other.address.port());
    server.fault(move |request| match request.header("authorization") {
        Some("Bearer secret") if request.file().is_some() => {
            Some(Answer::new(302, "").with("Location", format!("{elsewhere}{}", request.path)))
        }
        Some("Bearer secret") => None,
        Some(_) => {
            Some(Answer::new(403, "").with("X-Error-Code", "GatedRepo").with("X-Error-Message", "ask us"))
        }
        None => Some(Answer::new(401, "").with("X-Error-Code", "GatedRepo")),
    });
    let with = |token: Option<&str>| Options { token: token.map(str::to_owned), ..server.options(&cache) };
    let found = get(REPOSITORY, &with(None)).unwrap_err();
    assert!(matches!(found, Error::Hub { problem: HubError::Denied { status: 401, .. }, .. }), "{found:?}");
    assert!(found.to_string().contains("HF_TOKEN"), "{found}");
    let found = get(REPOSITORY, &with(Some("wrong"))).unwrap_err();
    assert!(matches!(found, Error::Hub { problem: HubError::Denied { status: 403, .. }, .. }), "{found:?}");
    assert!(found.to_string().contains("ask us"), "{found}");
    // Another name is another host; not all machines have this one.
    if std::net::TcpStream::connect(("localhost", other.address.port())).map(drop).is_ok() {
        check(&get(REPOSITORY, &with(Some("secret"))).unwrap(), &small(), &with(None));
        let asked = other.requests();
        assert!(asked.iter().any(|request| request.file() == Some(WEIGHTS)));
        assert!(asked.iter().all(|request| request.header("authorization").is_none()));
    }
}

#[test]
fn what_is_not_there_is_said() {
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let options = server.options(&cache);
    let check = |name: &str, wanted: fn(&HubError) -> bool, words: &str| {
        let error = get(name, &options).unwrap_err();
        let Error::Hub { model, problem } = &error else { panic!("{error:?}") };
        assert!(model == name && wanted(problem) && error.to_string().contains(words), "{error:?}\n{error}");
    };
    check("someone/else", |p| matches!(p, HubError::NoRepository { .. }), "no such repository");
    check(&format!("{REPOSITORY}@v2"), |p| matches!(p, HubError::NoRevision { .. }), "no revision \"v2\"");
    check(&format!("{REPOSITORY}/a.safetensors"), |p| matches!(p, HubError::NoFile { .. }), WEIGHTS);
    check("a/b/c", |p| matches!(p, HubError::Name), "expected organisation/name");
    // A file that the list has and the hub has not.
    server.fault(|request| (request.file() == Some(WEIGHTS)).then(|| Answer::new(404, "")));
    check(REPOSITORY, |p| matches!(p, HubError::NoFile { .. }), WEIGHTS);
    server.fault(|_| Some(Answer::new(429, "").with("X-Error-Message", "too many")));
    check(REPOSITORY, |p| matches!(p, HubError::Answer { .. }), "429: too many");
    server.fault(|_| Some(Answer::new(503, "")));
    check(REPOSITORY, |p| matches!(p, HubError::Unreachable { .. }), "503");
    drop(server);
    check(REPOSITORY, |p| matches!(p, HubError::Unreachable { .. }), "HF_ENDPOINT");
}

#[test]
fn offline_the_missing_file_is_named() {
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let options = server.options(&cache);
    let missing = |name: &str| match problem(get(name, &offline(&options))) {
        HubError::NotCached { file, advice, .. } if advice.contains("HF_HUB_OFFLINE") => file,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(REPOSITORY), "model_index.json");
    assert_eq!(missing(&format!("{REPOSITORY}/a.onnx")), "a.onnx");
    get(REPOSITORY, &options).unwrap();
    assert_eq!(server.requests().len(), 1 + small().len());
    for (name, bytes) in small() {
        let blob = repository(&options).join("blobs").join(checksum(&name, &bytes));
        let content = std::fs::read(&blob).unwrap();
        std::fs::remove_file(&blob).unwrap();
        assert_eq!(missing(REPOSITORY), name);
        std::fs::write(&blob, content).unwrap();
    }
    assert_eq!(missing(&format!("{REPOSITORY}@v1")), "model_index.json");
    assert!(get(&format!("{REPOSITORY}@{COMMIT}"), &offline(&options)).is_ok());
    assert!(server.requests().is_empty());
}

#[test]
fn the_last_whole_model_stays_until_the_next_is_whole() {
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let options = server.options(&cache);
    let folder = get(REPOSITORY, &options).unwrap();
    const NEXT: &str = "ffffffffffffffffffffffffffffffffffffffff";
    let mut next = small();
    next.insert(WEIGHTS.to_owned(), b"other weights".to_vec());
    let listing = list(NEXT, &next);
    server.fault(move |request| match request.file() {
        None => Some(Answer::new(200, &*listing)),
        Some(file) if request.path.contains(NEXT) && file != WEIGHTS => Some(Answer::new(200, &*next[file])),
        Some(_) => Some(Answer::new(200, "other weights").cut(0)),
    });
    problem(get(REPOSITORY, &options));
    assert_eq!(get(REPOSITORY, &offline(&options)).unwrap(), folder);
    drop(server);
    assert_eq!(get(REPOSITORY, &options).unwrap(), folder);
}

#[test]
fn a_download_can_be_stopped() {
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let options = server.options(&cache);
    let stopped = fetch(REPOSITORY, &options, &mut |at| at.file != WEIGHTS);
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    check(&get(REPOSITORY, &options).unwrap(), &small(), &options);
}

#[test]
fn two_at_once_download_once() {
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let options = server.options(&cache);
    std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| get(REPOSITORY, &options)));
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    let asked = server.files_asked_for();
    assert_eq!(asked.iter().filter(|file| *file == WEIGHTS).count(), 1, "{asked:?}");
    check(&get(REPOSITORY, &options).unwrap(), &small(), &options);
}

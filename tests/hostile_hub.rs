//! Repositories and hubs that lead out of the cache, hold what must not be read, or answer nonsense.
#![cfg(feature = "hub")]

mod hub_server;

use aquatint::{Error, HubError};
use hub_server::{
    Answer, COMMIT, Files, REPOSITORY, Server, WEIGHTS, files, get, list, problem, repository, small,
};
use tempfile::tempdir;

/// The error for a repository with these files, of which none of weights was asked for.
fn refused(files: Files) -> Error {
    let (server, cache) = (Server::new(files), tempdir().unwrap());
    let error = get(REPOSITORY, &server.options(&cache)).unwrap_err();
    let asked = server.files_asked_for();
    assert!(asked.iter().all(|file| file.ends_with(".json")), "{asked:?}");
    error
}

#[test]
fn names_that_lead_out_are_refused() {
    let shards = |name: &str| {
        let mut files = small();
        files.remove(WEIGHTS);
        let map = serde_json::json!({ "weight_map": { "conv_in.weight": name } });
        files.insert(format!("{WEIGHTS}.index.json"), map.to_string().into());
        files.insert(format!("unet/{name}"), vec![0; 10]);
        files.insert("secret.safetensors".to_owned(), vec![0; 10]);
        files
    };
    for name in
        ["../secret.safetensors", "/secret.safetensors", "..", "", "a/../../secret.safetensors", "a/b"]
    {
        let error = refused(shards(name));
        assert!(matches!(&error, Error::Format { message, .. } if message.contains(name)), "{error:?}");
    }
    let part = |name: &str| {
        let mut files = small();
        let index = serde_json::json!({ "_class_name": "DDPMPipeline", name: ["diffusers", "UNet2DModel"] });
        files.insert("model_index.json".to_owned(), index.to_string().into());
        files.insert(format!("{name}/config.json"), "{}".into());
        files.insert(format!("{name}/diffusion_pytorch_model.safetensors"), vec![0; 10]);
        files
    };
    for name in ["../unet", "/unet", "..", ".", "", "unet/", "a/b"] {
        let error = refused(part(name));
        assert!(matches!(&error, Error::Format { message, .. } if message.contains(name)), "{error:?}");
    }
}

#[test]
fn shards_that_are_not_there_are_named() {
    let mut files = small();
    files.remove(WEIGHTS);
    let map = r#"{"weight_map": {"conv_in.weight": "gone.safetensors"}}"#;
    files.insert(format!("{WEIGHTS}.index.json"), map.into());
    let error = refused(files);
    let wanted = "unet/gone.safetensors";
    assert!(
        matches!(&error, Error::Hub { problem: HubError::NoFile { file, .. }, .. } if file == wanted),
        "{error:?}"
    );
}

#[test]
fn what_cannot_be_run_is_not_downloaded() {
    let mut pickled = small();
    pickled.remove(WEIGHTS);
    pickled.insert("unet/diffusion_pytorch_model.bin".to_owned(), vec![0; 10]);
    let error = refused(pickled);
    assert!(matches!(&error, Error::Format { message, .. } if message.contains("pickled")), "{error:?}");

    let mut other = small();
    let index = r#"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"],
        "unet": ["diffusers", "UNet2DModel"], "image_encoder": ["transformers", "CLIPVisionModel"]}"#;
    other.insert("model_index.json".to_owned(), index.into());
    let Error::Unsupported { nodes, .. } = refused(other) else { panic!("it was not refused") };
    assert!(nodes.len() == 1 && nodes[0].contains("FluxTransformer2DModel"), "{nodes:?}");

    let no_model = Files::from([("a.safetensors".to_owned(), vec![0; 10])]);
    let error = refused(no_model).to_string();
    assert!(
        error.contains("model_index.json") && error.contains(&format!("{REPOSITORY}/a.safetensors")),
        "{error}"
    );
}

#[test]
fn nonsense_is_an_error_and_writes_nothing_elsewhere() {
    let listing = |sha: &str, checksum: &str| {
        let sibling = serde_json::json!({ "rfilename": "model_index.json", "size": 2, "blobId": checksum });
        serde_json::json!({ "sha": sha, "siblings": [sibling] }).to_string()
    };
    let checksum = "a".repeat(40);
    for answer in [
        "".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        listing("../../../../out", &checksum),
        listing("", &checksum),
        listing(COMMIT, "../../../../out"),
        listing(COMMIT, ""),
        format!(r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "model_index.json"}}]}}"#),
    ] {
        let (server, cache) = (Server::new(small()), tempdir().unwrap());
        let options = server.options(&cache);
        let body = answer.clone();
        server.fault(move |request| {
            Some(Answer::new(200, if request.file().is_none() { &body } else { "{}" }))
        });
        let found = problem(get(REPOSITORY, &options));
        assert!(matches!(found, HubError::Answer { .. }), "{answer}: {found:?}");
        let written = files(cache.path());
        assert!(
            written.iter().all(|file| file.starts_with("hub/models--someone--tiny-model/refs/")),
            "{written:?}"
        );
    }
    // Names in the list that lead out are as if they were not there.
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let options = server.options(&cache);
    let mut more = small();
    for name in ["../out", "/out", "a/../../out", "a\\..\\out", "C:out", "", "nul\0"] {
        more.insert(name.to_owned(), b"out".to_vec());
    }
    let listing = list(COMMIT, &more);
    server.fault(move |request| request.file().is_none().then(|| Answer::new(200, &*listing)));
    let folder = get(REPOSITORY, &options).unwrap();
    assert_eq!(files(&folder), small().into_keys().collect());
    // A hub that never ends.
    server.fault(|_| {
        Some(Answer::new(200, vec![b' '; 1 << 16]).with("Content-Length", (1u64 << 40).to_string()))
    });
    assert_eq!(get(REPOSITORY, &options).unwrap(), folder);
    server.fault(|request| Some(Answer::new(302, "").with("Location", request.path.clone())));
    assert_eq!(get(REPOSITORY, &options).unwrap(), folder);
}

/// `/dev/full` has no room for anything.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said() {
    let (server, cache) = (Server::new(small()), tempdir().unwrap());
    let options = server.options(&cache);
    let blobs = repository(&options).join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(hub_server::checksum(WEIGHTS, &small()[WEIGHTS])).with_extension("incomplete");
    std::os::unix::fs::symlink("/dev/full", part).unwrap();
    let error = get(REPOSITORY, &options).unwrap_err();
    assert!(
        matches!(&error, Error::Hub { problem: HubError::DiskFull { file, .. }, .. } if file == WEIGHTS),
        "{error:?}"
    );
    assert!(error.to_string().contains("50000 bytes more"), "{error}");
}

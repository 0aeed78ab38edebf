//! A hub of one repository on this machine, that can be told to misbehave.
#![allow(dead_code, reason = "each test needs a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use aquatint::formats::hub::{Options, fetch};
use aquatint::{Error, HubError, Result};
use ring::digest;
use serde_json::{Value, json};

pub const REPOSITORY: &str = "someone/tiny-model";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub type Files = BTreeMap<String, Vec<u8>>;

pub const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// A pipeline with weights of no network, for tests that open none.
pub fn small() -> Files {
    let index = r#"{"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}"#;
    let weights: Vec<u8> = (0..50_000u32).map(|i| (i * i / 7) as u8).collect();
    Files::from([
        ("model_index.json".to_owned(), index.into()),
        ("scheduler/scheduler_config.json".to_owned(), "{}".into()),
        ("unet/config.json".to_owned(), r#"{"in_channels": 3}"#.into()),
        (WEIGHTS.to_owned(), weights),
    ])
}

pub fn get(name: &str, options: &Options) -> Result<PathBuf> {
    fetch(name, options, &mut |_| true)
}

/// What went wrong with the hub.
pub fn problem(found: Result<PathBuf>) -> HubError {
    match found {
        Err(Error::Hub { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

pub fn repository(options: &Options) -> PathBuf {
    options.cache.join("models--someone--tiny-model")
}

/// The files below a folder.
pub fn files(folder: &Path) -> BTreeSet<String> {
    let paths = glob::glob(&format!("{}/**/*", folder.display())).unwrap().flatten();
    let files = paths.filter(|path| path.is_file());
    files.map(|path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned()).collect()
}

/// A request: its path with the query, and headers in lower case.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The file that is asked for, `None` for the listing.
    pub fn file(&self) -> Option<&str> {
        self.path.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/')).map(|(_, file)| file)
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    pub cut: usize,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Answer { status, headers: Vec::new(), body: body.into(), cut: usize::MAX }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn cut(mut self, at: usize) -> Self {
        self.cut = at;
        self
    }
}

/// What is answered instead; `None` as it should be.
type Fault = dyn FnMut(&Request) -> Option<Answer> + Send;

struct State {
    files: Files,
    fault: Option<Box<Fault>>,
    requests: Vec<Request>,
    stop: bool,
}

pub struct Server {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new<N: Into<String>, B: Into<Vec<u8>>>(files: impl IntoIterator<Item = (N, B)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let files = files.into_iter().map(|(name, bytes)| (name.into(), bytes.into())).collect();
        let state = Arc::new(Mutex::new(State { files, fault: None, requests: Vec::new(), stop: false }));
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.lock().unwrap().stop {
                    return;
                }
                // A client that hangs up early is none of the server's business.
                let _ = serve(stream.unwrap(), &shared);
            }
        });
        Server { address, state, thread: Some(thread) }
    }

    pub fn fault(&self, fault: impl FnMut(&Request) -> Option<Answer> + Send + 'static) {
        self.state.lock().unwrap().fault = Some(Box::new(fault));
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().fault = None;
    }

    /// The requests since the last time.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// The files that were asked for since the last time.
    pub fn files_asked_for(&self) -> Vec<String> {
        self.requests().iter().filter_map(|request| request.file().map(str::to_owned)).collect()
    }

    /// Of a cache of the test's own; nothing of the environment.
    pub fn options(&self, cache: &tempfile::TempDir) -> Options {
        Options {
            offline: false,
            token: None,
            cache: cache.path().join("hub"),
            endpoint: format!("http://{}", self.address),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.lock().unwrap().stop = true;
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let request = Request { path, headers };
    let answer = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let odd = state.fault.as_mut().and_then(|fault| fault(&request));
        odd.unwrap_or_else(|| right(&request, &state.files))
    };
    let mut head = format!("HTTP/1.1 {} Any\r\nConnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&answer.body[..answer.body.len().min(answer.cut)])?;
    stream.flush()
}

/// As the hub answers.
pub fn right(request: &Request, files: &Files) -> Answer {
    let listing = format!("/api/models/{REPOSITORY}/revision/");
    if let Some(revision) = request.path.strip_prefix(&listing) {
        let (revision, query) = revision.split_once('?').unwrap_or((revision, ""));
        assert_eq!(query, "blobs=true");
        return match ["main", "v1", "refs%2Fpr%2F1", COMMIT].contains(&revision) {
            true => Answer::new(200, list(COMMIT, files)),
            false => Answer::new(404, "").with("X-Error-Code", "RevisionNotFound"),
        };
    }
    let file = request.path.strip_prefix(&format!("/{REPOSITORY}/resolve/{COMMIT}/"));
    match file.and_then(|file| files.get(&file.replace("%20", " "))) {
        None => Answer::new(404, "").with("X-Error-Code", "RepoNotFound"),
        Some(bytes) => match request.header("range") {
            None => Answer::new(200, &**bytes),
            Some(range) => {
                let from: usize =
                    range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::new(206, &bytes[from..]).with("Content-Range", range)
            }
        },
    }
}

/// The hub's list of a repository's files: large ones by their SHA-256, the others by git's names.
pub fn list(commit: &str, files: &Files) -> String {
    let siblings: Vec<Value> = files
        .iter()
        .map(|(name, bytes)| {
            let mut entry = json!({ "rfilename": name, "size": bytes.len(), "blobId": git(bytes) });
            if is_large(name) {
                entry["lfs"] = json!({ "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 130 });
            }
            entry
        })
        .collect();
    json!({ "id": REPOSITORY, "sha": commit, "siblings": siblings }).to_string()
}

pub fn is_large(name: &str) -> bool {
    [".safetensors", ".onnx", ".bin"].iter().any(|end| name.ends_with(end))
}

/// The name of a file's content in the cache.
pub fn checksum(name: &str, bytes: &[u8]) -> String {
    if is_large(name) { sha256(bytes) } else { git(bytes) }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn git(bytes: &[u8]) -> String {
    let object = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &object).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

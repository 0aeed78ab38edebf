//! Files from the hub into the cache. A file is in its place only when it is whole and has the checksum that the hub lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest;
use serde::Deserialize;
use ureq::http::{Response, StatusCode, Uri, header};
use ureq::{Agent, Body, Proxy};

use super::cache::{Repository, failed};
use super::model::Source;
use super::name::{Name, is_commit, is_hex, is_inside};
use super::options::{Options, Progress};
use crate::error::{Error, HubError, Result};

/// A commit on the hub.
pub struct Hub<'a> {
    name: &'a Name<'a>,
    cache: &'a Repository,
    options: &'a Options,
    progress: &'a mut dyn FnMut(Progress) -> bool,
    agent: Agent,
    commit: String,
    folder: PathBuf,
    files: BTreeSet<String>,
    content: BTreeMap<String, Content>,
    /// Bytes that arrived and bytes that were asked for.
    done: u64,
    total: u64,
}

/// What the hub says of a file's content.
struct Content {
    size: u64,
    /// SHA-256 of large files, git's name (of SHA-1) of the others.
    checksum: String,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: String,
    size: u64,
}

impl<'a> Hub<'a> {
    /// Asks what the repository has.
    pub fn open(
        name: &'a Name,
        cache: &'a Repository,
        options: &'a Options,
        progress: &'a mut dyn FnMut(Progress) -> bool,
    ) -> Result<Self> {
        let mut hub = Hub {
            name,
            cache,
            options,
            progress,
            agent: agent(&options.endpoint),
            commit: String::new(),
            folder: PathBuf::new(),
            files: BTreeSet::new(),
            content: BTreeMap::new(),
            done: 0,
            total: 0,
        };
        let revision = encoded(name.revision).replace('/', "%2F");
        let url =
            format!("{}/api/models/{}/revision/{revision}?blobs=true", options.endpoint, name.repository);
        let unreachable = |error: ureq::Error| {
            name.error(HubError::Unreachable {
                endpoint: options.endpoint.clone(),
                reason: error.to_string(),
            })
        };
        let mut answer = hub.request(&url, 0).map_err(unreachable)?;
        if answer.status() != StatusCode::OK {
            return Err(hub.refused(&answer, None));
        }
        const LONGEST: u64 = 64 << 20;
        let text = answer.body_mut().with_config().limit(LONGEST).read_to_vec().map_err(unreachable)?;
        let listing: Listing = serde_json::from_slice(&text)
            .map_err(|e| hub.strange(format!("what is no list of a repository's files: {e}")))?;
        if !is_commit(&listing.sha) {
            return Err(hub.strange(format!("with a commit \"{}\"", listing.sha)));
        }
        hub.folder = cache.snapshot(&listing.sha);
        hub.commit = listing.sha;
        for file in listing.siblings.into_iter().filter(|file| is_inside(&file.rfilename)) {
            let content = match (file.lfs, file.size, file.blob_id) {
                (Some(large), ..) => Some(Content { size: large.size, checksum: large.sha256 }),
                (None, Some(size), Some(checksum)) => Some(Content { size, checksum }),
                _ => None,
            };
            let sound =
                |content: &Content| [40, 64].contains(&content.checksum.len()) && is_hex(&content.checksum);
            if let Some(content) = content.filter(sound) {
                hub.content.insert(file.rfilename.clone(), content);
            }
            hub.files.insert(file.rfilename);
        }
        // With nothing older to fall back on, what is left of a download can be named.
        if cache.commit(name.revision).is_none() {
            cache.set_commit(name.revision, &hub.commit)?;
        }
        Ok(hub)
    }

    /// From now on this commit is the one that the cache has.
    pub fn finish(self) -> Result<()> {
        self.cache.set_commit(self.name.revision, &self.commit)
    }

    /// Sends a request for what follows byte `from`.
    fn request(&self, url: &str, from: u64) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.options.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call()
    }

    /// What an answer other than a file means.
    fn refused(&self, answer: &Response<Body>, file: Option<&str>) -> Error {
        let said = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let message = said("x-error-message").map_or(String::new(), |message| format!(": {message}"));
        let (status, endpoint) = (answer.status().as_u16(), self.options.endpoint.clone());
        self.name.error(match (status, said("x-error-code"), file) {
            (_, Some("RevisionNotFound"), _) => {
                HubError::NoRevision { revision: self.name.revision.to_owned() }
            }
            (404, _, Some(file)) => HubError::NoFile { file: file.to_owned(), has: self.has() },
            (404, ..) | (_, Some("RepoNotFound"), _) => HubError::NoRepository { endpoint },
            (500.., ..) => {
                HubError::Unreachable { endpoint, reason: format!("it answered {status}{message}") }
            }
            (401 | 403, ..) => HubError::Denied { endpoint, status, said: message },
            _ => HubError::Answer { endpoint, found: format!("{status}{message}") },
        })
    }

    fn strange(&self, found: String) -> Error {
        self.name.error(HubError::Answer { endpoint: self.options.endpoint.clone(), found })
    }

    /// Some of the files that could have been asked for.
    fn has(&self) -> String {
        let weights = |file: &&String| file.ends_with(".safetensors") || file.ends_with(".onnx");
        let all: Vec<&str> = self.files.iter().filter(weights).map(String::as_str).collect();
        match all.as_slice() {
            [] => "neither safetensors nor ONNX files".to_owned(),
            [first, ..] => {
                let some = all[..all.len().min(8)].join(", ");
                format!("{some} ({} in all; to get one: {}/{first})", all.len(), self.name.repository)
            }
        }
    }

    /// Whether the file is in its place, as long as it should be.
    fn is_there(&self, file: &str, size: u64) -> bool {
        is_whole(&self.folder.join(file), size)
    }

    /// Downloads a file, or what is missing of it.
    fn download(&mut self, file: &str) -> Result<()> {
        let Content { size, checksum } = &self.content[file];
        let (size, checksum) = (*size, checksum.clone());
        let _alone = self.cache.lock(&checksum)?;
        if self.is_there(file, size) {
            // Another program had it.
            self.done += size;
            return Ok(());
        }
        let blob = self.cache.blob(&checksum)?;
        if is_whole(&blob, size) {
            self.done += size;
        } else {
            let part = blob.with_extension("incomplete");
            self.complete(file, size, &part)?;
            let found = sum(&part, size, checksum.len())?;
            if found != checksum.to_ascii_lowercase() {
                fs::remove_file(&part).map_err(failed(&part))?;
                let expected = format!("checksum {checksum}");
                return Err(self.name.error(HubError::Damaged { file: file.to_owned(), expected, found }));
            }
            fs::rename(&part, &blob).map_err(failed(&blob))?;
        }
        self.cache.link(&checksum, &self.commit, file)
    }

    /// Makes a part of a file whole. A connection that ends early is made again as long as each brings something.
    fn complete(&mut self, file: &str, size: u64, path: &Path) -> Result<()> {
        let mut part =
            File::options().create(true).append(true).read(true).open(path).map_err(failed(path))?;
        let before = self.done;
        let mut most = 0;
        loop {
            let mut there = part.metadata().map_err(failed(path))?.len();
            if there > size {
                part.set_len(0).map_err(failed(path))?;
                there = 0;
            }
            self.done = before + there;
            if there == size {
                // Not in its place before it is on the disk.
                return part.sync_all().map_err(failed(path));
            }
            match self.receive(file, size, there, &mut part, path) {
                Ok(()) => {}
                Err(Error::Hub { problem: HubError::BrokeOff { received, .. }, .. }) if received > most => {
                    most = received;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds to a part what one connection brings.
    fn receive(&mut self, file: &str, size: u64, there: u64, part: &mut File, path: &Path) -> Result<()> {
        let (name, url) = (self.name, encoded(file));
        let url = format!("{}/{}/resolve/{}/{url}", self.options.endpoint, name.repository, self.commit);
        let broke_off = |received: u64, reason: String| {
            name.error(HubError::BrokeOff { file: file.to_owned(), received, size, reason })
        };
        let answer = self.request(&url, there).map_err(|e| broke_off(there, e.to_string()))?;
        let begin = format!("bytes {there}-");
        let range = answer.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let mut received = match (answer.status(), range) {
            (StatusCode::PARTIAL_CONTENT, Some(range)) if range.starts_with(&begin) => there,
            // All of it, also where a rest was asked for.
            (StatusCode::OK, _) => {
                if there > 0 {
                    part.set_len(0).map_err(failed(path))?;
                }
                0
            }
            (StatusCode::PARTIAL_CONTENT, range) => {
                let range = range.unwrap_or("none");
                return Err(self.strange(format!("with the range {range} of {file}, asked for {begin}")));
            }
            _ => return Err(self.refused(&answer, Some(file))),
        };
        self.done = self.done + received - there;
        let mut body = answer.into_body().into_reader();
        let mut piece = vec![0; 1 << 17];
        loop {
            let count = match body.read(&mut piece) {
                Ok(0) if received < size => {
                    return Err(broke_off(received, "the connection was closed".to_owned()));
                }
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(broke_off(received, e.to_string())),
            };
            if received + count as u64 > size {
                part.set_len(0).map_err(failed(path))?;
                let (expected, found) = (format!("{size} bytes"), "more".to_owned());
                return Err(name.error(HubError::Damaged { file: file.to_owned(), expected, found }));
            }
            part.write_all(&piece[..count]).map_err(|e| match e.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => name.error(HubError::DiskFull {
                    file: file.to_owned(),
                    needed: size - received,
                    cache: self.options.cache.clone(),
                }),
                _ => failed(path)(e),
            })?;
            received += count as u64;
            self.done += count as u64;
            if !(self.progress)(Progress { file, done: self.done, total: self.total }) {
                return Err(Error::Interrupted);
            }
        }
    }
}

impl Source for Hub<'_> {
    fn files(&self) -> &BTreeSet<String> {
        &self.files
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn get(&mut self, files: &[String]) -> Result<()> {
        let mut missing = Vec::new();
        for file in files {
            let Some(Content { size, .. }) = self.content.get(file) else {
                return Err(self.strange(format!("without size and checksum of {file}")));
            };
            if !self.is_there(file, *size) {
                missing.push(file);
                self.total += size;
            }
        }
        missing.into_iter().try_for_each(|file| self.download(file))
    }

    fn lacks(&self, file: &str) -> Error {
        self.name.error(HubError::NoFile { file: file.to_owned(), has: self.has() })
    }
}

/// A client that gives up on servers that are silent, and sends the token to no other.
fn agent(endpoint: &str) -> Agent {
    // A proxy would not find what runs on this machine.
    let host = endpoint.parse::<Uri>().ok().and_then(|endpoint| endpoint.host().map(str::to_owned));
    let is_here = host.is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&&*host));
    let proxy = if is_here { None } else { Proxy::try_from_env() };
    let config = Agent::config_builder()
        .proxy(proxy)
        .http_status_as_error(false)
        .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .timeout_per_read(Some(Duration::from_secs(30)))
        .user_agent(concat!("aquatint/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

/// Whether the file is there in full.
fn is_whole(path: &Path, size: u64) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.len() == size)
}

/// The checksum of a file, of as many hexadecimal digits as the hub's.
fn sum(path: &Path, size: u64, digits: usize) -> Result<String> {
    let mut sum = match digits {
        64 => digest::Context::new(&digest::SHA256),
        _ => {
            let mut git = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
            git.update(format!("blob {size}\0").as_bytes());
            git
        }
    };
    let mut file = File::open(path).map_err(failed(path))?;
    let mut piece = vec![0; 1 << 17];
    loop {
        match file.read(&mut piece).map_err(failed(path))? {
            0 => break,
            count => sum.update(&piece[..count]),
        }
    }
    Ok(sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A path as part of an address.
fn encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

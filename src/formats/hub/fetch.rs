//! A model's files from the hub or, without it, from the cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::cache::Repository;
#[cfg(feature = "hub")]
use super::download::Hub;
use super::model::{self, Source};
use super::name::{Name, is_commit};
use super::options::{Options, Progress};
use crate::error::{Error, HubError, Result};

/// The model of a name, for which [`is_name`](super::is_name) holds: the path of a folder, or of a file if the name is a
/// file's. What the cache lacks is downloaded. Without a network the model is the one that was fetched last.
///
/// `progress` hears of each piece that arrives and says whether to go on.
///
/// # Errors
/// [`Error::Hub`] says why a model could not be had, [`Error::Interrupted`] that `progress` stopped. [`Error::Unsupported`]
/// for pipelines of networks that this crate has not, and [`Error::Format`] for those that are only there as pickled
/// weights and for broken files; both before any weights are downloaded. [`Error::Io`] for a cache that cannot be written.
pub fn fetch(name: &str, options: &Options, progress: &mut dyn FnMut(Progress) -> bool) -> Result<PathBuf> {
    let name = Name::parse(name)?;
    let cache = Repository::new(&options.cache, &name);
    if options.offline {
        return cached(&name, &cache, "fetch the model once without HF_HUB_OFFLINE and --offline");
    }
    // What a commit has never changes.
    if is_commit(name.revision)
        && let Ok(path) = cached(&name, &cache, "")
    {
        return Ok(path);
    }
    online(&name, &cache, options, progress)
}

#[cfg(feature = "hub")]
fn online(
    name: &Name,
    cache: &Repository,
    options: &Options,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<PathBuf> {
    let fetched = Hub::open(name, cache, options, progress).and_then(|mut hub| {
        let path = model::get(name, &mut hub)?;
        hub.finish()?;
        Ok(path)
    });
    match fetched {
        Err(error @ Error::Hub { problem: HubError::Unreachable { .. }, .. }) => {
            cached(name, cache, "").map_err(|_| error)
        }
        fetched => fetched,
    }
}

#[cfg(not(feature = "hub"))]
fn online(
    name: &Name,
    cache: &Repository,
    _: &Options,
    _: &mut dyn FnMut(Progress) -> bool,
) -> Result<PathBuf> {
    cached(name, cache, "this build downloads nothing: build it with the feature `hub`, or use `hf download`")
}

/// The model as the cache has it.
fn cached(name: &Name, cache: &Repository, advice: &'static str) -> Result<PathBuf> {
    let (folder, files) = match cache.commit(name.revision) {
        Some(commit) => (cache.snapshot(&commit), cache.files(&commit)),
        None => (cache.folder().to_owned(), BTreeSet::new()),
    };
    model::get(name, &mut Cached { name, folder, files, advice })
}

struct Cached<'a> {
    name: &'a Name<'a>,
    folder: PathBuf,
    files: BTreeSet<String>,
    advice: &'static str,
}

impl Source for Cached<'_> {
    fn files(&self) -> &BTreeSet<String> {
        &self.files
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn get(&mut self, _: &[String]) -> Result<()> {
        Ok(())
    }

    fn lacks(&self, file: &str) -> Error {
        let (cache, advice) = (self.folder.clone(), self.advice);
        self.name.error(HubError::NotCached { file: file.to_owned(), cache, advice })
    }
}

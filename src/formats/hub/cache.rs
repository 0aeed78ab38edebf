//! The cache of the hub's libraries: content under its checksum in `blobs`, and for each commit a folder of links to it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::name::{Name, is_commit};
use crate::error::{Error, Result};

/// What the cache has of a repository.
pub struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub fn new(cache: &Path, name: &Name) -> Self {
        let folder = format!("models--{}", name.repository.replace('/', "--"));
        Repository { locks: cache.join(".locks").join(&folder), folder: cache.join(folder) }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The commit that a revision was when it was last fetched.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The files of a commit, from its root.
    pub fn files(&self, commit: &str) -> BTreeSet<String> {
        let root = self.snapshot(commit);
        let pattern = format!("{}/**/*", glob::Pattern::escape(&root.to_string_lossy()));
        let paths = glob::glob(&pattern).into_iter().flatten().flatten().filter(|path| path.is_file());
        paths.filter_map(|path| Some(path.strip_prefix(&root).ok()?.to_str()?.replace('\\', "/"))).collect()
    }
}

#[cfg_attr(not(feature = "hub"), allow(dead_code, reason = "only downloads write"))]
impl Repository {
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        let folder = made(path.parent().expect("it has refs"))?;
        let file = tempfile::NamedTempFile::new_in(folder).map_err(failed(folder))?;
        fs::write(file.path(), commit).map_err(failed(file.path()))?;
        file.persist(&path).map_err(|e| failed(&path)(e.error)).map(drop)
    }

    /// Where content lies.
    pub fn blob(&self, checksum: &str) -> Result<PathBuf> {
        Ok(made(&self.folder.join("blobs"))?.join(checksum))
    }

    /// Waits until no other program writes this content.
    pub fn lock(&self, checksum: &str) -> Result<File> {
        let path = made(&self.locks)?.join(format!("{checksum}.lock"));
        let file =
            File::options().create(true).write(true).truncate(false).open(&path).map_err(failed(&path))?;
        file.lock().map_err(failed(&path))?;
        Ok(file)
    }

    /// Puts content into a commit's folder.
    pub fn link(&self, checksum: &str, commit: &str, file: &str) -> Result<()> {
        let blob = self.blob(checksum)?;
        let path = self.snapshot(commit).join(file);
        made(path.parent().expect("it has a snapshot"))?;
        // A link whose content is gone, or a file of another length.
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        let up = "../".repeat(file.split('/').count() + 1);
        // Where links are not allowed, the file itself, as the other libraries do.
        symlink(Path::new(&format!("{up}blobs/{checksum}")), &path)
            .or_else(|_| fs::rename(&blob, &path))
            .map_err(failed(&path))
    }
}

pub fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { path: path.to_owned(), source }
}

fn made(folder: &Path) -> Result<&Path> {
    fs::create_dir_all(folder).map_err(failed(folder))?;
    Ok(folder)
}

#[cfg(unix)]
fn symlink(content: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(content, link)
}

#[cfg(windows)]
fn symlink(content: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(content, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

//! How files that are not pictures come in: no more of them than [`Limits`] allow, and nothing that only looks like a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::limits::{Bound, Limits};

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path: path.clone(), source }
}

/// Opens what is a file: a pipe or a device would be waited for, or never end.
fn regular(path: &Path) -> Result<File> {
    let known = std::fs::metadata(path).map_err(io(path))?;
    if !known.is_file() {
        return Err(Error::Format { path: path.to_owned(), message: "is not a file".to_owned() });
    }
    File::open(path).map_err(io(path))
}

/// A small file.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] for what is no file, and [`Error::Bound`] for more than [`Bound::Text`].
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let limits = Limits::current();
    let file = regular(path)?;
    let size = file.metadata().map_err(io(path))?.len();
    limits.check(Bound::Text, || path.display().to_string(), size)?;
    // It may grow meanwhile.
    let mut bytes = Vec::new();
    let most = limits.of(Bound::Text);
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(io(path))?;
    limits.check(Bound::Text, || path.display().to_string(), bytes.len() as u64)?;
    Ok(bytes)
}

/// A small file of UTF-8.
///
/// # Errors
/// Those of [`bytes`], and [`Error::Format`] for other bytes.
pub(crate) fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?)
        .map_err(|e| Error::Format { path: path.to_owned(), message: format!("is not text: {e}") })
}

/// A file of any size, mapped: nothing is read before it is looked at.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] for what is no file and for an empty one, and [`Error::Bound`] for more than [`Bound::File`].
#[expect(unsafe_code)]
pub(crate) fn map(path: &Path) -> Result<memmap2::Mmap> {
    let file = regular(path)?;
    let size = file.metadata().map_err(io(path))?.len();
    if size == 0 {
        return Err(Error::Format { path: path.to_owned(), message: "the file is empty".to_owned() });
    }
    Limits::current().check(Bound::File, || path.display().to_string(), size)?;
    // SAFETY: the map is only read. Should another process shorten the file meanwhile, the read faults, as it does for
    // every program that maps files.
    unsafe { memmap2::Mmap::map(&file) }.map_err(io(path))
}

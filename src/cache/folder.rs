//! The folder, and how files get into it and out.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Name of the environment variable that moves the folder.
pub const FOLDER_VARIABLE: &str = "AQUATINT_CACHE";
/// Name of the environment variable that switches the folder off, by any value but `0`.
pub const OFF_VARIABLE: &str = "AQUATINT_NO_CACHE";

/// Most files whose names begin the same; writing one more removes the oldest.
const MOST_FILES: usize = 8;

/// Where things are kept between processes; nowhere by [`Cache::default`].
///
/// The folder must be the user's own: what is read from it goes to the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// Nowhere: nothing is read or written.
    pub fn off() -> Cache {
        Cache::default()
    }

    /// In this folder, which is made when something is written.
    pub fn at(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: Some(folder.into()) }
    }

    /// `AQUATINT_CACHE`, else the folder `aquatint` among the user's caches: in `XDG_CACHE_HOME`, by default `~/.cache`
    /// (`~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows). Nowhere if `AQUATINT_NO_CACHE` is set.
    pub fn from_env() -> Cache {
        Cache::of(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> Cache {
        if variable(OFF_VARIABLE).is_some_and(|value| value != "0") {
            return Cache::off();
        }
        let path = |name: &str| variable(name).map(PathBuf::from);
        let caches = || path("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or_else(|| system(&path));
        Cache { folder: path(FOLDER_VARIABLE).or_else(|| Some(caches()?.join("aquatint"))) }
    }

    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    pub fn is_on(&self) -> bool {
        self.folder.is_some()
    }

    /// Where a file lies, or would.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder()?.join(name))
    }

    /// The bytes of a file of at most `most` of them. None where there is no such file, or where others could have
    /// written it.
    pub(crate) fn read(&self, name: &str, most: u64) -> Option<Vec<u8>> {
        let file = fs::File::open(self.path(name)?).ok()?;
        let about = file.metadata().ok()?;
        if !about.is_file() || about.len() > most || !is_private(&about) {
            return None;
        }
        let mut bytes = Vec::with_capacity(about.len() as usize);
        // It may grow while it is read.
        file.take(most + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= most).then_some(bytes)
    }

    /// Writes a file under a temporary name and renames it, so that others see the old or the new one whole. Returns
    /// whether it is there.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> bool {
        let Some(folder) = self.folder() else { return false };
        let written = || -> std::io::Result<()> {
            make(folder)?;
            // Readable by the user alone, as tempfile has it.
            let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
            file.write_all(bytes)?;
            file.persist(folder.join(name)).map_err(|e| e.error)?;
            Ok(())
        };
        written().is_ok()
    }

    /// Leaves the youngest few of the files whose names begin with `prefix`: drivers and versions come and go.
    pub(crate) fn thin_out(&self, prefix: &str) {
        let Some(entries) = self.folder().and_then(|folder| fs::read_dir(folder).ok()) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort();
        let many = files.len().saturating_sub(MOST_FILES);
        files.iter().take(many).for_each(|(_, path)| drop(fs::remove_file(path)));
    }

    /// Removes a file; returns whether it was there.
    pub(crate) fn remove(&self, name: &str) -> bool {
        self.path(name).is_some_and(|path| fs::remove_file(path).is_ok())
    }
}

/// The folder of the user's caches that the system has.
fn system(path: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if cfg!(windows) {
        return path("LOCALAPPDATA");
    }
    let home = std::env::home_dir().filter(|home| home.is_absolute())?;
    Some(home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" }))
}

#[cfg(unix)]
fn is_private(about: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    about.mode() & 0o022 == 0
}

/// Folders of users are private elsewhere.
#[cfg(not(unix))]
fn is_private(_: &Metadata) -> bool {
    true
}

fn make(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Cache {
        Cache::of(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn variables_move_it_and_switch_it_off() {
        assert_eq!(of(&[("XDG_CACHE_HOME", "/x")]), Cache::at("/x/aquatint"));
        assert_eq!(of(&[("XDG_CACHE_HOME", "/x"), (FOLDER_VARIABLE, "/c")]), Cache::at("/c"));
        assert_eq!(of(&[(FOLDER_VARIABLE, "/c"), (OFF_VARIABLE, "1")]), Cache::off());
        assert_eq!(of(&[(FOLDER_VARIABLE, "/c"), (OFF_VARIABLE, "0")]), Cache::at("/c"));
        // The specification has it that relative paths are ignored.
        assert_eq!(of(&[("XDG_CACHE_HOME", "x")]), of(&[]));
    }

    #[test]
    fn files_come_back_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("made/when/needed"));
        assert_eq!(cache.read("a", 10), None);
        assert!(cache.write("a", b"first") && cache.write("a", b"second"));
        assert_eq!(cache.read("a", 6).as_deref(), Some(&b"second"[..]));
        assert_eq!(cache.read("a", 5), None, "larger than it may be");
        assert_eq!(cache.read(".", 5), None, "a folder");
        assert!(cache.remove("a") && !cache.remove("a"));
        let names = || fs::read_dir(cache.folder().unwrap()).unwrap().count();
        assert_eq!(names(), 0, "nothing else is left behind");
        for i in 0..MOST_FILES + 3 {
            assert!(cache.write(&format!("b-{i}"), b""));
            cache.thin_out("b-");
        }
        assert_eq!(names(), MOST_FILES);
        assert!(!Cache::off().write("a", b"x") && Cache::off().read("a", 1).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn what_others_can_write_is_not_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        assert!(cache.write("a", b"x") && cache.read("a", 1).is_some());
        fs::set_permissions(folder.path().join("a"), fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(cache.read("a", 1), None);
        // Where no folder can be made, as below a file, nothing happens.
        assert!(!Cache::at(folder.path().join("a/b")).write("c", b"x"));
    }
}

//! What people write for a model on the hub: `organisation/name`, a file in it, `@` and a revision.

use std::path::Path;

use crate::error::{Error, HubError, Result};

/// Files that can be asked for by their names.
const FILES: [&str; 2] = [".safetensors", ".onnx"];

/// Whether a text is the name of a model on the hub and not of something that is here.
///
/// ```
/// use aquatint::formats::hub::is_name;
///
/// assert!(is_name("stabilityai/sd-turbo"));
/// assert!(is_name("stabilityai/sd-turbo@main"));
/// assert!(is_name("stabilityai/sd-turbo/sd_turbo.safetensors"));
/// assert!(!is_name("src/formats") && !is_name("../sd-turbo") && !is_name("models/sd-turbo.safetensors"));
/// ```
pub fn is_name(text: &str) -> bool {
    !Path::new(text).exists() && Name::parse(text).is_ok()
}

/// A name in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    text: &'a str,
    /// `organisation/name`.
    pub repository: &'a str,
    /// A branch, a tag, or a commit in full.
    pub revision: &'a str,
    /// One file instead of a folder.
    pub file: Option<&'a str>,
}

impl<'a> Name<'a> {
    pub fn parse(text: &'a str) -> Result<Self> {
        let (path, revision) = text.split_once('@').unwrap_or((text, "main"));
        let ends = path.match_indices('/').map(|(at, _)| at);
        let (repository, file) = match ends.clone().nth(1) {
            Some(at) => (&path[..at], Some(&path[at + 1..])),
            None => (path, None),
        };
        let names = repository.split_once('/').is_some_and(|(a, b)| is_repository(a) && is_repository(b));
        // `checkpoints/model.ckpt` is a path that is not there, not a repository.
        let is_path = [".safetensors", ".onnx", ".ckpt", ".bin", ".pt", ".pth", ".gguf"]
            .iter()
            .any(|end| repository.ends_with(end));
        let file_is_sane =
            file.is_none_or(|file| is_inside(file) && FILES.iter().any(|end| file.ends_with(end)));
        match names && !is_path && is_revision(revision) && file_is_sane {
            true => Ok(Name { text, repository, revision, file }),
            false => Err(Error::Hub { model: text.to_owned(), problem: HubError::Name }),
        }
    }

    pub fn error(&self, problem: HubError) -> Error {
        Error::Hub { model: self.text.to_owned(), problem }
    }
}

/// Whether a path from a repository's root stays inside of it, on every system.
pub fn is_inside(path: &str) -> bool {
    let sane = |c: char| !c.is_control() && !"\\:*?\"<>|".contains(c);
    path.chars().all(sane) && path.split('/').all(|part| !["", ".", ".."].contains(&part))
}

/// Whether this can be a commit, by which nothing else can be meant.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_hex(revision)
}

pub fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The hub's own rule for the names of organisations and repositories.
fn is_repository(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.len() <= 96
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !text.contains("--")
        && !text.contains("..")
}

fn is_revision(text: &str) -> bool {
    is_inside(text) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_their_parts() {
        let name = |text| Name::parse(text).map(|n| (n.repository, n.revision, n.file)).ok();
        assert_eq!(name("a/b"), Some(("a/b", "main", None)));
        assert_eq!(name("a/b-1.5@refs/pr/1"), Some(("a/b-1.5", "refs/pr/1", None)));
        assert_eq!(name("a/b/c/d.safetensors@v1"), Some(("a/b", "v1", Some("c/d.safetensors"))));
        for text in [
            "",
            "a",
            "/a",
            "a/",
            "a//b.onnx",
            "../a",
            "./a",
            "a/..",
            "~/a",
            "a/b/",
            "a/b@",
            "a/b@../c",
            "a/b@/c",
            "a/b/../c.onnx",
            "a/b/c",
            "a/b/c.ckpt",
            "a/b.safetensors",
            "a/b c",
            "a\\b",
            "a/b--c",
            "a/b\n",
            "https://a.b/c",
        ] {
            assert_eq!(name(text), None, "{text:?}");
        }
        assert!(!is_name("src/lib.rs") && !is_name("src/formats") && is_name("src/no-such-folder"));
    }
}

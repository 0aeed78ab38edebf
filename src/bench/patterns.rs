//! Lists of rows in text files, one identifier or glob a line, as conformance runners have them for failures that are
//! expected and for tests that are flaky.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Patterns of a file. `*` stands for any characters, `?` for one, `[ab]` for one of these; what follows a `#` is a comment.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    path: PathBuf,
    patterns: Vec<glob::Pattern>,
}

impl Patterns {
    /// # Errors
    /// If the file cannot be read, or a line is no pattern.
    pub fn read(path: impl AsRef<Path>) -> Result<Patterns> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Patterns::parse(path, &text)
    }

    /// Patterns of a text; `path` is what messages call it.
    ///
    /// # Errors
    /// If a line is no pattern.
    pub fn parse(path: impl Into<PathBuf>, text: &str) -> Result<Patterns> {
        let path = path.into();
        let mut patterns = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let pattern = line.split('#').next().unwrap_or_default().trim();
            if pattern.is_empty() {
                continue;
            }
            match glob::Pattern::new(pattern) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    let message = format!("line {}: {error}: {pattern}", i + 1);
                    return Err(Error::Format { path, message });
                }
            }
        }
        Ok(Patterns { path, patterns })
    }

    pub fn matches(&self, id: &str) -> bool {
        self.patterns.iter().any(|p| p.matches(id))
    }

    /// Patterns that match none of these, as they are left behind when rows are renamed.
    pub fn unused<'a>(&self, ids: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
        self.patterns
            .iter()
            .filter(|pattern| !ids.clone().any(|id| pattern.matches(id)))
            .map(|pattern| format!("{}: no row is called {pattern}", self.path.display()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_globs_and_comments() {
        let text = "# what fails\nnetwork/resnet50/f16/1 # on this driver\n\n  kernel/conv2d*/f32/?\r\n";
        let list = Patterns::parse("list.txt", text).unwrap();
        for (id, wanted) in [
            ("network/resnet50/f16/1", true),
            ("network/resnet50/f16/16", false),
            ("kernel/conv2d/3x3/f32/8", true),
            ("kernel/conv2d/3x3/f32/16", false),
            ("# what fails", false),
        ] {
            assert_eq!(list.matches(id), wanted, "{id}");
        }
        let unused = list.unused(["network/resnet50/f16/1"].into_iter());
        assert_eq!(unused, ["list.txt: no row is called kernel/conv2d*/f32/?"]);
        let error = Patterns::parse("list.txt", "fine\n[a").unwrap_err().to_string();
        assert!(error.starts_with("list.txt: line 2: "), "{error}");
    }
}

//! Where paintings go.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aquatint::Error;

use crate::cli::make_folder_of;

/// Where the pictures go.
pub enum Target {
    One(PathBuf),
    /// This before the name of each, as its seed.
    Many(PathBuf, String),
}

impl Target {
    /// For so many pictures, of which the first has this name; `stem` comes before it where nothing is given.
    pub fn new(out: Option<&Path>, count: usize, stem: &str, first: &str) -> Result<Target> {
        let Some(out) = out else {
            return Ok(match count {
                1 => Target::One(format!("{stem}-{first}.png").into()),
                _ => Target::Many(PathBuf::new(), format!("{stem}-")),
            });
        };
        if out.as_os_str().to_string_lossy().ends_with(std::path::is_separator) || out.is_dir() {
            std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
            return Ok(Target::Many(out.to_owned(), String::new()));
        }
        if out.extension().is_none_or(|e| !e.eq_ignore_ascii_case("png")) {
            let expected = "a name that ends in .png, or a folder that ends in /".to_owned();
            return Err(Error::Invalid {
                what: "--out".to_owned(),
                expected,
                found: out.display().to_string(),
            }
            .into());
        }
        make_folder_of(out)?;
        let stem = out.file_stem().map_or(String::new(), |stem| stem.display().to_string());
        Ok(match count {
            1 => Target::One(out.to_owned()),
            _ => Target::Many(out.parent().unwrap_or(Path::new("")).to_owned(), format!("{stem}-")),
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Target::One(path) => path.clone(),
            Target::Many(folder, stem) => folder.join(format!("{stem}{name}.png")),
        }
    }
}

//! Folders as diffusers' `save_pretrained` writes them: `model_index.json`, which says what the pipeline is made of,
//! and a folder for each of its parts with a configuration and weights.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files;
use crate::weights::Weights;

/// A pipeline's folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    class: String,
    entries: serde_json::Map<String, Value>,
}

impl Folder {
    /// Whether there is a pipeline in a folder.
    pub fn is_at(path: &Path) -> bool {
        path.join("model_index.json").is_file()
    }

    /// Reads `model_index.json`.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Format`] for what is not such a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Folder> {
        let path = path.as_ref().to_owned();
        let index = path.join("model_index.json");
        let format = |message: String| Error::Format { path: index.clone(), message };
        let mut entries: serde_json::Map<String, Value> =
            serde_json::from_str(&files::text(&index)?).map_err(|e| format(e.to_string()))?;
        match entries.remove("_class_name") {
            Some(Value::String(class)) => Ok(Folder { path, class, entries }),
            _ => Err(format("has no _class_name: not the index of a pipeline of diffusers".to_owned())),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pipeline's class, as `StableDiffusionPipeline`.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// The class of a part, `None` if the pipeline has it not.
    pub fn part(&self, name: &str) -> Option<&str> {
        match self.entries.get(name)?.as_array()?.as_slice() {
            [Value::String(_), Value::String(class)] => Some(class),
            _ => None,
        }
    }

    /// The parts that the pipeline has, each with its class.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.keys().filter_map(|name| Some((name.as_str(), self.part(name)?)))
    }

    /// A setting of the pipeline itself.
    pub fn setting(&self, name: &str) -> Option<&Value> {
        self.entries.get(name)
    }

    /// The text of a part's file, as `config.json` or `scheduler_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn text(&self, part: &str, file: &str) -> Result<String> {
        files::text(&self.path.join(part).join(file))
    }

    /// The weights of a part.
    ///
    /// # Errors
    /// As [`weights`].
    pub fn weights(&self, part: &str) -> Result<Weights> {
        weights(&self.path.join(part))
    }
}

/// The weights in a part's folder.
///
/// # Errors
/// [`Error::Format`] for a folder without safetensors and for an index that is not sound, [`Error::Io`], and those of
/// [`Weights::open`].
pub fn weights(folder: &Path) -> Result<Weights> {
    match stored(|file| folder.join(file).is_file()) {
        Some(Stored::Whole(file)) => return Weights::open(folder.join(file)),
        Some(Stored::Sharded(index)) => return sharded(folder, &folder.join(index)),
        None => {}
    }
    let pickle = PICKLES.map(|file| folder.join(file)).into_iter().find(|p| p.is_file());
    Err(match pickle {
        Some(path) => pickled(path),
        None => Error::Format {
            path: folder.to_owned(),
            message: "holds no weights: expected diffusion_pytorch_model.safetensors or model.safetensors"
                .to_owned(),
        },
    })
}

/// How the weights of a part are stored: the name of their one file, or of the index of several.
pub(crate) enum Stored {
    Whole(String),
    Sharded(String),
}

/// Which of a folder's files has the weights, those in f32 if there are both kinds.
pub(crate) fn stored(has: impl Fn(&str) -> bool) -> Option<Stored> {
    for variant in ["", ".fp16"] {
        for stem in ["diffusion_pytorch_model", "model"] {
            let whole = format!("{stem}{variant}.safetensors");
            if has(&whole) {
                return Some(Stored::Whole(whole));
            }
            let index = format!("{stem}.safetensors.index{variant}.json");
            if has(&index) {
                return Some(Stored::Sharded(index));
            }
        }
    }
    None
}

/// Files that hold weights in a form that is never read.
pub(crate) const PICKLES: [&str; 3] = ["diffusion_pytorch_model.bin", "model.bin", "pytorch_model.bin"];

pub(crate) fn pickled(path: PathBuf) -> Error {
    Error::Format {
        path,
        message: "holds pickled weights, which can run programs when they are read; save the pipeline with \
                  diffusers and safe_serialization=True"
            .to_owned(),
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The weights of several files, each tensor from the file that the index names.
fn sharded(folder: &Path, path: &Path) -> Result<Weights> {
    let map = weight_map(path)?;
    let mut shards = BTreeMap::new();
    for file in map.values() {
        if !shards.contains_key(file) {
            shards.insert(file.clone(), Weights::open(folder.join(file))?);
        }
    }
    Weights::gathered(&path.display().to_string(), &map, &shards)
}

/// The file of each tensor, by an index; all lie in the index's own folder.
pub(crate) fn weight_map(path: &Path) -> Result<BTreeMap<String, String>> {
    let format = |message: String| Error::Format { path: path.to_owned(), message };
    let index: Index = serde_json::from_str(&files::text(path)?).map_err(|e| format(e.to_string()))?;
    match index.weight_map.values().find(|file| !is_plain(file)) {
        Some(file) => Err(format(format!("names \"{file}\", expected a file in the same folder"))),
        None => Ok(index.weight_map),
    }
}

/// Whether this is the name of a file or folder and leads nowhere else.
pub(crate) fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

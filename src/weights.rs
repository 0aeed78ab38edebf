//! The weights of a network by name, from a file or from the program itself.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::safetensors::{self, Entry};
use crate::ops::quantized::BlockFormat;
use crate::tensor::{Shape, Tensor};

/// Named tensors on the host, memory-mapped where they come from a file.
#[derive(Clone, Debug)]
pub struct Weights {
    file: String,
    entries: HashMap<String, Entry>,
    blocks: Option<BlockFormat>,
}

impl Weights {
    /// Maps a safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`], see [`safetensors::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(Weights { file: path.display().to_string(), entries: safetensors::open(path)?, blocks: None })
    }

    /// A safetensors file embedded in the program; `name` stands in messages.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Ok(Weights { file: name.to_owned(), entries: safetensors::from_static(name, bytes)?, blocks: None })
    }

    /// Tensors of several files: `files` says for each in which of `shards` it is; `name` stands in messages.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] for one that is not where it should be.
    pub fn gathered(
        name: &str,
        files: &BTreeMap<String, String>,
        shards: &BTreeMap<String, Weights>,
    ) -> Result<Self> {
        let find = |(tensor, shard): (&String, &String)| {
            let entry = shards.get(shard).and_then(|weights| weights.entries.get(tensor));
            let missing = || Error::MissingTensor {
                file: shard.clone(),
                name: tensor.clone(),
                expected: "that the index does not give".to_owned(),
            };
            Ok((tensor.clone(), entry.ok_or_else(missing)?.clone()))
        };
        Ok(Weights {
            file: name.to_owned(),
            entries: files.iter().map(find).collect::<Result<_>>()?,
            blocks: None,
        })
    }

    /// Tensors under other names: what `rename` gives for each, none if it is dropped.
    pub fn renamed(&self, rename: impl Fn(&str, Tensor) -> Vec<(String, Tensor)>) -> Self {
        let mut entries = HashMap::new();
        for (name, entry) in &self.entries {
            match entry {
                Entry::Tensor(tensor) => {
                    let new = rename(name, tensor.clone());
                    entries.extend(new.into_iter().map(|(name, tensor)| (name, Entry::Tensor(tensor))));
                }
                Entry::Unsupported { .. } => {
                    entries.insert(name.clone(), entry.clone());
                }
            }
        }
        Weights { file: self.file.clone(), entries, blocks: self.blocks }
    }

    /// The same weights, of which a network keeps matrices and convolutions in blocks of small integers on the device:
    /// a quarter or an eighth of f32, made of the file's numbers, rounded to the type of the activations, when it is
    /// loaded. Norms, biases, tables and what has fewer than 32 channels in or 4096 numbers stay.
    pub fn in_blocks(&self, format: Option<BlockFormat>) -> Self {
        Weights { blocks: format, ..self.clone() }
    }

    /// The blocks in which matrices are kept on the device, if they are.
    pub fn blocks(&self) -> Option<BlockFormat> {
        self.blocks
    }

    /// Where the weights come from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&Shape> {
        self.entries.get(name).map(|entry| match entry {
            Entry::Tensor(tensor) => &tensor.desc.shape,
            Entry::Unsupported { shape, .. } => shape,
        })
    }

    /// The tensor `name`, of any floating-point type, which must have `shape`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] and [`Error::WrongTensor`], with what was expected and found.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let expected = Shape::from(shape);
        let wrong = |found: String| Error::WrongTensor {
            file: self.file.clone(),
            name: name.to_owned(),
            expected: expected.to_string(),
            found,
        };
        match self.entries.get(name) {
            None => Err(Error::MissingTensor {
                file: self.file.clone(),
                name: name.to_owned(),
                expected: expected.to_string(),
            }),
            Some(Entry::Unsupported { dtype, .. }) => {
                Err(wrong(format!("type {dtype} (f32, f16 and bf16 can be read)")))
            }
            Some(Entry::Tensor(tensor)) if !tensor.desc.dtype.is_float() => {
                Err(wrong(format!("type {} (f32, f16 and bf16 can be read)", tensor.desc.dtype)))
            }
            Some(Entry::Tensor(tensor)) if tensor.desc.shape != expected => {
                Err(wrong(format!("shape {}", tensor.desc.shape)))
            }
            Some(Entry::Tensor(tensor)) => Ok(tensor.clone()),
        }
    }
}

//! The weights of a network by name, from a file or from the program itself.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::formats::safetensors::{self, Entry};
use crate::ops::quantized::BlockFormat;
use crate::tensor::{Bytes, DType, Shape, Tensor, TensorDesc};

/// Named tensors on the host, memory-mapped where they come from a file.
#[derive(Clone, Debug)]
pub struct Weights {
    file: String,
    entries: HashMap<String, Entry>,
    blocks: Option<BlockFormat>,
    /// What is added to the tensors of these names.
    deltas: Arc<HashMap<String, Vec<Delta>>>,
    /// Where what is wrong with tensors is noted instead of being an error, see [`Weights::survey`].
    wrong: Option<Arc<Mutex<Vec<Error>>>>,
}

impl Weights {
    /// Maps a safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`], see [`safetensors::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(Weights::new(path.display().to_string(), safetensors::open(path)?))
    }

    /// A safetensors file embedded in the program; `name` stands in messages.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Ok(Weights::new(name.to_owned(), safetensors::from_static(name, bytes)?))
    }

    fn new(file: String, entries: HashMap<String, Entry>) -> Self {
        Weights { file, entries, blocks: None, deltas: Arc::default(), wrong: None }
    }

    /// Tensors that no file has; `name` stands in messages.
    #[cfg(feature = "bench")]
    pub(crate) fn of_tensors(name: &str, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        let entry = |(name, tensor)| (name, Entry::Tensor(tensor));
        Weights::new(name.to_owned(), tensors.into_iter().map(entry).collect())
    }

    /// A safetensors file in memory; `name` stands in messages.
    ///
    /// # Errors
    /// [`Error::Format`] for what is not a sound one.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Ok(Weights::new(name.to_owned(), safetensors::from_bytes(name, bytes)?))
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
        Ok(Weights::new(name.to_owned(), files.iter().map(find).collect::<Result<_>>()?))
    }

    /// Tensors under other names: what `rename` gives for each, none if it is dropped. Adapters stay behind.
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
        Weights { blocks: self.blocks, ..Weights::new(self.file.clone(), entries) }
    }

    /// The tensors whose names begin so, without that, if there are any, whatever their types. Adapters stay behind.
    pub(crate) fn part(&self, prefix: &str) -> Option<Self> {
        let named =
            |(name, entry): (&String, &Entry)| Some((name.strip_prefix(prefix)?.to_owned(), entry.clone()));
        let entries: HashMap<String, Entry> = self.entries.iter().filter_map(named).collect();
        (!entries.is_empty())
            .then(|| Weights { blocks: self.blocks, ..Weights::new(self.file.clone(), entries) })
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

    /// Adds a tensor that no file has, or puts it in the place of the one of this name.
    pub(crate) fn insert(&mut self, name: &str, tensor: Tensor) {
        self.entries.insert(name.to_owned(), Entry::Tensor(tensor));
    }

    /// The same tensors, to which layers add `deltas`, given by the name of the tensor, beside what they add already.
    /// Nothing is copied, and [`Weights::tensor`] still gives what the file has.
    ///
    /// # Panics
    /// For a tensor that is not there, and a change of another number of elements.
    pub fn with_adapters(&self, deltas: impl IntoIterator<Item = (String, Delta)>) -> Self {
        let mut new = self.clone();
        let all = Arc::make_mut(&mut new.deltas);
        for (name, delta) in deltas {
            let wanted = self.shape(&name).map(Shape::elements);
            let found = delta.change.size().iter().product();
            assert_eq!(wanted, Some(found), "{name}: the change has {found} elements");
            all.entry(name).or_default().push(delta);
        }
        new
    }

    /// The same tensors without adapters.
    pub fn without_adapters(&self) -> Self {
        Weights { deltas: Arc::default(), ..self.clone() }
    }

    /// What layers add to a tensor.
    pub fn deltas(&self, name: &str) -> &[Delta] {
        self.deltas.get(name).map_or(&[], Vec::as_slice)
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

    /// Builds something of these weights to find all tensors that are missing or are not as it wants them, not only the
    /// first; what is built must not be used.
    ///
    /// # Errors
    /// [`Error::Tensors`] if there are several, that of the only one if not, and those of `build` that are none of the
    /// weights'.
    pub fn survey<T>(&self, build: impl FnOnce(&Weights) -> Result<T>) -> Result<()> {
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let built = build(&Weights { wrong: Some(wrong.clone()), ..self.clone() });
        let mut wrong = std::mem::take(&mut *wrong.lock().unwrap_or_else(PoisonError::into_inner));
        match wrong.len() {
            0 => built.map(drop),
            1 => Err(wrong.remove(0)),
            _ => Err(Error::Tensors {
                file: self.file.clone(),
                wrong: wrong.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    /// The tensor `name`, of any floating-point type, which must have `shape`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] and [`Error::WrongTensor`], with what was expected and found.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let found = self.find(name, shape);
        match (&self.wrong, found) {
            (Some(wrong), Err(error)) => {
                wrong.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                // Of the right shape, so that building can go on; nobody looks into it.
                Ok(Tensor { desc: TensorDesc::new(shape, DType::F32), bytes: Bytes::Owned([].into()) })
            }
            (_, found) => found,
        }
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
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

//! A sampling run as a value: it can be kept, saved, and continued.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, View};

use crate::error::{Error, Result};
use crate::files;
use crate::formats::picture::write_whole;
use crate::tensor::{Bytes, DType, Tensor};

/// Where a run was after some of its steps. As a file: safetensors with the tensors
/// `sample` (f32 `[2 + history, n, h, w, c]`), `seeds` (u64), `labels` (u32), and what it belongs to as metadata.
#[derive(Clone, Debug)]
pub struct SamplingState {
    /// Model, options and batch, which the generator that goes on must have too.
    pub(super) description: String,
    pub(super) labels: Vec<u32>,
    pub(super) seeds: Vec<u64>,
    pub(super) row: usize,
    pub(super) sample: Tensor,
    /// What the program that saves it wants to find again; empty unless it says something.
    pub note: String,
}

struct Stored<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl SamplingState {
    /// Evaluations of the model that are done.
    pub fn rows_done(&self) -> usize {
        self.row
    }

    /// Seeds of the pictures.
    pub fn seeds(&self) -> &[u64] {
        &self.seeds
    }

    /// Writes the state under a temporary name that is then changed to `path`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let seeds: Vec<u8> = self.seeds.iter().flat_map(|s| s.to_le_bytes()).collect();
        let labels: Vec<u8> = self.labels.iter().flat_map(|l| l.to_le_bytes()).collect();
        let tensors = [
            ("sample", Dtype::F32, self.sample.desc.shape.to_vec(), Cow::Borrowed(&*self.sample.bytes)),
            ("seeds", Dtype::U64, vec![self.seeds.len()], Cow::Owned(seeds)),
            ("labels", Dtype::U32, vec![self.labels.len()], Cow::Owned(labels)),
        ]
        .map(|(name, dtype, shape, bytes)| (name, Stored { dtype, shape, bytes }));
        let metadata = HashMap::from([
            ("aquatint_run".to_owned(), self.description.clone()),
            ("row".to_owned(), self.row.to_string()),
            ("note".to_owned(), self.note.clone()),
        ]);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| bad(path, e))?;
        write_whole(path, |mut file| {
            file.write_all(&bytes).map_err(|source| Error::Io { path: path.to_owned(), source })
        })
    }

    /// Reads what [`SamplingState::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Format`] for any other file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = files::map(path)?;
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| bad(path, e))?;
        let file = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| bad(path, e))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let text = |key: &str| {
            metadata.get(key).cloned().ok_or_else(|| bad(path, format!("not a saved run: {key} is missing")))
        };
        let tensor = |name: &str, dtype: Dtype, rank: usize| {
            let tensor = file.tensor(name).map_err(|e| bad(path, e))?;
            match tensor.dtype() == dtype && tensor.shape().len() == rank {
                true => Ok(tensor),
                false => Err(bad(path, format!("{name} is {:?} {:?}", tensor.dtype(), tensor.shape()))),
            }
        };
        let (words, _) = tensor("labels", Dtype::U32, 1)?.data().as_chunks::<4>();
        let labels: Vec<u32> = words.iter().map(|w| u32::from_le_bytes(*w)).collect();
        let (words, _) = tensor("seeds", Dtype::U64, 1)?.data().as_chunks::<8>();
        let seeds: Vec<u64> = words.iter().map(|w| u64::from_le_bytes(*w)).collect();
        let sample = tensor("sample", Dtype::F32, 5)?;
        let desc = crate::TensorDesc::new(sample.shape(), DType::F32);
        Ok(SamplingState {
            description: text("aquatint_run")?,
            row: text("row")?.parse().map_err(|_| bad(path, "row is not a number"))?,
            note: metadata.get("note").cloned().unwrap_or_default(),
            sample: Tensor { desc, bytes: Bytes::Owned(sample.data().into()) },
            labels,
            seeds,
        })
    }
}

fn bad(path: &Path, message: impl std::fmt::Display) -> Error {
    Error::Format { path: path.to_owned(), message: message.to_string() }
}

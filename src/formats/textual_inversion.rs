//! Files of textual inversion (Gal et al. 2022, arXiv:2208.01618): vectors that stand for a word in an encoder of text.
//!
//! ```text
//! <cat-toy>                [d] or [k, d]   diffusers; the name is the word, and there may be several
//! emb_params               [k, d]          AUTOMATIC1111; the file's name is the word
//! string_to_param.*        [k, d]          the same, as its older files are converted
//! clip_l, clip_g           [k, d]          SDXL, one for each encoder
//! ```

use std::path::Path;

use crate::error::{Error, Result};
use crate::tensor::{Tensor, TensorDesc};
use crate::weights::Weights;

/// The vectors of a file.
#[derive(Clone, Debug)]
pub struct TextualInversion {
    file: String,
    /// The file's name without its ending.
    pub stem: String,
    pub embeddings: Vec<Embedding>,
}

/// Vectors that stand for a word, one after the other.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// The tensor's name.
    pub name: String,
    /// The word, if the file names it.
    pub word: Option<String>,
    /// The encoder, from 0, if the file names it; otherwise whichever is as wide.
    pub encoder: Option<usize>,
    /// `[k, d]`.
    pub vectors: Tensor,
}

impl TextualInversion {
    /// Maps a safetensors file.
    ///
    /// # Errors
    /// [`Error::Format`] for a file without vectors, [`Error::WrongTensor`] for tensors that are none, those of
    /// [`Weights::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let weights = Weights::open(path)?;
        // Tokens that older files list beside the vectors.
        let names = weights.names().into_iter().filter(|name| !name.starts_with("string_to_token"));
        let embeddings: Vec<Embedding> =
            names.map(|name| embedding(&weights, name)).collect::<Result<_>>()?;
        let wordless = |e: &Embedding| e.word.as_ref().is_some_and(|word| word.trim().is_empty());
        if embeddings.is_empty() || embeddings.iter().any(wordless) {
            return Err(Error::Format {
                path: path.to_owned(),
                message: "holds no vectors for a word: expected a tensor with the word as its name, emb_params, or \
                          clip_l and clip_g"
                    .to_owned(),
            });
        }
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().trim().to_owned()).unwrap_or_default();
        Ok(TextualInversion { file: weights.file().to_owned(), stem, embeddings })
    }

    /// Where the vectors come from.
    pub fn file(&self) -> &str {
        &self.file
    }
}

fn embedding(weights: &Weights, name: &str) -> Result<Embedding> {
    let shape = weights.shape(name).map(|shape| shape.to_vec()).unwrap_or_default();
    let tensor = weights.tensor(name, &shape)?;
    let [rows, width] = match shape[..] {
        [width] => [1, width],
        [rows, width] => [rows, width],
        _ => [0, 0],
    };
    if rows == 0 || width == 0 {
        return Err(Error::WrongTensor {
            file: weights.file().to_owned(),
            name: name.to_owned(),
            expected: "a vector or several".to_owned(),
            found: format!("shape {shape:?}"),
        });
    }
    let (word, encoder) = match name {
        "emb_params" | "*" | "string_to_param.*" | "string_to_param/*" => (None, None),
        "clip_l" => (None, Some(0)),
        "clip_g" => (None, Some(1)),
        word => (Some(word.trim().to_owned()), None),
    };
    let vectors = Tensor { desc: TensorDesc::new([rows, width], tensor.desc.dtype), bytes: tensor.bytes };
    Ok(Embedding { name: name.to_owned(), word, encoder, vectors })
}

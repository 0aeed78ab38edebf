//! safetensors: an 8-byte header length, a JSON header, then the tensors' bytes
//! (<https://github.com/huggingface/safetensors>).
//!
//! Files come from strangers. Nothing in the header is believed before it was
//! checked: lengths, offsets, overlaps and shapes must all agree with the file's
//! size, and the largest allocation is the header itself.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};

use crate::error::{Error, Result};
use crate::files;
use crate::limits::{Bound, Limits};
use crate::tensor::{Bytes, DType, Shape, Tensor, TensorDesc};

/// One tensor of a file. Types that no kernel reads are kept as their name, so
/// that files which hold such tensors beside the wanted ones still load.
#[derive(Clone, Debug)]
pub enum Entry {
    Tensor(Tensor),
    Unsupported { dtype: String, shape: Shape },
}

/// Maps a file and lists its tensors by name. No bytes are copied.
///
/// # Errors
/// [`Error::Io`] when it cannot be opened, [`Error::Format`] when it is not a sound safetensors file, [`Error::Bound`] for one that is
/// larger, or has more tensors or a longer header, than [`Limits`] allow.
pub fn open(path: &Path) -> Result<HashMap<String, Entry>> {
    let map = Arc::new(files::map(path)?);
    let whole = map.clone();
    parse(path, &whole, move |range| Bytes::Mapped { map: map.clone(), range })
}

/// The same for bytes that are part of the program.
pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<HashMap<String, Entry>> {
    parse(Path::new(name), bytes, |range| Bytes::Static(&bytes[range]))
}

/// What a file says of itself, beside its tensors.
///
/// # Errors
/// As [`open`].
pub fn metadata(path: &Path) -> Result<HashMap<String, String>> {
    let fail = |message: String| Error::Format { path: path.to_owned(), message };
    let map = files::map(path)?;
    check_extent(path, &map)?;
    let (_, metadata) = SafeTensors::read_metadata(&map).map_err(|e| fail(explain(&e)))?;
    Ok(metadata.metadata().clone().unwrap_or_default())
}

/// The same for bytes in memory; tensors are windows into them.
pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<HashMap<String, Entry>> {
    let bytes = bytes::Bytes::from(bytes);
    parse(Path::new(name), &bytes, |range| Bytes::Shared(bytes.slice(range)))
}

fn parse(
    path: &Path,
    file: &[u8],
    window: impl Fn(std::ops::Range<usize>) -> Bytes,
) -> Result<HashMap<String, Entry>> {
    let fail = |message: String| Error::Format { path: path.to_owned(), message };
    check_extent(path, file)?;
    let (header, metadata) = SafeTensors::read_metadata(file).map_err(|e| fail(explain(&e)))?;
    let start = 8 + header;
    Ok(metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let shape = Shape::from(info.shape.clone());
            let dtype = match info.dtype {
                Dtype::F32 => Some(DType::F32),
                Dtype::F16 => Some(DType::F16),
                Dtype::BF16 => Some(DType::BF16),
                Dtype::U32 => Some(DType::U32),
                _ => None,
            };
            let entry = match dtype {
                Some(dtype) => Entry::Tensor(Tensor {
                    desc: TensorDesc { shape, dtype },
                    bytes: window(start + info.data_offsets.0..start + info.data_offsets.1),
                }),
                None => Entry::Unsupported { dtype: format!("{:?}", info.dtype).to_lowercase(), shape },
            };
            (name, entry)
        })
        .collect())
}

/// Checks the header's length and that no tensor ends behind the file, before
/// the library adds these numbers up.
fn check_extent(path: &Path, file: &[u8]) -> Result<()> {
    let fail = |message: String| Err(Error::Format { path: path.to_owned(), message });
    let limits = Limits::current();
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return fail(format!("not safetensors: {} bytes, the header's length alone takes 8", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > rest.len() as u64 {
        return fail(format!(
            "truncated, or not safetensors: the header says that it has {length} bytes, {} follow",
            rest.len()
        ));
    }
    limits.check(Bound::Text, || format!("the header of {}", path.display()), length)?;
    #[derive(serde::Deserialize)]
    struct Extent {
        data_offsets: Option<(u64, u64)>,
    }
    let (header, data) = rest.split_at(length as usize);
    let extents: HashMap<String, Extent> = match serde_json::from_slice(header) {
        Ok(extents) => extents,
        Err(e) => return fail(format!("the header is not JSON that describes tensors: {e}")),
    };
    limits.check(Bound::Tensors, || path.display().to_string(), extents.len() as u64)?;
    for (name, extent) in &extents {
        if let Some((first, end)) = extent.data_offsets
            && (first > end || end > data.len() as u64)
        {
            return fail(format!(
                "tensor \"{name}\" claims bytes {first} to {end} of {} (truncated file, or a wrong header)",
                data.len()
            ));
        }
    }
    Ok(())
}

fn explain(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::HeaderTooLarge => "the header is larger than 100 MB".to_owned(),
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor \"{name}\" overlaps another one or leaves a gap before it")
        }
        SafeTensorError::TensorInvalidInfo => {
            "a tensor's shape and type do not give its number of bytes".to_owned()
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            "the tensors do not fill the file: it is truncated, or has bytes that nothing describes"
                .to_owned()
        }
        SafeTensorError::ValidationOverflow => "a tensor's shape overflows".to_owned(),
        other => format!("not a sound safetensors file: {other}"),
    }
}

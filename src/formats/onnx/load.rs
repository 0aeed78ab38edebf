//! ONNX files on disk: the protobuf is decoded over a memory map, and values that lie in files
//! of their own are mapped too, so that weights are never copied on the way to the device.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use prost::Message;

use super::host::Host;
use super::names::names;
use super::proto;
use crate::error::{Error, Result};
use crate::files;
use crate::limits::{Bound, Limits};
use crate::tensor::Bytes;

/// Largest model file, bytes: protobuf itself ends there.
const LARGEST: u64 = 1 << 31;

/// A decoded file and its weights by name.
#[derive(Clone, Debug)]
pub struct File {
    pub path: PathBuf,
    pub graph: Arc<proto::Graph>,
    /// Version of the standard operators.
    pub opset: i64,
    pub weights: HashMap<String, Host>,
    /// What the classes are called, if the file says so.
    pub labels: Vec<String>,
}

/// Opens a model.
///
/// # Errors
/// [`Error::Io`] for files that cannot be read, [`Error::Format`] for what is no model or not a sound one, [`Error::Bound`] for more
/// than [`Limits`] allow.
pub fn open(path: &Path) -> Result<File> {
    let map = files::map(path)?;
    if map.len() as u64 > LARGEST {
        return Err(format(path, "is larger than protobuf allows (2 GiB)".to_owned()));
    }
    decode(path, bytes::Bytes::from_owner(map))
}

/// A model that is in memory already; `name` stands in messages, and files of weights are looked for beside it.
pub fn decode(path: &Path, bytes: bytes::Bytes) -> Result<File> {
    let model =
        proto::Model::decode(bytes).map_err(|e| format(path, format!("is not an ONNX model: {e}")))?;
    let graph =
        model.graph.ok_or_else(|| format(path, "is not an ONNX model: it has no graph".to_owned()))?;
    let (limits, what) = (Limits::current(), || path.display().to_string());
    limits.check(Bound::Tensors, what, graph.initializer.len() as u64)?;
    limits.check(Bound::Nodes, what, graph.node.len() as u64)?;
    let standard = model.opset_import.iter().find(|o| matches!(o.domain.as_str(), "" | "ai.onnx"));
    let opset = standard.map_or(1, |o| o.version);
    let mut files = HashMap::new();
    let mut weights = HashMap::new();
    for tensor in &graph.initializer {
        let host = external(path, tensor, &mut files)
            .and_then(|external| Host::from_proto(tensor, external).map_err(|m| format(path, m)))
            .map_err(|e| match e {
                Error::Format { path, message } => {
                    Error::Format { path, message: format!("tensor \"{}\": {message}", tensor.name) }
                }
                other => other,
            })?;
        weights.insert(tensor.name.clone(), host);
    }
    let labels = model.metadata_props.iter().find(|entry| entry.key == "names");
    let labels = labels.and_then(|entry| names(&entry.value)).unwrap_or_default();
    Ok(File { path: path.to_owned(), graph: Arc::new(graph), opset, weights, labels })
}

fn format(path: &Path, message: String) -> Error {
    Error::Format { path: path.to_owned(), message }
}

/// The values of a tensor that lie in another file, which must be in the model's own folder or below it.
fn external(
    path: &Path,
    tensor: &proto::Tensor,
    files: &mut HashMap<String, bytes::Bytes>,
) -> Result<Option<Bytes>> {
    if tensor.data_location != 1 {
        return Ok(None);
    }
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let location = entry("location").ok_or_else(|| format(path, "its file is not named".to_owned()))?;
    let inside =
        Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !inside {
        let message = format!("its values lie in \"{location}\", which is outside the model's folder");
        return Err(format(path, message));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    if !files.contains_key(location) {
        let target = folder.join(location);
        // A link may lead out of the folder even if the name does not; to where the model's own link leads, it may.
        let real = |p: &Path| p.canonicalize().map_err(|source| Error::Io { path: p.to_owned(), source });
        let home = real(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
        let (target, model) = (real(&target)?, real(path)?);
        if !target.starts_with(home) && target.parent() != model.parent() {
            let message = format!("its values lie in \"{location}\", which is outside the model's folder");
            return Err(format(path, message));
        }
        files.insert(location.to_owned(), bytes::Bytes::from_owner(files::map(&target)?));
    }
    let bytes = &files[location];
    let number = |key: &str| -> Result<Option<usize>> {
        entry(key)
            .map(|v| v.parse().map_err(|_| format(path, format!("its {key} \"{v}\" is not a number"))))
            .transpose()
    };
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?.unwrap_or(bytes.len().saturating_sub(offset));
    match offset.checked_add(length) {
        Some(end) if end <= bytes.len() => Ok(Some(Bytes::Shared(bytes.slice(offset..end)))),
        _ => Err(format(
            path,
            format!(
                "it wants bytes {offset} to {offset} + {length} of \"{location}\", which has {}",
                bytes.len()
            ),
        )),
    }
}

//! Files made of a few lines, so that what changes is what they say and not how they are written.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use aquatint::Weights;

use super::LIMIT;

/// Bytes of a file that is written to disk.
pub const SMALL: usize = 4 << 20;

/// Weights of these names and shapes, none if they would fill the memory.
pub fn zeros(lines: &str) -> Option<Weights> {
    Weights::from_bytes("model.safetensors", safetensors(lines, None, LIMIT / 8)?).ok()
}

/// A safetensors file of zeros: a line has a name, dimensions and, after `=`, numbers that come first. None for what is
/// no such line and for more bytes than `most`.
pub fn safetensors(lines: &str, metadata: Option<(&str, &str)>, most: usize) -> Option<Vec<u8>> {
    let mut tensors = BTreeMap::new();
    for line in lines.lines() {
        let (tensor, values) = line.split_once(" =").unwrap_or((line, ""));
        let mut words = tensor.split(' ');
        let name = words.next()?;
        let shape = words.map(|word| word.parse().ok()).collect::<Option<Vec<usize>>>()?;
        let values = values.split_whitespace().map(|v| v.parse().ok()).collect::<Option<Vec<f32>>>()?;
        tensors.insert(name, (shape, values));
    }
    let (mut end, mut header) = (0usize, serde_json::Map::new());
    if let Some((key, text)) = metadata {
        header.insert("__metadata__".to_owned(), serde_json::json!({ key: text }));
    }
    let mut starts = Vec::new();
    for (name, (shape, _)) in &tensors {
        let start = end;
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        end = elements.checked_mul(4)?.checked_add(start).filter(|&end| end <= most)?;
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), entry);
        starts.push((start, end));
    }
    let header = serde_json::Value::Object(header).to_string();
    // The system's zeros take no memory until they are read.
    let mut file = vec![0; 8 + header.len() + end];
    file[..8].copy_from_slice(&(header.len() as u64).to_le_bytes());
    file[8..8 + header.len()].copy_from_slice(header.as_bytes());
    let data = &mut file[8 + header.len()..];
    for ((_, values), (start, end)) in tensors.values().zip(starts) {
        let places = data[start..end].chunks_exact_mut(4);
        places.zip(values).for_each(|(place, value)| place.copy_from_slice(&value.to_le_bytes()));
    }
    Some(file)
}

/// Writes files into a folder, each of a line with its name and its text, zero bytes between them; those whose names end
/// in `safetensors` as [`safetensors`] makes them. Names that lead elsewhere are left out: that is for what reads them.
pub fn folder(at: &Path, bytes: &[u8]) {
    for part in bytes.split(|byte| *byte == 0).take(32) {
        let line = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let Ok(name) = std::str::from_utf8(&part[..line]) else { continue };
        let text = part.get(line + 1..).unwrap_or(&[]);
        let path = Path::new(name);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !plain || path.components().count() > 3 {
            continue;
        }
        let whole = match (name.ends_with(".safetensors"), std::str::from_utf8(text)) {
            (true, Ok(lines)) => safetensors(lines, None, SMALL),
            _ => None,
        };
        // Some names are no file's, and some folders are files already.
        let path = at.join(path);
        let _ = std::fs::create_dir_all(path.parent().expect("below the folder"));
        let _ = std::fs::write(path, whole.as_deref().unwrap_or(text));
    }
}

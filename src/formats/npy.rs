//! Matrices as NumPy's `.npy`, format version 1.0, and text, written whole or not at all.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::picture::write_whole;

/// Writes a matrix of f32, row by row.
///
/// # Errors
/// [`Error::Invalid`] if there are not as many values as the shape says, [`Error::Io`] when the file cannot be written.
pub fn save(path: impl AsRef<Path>, [rows, columns]: [usize; 2], values: &[f32]) -> Result<()> {
    let path = path.as_ref();
    if rows.checked_mul(columns) != Some(values.len()) {
        return Err(Error::Invalid {
            what: "matrix".to_owned(),
            expected: format!("{rows} × {columns} values"),
            found: values.len().to_string(),
        });
    }
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Magic, version and length take ten bytes; the whole is padded to a multiple of 64 and ends in a line feed.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = length - 1).bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    save_bytes(path, &bytes)
}

/// Writes text.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written.
pub fn save_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    save_bytes(path.as_ref(), text.as_bytes())
}

fn save_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, |mut file| {
        file.write_all(bytes).map_err(|source| Error::Io { path: path.to_owned(), source })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_ends_at_a_multiple_of_64() {
        let path = tempfile::tempdir().unwrap().path().with_extension("npy");
        save(&path, [2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, -6.5]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(bytes.len(), 128 + 24);
        assert_eq!(bytes[127], b'\n');
        assert!(bytes[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"));
        assert_eq!(bytes[148..], (-6.5f32).to_le_bytes());
        assert!(save(&path, [2, 2], &[0.0; 3]).is_err());
    }
}

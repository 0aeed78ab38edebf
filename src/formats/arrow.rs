//! Vectors as an Apache Arrow file (the IPC file format, which is Feather version 2), written whole or not at all.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};

use crate::error::{Error, Result};
use crate::formats::picture::write_whole;

/// Writes a table of two columns: `path`, text, and `vector`, a list of `columns` f32 in each row.
///
/// # Errors
/// [`Error::Invalid`] if the numbers of paths and values do not fit, [`Error::Io`] when the file cannot be written.
pub fn save(path: impl AsRef<Path>, names: &[String], columns: usize, values: &[f32]) -> Result<()> {
    let path = path.as_ref();
    let invalid = |found: String| Error::Invalid {
        what: "vectors for Arrow".to_owned(),
        expected: format!("{} rows of {columns} numbers", names.len()),
        found,
    };
    if names.len().checked_mul(columns) != Some(values.len()) {
        return Err(invalid(format!("{} numbers", values.len())));
    }
    let width = i32::try_from(columns).map_err(|e| invalid(e.to_string()))?;
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let schema = Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("vector", DataType::FixedSizeList(item.clone(), width), false),
    ]));
    let fail = |error: ArrowError| match error {
        ArrowError::IoError(_, source) => Error::Io { path: path.to_owned(), source },
        other => invalid(other.to_string()),
    };
    let values = Arc::new(Float32Array::from(values.to_vec()));
    let vectors = FixedSizeListArray::try_new(item, width, values, None).map_err(fail)?;
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
    let batch = RecordBatch::try_new(schema.clone(), vec![names, Arc::new(vectors)]).map_err(fail)?;
    write_whole(path, |file| {
        let mut writer = FileWriter::try_new(file, &schema).map_err(fail)?;
        writer.write(&batch).map_err(fail)?;
        writer.finish().map_err(fail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Float32Type;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.arrow");
        let names = ["a.png", "é/b.png"].map(str::to_owned);
        save(&path, &names, 3, &[1.0, 2.0, 3.0, -4.0, 0.5, f32::MAX]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let batches: Vec<RecordBatch> =
            arrow_ipc::reader::FileReader::try_new(file, None).unwrap().map(|batch| batch.unwrap()).collect();
        let [batch] = &batches[..] else { panic!("one batch") };
        assert_eq!(batch.column_by_name("path").unwrap().as_string::<i32>().value(1), "é/b.png");
        let vectors = batch.column_by_name("vector").unwrap().as_fixed_size_list();
        assert_eq!(vectors.value(1).as_primitive::<Float32Type>().values(), &[-4.0, 0.5, f32::MAX]);
        assert!(matches!(save(&path, &names, 2, &[1.0]), Err(Error::Invalid { .. })));
        save(&path, &[], 0, &[]).unwrap();
    }
}

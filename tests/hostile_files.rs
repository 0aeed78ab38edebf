//! Files from strangers: damaged or made to do harm. Each must give a typed
//! error that names the trouble, without a panic and without a large allocation.

use std::io::Write;

use aquatint::{Error, Weights};

/// A file of a header with a given claimed length, and `data` bytes after it.
fn write(claimed: u64, header: &str, data: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&claimed.to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(&vec![1; data]).unwrap();
    file
}

fn sound(header: &str, data: usize) -> tempfile::NamedTempFile {
    write(header.len() as u64, header, data)
}

#[track_caller]
fn refused(file: &tempfile::NamedTempFile, says: &str) {
    match Weights::open(file.path()) {
        Err(Error::Format { message, .. }) => assert!(message.contains(says), "{message}"),
        other => panic!("expected a format error, got {other:?}"),
    }
}

#[test]
fn a_sound_file_opens() {
    let file = sound(
        r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#,
        24,
    );
    let weights = Weights::open(file.path()).unwrap();
    assert_eq!(weights.tensor("w", &[2, 3]).unwrap().to_f32().len(), 6);
}

#[test]
fn truncated_files() {
    refused(&tempfile::NamedTempFile::new().unwrap(), "empty");
    let mut short = tempfile::NamedTempFile::new().unwrap();
    short.write_all(&[1, 2, 3]).unwrap();
    refused(&short, "3 bytes");
    refused(
        &sound(r#"{"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}"#, 23),
        "claims bytes 0 to 24 of 23",
    );
    refused(&write(500, "{}", 0), "500 bytes, 2 follow");
}

#[test]
fn huge_headers() {
    for length in [u64::MAX, u64::MAX - 8, 1 << 63, 1 << 40] {
        refused(&write(length, "{}", 64), "follow");
    }
}

#[test]
fn headers_that_are_not_tensors() {
    refused(&sound("[1, 2]", 0), "not JSON that describes tensors");
    refused(&sound("{\"w\": 3}", 0), "not JSON that describes tensors");
    refused(&sound("\u{1}\u{2}garbage", 0), "not JSON that describes tensors");
    refused(&sound(r#"{"w":{"dtype":"F77","shape":[1],"data_offsets":[0,4]}}"#, 4), "");
    refused(&sound(r#"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4), "");
    let nested = format!("{{\"w\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    refused(&sound(&nested, 0), "not JSON");
}

#[test]
fn offsets_that_lie() {
    let two = |a: &str, b: &str| {
        sound(
            &format!(
                r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{a}}},"b":{{"dtype":"F32","shape":[2],"data_offsets":{b}}}}}"#
            ),
            16,
        )
    };
    refused(&two("[0,8]", "[4,12]"), "overlaps");
    refused(&two("[0,8]", "[0,8]"), "overlaps");
    refused(&two("[4,12]", "[12,16]"), "");
    refused(&two("[8,0]", "[8,16]"), "claims bytes 8 to 0");
    refused(&two("[0,8]", "[8,18446744073709551615]"), "claims bytes");
    refused(
        &two("[0,8]", "[8,16]},\"c\":{\"dtype\":\"F32\",\"shape\":[9],\"data_offsets\":[16,16]"),
        "shape and type",
    );
    refused(&sound(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 12), "do not fill the file");
}

#[test]
fn shapes_that_overflow() {
    for shape in ["[18446744073709551615,2]", "[4294967296,4294967296]", "[4611686018427387904,4]"] {
        let header = format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}}}"#);
        refused(&sound(&header, 8), "");
    }
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let file = sound(
        r#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"n":{"dtype":"I64","shape":[1],"data_offsets":[24,32]}}"#,
        32,
    );
    let weights = Weights::open(file.path()).unwrap();
    let text = |result: aquatint::Result<aquatint::Tensor>| result.unwrap_err().to_string();
    let missing = text(weights.tensor("conv.weight", &[4, 4]));
    assert!(missing.contains("\"conv.weight\" is missing") && missing.contains("[4, 4]"), "{missing}");
    let misshapen = text(weights.tensor("w", &[3, 2]));
    assert!(misshapen.contains("\"w\" has shape [2, 3], expected [3, 2]"), "{misshapen}");
    let wrong = text(weights.tensor("n", &[1]));
    assert!(wrong.contains("\"n\" has type i64"), "{wrong}");
    assert!(matches!(Weights::open("/no/such/file"), Err(Error::Io { .. })));
}

proptest::proptest! {
    /// Whatever single byte of a sound file is changed, nothing panics.
    #[test]
    fn any_changed_byte_is_survived(at in 0usize..100, value: u8) {
        let header = r#"{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[0; 16]);
        bytes[at] = value;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        if let Ok(weights) = Weights::open(file.path()) {
            for name in weights.names() {
                let shape = weights.shape(name).unwrap().clone();
                let _ = weights.tensor(name, &shape).map(|t| t.to_f32());
            }
        }
    }
}

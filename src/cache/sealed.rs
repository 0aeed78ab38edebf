//! Bytes in a file, with what tells whether they are whole and whose they are.
//!
//! ```text
//! magic      8 bytes  "aquatint"
//! kind       4 bytes
//! version    u32, little endian as all numbers
//! identity   u32, its bytes
//! payload    u64, its bytes
//! checksum   u32      CRC-32 of all that is before it and after it
//! identity, payload
//! ```

const MAGIC: &[u8; 8] = b"aquatint";
const VERSION: u32 = 1;
/// Bytes before the checksum, and with it.
const SIZES: usize = 28;
const HEADER: usize = SIZES + 4;

/// CRC-32 of all parts: finds what was cut off or damaged. It is no defence against who means harm.
pub fn checksum(parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.finalize()
}

/// The file of a payload.
pub fn seal(kind: &[u8; 4], identity: &str, payload: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER + identity.len() + payload.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(kind);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&(identity.len() as u32).to_le_bytes());
    file.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    let sum = checksum(&[&file, identity.as_bytes(), payload]);
    file.extend_from_slice(&sum.to_le_bytes());
    file.extend_from_slice(identity.as_bytes());
    file.extend_from_slice(payload);
    file
}

/// The payload of a file, if it is whole, of this kind and version, and of this identity.
pub fn open<'a>(file: &'a [u8], kind: &[u8; 4], identity: &str) -> Option<&'a [u8]> {
    let (header, body) = file.split_at_checked(HEADER)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let long = u64::from_le_bytes(header[20..SIZES].try_into().expect("eight bytes"));
    if header[..8] != *MAGIC || header[8..12] != *kind || word(12) != VERSION {
        return None;
    }
    let (name, payload) = body.split_at_checked(word(16) as usize)?;
    let whole = payload.len() as u64 == long && checksum(&[&header[..SIZES], body]) == word(SIZES);
    (whole && name == identity.as_bytes()).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_file_of_the_same_device_is_opened() {
        let file = seal(b"pipe", "this device", b"some bytes");
        assert_eq!(open(&file, b"pipe", "this device"), Some(&b"some bytes"[..]));
        assert_eq!(open(&file, b"tune", "this device"), None);
        assert_eq!(open(&file, b"pipe", "this devicd"), None);
        for length in 0..file.len() {
            assert_eq!(open(&file[..length], b"pipe", "this device"), None, "cut to {length}");
        }
        for bit in 0..8 * file.len() {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&damaged, b"pipe", "this device"), None, "bit {bit}");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert_eq!(open(&longer, b"pipe", "this device"), None);
        // Lengths that no file has.
        let mut absurd = file;
        absurd[16..28].fill(0xff);
        assert_eq!(open(&absurd, b"pipe", "this device"), None);
    }
}

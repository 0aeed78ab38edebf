//! SentencePiece's table of how characters are normalised, in a `tokenizer.json`: 4 bytes with the size of a trie, the trie as a
//! double array (Aoe 1989) of 32-bit units, and texts that end with zero bytes, of which the trie's values are the beginnings.
//! What reads it believes all of these numbers, so they are checked here first.

use base64::prelude::{BASE64_STANDARD, Engine as _};

/// Whether every text can be looked up in the table, given as base64.
///
/// # Errors
/// What is wrong with it.
pub fn check(base64: &str) -> Result<(), String> {
    let bytes = BASE64_STANDARD.decode(base64).map_err(|e| format!("is not base64: {e}"))?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or("has not 4 bytes")?;
    let size = u32::from_le_bytes(*size) as usize;
    let Some((trie, texts)) = rest.split_at_checked(size).filter(|_| size >= 4 && size.is_multiple_of(4))
    else {
        return Err(format!("claims a trie of {size} bytes of {}", rest.len()));
    };
    let texts = std::str::from_utf8(texts).map_err(|e| e.to_string())?;
    let units: Vec<usize> = trie
        .chunks_exact(4)
        .map(|unit| u32::from_le_bytes(unit.try_into().expect("chunks of four")) as usize)
        .collect();
    for (i, &unit) in units.iter().enumerate() {
        // A value, to which no character leads; the search begins at the first in any case.
        if unit >> 31 == 1 && i > 0 {
            continue;
        }
        // From there any byte leads on, within a block of 256.
        let next = i ^ (unit >> 10) << ((unit & 1 << 9) >> 6);
        if next | 0xff >= units.len() {
            return Err(format!("leads from unit {i} out of its {} units", units.len()));
        }
        let value = units[next] & ((1 << 31) - 1);
        if unit >> 8 & 1 == 1 && !texts.is_char_boundary(value) {
            return Err(format!("has a text at byte {value} of {}", texts.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(units: &[u32], texts: &[u8]) -> String {
        let size = (units.len() * 4) as u32;
        let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
        let bytes: Vec<u8> =
            size.to_le_bytes().into_iter().chain(trie).chain(texts.iter().copied()).collect();
        BASE64_STANDARD.encode(bytes)
    }

    /// "a" becomes "bc": the root leads to block 256, there `a` has a leaf, whose value lies at the same block's start.
    #[test]
    fn a_sound_table_is_taken() {
        let mut units = vec![0u32; 512];
        units[0] = 256 << 10;
        let a = 256 ^ usize::from(b'a');
        units[a] = u32::from(b'a') | 1 << 8 | ((a as u32) ^ 256) << 10;
        units[256] = 1 << 31;
        let table = encoded(&units, b"bc\0");
        assert_eq!(check(&table), Ok(()));
        let normalizer: tokenizers::NormalizerWrapper = serde_json::from_value(
            serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": table }),
        )
        .unwrap();
        let mut text = tokenizers::NormalizedString::from("xa");
        tokenizers::Normalizer::normalize(&normalizer, &mut text).unwrap();
        assert_eq!(text.get(), "xbc");

        let refused = |change: &dyn Fn(&mut Vec<u32>), says: &str| {
            let mut wrong = units.clone();
            change(&mut wrong);
            let error = check(&encoded(&wrong, b"bc\0")).unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        refused(&|units| units[0] = 512 << 10, "from unit 0 out of its 512");
        refused(&|units| units[0] |= 1 << 31, "from unit 0");
        refused(&|units| units.truncate(300), "out of its 300");
        refused(&|units| units[7] = u32::MAX >> 1, "from unit 7");
        refused(&|units| units[256] = 1 << 31 | 4, "at byte 4 of 3");
        refused(&|units| units.clear(), "a trie of 0 bytes");
        assert!(check("////fw==").unwrap_err().contains("bytes of 0"));
        for text in ["A", "AAA", "A?==", "=", "AB==", "AAA===", "AAAA AAA"] {
            assert!(check(text).is_err(), "{text}");
        }
    }
}

//! SentencePiece's table of how characters are normalised, in a `tokenizer.json`: 4 bytes with the size of a trie, the trie as a
//! double array (Aoe 1989) of 32-bit units, and texts that end with zero bytes, of which the trie's values are the beginnings.
//! What reads it believes all of these numbers, so they are checked here first.

/// Whether every text can be looked up in the table, given as base64.
///
/// # Errors
/// What is wrong with it.
pub fn check(base64: &str) -> Result<(), String> {
    let bytes = decode(base64).ok_or("is not base64")?;
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

/// Bytes of standard base64 with its padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    let digits = text.trim_end_matches('=');
    for c in digits.bytes() {
        bits = bits << 6 | u32::from(digit(c)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    let rest = bits & ((1 << count) - 1);
    (rest == 0 && [(0, 0), (1, 2), (2, 4)].contains(&(text.len() - digits.len(), count))).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(units: &[u32], texts: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let size = (units.len() * 4) as u32;
        let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
        let bytes: Vec<u8> =
            size.to_le_bytes().into_iter().chain(trie).chain(texts.iter().copied()).collect();
        let group = |part: &[u8]| -> String {
            let three = [0, 1, 2].map(|i| u32::from(part.get(i).copied().unwrap_or(0)));
            let bits = three[0] << 16 | three[1] << 8 | three[2];
            let digit = |i: usize| match i <= part.len() {
                true => DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char,
                false => '=',
            };
            (0..4).map(digit).collect()
        };
        bytes.chunks(3).map(group).collect()
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

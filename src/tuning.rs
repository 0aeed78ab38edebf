//! Which of the ways to compute an operation was measured to be the fastest on a device. Plain data: an operation says what
//! it is called and what its ways are called, and takes a name from here only if it is one of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Identity, checksum};

/// Bytes of a file, and operations in it, at most: some thousand times those of one network.
const MOST_BYTES: u64 = 16 << 20;
const MOST_CHOICES: usize = 1 << 16;

const FORMAT: &str = "aquatint-tuning";
const VERSION: u32 = 1;

/// Operations, and how each is to be computed; both by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    choices: BTreeMap<String, String>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u32,
    /// [`Identity::text`] of the device.
    device: String,
    /// CRC-32 of the choices as JSON without spaces.
    checksum: u32,
    choices: BTreeMap<String, String>,
}

impl Tuning {
    pub fn len(&self) -> usize {
        self.choices.len()
    }

    pub fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }

    /// How an operation is to be computed.
    pub fn get(&self, operation: &str) -> Option<&str> {
        self.choices.get(operation).map(String::as_str)
    }

    pub fn set(&mut self, operation: String, way: String) {
        if self.choices.len() < MOST_CHOICES || self.choices.contains_key(&operation) {
            self.choices.insert(operation, way);
        }
    }

    /// Takes over what another one has.
    pub fn extend(&mut self, other: Tuning) {
        other.choices.into_iter().for_each(|(operation, way)| self.set(operation, way));
    }

    /// What is kept for a device, empty if there is nothing that is sound.
    pub fn kept(cache: &Cache, identity: &Identity) -> Tuning {
        let bytes = cache.read(&name(identity), MOST_BYTES);
        bytes.and_then(|bytes| Tuning::from_bytes(&bytes, &identity.text())).unwrap_or_default()
    }

    /// Keeps it for a device, in place of what is kept; returns whether that could be done.
    pub fn keep(&self, cache: &Cache, identity: &Identity) -> bool {
        let bytes = self.to_bytes(&identity.text());
        let fits = bytes.len() as u64 <= MOST_BYTES;
        let done = fits && cache.write(&name(identity), &bytes);
        if done {
            cache.thin_out(PREFIX);
        }
        done
    }

    /// Forgets what is kept for a device; returns whether there was anything.
    pub fn forget(cache: &Cache, identity: &Identity) -> bool {
        cache.remove(&name(identity))
    }

    /// A file for the device with this [`Identity::text`].
    pub fn to_bytes(&self, device: &str) -> Vec<u8> {
        let file = File {
            format: FORMAT.to_owned(),
            version: VERSION,
            device: device.to_owned(),
            checksum: sum(&self.choices),
            choices: self.choices.clone(),
        };
        let mut bytes = serde_json::to_vec_pretty(&file).expect("plain data");
        bytes.push(b'\n');
        bytes
    }

    /// What a file says, if it is whole and of this device.
    pub fn from_bytes(bytes: &[u8], device: &str) -> Option<Tuning> {
        let file: File = serde_json::from_slice(bytes).ok()?;
        let own = file.format == FORMAT && file.version == VERSION && file.device == device;
        let whole = file.checksum == sum(&file.choices) && file.choices.len() <= MOST_CHOICES;
        (own && whole).then_some(Tuning { choices: file.choices })
    }
}

const PREFIX: &str = "tuning-";

fn name(identity: &Identity) -> String {
    format!("{PREFIX}{}.json", identity.stem())
}

fn sum(choices: &BTreeMap<String, String>) -> u32 {
    checksum(&[&serde_json::to_vec(choices).expect("plain data")])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuning() -> Tuning {
        let mut tuning = Tuning::default();
        tuning.set("conv".to_owned(), "rows 4×2×1".to_owned());
        tuning.set("conv".to_owned(), "rows 8×1×1".to_owned());
        tuning.set("another".to_owned(), "direct".to_owned());
        tuning
    }

    #[test]
    fn only_the_whole_file_of_the_same_device_is_read() {
        let tuning = tuning();
        assert_eq!((tuning.len(), tuning.get("conv"), tuning.get("none")), (2, Some("rows 8×1×1"), None));
        let bytes = tuning.to_bytes("this device");
        assert_eq!(Tuning::from_bytes(&bytes, "this device"), Some(tuning));
        assert_eq!(Tuning::from_bytes(&bytes, "another device"), None);
        // The last byte is the end of the line.
        for length in 0..bytes.len() - 1 {
            assert_eq!(Tuning::from_bytes(&bytes[..length], "this device"), None, "cut to {length}");
        }
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [
            ("\"version\": 1", "\"version\": 2"),
            ("aquatint-tuning", "another-tuning"),
            ("rows 8×1×1", "rows 8×1×2"),
            ("\"choices\"", "\"more\": 1, \"choices\""),
            ("\"direct\"", "7"),
            ("\"direct\"", "[[[[[[]]]]]]"),
        ] {
            assert!(text.contains(from), "{from}");
            assert_eq!(Tuning::from_bytes(text.replace(from, to).as_bytes(), "this device"), None, "{to}");
        }
    }

    #[test]
    fn it_is_kept_for_a_device_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let own = Identity { device: 7, ..Identity::default() };
        let other = Identity { device: 8, ..Identity::default() };
        assert_eq!(Tuning::kept(&cache, &own), Tuning::default());
        assert!(tuning().keep(&cache, &own));
        assert_eq!(Tuning::kept(&cache, &own), tuning());
        assert_eq!(Tuning::kept(&cache, &other), Tuning::default());
        // Whatever stands there instead.
        std::fs::write(folder.path().join(name(&own)), [0xff; 100]).unwrap();
        assert_eq!(Tuning::kept(&cache, &own), Tuning::default());
        assert!(tuning().keep(&cache, &own) && Tuning::forget(&cache, &own));
        assert!(!Tuning::forget(&cache, &own) && !tuning().keep(&Cache::off(), &own));
    }
}

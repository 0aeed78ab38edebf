//! What the `config.json` files of diffusers have in common, and how settings that this crate has not are refused.

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A model class of diffusers, by its name.
#[derive(Clone, Copy, Debug)]
pub struct Class(pub &'static str);

impl Class {
    /// The settings of this class in the text of a `config.json`; those that it lacks have the defaults of `T`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no JSON, [`Error::Unknown`] for another class.
    pub fn parse<T: DeserializeOwned>(self, text: &str) -> Result<T> {
        let wrong = |e: serde_json::Error| self.unsupported("configuration", "config.json of diffusers", e);
        let value: serde_json::Value = serde_json::from_str(text).map_err(wrong)?;
        if let Some(class) = value["_class_name"].as_str().filter(|class| *class != self.0) {
            let (found, expected) = (class.to_owned(), self.0.to_owned());
            return Err(Error::Unknown { what: "model class", found, expected });
        }
        serde_json::from_value(value).map_err(wrong)
    }

    pub fn unsupported(self, setting: &str, expected: &str, found: impl std::fmt::Display) -> Error {
        Error::Invalid {
            what: format!("{setting} of {} {}", if self.0.starts_with('A') { "an" } else { "a" }, self.0),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    pub fn one_of(self, setting: &str, found: &str, expected: &[&str]) -> Result<()> {
        match expected.contains(&found) {
            true => Ok(()),
            false => Err(self.unsupported(setting, &expected.join(" or "), found)),
        }
    }

    /// Settings that stand for something this crate has not, unless they are null.
    pub fn null(self, settings: &[(&str, &Option<String>)]) -> Result<()> {
        match settings.iter().find_map(|(setting, value)| value.as_ref().map(|v| (setting, v))) {
            Some((setting, found)) => Err(self.unsupported(setting, "null", found)),
            None => Ok(()),
        }
    }

    /// Levels that a network can have: a picture of any size that is allowed is a pixel long before the last.
    pub fn levels(self, levels: usize) -> Result<()> {
        match (1..=16).contains(&levels) {
            true => Ok(()),
            false => Err(self.unsupported("length of block_out_channels", "1 to 16", levels)),
        }
    }

    /// Sizes that a network can have.
    pub fn sizes<'a>(self, sizes: impl IntoIterator<Item = (&'a str, usize)>) -> Result<()> {
        match sizes.into_iter().find(|(_, size)| !(1..=1 << 16).contains(size)) {
            Some((setting, size)) => Err(self.unsupported(setting, "1 to 65536", size)),
            None => Ok(()),
        }
    }
}

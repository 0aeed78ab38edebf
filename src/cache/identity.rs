//! Whose a file is.

use serde::Serialize;

use super::sealed::checksum;

/// A device with its driver, as this version of the crate sees it. What is kept for one is nothing to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    pub backend: String,
    /// Numbers on the bus.
    pub vendor: u32,
    pub device: u32,
    pub name: String,
    pub driver: String,
    pub driver_info: String,
    /// Of this crate.
    pub version: String,
    /// What else must be the same: abilities that are taken away, say.
    pub more: String,
}

impl Identity {
    pub fn new(info: &wgpu::AdapterInfo, more: String) -> Identity {
        Identity {
            backend: info.backend.to_string(),
            vendor: info.vendor,
            device: info.device,
            name: info.name.clone(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            more,
        }
    }

    /// All of it in one text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// Part of a file's name. Two may have the same, so the text is in the file too.
    pub fn stem(&self) -> String {
        let Identity { backend, vendor, device, .. } = self;
        format!("{backend}-{vendor:04x}-{device:04x}-{:08x}", checksum(&[self.text().as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_driver_has_another_name() {
        let own = Identity {
            backend: "vulkan".to_owned(),
            vendor: 0x10005,
            device: 0,
            name: "llvmpipe".to_owned(),
            driver: "llvmpipe".to_owned(),
            driver_info: "Mesa 26.0.1".to_owned(),
            version: "0.1.0".to_owned(),
            more: String::new(),
        };
        let other = Identity { driver_info: "Mesa 26.0.2".to_owned(), ..own.clone() };
        assert_eq!(own.stem(), own.clone().stem());
        assert_ne!(own.stem(), other.stem());
        assert!(own.stem().starts_with("vulkan-10005-0000-"));
    }
}

//! Any device as a weaker one: features and limits are taken away before it is opened, so that wgpu itself refuses what
//! goes beyond and the planner sees what a network will find on a lesser device.

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::target::DeviceClass;
use crate::units;

/// What is taken away, read from a list as `webgpu` or `max-binding=128MiB,no-f16,shared=16KiB,class=integrated`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AsIf {
    /// WebGPU's default limits and no optional feature: what every browser gives without being asked.
    webgpu: bool,
    without: wgpu::Features,
    limits: Vec<(Key, u64)>,
    class: Option<DeviceClass>,
}

/// Features and limits that a device is opened with.
#[derive(Clone, Debug)]
pub struct Abilities {
    pub features: wgpu::Features,
    pub limits: wgpu::Limits,
    /// Whose kernels are chosen, if not those of the device's own class.
    pub class: Option<DeviceClass>,
}

/// A limit that can be lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Binding,
    Buffer,
    Texture,
    Shared,
    StorageBuffers,
    Invocations,
    Workgroups,
}

const KEYS: [(&str, Key); 7] = [
    ("max-binding", Key::Binding),
    ("max-buffer", Key::Buffer),
    ("max-texture", Key::Texture),
    ("shared", Key::Shared),
    ("storage-buffers", Key::StorageBuffers),
    ("invocations", Key::Invocations),
    ("workgroups", Key::Workgroups),
];

const FEATURES: [(&str, wgpu::Features); 4] = [
    ("no-f16", wgpu::Features::SHADER_F16),
    ("no-subgroups", wgpu::Features::SUBGROUP),
    ("no-timestamps", wgpu::Features::TIMESTAMP_QUERY),
    ("no-matrices", wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
];

const CLASSES: [(&str, DeviceClass); 3] =
    [("discrete", DeviceClass::Discrete), ("integrated", DeviceClass::Integrated), ("cpu", DeviceClass::Cpu)];

impl FromStr for AsIf {
    type Err = Error;

    /// # Errors
    /// [`Error::Unknown`] for a word that is none of these, [`Error::Invalid`] for a value that is no such number.
    fn from_str(text: &str) -> Result<AsIf> {
        let mut as_if = AsIf::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let feature = FEATURES.iter().find(|(name, _)| *name == word);
            match (word.split_once('='), feature) {
                (None, _) if word == "webgpu" => as_if.webgpu = true,
                (None, Some((_, feature))) => as_if.without |= *feature,
                (Some(("class", name)), _) => as_if.class = Some(named("class", &CLASSES, name)?),
                (Some((name, value)), _) => {
                    let key = KEYS.iter().find(|(n, _)| *n == name).ok_or_else(|| unknown(word))?.1;
                    as_if.limits.push((key, key.parse(name, value)?));
                }
                (None, None) => return Err(unknown(word)),
            }
        }
        Ok(as_if)
    }
}

impl AsIf {
    /// What is left of a device's abilities.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit beyond the device's own: it can only be made weaker.
    pub fn apply(&self, device: &str, features: wgpu::Features, limits: wgpu::Limits) -> Result<Abilities> {
        let mut left = limits.clone();
        for &(key, value) in &self.limits {
            let (own, most) = (key.of(&limits), key.of(&left));
            if value > own {
                let name = KEYS.iter().find(|(_, k)| *k == key).map_or("", |(name, _)| name);
                return Err(Error::Invalid {
                    what: format!("{name} of a device to be played"),
                    expected: format!("at most {}, which \"{device}\" has", key.show(own)),
                    found: key.show(value),
                });
            }
            key.lower(&mut left, value.min(most));
        }
        let mut features = features - self.without;
        if self.webgpu {
            left = left.or_worse_values_from(&wgpu::Limits::defaults());
            features = wgpu::Features::empty();
        }
        left.max_storage_buffer_binding_size = left.max_storage_buffer_binding_size.min(left.max_buffer_size);
        Ok(Abilities { features, limits: left, class: self.class })
    }
}

impl Key {
    fn is_bytes(self) -> bool {
        matches!(self, Key::Binding | Key::Buffer | Key::Shared)
    }

    fn parse(self, name: &str, text: &str) -> Result<u64> {
        let number = match self.is_bytes() {
            true => units::parse_bytes(text).ok(),
            false => text.parse().ok(),
        };
        number.filter(|&n| n > 0).ok_or_else(|| Error::Invalid {
            what: format!("{name} of a device to be played"),
            expected: match self.is_bytes() {
                true => "a number of bytes, as 128MiB".to_owned(),
                false => "a number from 1".to_owned(),
            },
            found: format!("\"{text}\""),
        })
    }

    fn show(self, value: u64) -> String {
        if self.is_bytes() { units::bytes(value) } else { value.to_string() }
    }

    fn of(self, limits: &wgpu::Limits) -> u64 {
        match self {
            Key::Binding => limits.max_storage_buffer_binding_size,
            Key::Buffer => limits.max_buffer_size,
            Key::Texture => limits.max_texture_dimension_2d.into(),
            Key::Shared => limits.max_compute_workgroup_storage_size.into(),
            Key::StorageBuffers => limits.max_storage_buffers_per_shader_stage.into(),
            Key::Invocations => limits.max_compute_invocations_per_workgroup.into(),
            Key::Workgroups => limits.max_compute_workgroups_per_dimension.into(),
        }
    }

    /// To a value that is no higher.
    fn lower(self, limits: &mut wgpu::Limits, value: u64) {
        let small = u32::try_from(value).unwrap_or(u32::MAX);
        match self {
            Key::Binding => limits.max_storage_buffer_binding_size = value,
            Key::Buffer => limits.max_buffer_size = value,
            Key::Texture => limits.max_texture_dimension_2d = small,
            Key::Shared => limits.max_compute_workgroup_storage_size = small,
            Key::StorageBuffers => limits.max_storage_buffers_per_shader_stage = small,
            Key::Invocations => {
                limits.max_compute_invocations_per_workgroup = small;
                for side in [
                    &mut limits.max_compute_workgroup_size_x,
                    &mut limits.max_compute_workgroup_size_y,
                    &mut limits.max_compute_workgroup_size_z,
                ] {
                    *side = small.min(*side);
                }
            }
            Key::Workgroups => limits.max_compute_workgroups_per_dimension = small,
        }
    }
}

fn named<T: Copy>(what: &'static str, list: &[(&str, T)], name: &str) -> Result<T> {
    list.iter().find(|(n, _)| *n == name).map(|(_, value)| *value).ok_or_else(|| Error::Unknown {
        what,
        found: name.to_owned(),
        expected: list.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", "),
    })
}

fn unknown(word: &str) -> Error {
    let limits =
        KEYS.iter().map(|(name, key)| format!("{name}={}", if key.is_bytes() { "BYTES" } else { "N" }));
    let features = FEATURES.iter().map(|(name, _)| (*name).to_owned());
    let all = ["webgpu".to_owned()].into_iter().chain(limits).chain(features);
    let all: Vec<String> = all.chain(["class=discrete|integrated|cpu".to_owned()]).collect();
    Error::Unknown { what: "ability", found: word.to_owned(), expected: all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strong() -> (wgpu::Features, wgpu::Limits) {
        let features =
            wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY;
        let limits = wgpu::Limits {
            max_buffer_size: 4 << 30,
            max_storage_buffer_binding_size: 2 << 30,
            max_compute_invocations_per_workgroup: 1024,
            max_compute_workgroup_size_x: 1024,
            ..wgpu::Limits::defaults()
        };
        (features, limits)
    }

    fn left(text: &str) -> Result<Abilities> {
        let (features, limits) = strong();
        text.parse::<AsIf>()?.apply("strong", features, limits)
    }

    #[test]
    fn what_is_named_is_taken_away_and_nothing_else() {
        let (features, limits) = strong();
        let all = left("").unwrap();
        assert_eq!((all.features, all.limits), (features, limits.clone()));
        let found = left("max-binding=128MiB, no-f16,shared=8KiB,invocations=128,class=cpu").unwrap();
        assert_eq!(found.features, features - wgpu::Features::SHADER_F16);
        assert_eq!(found.class, Some(DeviceClass::Cpu));
        let expected = wgpu::Limits {
            max_storage_buffer_binding_size: 128 << 20,
            max_compute_workgroup_storage_size: 8 << 10,
            max_compute_invocations_per_workgroup: 128,
            max_compute_workgroup_size_x: 128,
            max_compute_workgroup_size_y: 128,
            ..limits
        };
        assert_eq!(found.limits, expected);
    }

    #[test]
    fn a_buffer_limits_its_bindings() {
        assert_eq!(left("max-buffer=1GiB").unwrap().limits.max_storage_buffer_binding_size, 1 << 30);
    }

    #[test]
    fn webgpu_has_its_default_limits_or_worse() {
        let found = left("webgpu,shared=4KiB").unwrap();
        assert_eq!(found.features, wgpu::Features::empty());
        assert_eq!(found.limits.max_storage_buffer_binding_size, 128 << 20);
        assert_eq!(found.limits.max_compute_workgroup_storage_size, 4 << 10);
        assert_eq!(found.limits.max_compute_invocations_per_workgroup, 256);
    }

    #[test]
    fn what_is_stronger_or_no_such_thing_is_said() {
        let message = |text: &str| left(text).unwrap_err().to_string();
        let stronger = message("max-binding=3GiB");
        assert!(stronger.contains("at most 2.0 GiB, which \"strong\" has, found 3.0 GiB"), "{stronger}");
        for word in ["f16", "no-such", "=", "max-binding", "max-elephants=3", "class"] {
            assert!(message(word).contains("expected one of: webgpu, max-binding=BYTES"), "{word}");
        }
        for word in ["shared=", "shared=x", "invocations=0", "storage-buffers=-1", "max-buffer=0"] {
            assert!(matches!(left(word), Err(Error::Invalid { .. })), "{word}");
        }
        assert!(message("class=huge").contains("discrete, integrated, cpu"));
    }
}

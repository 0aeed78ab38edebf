//! Where and by what something was measured.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ring::digest;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::bench::record::{Adapter, Machine, Program, Settings};
use crate::gpu::Gpu;

impl Machine {
    /// This machine, with the device as it was opened.
    pub fn of(gpu: &Gpu) -> Machine {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(kinds).ok();
        let cpu = system.as_ref().and_then(|s| s.cpus().first()).map(|cpu| cpu.brand().trim().to_owned());
        let os = System::long_os_version().or_else(|_| System::name());
        Machine {
            adapter: Adapter::of(gpu),
            cpu: cpu.filter(|name| !name.is_empty()).unwrap_or_else(System::cpu_arch),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory_bytes: system.map_or(0, |s| s.total_memory()),
            os: os.unwrap_or_else(|_| std::env::consts::OS.to_owned()),
            kernel: System::kernel_long_version().ok(),
        }
    }
}

impl Adapter {
    pub fn of(gpu: &Gpu) -> Adapter {
        let info = gpu.info();
        Adapter {
            name: info.name.clone(),
            kind: kind(info.device_type).to_owned(),
            software: info.device_type == wgpu::DeviceType::Cpu,
            backend: info.backend.to_str().to_owned(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            vendor: info.vendor,
            device: info.device,
            pci_bus: info.device_pci_bus_id.clone(),
            features: gpu.device().features().iter_names().map(|(name, _)| name.to_owned()).collect(),
            limits: limits(&gpu.device().limits()),
        }
    }
}

fn kind(device: wgpu::DeviceType) -> &'static str {
    match device {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}

/// Limits by wgpu's names. wgpu lists them by name only where one set is better than another, so they are held against
/// the best and the worst.
fn limits(own: &wgpu::Limits) -> BTreeMap<String, u64> {
    let best = wgpu::Limits {
        max_buffer_size: u64::MAX,
        max_storage_buffer_binding_size: u64::MAX,
        ..wgpu::Limits::unlimited()
    };
    let worst = wgpu::Limits::downlevel_webgl2_defaults();
    let mut all = Vec::new();
    best.check_limits_with_fail_fn(own, false, |name, _, own| all.push((name.to_owned(), own)));
    own.check_limits_with_fail_fn(&worst, false, |name, own, _| all.push((name.to_owned(), own)));
    all.into_iter().collect()
}

impl Program {
    /// This program, as it was called.
    pub fn this() -> Program {
        Program {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: option_env!("AQUATINT_BUILD_GIT").map(str::to_owned),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            wgpu: option_env!("AQUATINT_BUILD_WGPU").unwrap_or("unknown").to_owned(),
            rustc: option_env!("AQUATINT_BUILD_RUSTC").unwrap_or("unknown").to_owned(),
            command: std::env::args_os().map(|word| without_folders(&word)).collect(),
        }
    }
}

impl Settings {
    /// SHA-256 of all settings but [`Settings::hash`] itself, in hexadecimal.
    pub fn hash(&self) -> String {
        let settings = Settings { hash: String::new(), ..self.clone() };
        let text = serde_json::to_vec(&settings).expect("settings are strings, numbers and lists of them");
        digest::digest(&digest::SHA256, &text).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The same with its hash.
    pub fn hashed(self) -> Settings {
        Settings { hash: self.hash(), ..self }
    }
}

/// The time as results have it: RFC 3339 in UTC, to the second.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// A word of a command line; of an absolute path its last part, as results are kept and shown elsewhere than on this machine.
fn without_folders(word: &std::ffi::OsStr) -> String {
    let path = std::path::Path::new(word);
    let kept = path.file_name().filter(|_| path.is_absolute()).unwrap_or(word);
    kept.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            suite: "quick".to_owned(),
            filter: None,
            model: None,
            precisions: vec!["f32".to_owned()],
            batches: vec![1],
            time_limit: Some(60.0),
            cooldown: 0.0,
            visits: 1,
            seed: 7,
            as_if: None,
            hash: String::new(),
        }
    }

    #[test]
    fn the_hash_tells_settings_apart_and_not_itself() {
        let hashed = settings().hashed();
        assert_eq!(hashed.hash.len(), 64);
        assert_eq!(hashed.hash(), hashed.hash);
        for other in [
            Settings { seed: 8, ..settings() },
            Settings { as_if: Some("webgpu".to_owned()), ..settings() },
            Settings { batches: vec![1, 2], ..settings() },
        ] {
            assert_ne!(other.hash(), hashed.hash);
        }
    }

    #[test]
    fn every_limit_is_listed_by_its_name() {
        let own = wgpu::Limits { max_buffer_size: 1 << 40, ..wgpu::Limits::defaults() };
        let all = limits(&own);
        // Every field, as Debug shows them.
        let shown = format!("{own:?}");
        assert_eq!(all.len(), shown.matches(": ").count(), "{all:?}\n{shown}");
        assert_eq!(all["max_buffer_size"], 1 << 40);
        assert_eq!(all["max_compute_invocations_per_workgroup"], 256);
        assert_eq!(all["min_uniform_buffer_offset_alignment"], 256);
    }

    #[test]
    fn a_program_knows_what_made_it() {
        let program = Program::this();
        assert!(program.rustc.starts_with("rustc "), "{}", program.rustc);
        assert!(program.wgpu.starts_with("30."), "{}", program.wgpu);
        assert!(now().ends_with('Z') && now().contains('T'));
    }
}

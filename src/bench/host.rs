//! The host's memory.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Bytes that can be had without swapping; none where the system does not say.
pub fn available_memory() -> Option<u64> {
    let kinds = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds).ok()?;
    Some(system.available_memory()).filter(|&bytes| bytes > 0)
}

//! How much memory of its own a device has, where its driver tells.

/// Bytes of the largest heap that is the device's own; none where that is not known. Only Vulkan is asked.
#[cfg(not(any(target_vendor = "apple", target_family = "wasm")))]
#[expect(unsafe_code)]
pub(super) fn device_memory(adapter: &wgpu::Adapter) -> Option<u64> {
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the handles below are only asked for properties, and nothing is kept of them.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the physical device is this instance's, and both live as long as the adapter.
    let properties = unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    let heaps = properties.memory_heaps.iter().take(properties.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(any(target_vendor = "apple", target_family = "wasm"))]
pub(super) fn device_memory(_: &wgpu::Adapter) -> Option<u64> {
    None
}

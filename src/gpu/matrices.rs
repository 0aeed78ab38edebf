//! Cooperative matrices of adapters and devices.

use crate::target::Matrices;

/// What cooperative matrices take, where they exist and the caller wants them: they are experimental, and their kernels go to
/// the driver as SPIR-V of ours.
pub(super) const MATRIX_FEATURES: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::PASSTHROUGH_SHADERS);

/// The cooperative matrices that kernels can use: square ones of f16 with sums in f32, as WGSL can name them. Only through
/// Vulkan: elsewhere nothing of this is tried.
pub(super) fn matrices(
    adapter: &wgpu::Adapter,
    info: &wgpu::AdapterInfo,
    features: wgpu::Features,
) -> Option<Matrices> {
    let needed = MATRIX_FEATURES | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
    if info.backend != wgpu::Backend::Vulkan || !features.contains(needed) {
        return None;
    }
    let sides = sides(adapter);
    (!sides.is_empty()).then_some(Matrices { sides, subgroup_size: info.subgroup_max_size })
}

/// Sides of square ones, the largest first.
pub(super) fn sides(adapter: &wgpu::Adapter) -> Vec<u32> {
    let offered = adapter.cooperative_matrix_properties();
    let fits = |side: u32| {
        offered.iter().any(|p| {
            [p.m_size, p.n_size, p.k_size] == [side; 3]
                && p.ab_type == wgpu::CooperativeScalarType::F16
                && p.cr_type == wgpu::CooperativeScalarType::F32
                && !p.saturating_accumulation
        })
    };
    [16, 8].into_iter().filter(|&side| fits(side)).collect()
}

//! What a plan asks of a device, known before there is one.

use naga::{Binding, BuiltIn, Statement};

use crate::error::{Error, Lack, Result};
use crate::gpu::Gpu;
use crate::plan::Plan;
use crate::shader::Shader;

/// A limit by its name in wgpu, and the way to it.
struct Key {
    name: &'static str,
    of: fn(&mut wgpu::Limits) -> Limit,
}

enum Limit<'a> {
    /// Sizes in bytes; larger is better.
    Bytes(&'a mut u64),
    /// Counts; larger is better.
    Count(&'a mut u32),
    /// Smaller is better.
    Alignment(&'a mut u32),
}

macro_rules! keys {
    ($($kind:ident $name:ident),* $(,)?) => {
        [$(Key { name: stringify!($name), of: |limits| Limit::$kind(&mut limits.$name) }),*]
    };
}

const KEYS: [Key; 16] = keys![
    Bytes max_buffer_size,
    Bytes max_storage_buffer_binding_size,
    Bytes max_uniform_buffer_binding_size,
    Count max_bind_groups,
    Count max_storage_buffers_per_shader_stage,
    Count max_sampled_textures_per_shader_stage,
    Count max_storage_textures_per_shader_stage,
    Count max_texture_dimension_2d,
    Count max_compute_workgroup_storage_size,
    Count max_compute_invocations_per_workgroup,
    Count max_compute_workgroup_size_x,
    Count max_compute_workgroup_size_y,
    Count max_compute_workgroup_size_z,
    Count max_compute_workgroups_per_dimension,
    Alignment min_uniform_buffer_offset_alignment,
    Alignment min_storage_buffer_offset_alignment,
];

impl Plan {
    /// Features that a device must have for this plan, for [`wgpu::DeviceDescriptor::required_features`].
    pub fn required_features(&self) -> wgpu::Features {
        let launches = self.load.iter().chain(&self.run);
        let mut features = launches.fold(wgpu::Features::empty(), |all, d| all | features(&d.shader));
        if self.target.mappable && self.uploaded_bytes() > 0 {
            features |= wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
        }
        features
    }

    /// Limits to ask a device for: WebGPU's own defaults, and more where this plan needs more.
    pub fn required_limits(&self) -> wgpu::Limits {
        let (mut least, mut limits) = (self.least_limits(), wgpu::Limits::defaults());
        for key in &KEYS {
            match ((key.of)(&mut limits), (key.of)(&mut least)) {
                (Limit::Bytes(most), Limit::Bytes(needed)) => *most = (*most).max(*needed),
                (Limit::Count(most), Limit::Count(needed)) => *most = (*most).max(*needed),
                (Limit::Alignment(own), Limit::Alignment(needed)) => *own = (*own).min(*needed),
                _ => unreachable!("one key is one kind"),
            }
        }
        limits
    }

    /// The lowest limits that this plan runs with.
    fn least_limits(&self) -> wgpu::Limits {
        // A small picture in a texture is bound with a uniform, a tensor, an exposure and a plane of alpha.
        let mut least = wgpu::Limits {
            max_bind_groups: 1,
            max_storage_buffers_per_shader_stage: 3,
            max_sampled_textures_per_shader_stage: 1,
            max_storage_textures_per_shader_stage: 1,
            min_uniform_buffer_offset_alignment: self.target.uniform_alignment,
            min_storage_buffer_offset_alignment: 256,
            ..lowest()
        };
        let rooms = self.loading();
        let buffers = self.buffers.iter().map(|buffer| buffer.bytes);
        let largest = buffers.max().unwrap_or(0);
        let own = [self.uniform_bytes(&self.run), self.uniform_bytes(&self.load)];
        let whole = rooms.lanes.iter().copied().chain(own).chain([largest]);
        least.max_buffer_size = whole.max().unwrap_or(0);
        let bound = self.buffers.iter().zip(self.bound()).filter(|(_, bound)| *bound);
        least.max_storage_buffer_binding_size = bound.map(|(buffer, _)| buffer.bytes).max().unwrap_or(0);
        for texture in &self.textures {
            let side = texture.width.max(texture.height);
            least.max_texture_dimension_2d = least.max_texture_dimension_2d.max(side);
        }
        for launch in self.load.iter().chain(&self.run) {
            let shader = &*launch.shader;
            let [x, y, z] = shader.workgroup_size;
            let most = |limit: &mut u32, needed: u32| *limit = (*limit).max(needed);
            most(&mut least.max_storage_buffers_per_shader_stage, shader.bindings.len() as u32);
            most(&mut least.max_sampled_textures_per_shader_stage, shader.textures.len() as u32);
            most(&mut least.max_storage_textures_per_shader_stage, shader.texels.len() as u32);
            most(&mut least.max_compute_workgroup_storage_size, shader.shared_memory);
            most(&mut least.max_compute_invocations_per_workgroup, x * y * z);
            most(&mut least.max_compute_workgroup_size_x, x);
            most(&mut least.max_compute_workgroup_size_y, y);
            most(&mut least.max_compute_workgroup_size_z, z);
            launch
                .groups
                .iter()
                .for_each(|&groups| most(&mut least.max_compute_workgroups_per_dimension, groups));
            let params = launch.params.len() as u64;
            least.max_uniform_buffer_binding_size = least.max_uniform_buffer_binding_size.max(params);
        }
        least
    }

    /// Whether a device with these features and limits can run this plan.
    ///
    /// # Errors
    /// [`Error::Lacking`] with all that it lacks.
    pub fn check(&self, device: &str, features: wgpu::Features, limits: &wgpu::Limits) -> Result<()> {
        lacking(device, (self.required_features(), self.least_limits()), (features, limits.clone()))
    }

    /// Whether this plan can run on a device of this adapter that is given all it asks for.
    ///
    /// # Errors
    /// [`Error::Lacking`] with all that it lacks.
    pub fn check_adapter(&self, adapter: &wgpu::Adapter) -> Result<()> {
        self.check(&adapter.get_info().name, adapter.features(), &adapter.limits())
    }

    /// Whether this plan can run on this device.
    ///
    /// # Errors
    /// [`Error::Lacking`] with all that it lacks.
    pub fn check_device(&self, device: &wgpu::Device) -> Result<()> {
        self.check(&device.adapter_info().name, device.features(), &device.limits())
    }
}

impl Gpu {
    /// Whether a device can run anything of this crate's: workgroups of 64, eight storage buffers in a kernel, textures
    /// that kernels write. All devices with WebGPU's default limits can; what a network needs more, [`Plan::check_device`]
    /// says.
    ///
    /// # Errors
    /// [`Error::Lacking`] with all that it lacks.
    pub fn check(device: &wgpu::Device) -> Result<()> {
        let least = wgpu::Limits {
            max_buffer_size: 1 << 20,
            max_storage_buffer_binding_size: 1 << 20,
            max_bind_groups: 1,
            max_storage_buffers_per_shader_stage: 8,
            max_sampled_textures_per_shader_stage: 2,
            max_storage_textures_per_shader_stage: 1,
            max_compute_workgroup_storage_size: 8 << 10,
            max_compute_invocations_per_workgroup: 64,
            max_compute_workgroup_size_x: 64,
            max_compute_workgroup_size_y: 8,
            max_compute_workgroup_size_z: 1,
            max_compute_workgroups_per_dimension: 1024,
            ..lowest()
        };
        let found = (device.features(), device.limits());
        lacking(&device.adapter_info().name, (wgpu::Features::empty(), least), found)
    }
}

/// Limits that every device has.
fn lowest() -> wgpu::Limits {
    let mut limits = wgpu::Limits::defaults();
    for key in &KEYS {
        match (key.of)(&mut limits) {
            Limit::Bytes(most) => *most = 0,
            Limit::Count(most) => *most = 0,
            Limit::Alignment(least) => *least = u32::MAX,
        }
    }
    limits
}

fn lacking(
    device: &str,
    (features, mut needed): (wgpu::Features, wgpu::Limits),
    (has, mut found): (wgpu::Features, wgpu::Limits),
) -> Result<()> {
    let mut lacking: Vec<Lack> = (features - has).iter_names().map(|(name, _)| Lack::Feature(name)).collect();
    for key in &KEYS {
        let limit = |needed, available, met: bool| {
            (!met).then_some(Lack::Limit { name: key.name, needed, available })
        };
        lacking.extend(match ((key.of)(&mut needed), (key.of)(&mut found)) {
            (Limit::Bytes(needed), Limit::Bytes(found)) => limit(*needed, *found, needed <= found),
            (Limit::Count(needed), Limit::Count(found)) => {
                limit((*needed).into(), (*found).into(), needed <= found)
            }
            (Limit::Alignment(needed), Limit::Alignment(found)) => {
                limit((*needed).into(), (*found).into(), found <= needed)
            }
            _ => unreachable!("one key is one kind"),
        });
    }
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(Error::Lacking { device: device.to_owned(), lacking }),
    }
}

/// Features that a kernel makes use of.
fn features(shader: &Shader) -> wgpu::Features {
    let mut features = wgpu::Features::empty();
    if shader.has_halves() {
        features |= wgpu::Features::SHADER_F16;
    }
    if shader.has_matrices() {
        features |= super::MATRIX_FEATURES;
    }
    let arguments = shader.module.entry_points.iter().flat_map(|entry| &entry.function.arguments);
    if arguments.into_iter().any(|argument| argument.binding == Some(Binding::BuiltIn(BuiltIn::SubgroupId))) {
        features |= wgpu::Features::SUBGROUP;
    }
    let functions = shader.module.functions.iter().map(|(_, function)| function);
    let entries = shader.module.entry_points.iter().map(|entry| &entry.function);
    if functions.chain(entries).any(|function| uses_subgroups(&function.body)) {
        features |= wgpu::Features::SUBGROUP;
    }
    features
}

fn uses_subgroups(block: &naga::Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::SubgroupBallot { .. }
        | Statement::SubgroupCollectiveOperation { .. }
        | Statement::SubgroupGather { .. } => true,
        Statement::Block(inner) => uses_subgroups(inner),
        Statement::If { accept, reject, .. } => uses_subgroups(accept) || uses_subgroups(reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| uses_subgroups(&case.body)),
        Statement::Loop { body, continuing, .. } => uses_subgroups(body) || uses_subgroups(continuing),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::ops::conv2d::Conv2dOptions;
    use crate::target::Target;
    use crate::tensor::{DType, Tensor};

    fn plan(dtype: DType, side: usize) -> Plan {
        let mut g = Graph::new();
        let x = g.input("x", [1, side, side, 16], dtype);
        let w = g.weight("w", Tensor::from_f32([16, 16, 3, 3], &[0.5; 16 * 16 * 9]).to_dtype(dtype));
        let y = g.conv2d(x, w, None, Conv2dOptions::padded(1)).unwrap();
        g.output("y", y);
        Plan::compile(&g, &Target::typical()).unwrap()
    }

    #[test]
    fn limits_are_those_of_the_largest_tensor() {
        let (small, large) = (plan(DType::F32, 16), plan(DType::F32, 2048));
        assert_eq!(small.required_limits().max_buffer_size, wgpu::Limits::defaults().max_buffer_size);
        let bytes = 2048 * 2048 * 16 * 4;
        let limits = large.required_limits();
        assert_eq!((limits.max_buffer_size, limits.max_storage_buffer_binding_size), (bytes, bytes));
        assert!(large.check("d", large.required_features(), &limits).is_ok());
        let defaults = wgpu::Limits::defaults();
        let Err(Error::Lacking { lacking, .. }) = large.check("d", large.required_features(), &defaults)
        else {
            panic!("WebGPU's defaults are too low for {bytes} bytes");
        };
        let binding = Lack::Limit {
            name: "max_storage_buffer_binding_size",
            needed: bytes,
            available: defaults.max_storage_buffer_binding_size,
        };
        assert!(lacking.contains(&binding), "{lacking:?}");
    }

    #[test]
    fn half_floats_are_a_feature() {
        assert!(!plan(DType::F32, 16).required_features().contains(wgpu::Features::SHADER_F16));
        let halves = plan(DType::F16, 16);
        assert!(halves.required_features().contains(wgpu::Features::SHADER_F16));
        let error = halves.check("d", wgpu::Features::empty(), &halves.required_limits()).unwrap_err();
        assert!(error.to_string().contains("SHADER_F16"), "{error}");
    }
}

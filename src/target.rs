//! What a plan needs to know about a device. Plain data: a plan can be made for a device that is not there.

use std::sync::Arc;

use crate::error::{Error, Lack, Result};
use crate::lower::TEXELS_LINE;
use crate::shader::Shader;
use crate::tensor::{DType, TensorDesc};
use crate::tuning::Tuning;

/// Kind of device, for the choice of kernel variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceClass {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the CPU's memory, or a virtual one.
    Integrated,
    /// A software adapter: compute shaders on the CPU.
    Cpu,
}

/// [`Target::spare`] where nobody asked to be thrifty: a small part of what devices have that large models run on.
const SPARE: u64 = 2 << 30;

/// The same for a device with so much memory of its own, if that is known: an eighth of it at most, and less where it may be
/// the host's.
pub(crate) fn spare(class: DeviceClass, memory: Option<u64>) -> u64 {
    match (class, memory) {
        (DeviceClass::Cpu, _) | (DeviceClass::Discrete, None) => SPARE,
        (DeviceClass::Integrated, None) => SPARE / 4,
        (_, Some(bytes)) => SPARE.min(bytes / 8),
    }
}

/// Cooperative matrices of a device: small ones of f16 that the threads of a subgroup hold together, whose products are summed
/// in f32.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Matrices {
    /// Sides that they can have, 8 and 16, the largest first.
    pub sides: Vec<u32>,
    /// Most invocations that a subgroup can have.
    pub subgroup_size: u32,
}

/// Capabilities and limits of a device.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Target {
    pub name: String,
    pub class: DeviceClass,
    /// 16-bit floats in storage buffers.
    pub f16: bool,
    pub subgroups: bool,
    /// Fewest invocations that a subgroup can have; 1 without subgroups.
    pub subgroup_size: u32,
    /// Cooperative matrices, where the device was opened with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrices: Option<Matrices>,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Largest storage binding, bytes.
    pub max_binding: u64,
    /// Largest side of a texture, texels.
    pub max_texture: u32,
    /// Most storage buffers in one kernel.
    pub max_storage_buffers: u32,
    /// Most workgroups in each dimension of a dispatch.
    pub max_workgroups: u32,
    /// Most invocations in a workgroup.
    pub max_invocations: u32,
    /// Workgroup memory, bytes.
    pub shared_memory: u32,
    /// Alignment of uniform offsets, bytes.
    pub uniform_alignment: u32,
    /// Bytes that weights may take beyond their own size where runs are quicker for it; 0 where memory is short.
    pub spare: u64,
    /// Whether the host can write into storage buffers, and that is as quick as into others.
    pub mappable: bool,
    /// What was measured to be fastest there; where that is not known, or there is none, models of cost choose.
    #[serde(skip)]
    pub tuning: Option<Arc<Tuning>>,
}

impl Target {
    /// A mid-range desktop GPU, for dry runs where there is no device to ask.
    pub fn typical() -> Self {
        Target {
            name: "no device (typical desktop GPU assumed)".to_owned(),
            class: DeviceClass::Discrete,
            f16: true,
            subgroups: true,
            subgroup_size: 32,
            matrices: None,
            max_buffer: 1 << 31,
            max_binding: (1 << 31) - 4,
            max_texture: 16384,
            max_storage_buffers: 16,
            max_workgroups: 65535,
            max_invocations: 1024,
            shared_memory: 32 << 10,
            uniform_alignment: 256,
            spare: SPARE,
            mappable: false,
            tuning: None,
        }
    }

    /// The same device without tensors that are read as textures, which software adapters like and which take copies between
    /// launches: runs of such plans can be recorded into a compute pass, see [`crate::frame::Bindings::record_in`].
    pub fn without_textures(&self) -> Self {
        Target { max_texture: 0, ..self.clone() }
    }

    /// The same device for what is done while a network is loaded: textures are filled after it.
    pub(crate) fn while_loading(&self) -> Self {
        self.without_textures()
    }

    /// Whether a tensor can be, and is quicker, read as a texture of four numbers a texel.
    pub(crate) fn reads_texels(&self, desc: &TensorDesc) -> bool {
        let (elements, side) = (desc.shape.elements() as u64, self.max_texture);
        self.class == DeviceClass::Cpu
            && desc.dtype == DType::F32
            && elements.is_multiple_of(4)
            && side >= TEXELS_LINE
            && elements / 4 <= u64::from(side) * u64::from(TEXELS_LINE)
    }

    /// Invocations in a workgroup of a kernel, for which the device has all that it takes.
    pub(crate) fn check_kernel(&self, shader: &Shader) -> Result<u32> {
        if shader.has_halves() && !self.f16 {
            let lacking = vec![Lack::Feature("SHADER_F16")];
            return Err(Error::Lacking { device: self.name.clone(), lacking });
        }
        let (name, size) = (shader.kernel.name, shader.workgroup_size.iter().product::<u32>());
        let invocations = u64::from(self.max_invocations);
        self.check(|| format!("workgroup size of kernel {name}"), size.into(), invocations)?;
        let (bytes, memory) = (shader.shared_memory.into(), self.shared_memory.into());
        self.check(|| format!("workgroup memory of kernel {name}"), bytes, memory)?;
        Ok(size)
    }

    pub(crate) fn check(&self, what: impl FnOnce() -> String, needed: u64, available: u64) -> Result<()> {
        match needed <= available {
            true => Ok(()),
            false => Err(Error::Limit { device: self.name.clone(), what: what(), needed, available }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spared_is_a_small_part_of_the_memory() {
        const GIB: u64 = 1 << 30;
        for (class, memory, expected) in [
            (DeviceClass::Discrete, Some(141 * GIB), 2 * GIB),
            (DeviceClass::Discrete, Some(8 * GIB), GIB),
            (DeviceClass::Discrete, None, 2 * GIB),
            (DeviceClass::Integrated, Some(4 * GIB), GIB / 2),
            (DeviceClass::Integrated, None, GIB / 2),
            (DeviceClass::Cpu, Some(4 * GIB), 2 * GIB),
        ] {
            assert_eq!(spare(class, memory), expected, "{class:?} with {memory:?}");
        }
    }
}

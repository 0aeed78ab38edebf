//! A run that is watched: where the first number went wrong.

use super::load::Loaded;
use super::{Network, record};
use crate::error::Result;
use crate::plan::BufferId;
use crate::shader::{Access, Scalar};
use crate::tensor::DType;

/// The first place in a run where a tensor holds what is no finite number.
#[derive(Clone, Debug, PartialEq)]
pub struct NotFinite {
    /// Path of the operation in the network, or the name of the input, state or weight that was so from the start.
    pub label: String,
    /// Name of the operation; none for what was so from the start.
    pub op: Option<&'static str>,
    /// Elements that are NaN.
    pub nans: usize,
    /// Elements that are infinite.
    pub infinities: usize,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { label, op, nans, infinities } = self;
        match op {
            Some(op) => write!(f, "{op} \"{label}\"")?,
            None => write!(f, "the tensor \"{label}\", before anything ran,")?,
        }
        write!(f, " gave {nans} NaNs and {infinities} infinities")
    }
}

impl Network {
    /// One run, as [`Network::submit`] makes it, but operation by operation: each result is read back and looked at, and the first
    /// that is not finite ends the run. Some hundred times slower; for finding out what happened.
    ///
    /// # Errors
    /// Those of the device.
    pub fn run_watched(&self) -> Result<Option<NotFinite>> {
        let loaded = self.loaded()?;
        for port in self.plan.inputs.iter().chain(&self.plan.states) {
            if let Some(found) =
                self.look(&loaded, (port.buffer, port.desc.bytes()), of(port.desc.dtype), (&port.name, None))?
            {
                return Ok(Some(found));
            }
        }
        for operation in self.plan.operations.iter().filter(|operation| !operation.loading) {
            let launches = &self.plan.run[operation.launches.clone()];
            let Some(first) = launches.first() else { continue };
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            record(&loaded.steps[operation.launches.clone()], &mut encoder, None, None);
            self.gpu.checked(|| first.label.clone(), || self.gpu.queue().submit([encoder.finish()]))?;
            // What an operation's launches leave to one another may have gaps, with what others left there.
            let Some(result) = self.plan.places[operation.value.index()] else { continue };
            let written = launches.iter().rev().find_map(|launch| {
                let places = launch.buffers.iter().zip(&launch.extents);
                let mut bound = launch.shader.bindings.iter().zip(places);
                let (binding, (_, extent)) =
                    bound.find(|(binding, (id, _))| binding.access == Access::ReadWrite && **id == result)?;
                Some((binding.scalar, *extent))
            });
            let Some((scalar, extent)) = written else { continue };
            let name = (first.label.as_str(), Some(first.op));
            if let Some(found) = self.look(&loaded, (result, extent), scalar, name)? {
                return Ok(Some(found));
            }
        }
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.record_copies(&loaded, &mut encoder);
        self.gpu.checked(|| "states".to_owned(), || self.gpu.queue().submit([encoder.finish()]))?;
        Ok(None)
    }

    fn look(
        &self,
        loaded: &Loaded,
        (id, extent): (BufferId, u64),
        scalar: Scalar,
        (label, op): (&str, Option<&'static str>),
    ) -> Result<Option<NotFinite>> {
        let (size, infinity): (usize, u32) = match scalar {
            Scalar::F32 => (4, 0x7f80_0000),
            Scalar::F16 => (2, 0x7c00),
            Scalar::Other => return Ok(None),
        };
        let bytes = self.gpu.download(&[(loaded.made(id), extent)])?.remove(0);
        let (mut nans, mut infinities) = (0, 0);
        for element in bytes.chunks_exact(size) {
            let mut word = [0; 4];
            word[..size].copy_from_slice(element);
            // Without the sign.
            let bits = u32::from_le_bytes(word) & (infinity | ((infinity & infinity.wrapping_neg()) - 1));
            nans += usize::from(bits > infinity);
            infinities += usize::from(bits == infinity);
        }
        let found = NotFinite { label: label.to_owned(), op, nans, infinities };
        Ok((nans + infinities > 0).then_some(found))
    }
}

fn of(dtype: DType) -> Scalar {
    match dtype {
        DType::F32 => Scalar::F32,
        DType::F16 => Scalar::F16,
        _ => Scalar::Other,
    }
}

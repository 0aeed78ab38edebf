//! What an operation sees while it is lowered: its tensors as slots, and the
//! launches that it records.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::shader::{Kernel, Param, Shader};
use crate::target::Target;
use crate::tensor::{DType, TensorDesc};

/// How many threads or workgroups a kernel needs.
#[derive(Clone, Copy, Debug)]
pub enum Grid {
    /// At least so many threads in a line; the kernel finds its index with `linear_id` and checks the end.
    Threads(usize),
    /// So many workgroups in a line; the kernel finds its index with `linear_group` and checks the end.
    Groups(usize),
}

/// A tensor during lowering: memory that is not placed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub(crate) usize);

/// A kernel launch over slots.
pub(crate) struct Launch {
    pub(crate) label: String,
    pub(crate) op: &'static str,
    pub(crate) shader: Arc<Shader>,
    pub(crate) slots: Vec<Slot>,
    /// For each of the shader's textures: what it shows, and how many texels that are.
    pub(crate) textures: Vec<(Slot, u32)>,
    pub(crate) params: Vec<u8>,
    pub(crate) groups: [u32; 3],
    pub(crate) flops: u64,
}

/// Texels in a line of a texture that shows a tensor, as in `shaders/lib/texels.wgsl`.
pub const TEXELS_LINE: u32 = 4096;

/// What an operation sees while it records its dispatches.
pub struct Lower<'a> {
    pub(crate) target: &'a Target,
    pub(crate) label: &'a str,
    pub(crate) op: &'static str,
    pub(crate) inputs: Vec<(&'a TensorDesc, Slot)>,
    pub(crate) output: (&'a TensorDesc, Slot),
    pub(crate) flops: u64,
    pub(crate) slots: &'a mut Vec<SlotInfo>,
    pub(crate) shaders: &'a mut HashMap<Kernel, Arc<Shader>>,
    pub(crate) launches: &'a mut Vec<Launch>,
    pub(crate) textures: Vec<(&'static str, Slot, u32)>,
    pub(crate) error: Option<crate::Error>,
}

#[derive(Clone)]
pub(crate) struct SlotInfo {
    pub(crate) label: String,
    pub(crate) bytes: u64,
}

impl<'a> Lower<'a> {
    pub fn target(&self) -> &'a Target {
        self.target
    }

    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Shape and type of an input.
    pub fn desc(&self, input: usize) -> &'a TensorDesc {
        self.inputs[input].0
    }

    /// Memory of an input.
    pub fn input(&self, input: usize) -> Slot {
        self.inputs[input].1
    }

    /// Shape and type of the result.
    pub fn output_desc(&self) -> &'a TensorDesc {
        self.output.0
    }

    /// Memory of the result.
    pub fn output(&self) -> Slot {
        self.output.1
    }

    /// Memory for an intermediate result between the dispatches of this operation.
    pub fn scratch(&mut self, bytes: usize) -> Slot {
        self.slots.push(SlotInfo { label: format!("{}.scratch", self.label), bytes: bytes as u64 });
        Slot(self.slots.len() - 1)
    }

    /// Whether a tensor is better read as a texture: only where buffers are slow,
    /// and where the tensor is worth the copy and fits.
    pub fn prefers_texels(&self, desc: &TensorDesc) -> bool {
        let quads = desc.shape.elements() / 4;
        self.target.reads_texels(desc) && quads >= 1 << 11
    }

    /// Shows a tensor of f32 to the launches that follow as the texture `name`, see `shaders/lib/texels.wgsl`.
    pub fn texels(&mut self, name: &'static str, slot: Slot, desc: &TensorDesc) {
        debug_assert!(self.target.reads_texels(desc), "{desc} as texels");
        self.textures.push((name, slot, (desc.shape.elements() / 4) as u32));
    }

    /// Records one launch: storage buffers by the names that the WGSL gives
    /// them (names that the variant does not use may be given and are skipped), parameters by theirs.
    pub fn dispatch(
        &mut self,
        kernel: Kernel,
        buffers: &[(&str, Slot)],
        params: &[(&'static str, Param)],
        grid: Grid,
    ) {
        if self.error.is_none()
            && let Err(error) = self.try_dispatch(kernel, buffers, params, grid)
        {
            self.error = Some(error);
        }
    }

    fn try_dispatch(
        &mut self,
        kernel: Kernel,
        buffers: &[(&str, Slot)],
        params: &[(&'static str, Param)],
        grid: Grid,
    ) -> Result<()> {
        let shader = match self.shaders.get(&kernel) {
            Some(shader) => shader.clone(),
            None => {
                let shader = Arc::new(Shader::new(&kernel)?);
                self.shaders.insert(kernel, shader.clone());
                shader
            }
        };
        let name = shader.kernel.name;
        let slots = shader
            .bindings
            .iter()
            .map(|binding| {
                buffers.iter().find(|(n, _)| *n == binding.name).map(|(_, slot)| *slot).ok_or_else(|| {
                    crate::Error::Shader {
                        kernel: name.to_owned(),
                        message: format!("buffer {} is not given", binding.name),
                    }
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let textures = shader
            .textures
            .iter()
            .map(|(wanted, _)| {
                let given = self.textures.iter().rev().find(|(n, ..)| n == wanted);
                given.map(|&(_, slot, size)| (slot, size)).ok_or_else(|| crate::Error::Shader {
                    kernel: name.to_owned(),
                    message: format!("texture {wanted} is not given"),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        self.target.check(
            || format!("storage buffers of kernel {name}"),
            slots.len() as u64,
            u64::from(self.target.max_storage_buffers),
        )?;
        let size: u32 = shader.workgroup_size.iter().product();
        self.target.check(
            || format!("workgroup size of kernel {name}"),
            u64::from(size),
            u64::from(self.target.max_invocations),
        )?;
        let count = match grid {
            Grid::Threads(threads) => threads.div_ceil(size as usize),
            Grid::Groups(groups) => groups,
        };
        let params = shader.pack_params(params)?;
        // The first launch of an operation carries its operations count.
        let flops = std::mem::take(&mut self.flops);
        self.launches.push(Launch {
            label: self.label.to_owned(),
            op: self.op,
            groups: fold(count as u64, u64::from(self.target.max_workgroups)),
            shader,
            slots,
            textures,
            params,
            flops,
        });
        Ok(())
    }
}
/// Spreads `count` workgroups over two dimensions when one is not enough.
fn fold(count: u64, limit: u64) -> [u32; 3] {
    let rows = count.div_ceil(limit).max(1);
    [count.div_ceil(rows) as u32, rows as u32, 1]
}
/// The type that kernels use for a tensor's elements.
pub(crate) fn elem(desc: &TensorDesc) -> &'static str {
    debug_assert!(desc.dtype != DType::BF16, "bf16 is unpacked first");
    desc.dtype.wgsl()
}

//! What an operation sees while it is lowered: its tensors as slots, and the
//! launches that it records.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::shader::{Kernel, Param, Shader};
use crate::target::{DeviceClass, Target};
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
    /// For each of the shader's textures: what it shows, width and height.
    pub(crate) textures: Vec<(Slot, [u32; 2])>,
    pub(crate) params: Vec<u8>,
    pub(crate) groups: [u32; 3],
    pub(crate) flops: u64,
}

/// Bytes of a line of a texture that is filled from a buffer must be a multiple of this.
pub const TEXTURE_LINE: usize = 256;

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
    pub(crate) textures: Vec<(&'static str, Slot, [u32; 2])>,
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

    /// Shows a tensor of f32 to the launches that follow as the texture `name`:
    /// `width` texels of four numbers in a line, `height` lines. The bytes of a line
    /// must be a multiple of [`TEXTURE_LINE`].
    pub fn texture(&mut self, name: &'static str, slot: Slot, [width, height]: [usize; 2]) {
        debug_assert!((16 * width).is_multiple_of(TEXTURE_LINE));
        self.textures.push((name, slot, [width as u32, height as u32]));
    }

    /// Whether a tensor of `pixels` × `quads` quads is better read as a texture, and
    /// how many pixels then make a line: the base-2 logarithm. Only where buffers are
    /// slow, the tensor is worth the copy, and the lines come out right.
    pub fn texture_line(&self, dtype: DType, pixels: usize, quads: usize) -> Option<u32> {
        let fits = |shift: &u32| {
            let width = quads << shift;
            pixels.is_multiple_of(1 << shift)
                && (16 * width).is_multiple_of(TEXTURE_LINE)
                && width.max(pixels >> shift) <= self.target.max_texture as usize
        };
        let slow = self.target.class == DeviceClass::Cpu && dtype == DType::F32;
        (slow && pixels * quads >= 1 << 11).then(|| (0..=6).rev().find(fits)).flatten()
    }

    /// Shows `pixels` × `quads` quads as the texture `name`, in lines of 2^`line` pixels.
    pub fn texture_of_pixels(
        &mut self,
        name: &'static str,
        slot: Slot,
        pixels: usize,
        quads: usize,
        line: u32,
    ) {
        self.texture(name, slot, [quads << line, pixels >> line]);
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
                let given = self.textures.iter().find(|(n, ..)| n == wanted);
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

//! What an operation sees while it is lowered: its tensors as slots, and the
//! launches that it records.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::Result;
use crate::parallel;
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

/// A launch as its operation records it: the kernel is not made yet, so that all
/// kernels of a network can be made at once, and everything goes by the names in its WGSL.
pub(crate) struct Request {
    label: String,
    op: &'static str,
    kernel: Kernel,
    buffers: Vec<(String, Slot)>,
    /// Name, what it shows, and how many texels that are.
    textures: Vec<(&'static str, Slot, u32)>,
    params: Vec<(&'static str, Param)>,
    grid: Grid,
    flops: u64,
}

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

/// Makes the kernels of `requests` that are not among the `known`, each once and on all cores, and the launches with them.
pub(crate) fn link(requests: Vec<Request>, target: &Target, known: &[Arc<Shader>]) -> Result<Vec<Launch>> {
    let known: HashMap<&Kernel, &Arc<Shader>> = known.iter().map(|shader| (&shader.kernel, shader)).collect();
    let mut place = HashMap::new();
    for request in &requests {
        let next = place.len();
        place.entry(&request.kernel).or_insert(next);
    }
    let mut kernels: Vec<(&Kernel, usize)> = place.iter().map(|(&kernel, &i)| (kernel, i)).collect();
    kernels.sort_by_key(|(_, i)| *i);
    let made = parallel::map(&kernels, |(kernel, _)| match known.get(kernel) {
        Some(shader) => Ok(Arc::clone(shader)),
        None => Shader::new(kernel).map(Arc::new),
    });
    let shaders = made.into_iter().collect::<Result<Vec<_>>>()?;
    requests.iter().map(|request| request.launch(&shaders[place[&request.kernel]], target)).collect()
}

impl Request {
    /// What it reads as textures.
    pub(crate) fn shown(&self) -> impl Iterator<Item = Slot> + '_ {
        self.textures.iter().map(|&(_, slot, _)| slot)
    }

    /// The names of the request as places in `shader`.
    fn launch(&self, shader: &Arc<Shader>, target: &Target) -> Result<Launch> {
        let name = shader.kernel.name;
        let missing = |what: &str, wanted: &str| crate::Error::Shader {
            kernel: name.to_owned(),
            message: format!("{what} {wanted} is not given"),
        };
        let mut slots = Vec::with_capacity(shader.bindings.len());
        for binding in &shader.bindings {
            let given = self.buffers.iter().find(|(n, _)| *n == binding.name);
            slots.push(given.ok_or_else(|| missing("buffer", &binding.name))?.1);
        }
        let mut textures = Vec::with_capacity(shader.texels.len());
        for (wanted, _) in &shader.texels {
            let given = self.textures.iter().rev().find(|(n, ..)| n == wanted);
            let (_, slot, texels) = given.ok_or_else(|| missing("texture", wanted))?;
            textures.push((*slot, *texels));
        }
        target.check(
            || format!("storage buffers of kernel {name}"),
            slots.len() as u64,
            u64::from(target.max_storage_buffers),
        )?;
        let size = target.check_kernel(shader)?;
        let count = match self.grid {
            Grid::Threads(threads) => threads.div_ceil(size as usize),
            Grid::Groups(groups) => groups,
        };
        let (count, limit) = (count as u64, u64::from(target.max_workgroups));
        target.check(|| format!("workgroups of kernel {name}"), count, limit.saturating_mul(limit))?;
        Ok(Launch {
            label: self.label.clone(),
            op: self.op,
            shader: shader.clone(),
            slots,
            textures,
            params: shader.pack_params(&self.params)?,
            groups: fold(count, limit),
            flops: self.flops,
        })
    }
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
    pub(crate) requests: &'a mut Vec<Request>,
    pub(crate) textures: Vec<(&'static str, Slot, u32)>,
    /// What is shown as a texture anyhow, to an operation that needs it so.
    pub(crate) shown: &'a HashSet<Slot>,
    /// Of constants, which are computed before there are textures of any.
    pub(crate) loading: bool,
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

    /// What another operation sees that computes a part of this one, from these inputs to this result.
    pub(crate) fn part<'b>(
        &'b mut self,
        inputs: Vec<(&'b TensorDesc, Slot)>,
        output: (&'b TensorDesc, Slot),
    ) -> Lower<'b> {
        Lower {
            target: self.target,
            label: self.label,
            op: self.op,
            inputs,
            output,
            flops: std::mem::take(&mut self.flops),
            slots: self.slots,
            requests: self.requests,
            textures: Vec::new(),
            shown: self.shown,
            loading: self.loading,
        }
    }

    /// Whether a tensor is better read as a texture: only where buffers are slow,
    /// and where the tensor is worth the copy and fits.
    pub fn prefers_texels(&self, desc: &TensorDesc) -> bool {
        let quads = desc.shape.elements() / 4;
        !self.loading && self.target.reads_texels(desc) && quads >= 1 << 11
    }

    /// Whether an operation that reads every number once reads this input as a texture: it is quicker than the buffer, but not by
    /// what a copy costs.
    pub fn finds_texels(&self, input: usize) -> bool {
        let (desc, slot) = self.inputs[input];
        self.prefers_texels(desc) && self.shown.contains(&slot)
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
        self.requests.push(Request {
            label: self.label.to_owned(),
            op: self.op,
            kernel: kernel.inverted(self.target.class == DeviceClass::Cpu),
            buffers: buffers.iter().map(|&(name, slot)| (name.to_owned(), slot)).collect(),
            textures: self.textures.clone(),
            params: params.to_vec(),
            grid,
            // The first launch of an operation carries its operations count.
            flops: std::mem::take(&mut self.flops),
        });
    }
}
/// Spreads `count` workgroups over two dimensions when one is not enough.
pub(crate) fn fold(count: u64, limit: u64) -> [u32; 3] {
    let rows = count.div_ceil(limit).max(1);
    [count.div_ceil(rows) as u32, rows as u32, 1]
}
/// The type that kernels use for a tensor's elements.
pub(crate) fn elem(desc: &TensorDesc) -> &'static str {
    debug_assert!(desc.dtype != DType::BF16, "bf16 is unpacked first");
    desc.dtype.wgsl()
}

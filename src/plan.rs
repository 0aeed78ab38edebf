//! Graph → ordered dispatches over planned buffers. Pure data: it can be made,
//! printed and compared without a GPU.

use std::collections::HashMap;
use std::sync::Arc;

use crate::arena::{self, Lifetime};
use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::Operator;
use crate::shader::{Kernel, Param, Shader};
use crate::target::{DeviceClass, Target};
use crate::tensor::{DType, Tensor, TensorDesc};

/// Index of a buffer in a [`Plan`].
pub type BufferId = usize;

/// What a buffer is for, which decides how long it lives.
#[derive(Clone, Debug)]
pub enum Role {
    /// Holds a weight as it is in the file. `resident`: read by runs too, not only while loading.
    Weight { tensor: Tensor, resident: bool },
    /// Computed from weights while loading, read by runs.
    Constant,
    /// Used only while loading.
    Staging,
    /// Written by the caller.
    Input,
    /// Kept between runs; starts as given.
    State(Tensor),
    /// Intermediate results that take turns.
    Pool,
    /// Read by the caller.
    Output,
}

/// One buffer of a plan.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub label: String,
    pub bytes: u64,
    pub role: Role,
}

impl Buffer {
    /// What it is for, in a word.
    pub fn role_name(&self) -> &'static str {
        match self.role {
            Role::Weight { .. } => "weight",
            Role::Constant => "constant",
            Role::Staging => "staging",
            Role::Input => "input",
            Role::State(_) => "state",
            Role::Pool => "pool",
            Role::Output => "output",
        }
    }

    /// Bytes that come from the host.
    fn uploaded(&self) -> u64 {
        match self.role {
            Role::Weight { .. } | Role::State(_) => self.bytes,
            _ => 0,
        }
    }

    /// Whether the buffer lives as long as the network.
    pub fn resident(&self) -> bool {
        !matches!(self.role, Role::Staging | Role::Weight { resident: false, .. })
    }
}

/// Index of a texture in a [`Plan`].
pub type TextureId = usize;

/// A copy of a tensor as a texture of `vec4<f32>` texels, for devices that read
/// textures faster than buffers.
#[derive(Clone, Debug)]
pub struct Texture {
    pub label: String,
    pub width: u32,
    pub height: u32,
}

impl Texture {
    pub fn bytes(&self) -> u64 {
        16 * u64::from(self.width) * u64::from(self.height)
    }
}

/// One kernel launch.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Path of the operation in the network.
    pub label: String,
    /// Name of the operation.
    pub op: &'static str,
    pub shader: Arc<Shader>,
    /// One for each of the shader's bindings.
    pub buffers: Vec<BufferId>,
    /// One for each of the shader's textures.
    pub textures: Vec<TextureId>,
    /// Copies made before the launch.
    pub fills: Vec<(BufferId, TextureId)>,
    /// The packed `params` uniform.
    pub params: Vec<u8>,
    pub groups: [u32; 3],
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of all tensors that the kernel reads or writes, each counted once.
    pub bytes: u64,
}

/// A tensor that the caller can name.
#[derive(Clone, Debug)]
pub struct Port {
    pub name: String,
    pub desc: TensorDesc,
    pub buffer: BufferId,
}

/// What a network will do on a device: buffers, work at load, work of each run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub buffers: Vec<Buffer>,
    /// Done once: unpacking and repacking weights, folding constants.
    pub load: Vec<Dispatch>,
    /// Done by each run.
    pub run: Vec<Dispatch>,
    pub textures: Vec<Texture>,
    /// Copies made once, when the source is computed.
    pub load_fills: Vec<(BufferId, TextureId)>,
    /// After each run: copies from a result to a state, `(from, to, bytes)`.
    pub copies: Vec<(BufferId, BufferId, u64)>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub states: Vec<Port>,
    /// Parameters of the network.
    pub parameters: u64,
}

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
pub struct Slot(usize);

struct Launch {
    label: String,
    op: &'static str,
    shader: Arc<Shader>,
    slots: Vec<Slot>,
    /// For each of the shader's textures: what it shows, width and height.
    textures: Vec<(Slot, [u32; 2])>,
    params: Vec<u8>,
    groups: [u32; 3],
    flops: u64,
}

/// Bytes of a line of a texture that is filled from a buffer must be a multiple of this.
pub const TEXTURE_LINE: usize = 256;

/// What an operation sees while it records its dispatches.
pub struct Lower<'a> {
    target: &'a Target,
    label: &'a str,
    op: &'static str,
    inputs: Vec<(&'a TensorDesc, Slot)>,
    output: (&'a TensorDesc, Slot),
    flops: u64,
    slots: &'a mut Vec<SlotInfo>,
    shaders: &'a mut HashMap<Kernel, Arc<Shader>>,
    launches: &'a mut Vec<Launch>,
    textures: Vec<(&'static str, Slot, [u32; 2])>,
    error: Option<crate::Error>,
}

#[derive(Clone)]
struct SlotInfo {
    label: String,
    bytes: u64,
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

/// Buffers are made a multiple of this many bytes, so that vec4 kernels may be bound to any.
const BUFFER_ALIGNMENT: u64 = 16;

/// Bytes of weights on their way to the device at one time.
const LOAD_CHUNK: u64 = 256 << 20;

impl Plan {
    /// Plans `graph`, already rewritten by the passes, for a device.
    pub fn new(graph: &Graph, target: &Target) -> Result<Plan> {
        let constant = graph.constants();
        let mut slots: Vec<SlotInfo> = Vec::new();
        let mut slot_of: Vec<Slot> = Vec::new();
        let mut shaders = HashMap::new();
        let (mut load, mut run) = (Vec::new(), Vec::new());

        for (id, value) in graph.values() {
            if let Source::Op { op, inputs } = &value.source
                && op.is_view()
            {
                slot_of.push(slot_of[inputs[0].index()]);
                continue;
            }
            slots.push(SlotInfo { label: value.name.clone(), bytes: value.desc.bytes() });
            slot_of.push(Slot(slots.len() - 1));
            if let Source::Op { op, inputs } = &value.source {
                let descs: Vec<&TensorDesc> = inputs.iter().map(|&i| graph.desc(i)).collect();
                let mut lower = Lower {
                    target,
                    label: &value.name,
                    op: op.name(),
                    flops: op.flops(&descs, &value.desc),
                    inputs: inputs.iter().map(|&i| (graph.desc(i), slot_of[i.index()])).collect(),
                    output: (&value.desc, slot_of[id.index()]),
                    slots: &mut slots,
                    shaders: &mut shaders,
                    launches: if constant[id.index()] { &mut load } else { &mut run },
                    textures: Vec::new(),
                    error: None,
                };
                op.lower(&mut lower);
                if let Some(error) = lower.error {
                    return Err(error);
                }
            }
        }

        let mut placer = Placer::new(graph, &constant, &slots, &slot_of, &load, &run);
        let buffer_of = placer.place(graph, &slot_of);
        let buffers = std::mem::take(&mut placer.buffers);

        for buffer in &buffers {
            let what = || format!("tensor {}", buffer.label);
            target.check(what, buffer.bytes, target.max_buffer)?;
            target.check(what, buffer.bytes, target.max_binding)?;
        }
        let mut textures = TexturePool::default();
        let mut dispatch = |launch: Launch| -> Dispatch {
            let sources = launch.textures.iter().map(|(slot, _)| slot);
            let mut distinct: Vec<Slot> = launch.slots.iter().chain(sources).copied().collect();
            distinct.sort_by_key(|s| s.0);
            distinct.dedup();
            let mut fills = Vec::new();
            let shown = launch.textures.iter().enumerate().map(|(i, &(slot, size))| {
                let buffer = buffer_of[slot.0].expect("placed");
                if placer.constant_slot[slot.0] {
                    return textures.show_constant(buffer, size, &buffers);
                }
                let (texture, filled) = textures.show(slot, size, i);
                if !filled {
                    fills.push((buffer, texture));
                }
                texture
            });
            Dispatch {
                bytes: distinct.iter().map(|s| slots[s.0].bytes).sum(),
                buffers: launch.slots.iter().map(|s| buffer_of[s.0].expect("placed")).collect(),
                textures: shown.collect(),
                fills,
                label: launch.label,
                op: launch.op,
                shader: launch.shader,
                params: launch.params,
                groups: launch.groups,
                flops: launch.flops,
            }
        };
        let load: Vec<Dispatch> = load.into_iter().map(&mut dispatch).collect();
        let run: Vec<Dispatch> = run.into_iter().map(&mut dispatch).collect();
        let port = |name: &str, id: ValueId| Port {
            name: name.to_owned(),
            desc: graph.desc(id).clone(),
            buffer: buffer_of[slot_of[id.index()].0].expect("ports are placed"),
        };
        let named = |wanted: fn(&Source) -> bool| -> Vec<Port> {
            graph.values().filter(|(_, v)| wanted(&v.source)).map(|(id, v)| port(&v.name, id)).collect()
        };
        Ok(Plan {
            target: target.clone(),
            load,
            run,
            textures: textures.textures,
            load_fills: textures.constants,
            copies: graph
                .updates()
                .iter()
                .map(|&(state, value)| {
                    let (to, from) = (port("", state), port("", value));
                    (from.buffer, to.buffer, to.desc.bytes())
                })
                .collect(),
            inputs: named(|s| matches!(s, Source::Input)),
            states: named(|s| matches!(s, Source::State(_))),
            outputs: graph.outputs().iter().map(|(n, id)| port(n, *id)).collect(),
            parameters: graph.parameters(),
            buffers,
        })
    }

    /// Operations of one run.
    pub fn flops(&self) -> u64 {
        self.run.iter().map(|d| d.flops).sum()
    }

    /// Bytes that the network holds on the device while it exists.
    pub fn resident_bytes(&self) -> u64 {
        let tensors: u64 = self.buffers.iter().filter(|b| b.resident()).map(|b| b.bytes).sum();
        tensors + self.texture_bytes() + self.uniform_bytes(&self.run)
    }

    /// The most bytes that the network ever holds: while loading, weights lie as
    /// they are in the file beside the repacked ones, and once more in the upload.
    pub fn peak_bytes(&self) -> u64 {
        let chunks = self.load_chunks();
        let mut peak = self.resident_bytes();
        let mut made = vec![false; self.buffers.len()];
        let mut held = self.texture_bytes();
        for range in chunks {
            let mut uploads = 0;
            for id in self.load[range.clone()].iter().flat_map(|d| &d.buffers) {
                if !std::mem::replace(&mut made[*id], true) {
                    held += self.buffers[*id].bytes;
                    uploads += self.buffers[*id].uploaded();
                }
            }
            peak = peak.max(held + uploads + self.uniform_bytes(&self.load[range.clone()]));
            for (id, buffer) in self.buffers.iter().enumerate() {
                let again = self.load[range.end..].iter().any(|d| d.buffers.contains(&id));
                if made[id] && !buffer.resident() && !again {
                    held -= buffer.bytes;
                    made[id] = false;
                }
            }
        }
        peak
    }

    /// Parts of the load that upload at most [`LOAD_CHUNK`] bytes of weights each
    /// (or one weight, if that is larger).
    pub(crate) fn load_chunks(&self) -> Vec<std::ops::Range<usize>> {
        let mut chunks = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (i, dispatch) in self.load.iter().enumerate() {
            let upload: u64 = dispatch.buffers.iter().map(|&b| self.buffers[b].uploaded()).sum();
            if bytes + upload > LOAD_CHUNK && i > start {
                chunks.push(start..i);
                (start, bytes) = (i, 0);
            }
            bytes += upload;
        }
        if start < self.load.len() {
            chunks.push(start..self.load.len());
        }
        chunks
    }

    fn texture_bytes(&self) -> u64 {
        self.textures.iter().map(Texture::bytes).sum()
    }

    /// Bytes of the buffer that holds the parameters of `dispatches`.
    pub(crate) fn uniform_bytes(&self, dispatches: &[Dispatch]) -> u64 {
        let align = u64::from(self.target.uniform_alignment);
        dispatches.iter().map(|d| (d.params.len() as u64).next_multiple_of(align)).sum()
    }

    /// Bytes in buffers of each role, resident ones only.
    pub fn bytes_by_role(&self) -> Vec<(&'static str, u64)> {
        let mut rows: Vec<(&'static str, u64)> = Vec::new();
        for buffer in self.buffers.iter().filter(|b| b.resident()) {
            let role = buffer.role_name();
            match rows.iter_mut().find(|(r, _)| *r == role) {
                Some((_, bytes)) => *bytes += buffer.bytes,
                None => rows.push((role, buffer.bytes)),
            }
        }
        if !self.textures.is_empty() {
            rows.push(("texture", self.texture_bytes()));
        }
        rows
    }
}

/// The textures of a plan.
#[derive(Default)]
struct TexturePool {
    textures: Vec<Texture>,
    /// Filled once, from constants.
    constants: Vec<(BufferId, TextureId)>,
    /// Filled before use, and so shared by all tensors of a size; one for each
    /// place that textures of that size have in a launch. With what it holds.
    shared: HashMap<([u32; 2], usize), (TextureId, Slot)>,
}

impl TexturePool {
    fn add(&mut self, label: String, [width, height]: [u32; 2]) -> TextureId {
        self.textures.push(Texture { label, width, height });
        self.textures.len() - 1
    }

    fn show_constant(&mut self, buffer: BufferId, size: [u32; 2], buffers: &[Buffer]) -> TextureId {
        let known = self
            .constants
            .iter()
            .copied()
            .find(|&(b, t)| b == buffer && [self.textures[t].width, self.textures[t].height] == size);
        known.map(|(_, texture)| texture).unwrap_or_else(|| {
            let texture = self.add(buffers[buffer].label.clone(), size);
            self.constants.push((buffer, texture));
            texture
        })
    }

    /// The texture, and whether it holds the tensor already: every tensor is written
    /// once in a run, so that what was filled with it stays true.
    fn show(&mut self, slot: Slot, size: [u32; 2], place: usize) -> (TextureId, bool) {
        match self.shared.get_mut(&(size, place)) {
            Some((texture, holds)) => (*texture, std::mem::replace(holds, slot) == slot),
            None => {
                let texture = self.add(format!("texture {}x{}", size[0], size[1]), size);
                self.shared.insert((size, place), (texture, slot));
                (texture, false)
            }
        }
    }
}

/// Decides which buffer each slot gets.
struct Placer {
    buffers: Vec<Buffer>,
    slots: Vec<SlotInfo>,
    buffer_of: Vec<Option<BufferId>>,
    /// Dispatches of a run that touch each slot: first and last.
    run_span: Vec<Option<(usize, usize)>>,
    used_in_load: Vec<bool>,
    constant_slot: Vec<bool>,
    run_end: usize,
}

impl Placer {
    fn new(
        graph: &Graph,
        constant: &[bool],
        slots: &[SlotInfo],
        slot_of: &[Slot],
        load: &[Launch],
        run: &[Launch],
    ) -> Self {
        let mut constant_slot = vec![false; slots.len()];
        for (id, _) in graph.values() {
            constant_slot[slot_of[id.index()].0] |= constant[id.index()];
        }
        let mut used_in_load = vec![false; slots.len()];
        let mut run_span: Vec<Option<(usize, usize)>> = vec![None; slots.len()];
        for (at, launch) in run.iter().enumerate() {
            let mut touch = |slot: &Slot| run_span[slot.0].get_or_insert((at, at)).1 = at;
            launch.slots.iter().for_each(&mut touch);
            // A constant is shown as a texture once, when it is computed.
            for (slot, _) in &launch.textures {
                match constant_slot[slot.0] {
                    true => used_in_load[slot.0] = true,
                    false => touch(slot),
                }
            }
        }
        for launch in load {
            for slot in &launch.slots {
                used_in_load[slot.0] = true;
            }
        }
        Placer {
            buffers: Vec::new(),
            buffer_of: vec![None; slots.len()],
            slots: slots.to_vec(),
            run_span,
            used_in_load,
            constant_slot,
            run_end: run.len(),
        }
    }

    fn add(&mut self, slot: Slot, role: Role) {
        let info = &self.slots[slot.0];
        self.buffer_of[slot.0] = Some(self.buffers.len());
        self.buffers.push(Buffer {
            label: info.label.clone(),
            bytes: info.bytes.next_multiple_of(BUFFER_ALIGNMENT),
            role,
        });
    }

    fn place(&mut self, graph: &Graph, slot_of: &[Slot]) -> Vec<Option<BufferId>> {
        let is_output: Vec<bool> = {
            let mut is_output = vec![false; self.slots.len()];
            for (_, id) in graph.outputs() {
                is_output[slot_of[id.index()].0] = true;
            }
            is_output
        };
        let mut held = is_output.clone();
        for (_, id) in graph.updates() {
            held[slot_of[id.index()].0] = true;
        }

        for (id, value) in graph.values() {
            let slot = slot_of[id.index()];
            let at_run = self.run_span[slot.0].is_some() || held[slot.0];
            match &value.source {
                Source::Input => self.add(slot, Role::Input),
                Source::State(initial) => self.add(slot, Role::State(initial.clone())),
                Source::Weight(tensor) => {
                    self.add(slot, Role::Weight { tensor: tensor.clone(), resident: at_run })
                }
                Source::Op { .. } if self.buffer_of[slot.0].is_some() => {}
                Source::Op { .. } if self.constant_slot[slot.0] => {
                    let role = if at_run { Role::Constant } else { Role::Staging };
                    self.add(slot, role);
                }
                Source::Op { .. } if is_output[slot.0] => self.add(slot, Role::Output),
                Source::Op { .. } => {}
            }
        }

        let pooled: Vec<usize> = (0..self.slots.len()).filter(|&s| self.buffer_of[s].is_none()).collect();
        let mut lifetimes = Vec::new();
        let mut members = Vec::new();
        for &s in &pooled {
            match self.run_span[s] {
                Some((first, last)) => {
                    lifetimes.push(Lifetime {
                        first,
                        last: if held[s] { self.run_end } else { last },
                        bytes: self.slots[s].bytes.next_multiple_of(BUFFER_ALIGNMENT),
                    });
                    members.push(s);
                }
                // Scratch of a constant computation.
                None if self.used_in_load[s] => self.add(Slot(s), Role::Staging),
                // Never touched: a value that nothing reads and no kernel writes.
                None => {}
            }
        }
        let (sizes, assignment) = arena::assign(&lifetimes);
        let base = self.buffers.len();
        for (i, bytes) in sizes.into_iter().enumerate() {
            self.buffers.push(Buffer { label: format!("pool {i}"), bytes, role: Role::Pool });
        }
        for (s, buffer) in members.into_iter().zip(assignment) {
            self.buffer_of[s] = Some(base + buffer);
        }
        self.buffer_of.clone()
    }
}

/// The type that kernels use for a tensor's elements.
pub(crate) fn elem(desc: &TensorDesc) -> &'static str {
    debug_assert!(desc.dtype != DType::BF16, "bf16 is unpacked first");
    desc.dtype.wgsl()
}

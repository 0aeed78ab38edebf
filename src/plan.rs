//! Graph → ordered dispatches over planned buffers. Pure data: it can be made,
//! printed and compared without a GPU.

mod load;
mod reload;
mod share;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::limits::{Bound, Limits};
use crate::lower::{Launch, Lower, Request, Slot, SlotInfo, link};
use crate::ops::Operator;
use crate::ops::packed_weight::PackedWeight;
use crate::place::{Placer, TexturePool};
use crate::shader::Shader;
use crate::target::Target;
use crate::tensor::{Tensor, TensorDesc};

pub(crate) use load::{CUT, Loading, Part, Upload};
pub(crate) use reload::Change;
pub(crate) use share::Shared;

/// Index of a buffer in a [`Plan`].
pub type BufferId = usize;

/// What a buffer is for, which decides how long it lives.
#[derive(Clone, Debug)]
pub enum Role {
    /// Holds a weight as it is in the file. `resident`: read by runs too, not only while loading.
    Weight { tensor: Tensor, resident: bool },
    /// Holds a weight in the order that kernels read, which the host gives it. `resident` as above.
    Packed { weight: PackedWeight, resident: bool },
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
            Role::Weight { .. } | Role::Packed { .. } => "weight",
            Role::Constant => "constant",
            Role::Staging => "staging",
            Role::Input => "input",
            Role::State(_) => "state",
            Role::Pool => "pool",
            Role::Output => "output",
        }
    }

    /// Whether its contents are a weight, which the host uploads.
    fn is_weight(&self) -> bool {
        matches!(self.role, Role::Weight { .. } | Role::Packed { .. })
    }

    /// Whether the buffer lives as long as the network.
    pub fn resident(&self) -> bool {
        !matches!(
            self.role,
            Role::Staging | Role::Weight { resident: false, .. } | Role::Packed { resident: false, .. }
        )
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

/// A copy of a buffer's first texels into a texture, line by line.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    pub buffer: BufferId,
    pub texture: TextureId,
    pub texels: u32,
}

impl Texture {
    /// What it takes: software adapters keep textures in squares of four by four texels.
    pub fn bytes(&self) -> u64 {
        16 * u64::from(self.width) * u64::from(self.height.next_multiple_of(4))
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
    /// For each of them, how many of its bytes are the tensor's; the place may be larger.
    pub extents: Vec<u64>,
    /// One for each of the shader's textures.
    pub textures: Vec<TextureId>,
    /// Copies made before the launch.
    pub fills: Vec<Fill>,
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

/// The launches of one operation of the graph that was planned.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub value: ValueId,
    /// Whether they are part of the load; else of the run.
    pub loading: bool,
    pub launches: Range<usize>,
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
    pub load_fills: Vec<Fill>,
    /// After each run: copies from a result to a state, `(from, to, bytes)`.
    pub copies: Vec<(BufferId, BufferId, u64)>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub states: Vec<Port>,
    /// Parameters of the network.
    pub parameters: u64,
    /// Bytes that one part of the load takes at most, or one launch that takes more; two parts are under way at a time.
    pub load_chunk: u64,
    /// Those that launch something, in the order of the graph.
    pub(crate) operations: Vec<Operation>,
    /// Of each value of the graph, as long as it lives; none where nothing reads or writes it.
    pub(crate) places: Vec<Option<BufferId>>,
}

/// Bytes that a network takes on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct NetworkMemory {
    /// While it is ready to run.
    pub held: u64,
    /// At most: while it is loaded.
    pub peak: u64,
    /// Of these, inputs, states and outputs.
    pub ports: u64,
}

/// [`Plan::load_chunk`] where there is no need to be thrifty.
const LOAD_CHUNK: u64 = 32 << 20;

/// The launches that a graph asks for.
struct Lowered {
    slots: Vec<SlotInfo>,
    slot_of: Vec<Slot>,
    load: Vec<Request>,
    run: Vec<Request>,
    operations: Vec<Operation>,
}

impl Lowered {
    /// Where the tensors in `shown` can be read as textures.
    fn of(graph: &Graph, target: &Target, constant: &[bool], shown: &HashSet<Slot>) -> Lowered {
        let while_loading = target.while_loading();
        let mut slots: Vec<SlotInfo> = Vec::new();
        let mut slot_of: Vec<Slot> = Vec::new();
        let (mut load, mut run) = (Vec::new(), Vec::new());
        let mut operations = Vec::new();

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
                let loading = constant[id.index()];
                let first = if loading { load.len() } else { run.len() };
                let mut lower = Lower {
                    target: if loading { &while_loading } else { target },
                    label: &value.name,
                    op: op.name(),
                    flops: op.flops(&descs, &value.desc),
                    inputs: inputs.iter().map(|&i| (graph.desc(i), slot_of[i.index()])).collect(),
                    output: (&value.desc, slot_of[id.index()]),
                    slots: &mut slots,
                    requests: if loading { &mut load } else { &mut run },
                    textures: Vec::new(),
                    shown,
                    loading,
                };
                op.lower(&mut lower);
                let end = if loading { load.len() } else { run.len() };
                if first < end {
                    operations.push(Operation { value: id, loading, launches: first..end });
                }
            }
        }
        Lowered { slots, slot_of, load, run, operations }
    }
}

impl Plan {
    /// Plans `graph`, already rewritten by the passes, for a device.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) for what the device cannot hold, [`Error::Bound`](crate::Error::Bound) for a network of more
    /// than [`Limits`] allow.
    pub fn new(graph: &Graph, target: &Target) -> Result<Plan> {
        Self::with_kernels(graph, target, &[])
    }

    /// Plans another graph for the same device, with the kernels that are made already and in parts as large.
    pub(crate) fn again(&self, graph: &Graph) -> Result<Plan> {
        let launches = self.load.iter().chain(&self.run);
        let kernels: Vec<Arc<Shader>> = launches.map(|launch| launch.shader.clone()).collect();
        let plan = Self::with_kernels(graph, &self.target, &kernels)?;
        Ok(Plan { load_chunk: self.load_chunk, ..plan })
    }

    fn with_kernels(graph: &Graph, target: &Target, kernels: &[Arc<Shader>]) -> Result<Plan> {
        let (limits, what) = (Limits::current(), || "the network".to_owned());
        limits.check(Bound::Outputs, what, graph.outputs().len() as u64)?;
        let constant = graph.constants();
        let mut lowered = Lowered::of(graph, target, &constant, &HashSet::new());
        let shown: HashSet<Slot> = lowered.run.iter().flat_map(Request::shown).collect();
        if !shown.is_empty() {
            lowered = Lowered::of(graph, target, &constant, &shown);
        }
        let Lowered { slots, slot_of, mut load, run, operations } = lowered;
        let loads = load.len();
        load.extend(run);
        let mut load = link(load, target, kernels)?;
        let run = load.split_off(loads);

        let mut placer = Placer::new(graph, &constant, &slots, &slot_of, &load, &run);
        let buffer_of = placer.place(graph, &slot_of);
        let buffers = std::mem::take(&mut placer.buffers);

        let mut textures = TexturePool::default();
        let mut dispatch = |launch: Launch| -> Dispatch {
            let sources = launch.textures.iter().map(|(slot, _)| slot);
            let mut distinct: Vec<Slot> = launch.slots.iter().chain(sources).copied().collect();
            distinct.sort_by_key(|s| s.0);
            distinct.dedup();
            let mut fills = Vec::new();
            let shown = launch.textures.iter().enumerate().map(|(i, &(slot, texels))| {
                let buffer = buffer_of[slot.0].expect("placed");
                if placer.constant_slot[slot.0] {
                    return textures.show_constant(buffer, texels, &buffers);
                }
                let (texture, filled) = textures.show(slot, texels, i);
                if !filled {
                    fills.push(Fill { buffer, texture, texels });
                }
                texture
            });
            Dispatch {
                bytes: distinct.iter().map(|s| slots[s.0].bytes).sum(),
                buffers: launch.slots.iter().map(|s| buffer_of[s.0].expect("placed")).collect(),
                extents: launch.slots.iter().map(|s| slots[s.0].bytes).collect(),
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
        let plan = Plan {
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
            load_chunk: LOAD_CHUNK,
            places: slot_of.iter().map(|slot| buffer_of[slot.0]).collect(),
            operations,
            buffers,
        };
        for (buffer, bound) in plan.buffers.iter().zip(plan.bound()) {
            let what = || format!("tensor {}", buffer.label);
            target.check(what, buffer.bytes, target.max_buffer)?;
            target.check(what, if bound { buffer.bytes } else { 0 }, target.max_binding)?;
        }
        limits.check(Bound::Flops, what, plan.flops())?;
        limits.check(Bound::Device, what, plan.peak_bytes())?;
        Ok(plan)
    }

    /// For each buffer, whether it is ever bound: a weight that is only copied into a texture may be larger than a binding.
    pub(crate) fn bound(&self) -> Vec<bool> {
        let mut bound = self.ports();
        let launches = self.load.iter().chain(&self.run);
        launches.flat_map(|launch| &launch.buffers).for_each(|&id| bound[id] = true);
        bound
    }

    /// The operations of the graph that was planned that launch something, in its order: whose value they compute, whether
    /// while loading, and their launches, of [`Plan::load`] then, else of [`Plan::run`].
    pub fn operations(&self) -> impl Iterator<Item = (ValueId, bool, Range<usize>)> {
        self.operations.iter().map(|op| (op.value, op.loading, op.launches.clone()))
    }

    /// Where a value of the graph that was planned lies as long as it lives; none where nothing reads or writes it.
    pub fn place(&self, value: ValueId) -> Option<BufferId> {
        self.places[value.index()]
    }

    /// Operations of one run.
    pub fn flops(&self) -> u64 {
        self.run.iter().fold(0, |sum, dispatch| sum.saturating_add(dispatch.flops))
    }

    /// Bytes that the network holds on the device while it exists.
    pub fn resident_bytes(&self) -> u64 {
        let tensors: u64 = self.buffers.iter().filter(|b| b.resident()).map(|b| b.bytes).sum();
        tensors + self.texture_bytes() + self.uniform_bytes(&self.run)
    }

    /// Bytes that the load takes from the host.
    pub(crate) fn uploaded_bytes(&self) -> u64 {
        self.buffers.iter().filter(|buffer| buffer.is_weight()).map(|buffer| buffer.bytes).sum()
    }

    /// Bytes of inputs, states and outputs: what is left of a network that is set aside.
    pub fn port_bytes(&self) -> u64 {
        self.buffers.iter().zip(self.ports()).filter(|(_, port)| *port).map(|(b, _)| b.bytes).sum()
    }

    /// For each buffer, whether the caller can name it.
    fn ports(&self) -> Vec<bool> {
        let mut ports = vec![false; self.buffers.len()];
        for port in self.inputs.iter().chain(&self.states).chain(&self.outputs) {
            ports[port.buffer] = true;
        }
        ports
    }

    /// Bytes of intermediate results, which runs of several networks may use in turn: see [`crate::Scratch`].
    pub fn scratch_bytes(&self) -> u64 {
        self.pool().map(|(_, bytes)| bytes).sum()
    }

    /// Buffers of intermediate results, and their bytes.
    pub(crate) fn pool(&self) -> impl Iterator<Item = (BufferId, u64)> {
        let pool = self.buffers.iter().enumerate().filter(|(_, b)| matches!(b.role, Role::Pool));
        pool.map(|(id, buffer)| (id, buffer.bytes))
    }

    fn texture_bytes(&self) -> u64 {
        self.textures.iter().map(Texture::bytes).sum()
    }

    /// Where the parameters of each of the `dispatches` are in the buffer of all.
    pub(crate) fn uniform_offsets(&self, dispatches: &[Dispatch]) -> Vec<u64> {
        let align = u64::from(self.target.uniform_alignment);
        let starts = dispatches.iter().scan(0, |end, dispatch| {
            let start = *end;
            *end = (start + dispatch.params.len() as u64).next_multiple_of(align);
            Some(start)
        });
        starts.collect()
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

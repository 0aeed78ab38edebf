//! Which buffer each slot gets, and which texture shows it.

use std::collections::HashMap;

use crate::arena::{self, Lifetime};
use crate::graph::{Graph, Source};
use crate::lower::{Launch, Slot, SlotInfo, TEXELS_LINE};
use crate::ops::Op;
use crate::plan::{Buffer, BufferId, Fill, Role, Texture, TextureId};

/// Buffers are made a multiple of this many bytes, so that vec4 kernels may be bound to any.
const BUFFER_ALIGNMENT: u64 = 16;

/// The size of a buffer for so many bytes; of what nothing can hold, the largest there is, which the plan then refuses.
fn padded(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BUFFER_ALIGNMENT).unwrap_or(u64::MAX)
}

/// The textures of a plan.
#[derive(Default)]
pub(crate) struct TexturePool {
    pub(crate) textures: Vec<Texture>,
    /// Filled once, from constants.
    pub(crate) constants: Vec<Fill>,
    /// Filled before use, and so shared by all tensors of as many lines; one for each
    /// place that such textures have in a launch. With what it holds.
    pub(crate) shared: HashMap<(u32, usize), (TextureId, Slot)>,
}

impl TexturePool {
    fn add(&mut self, label: String, lines: u32) -> TextureId {
        self.textures.push(Texture { label, width: TEXELS_LINE, height: lines });
        self.textures.len() - 1
    }

    pub(crate) fn show_constant(&mut self, buffer: BufferId, texels: u32, buffers: &[Buffer]) -> TextureId {
        let known = self.constants.iter().find(|fill| fill.buffer == buffer);
        known.map(|fill| fill.texture).unwrap_or_else(|| {
            let texture = self.add(buffers[buffer].label.clone(), texels.div_ceil(TEXELS_LINE));
            self.constants.push(Fill { buffer, texture, texels });
            texture
        })
    }

    /// The texture, and whether it holds the tensor already: every tensor is written
    /// once in a run, so that what was filled with it stays true.
    pub(crate) fn show(&mut self, slot: Slot, texels: u32, place: usize) -> (TextureId, bool) {
        let lines = texels.div_ceil(TEXELS_LINE);
        match self.shared.get_mut(&(lines, place)) {
            Some((texture, holds)) => (*texture, std::mem::replace(holds, slot) == slot),
            None => {
                let texture = self.add(format!("texture of {lines} lines"), lines);
                self.shared.insert((lines, place), (texture, slot));
                (texture, false)
            }
        }
    }
}
/// Decides which buffer each slot gets.
pub(crate) struct Placer {
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) slots: Vec<SlotInfo>,
    pub(crate) buffer_of: Vec<Option<BufferId>>,
    /// Dispatches of a run that touch each slot: first and last.
    pub(crate) run_span: Vec<Option<(usize, usize)>>,
    pub(crate) used_in_load: Vec<bool>,
    pub(crate) constant_slot: Vec<bool>,
    pub(crate) run_end: usize,
}

impl Placer {
    pub(crate) fn new(
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

    pub(crate) fn add(&mut self, slot: Slot, role: Role) {
        let info = &self.slots[slot.0];
        self.buffer_of[slot.0] = Some(self.buffers.len());
        self.buffers.push(Buffer { label: info.label.clone(), bytes: padded(info.bytes), role });
    }

    pub(crate) fn place(&mut self, graph: &Graph, slot_of: &[Slot]) -> Vec<Option<BufferId>> {
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
                Source::Op { op: Op::PackedWeight(weight), .. } => {
                    self.add(slot, Role::Packed { weight: weight.clone(), resident: at_run })
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
                        bytes: padded(self.slots[s].bytes),
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

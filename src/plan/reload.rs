//! What of a network that is loaded is another in a new plan of the same runs: weights that adapters change, and what is
//! computed of them.

use std::collections::HashMap;

use super::{Buffer, BufferId, Dispatch, Plan, Port, Role, TextureId};
use crate::ops::conv_weight::ConvWeight;
use crate::shader::{Access, Kernel};
use crate::tensor::Bytes;

/// The way from one plan to another that runs the same launches.
pub(crate) struct Change {
    /// The new plan's load of what is different, without its runs.
    pub load: Plan,
    /// For each buffer of the new plan that stays on the device, which one of the old plan it is.
    pub buffers: Vec<Option<BufferId>>,
    /// For each texture of the new plan, which one of the old plan it is.
    pub textures: Vec<TextureId>,
    /// Bytes that stay on the device.
    resident: u64,
}

impl Change {
    /// `None` if the runs are not the same.
    pub fn between(old: &Plan, new: &Plan) -> Option<Change> {
        let Pairs { buffers, textures } = Pairs::of(old, new)?;
        let mut seen = HashMap::new();
        let old_contents = contents(old, &mut seen);
        let new_contents = contents(new, &mut seen);
        let mut changed: Vec<bool> = (buffers.iter().enumerate())
            .map(|(id, of)| {
                of.is_some_and(|of| loads(&new.buffers[id]) && new_contents[id] != old_contents[of])
            })
            .collect();
        let shown =
            |plan: &Plan, texture| plan.load_fills.iter().find(|f| f.texture == texture).map(|f| f.buffer);
        let fills = new.load_fills.iter().filter(|fill| {
            let before = shown(old, textures[fill.texture]).map(|of| old_contents[of]);
            before != Some(new_contents[fill.buffer])
        });
        let fills: Vec<_> = fills.copied().collect();
        fills.iter().for_each(|fill| changed[fill.buffer] = true);
        Some(Change { load: part(new, changed, fills), buffers, textures, resident: new.resident_bytes() })
    }

    /// The most bytes that the network holds meanwhile.
    pub fn peak_bytes(&self) -> u64 {
        self.load.peak_from(self.resident, |id| !self.load.buffers[id].resident())
    }
}

/// Whether the load gives a buffer its contents.
pub(super) fn loads(buffer: &Buffer) -> bool {
    buffer.is_weight() || matches!(buffer.role, Role::Constant)
}

/// Which buffers and textures of two plans are the same, as their runs do the same with them.
struct Pairs {
    buffers: Vec<Option<BufferId>>,
    textures: Vec<TextureId>,
}

/// Pairs under way; both ways, so that none has two partners.
struct Pairing {
    there: Vec<Option<usize>>,
    back: Vec<Option<usize>>,
}

impl Pairing {
    fn new(new: usize, old: usize) -> Self {
        Pairing { there: vec![None; new], back: vec![None; old] }
    }

    /// Whether the two may be the same.
    fn pair(&mut self, new: usize, old: usize) -> bool {
        *self.there[new].get_or_insert(old) == old && *self.back[old].get_or_insert(new) == new
    }
}

impl Pairs {
    fn of(old: &Plan, new: &Plan) -> Option<Pairs> {
        let mut buffers = Pairing::new(new.buffers.len(), old.buffers.len());
        let mut textures = Pairing::new(new.textures.len(), old.textures.len());
        let lists = [(&new.inputs, &old.inputs), (&new.states, &old.states), (&new.outputs, &old.outputs)];
        let mut same = new.run.len() == old.run.len() && new.copies.len() == old.copies.len();
        for (new, old) in lists {
            let alike = |(a, b): (&Port, &Port)| {
                a.name == b.name && a.desc == b.desc && buffers.pair(a.buffer, b.buffer)
            };
            same = same && new.len() == old.len() && new.iter().zip(old).all(alike);
        }
        for ((from, to, bytes), (old_from, old_to, old_bytes)) in new.copies.iter().zip(&old.copies) {
            same = same && bytes == old_bytes && buffers.pair(*from, *old_from) && buffers.pair(*to, *old_to);
        }
        let mut launches = new.run.iter().zip(&old.run);
        same = same && launches.all(|(new, old)| same_launch(new, old, &mut buffers, &mut textures));
        // What stays on the device must be the same to the last buffer.
        let alike = |(new, id): (&Buffer, &Option<usize>)| match *id {
            None => !new.resident(),
            Some(id) => {
                let old = &old.buffers[id];
                let kinds = [new, old].map(|buffer| (buffer.resident(), loads(buffer), buffer.bytes));
                kinds[0] == kinds[1]
            }
        };
        same = same
            && new.buffers.iter().zip(&buffers.there).all(alike)
            && old.buffers.iter().zip(&buffers.back).all(|(old, id)| !old.resident() || id.is_some());
        let textures: Option<Vec<TextureId>> = textures.there.into_iter().collect();
        let textures = textures.filter(|textures| textures.len() == old.textures.len())?;
        let size = |plan: &Plan, id: TextureId| (plan.textures[id].width, plan.textures[id].height);
        same = same && textures.iter().enumerate().all(|(a, &b)| size(new, a) == size(old, b));
        same.then_some(Pairs { buffers: buffers.there, textures })
    }
}

fn same_launch(new: &Dispatch, old: &Dispatch, buffers: &mut Pairing, textures: &mut Pairing) -> bool {
    new.shader.kernel == old.shader.kernel
        && (&new.params, new.groups, &new.extents) == (&old.params, old.groups, &old.extents)
        && new.fills.len() == old.fills.len()
        && new.buffers.iter().zip(&old.buffers).all(|(&a, &b)| buffers.pair(a, b))
        && new.textures.iter().zip(&old.textures).all(|(&a, &b)| textures.pair(a, b))
        && new.fills.iter().zip(&old.fills).all(|(a, b)| {
            a.texels == b.texels && buffers.pair(a.buffer, b.buffer) && textures.pair(a.texture, b.texture)
        })
}

/// What makes the contents of a buffer; equal ones make the same.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Origin<'a> {
    /// Nothing has been written yet.
    Empty,
    /// What the host has; packed, its shape, order and scale.
    Host { bytes: Stored<'a>, packing: Option<Packing<'a>> },
    /// By a launch that read, and wrote, what has these numbers.
    Launch {
        kernel: &'a Kernel,
        params: &'a [u8],
        groups: [u32; 3],
        extents: &'a [u64],
        read: Vec<usize>,
        binding: usize,
    },
}

/// Shape and order of a packed weight; the formula of its scale, and what that is made of.
type Packing<'a> = (&'a [usize], ConvWeight, Option<(String, Vec<Stored<'a>>)>);

/// Bytes on the host: by their place in a file, else what they are, as small ones are made anew with each graph.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Stored<'a> {
    At(*const u8, usize),
    Are(&'a [u8]),
}

impl<'a> Stored<'a> {
    fn new(bytes: &'a Bytes) -> Self {
        match bytes {
            Bytes::Owned(bytes) => Stored::Are(bytes),
            _ => Stored::At(bytes.as_ptr(), bytes.len()),
        }
    }
}

/// For each buffer the number of what the load leaves in it: equal numbers of two plans mean equal contents. This is
/// global value numbering (Alpern, Wegman, Zadeck 1988), which tells that two programs compute the same.
pub(super) fn contents<'a>(plan: &'a Plan, seen: &mut HashMap<Origin<'a>, usize>) -> Vec<usize> {
    let mut number = |origin: Origin<'a>| {
        let next = seen.len();
        *seen.entry(origin).or_insert(next)
    };
    let mut contents: Vec<usize> = (plan.buffers.iter())
        .map(|buffer| {
            number(match &buffer.role {
                Role::Weight { tensor, .. } => {
                    Origin::Host { bytes: Stored::new(&tensor.bytes), packing: None }
                }
                Role::Packed { weight, .. } => {
                    let stored = weight.stored();
                    let scale = weight.scale().map(|scale| {
                        (scale.formula(), scale.from().map(|tensor| Stored::new(&tensor.bytes)).collect())
                    });
                    let packing = Some((&stored.desc.shape[..], weight.packing(), scale));
                    Origin::Host { bytes: Stored::new(&stored.bytes), packing }
                }
                _ => Origin::Empty,
            })
        })
        .collect();
    for launch in &plan.load {
        let read: Vec<usize> = launch.buffers.iter().map(|&id| contents[id]).collect();
        for (binding, &id) in launch.buffers.iter().enumerate().filter(|&(i, _)| writes(launch, i)) {
            contents[id] = number(Origin::Launch {
                kernel: &launch.shader.kernel,
                params: &launch.params,
                groups: launch.groups,
                extents: &launch.extents,
                read: read.clone(),
                binding,
            });
        }
    }
    contents
}

pub(super) fn writes(launch: &Dispatch, binding: usize) -> bool {
    launch.shader.bindings[binding].access == Access::ReadWrite
}

/// The load of a plan as far as it makes these buffers and textures; what else stays on the device is there.
pub(super) fn part(plan: &Plan, mut needed: Vec<bool>, fills: Vec<super::Fill>) -> Plan {
    let mut kept = vec![false; plan.load.len()];
    let mut count = usize::MAX;
    // Again for launches that write what another before them was found to need.
    while std::mem::replace(&mut count, kept.iter().filter(|kept| **kept).count()) != count {
        for (launch, kept) in plan.load.iter().zip(&mut kept).rev() {
            let written = launch.buffers.iter().enumerate().any(|(i, &id)| writes(launch, i) && needed[id]);
            if !written && !*kept {
                continue;
            }
            *kept = true;
            for (i, &id) in launch.buffers.iter().enumerate() {
                needed[id] |= writes(launch, i) || !plan.buffers[id].resident();
            }
        }
    }
    let role = |(buffer, needed): (&Buffer, &bool)| match (needed, buffer.resident()) {
        (true, _) => buffer.clone(),
        (false, true) => Buffer { role: Role::Pool, ..buffer.clone() },
        (false, false) => Buffer { role: Role::Staging, ..buffer.clone() },
    };
    Plan {
        target: plan.target.clone(),
        buffers: plan.buffers.iter().zip(&needed).map(role).collect(),
        load: plan
            .load
            .iter()
            .zip(kept)
            .filter(|(_, kept)| *kept)
            .map(|(launch, _)| launch.clone())
            .collect(),
        run: Vec::new(),
        textures: plan.textures.clone(),
        load_fills: fills,
        copies: Vec::new(),
        inputs: plan.inputs.clone(),
        outputs: plan.outputs.clone(),
        states: plan.states.clone(),
        parameters: plan.parameters,
        load_chunk: plan.load_chunk,
        operations: Vec::new(),
        places: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::target::{DeviceClass, Target};
    use crate::tensor::{DType, Tensor};

    /// Three layers, whose weights are in the file's order or times a number, and what comes after.
    fn plan(class: DeviceClass, scales: [Option<f32>; 3], squared: bool) -> Plan {
        let mut g = Graph::new();
        let mut x = g.input("x", [4, 32], DType::F32);
        for (layer, scale) in scales.into_iter().enumerate() {
            let values: Vec<f32> = (0..32 * 32).map(|i| ((i * (layer + 3)) as f32).sin()).collect();
            let mut w = g.weight(&format!("w{layer}"), Tensor::from_f32([32, 32], &values));
            if let Some(scale) = scale {
                let scale = g.weight(&format!("scale{layer}"), Tensor::from_f32([1], &[scale]));
                w = g.mul(w, scale).unwrap();
            }
            x = g.linear(x, w, None).unwrap();
        }
        if squared {
            x = g.mul(x, x).unwrap();
        }
        g.output("y", x);
        Plan::compile(&g, &Target { class, ..Target::typical() }).unwrap()
    }

    fn uploaded(change: &Change) -> Vec<&str> {
        let weights = change.load.buffers.iter().filter(|buffer| buffer.is_weight());
        let mut labels: Vec<&str> = weights.map(|buffer| buffer.label.as_str()).collect();
        labels.sort_unstable();
        labels
    }

    #[test]
    fn only_what_is_of_another_weight_is_made_again() {
        for class in [DeviceClass::Discrete, DeviceClass::Integrated] {
            let plan = |scales| plan(class, scales, false);
            let (bare, one, other) =
                (plan([None; 3]), plan([None, Some(2.0), None]), plan([None, Some(3.0), Some(1.0)]));
            let change = |old: &Plan, new: &Plan| Change::between(old, new).unwrap();
            for (old, new, wanted) in [
                (&bare, &bare.clone(), &[][..]),
                (&one, &plan([None, Some(2.0), None]), &[]),
                (&bare, &one, &["scale1", "w1"]),
                (&one, &bare, &["w1"]),
                (&one, &other, &["scale1", "scale2", "w1", "w2"]),
                (&other, &one, &["scale1", "w1", "w2"]),
            ] {
                let change = change(old, new);
                assert_eq!(uploaded(&change), wanted);
                assert_eq!(change.load.load.is_empty(), wanted.is_empty());
                assert!(change.load.run.is_empty() && change.load.load.len() <= new.load.len());
                assert_eq!(change.peak_bytes() == new.resident_bytes(), wanted.is_empty());
            }
        }
    }

    #[test]
    fn other_runs_are_other_networks() {
        let class = DeviceClass::Discrete;
        let (plain, squared) = (plan(class, [None; 3], false), plan(class, [None; 3], true));
        assert!(Change::between(&plain, &squared).is_none());
        assert!(Change::between(&plain, &plain).is_some());
    }
}

//! What of a plan's weights is on the device already, in a network of another plan: one at another resolution.

use std::collections::HashMap;

use super::reload::{contents, loads, part, writes};
use super::{BufferId, Plan, TextureId};

/// What a new plan can take from a network of an old one.
pub(crate) struct Shared {
    /// The new plan's load of all the rest, without its runs.
    pub load: Plan,
    /// For each buffer of the new plan, which one of the old plan has the same for good.
    pub buffers: Vec<Option<BufferId>>,
    /// The same of textures.
    pub textures: Vec<Option<TextureId>>,
}

impl Shared {
    pub fn between(old: &Plan, new: &Plan) -> Shared {
        let mut seen = HashMap::new();
        let (old_contents, new_contents) = (contents(old, &mut seen), contents(new, &mut seen));
        let (old_ports, new_ports) = (old.ports(), new.ports());
        let lasting = |plan: &Plan, ports: &[bool], id: BufferId| {
            let buffer = &plan.buffers[id];
            buffer.resident() && loads(buffer) && !ports[id]
        };
        let mut known: HashMap<(usize, u64), BufferId> = HashMap::new();
        for id in (0..old.buffers.len()).filter(|&id| lasting(old, &old_ports, id)) {
            known.entry((old_contents[id], old.buffers[id].bytes)).or_insert(id);
        }
        let mut buffers: Vec<Option<BufferId>> = (0..new.buffers.len())
            .map(|id| {
                let wanted =
                    lasting(new, &new_ports, id).then_some((new_contents[id], new.buffers[id].bytes));
                wanted.and_then(|wanted| known.get(&wanted).copied())
            })
            .collect();
        let mut textures = vec![None; new.textures.len()];
        let mut fills = Vec::new();
        for fill in &new.load_fills {
            let size = |plan: &Plan, id: TextureId| (plan.textures[id].width, plan.textures[id].height);
            let same = old.load_fills.iter().find(|other| {
                other.texels == fill.texels
                    && old_contents[other.buffer] == new_contents[fill.buffer]
                    && size(old, other.texture) == size(new, fill.texture)
            });
            match same {
                Some(other) => textures[fill.texture] = Some(other.texture),
                None => fills.push(*fill),
            }
        }
        loop {
            let mut needed: Vec<bool> =
                (0..new.buffers.len()).map(|id| loads(&new.buffers[id]) && buffers[id].is_none()).collect();
            // Those that only the load needs are made if something is made of them.
            for (id, needed) in needed.iter_mut().enumerate() {
                *needed &= new.buffers[id].resident();
            }
            fills.iter().for_each(|fill| needed[fill.buffer] |= buffers[fill.buffer].is_none());
            let load = part(new, needed, fills.clone());
            // What a launch writes beside what is needed would be written where others read it.
            let written: Vec<BufferId> = (load.load.iter())
                .flat_map(|d| (0..d.buffers.len()).filter(|&i| writes(d, i)).map(|i| d.buffers[i]))
                .filter(|&id| buffers[id].is_some())
                .collect();
            if written.is_empty() {
                return Shared { load, buffers, textures };
            }
            written.into_iter().for_each(|id| buffers[id] = None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::ops::conv2d::Conv2dOptions;
    use crate::target::{DeviceClass, Target};
    use crate::tensor::{DType, Tensor};

    fn plan(side: usize, last: f32) -> Plan {
        let mut g = Graph::new();
        let mut x = g.input("x", [1, side, side, 16], DType::F32);
        for (layer, scale) in [1.0, 1.0, last].into_iter().enumerate() {
            let values: Vec<f32> =
                (0..16 * 16 * 9).map(|i| scale * ((i * (layer + 3)) as f32).sin()).collect();
            let w = Tensor::from_f32([16, 16, 3, 3], &values).to_dtype(DType::BF16);
            let w = g.weight(&format!("w{layer}"), w);
            let w = g.unpacked(w, DType::F32).unwrap();
            x = g.conv2d(x, w, None, Conv2dOptions::padded(1)).unwrap();
        }
        g.output("y", x);
        let target = Target { class: DeviceClass::Integrated, ..Target::typical() };
        Plan::compile(&g, &target).unwrap()
    }

    fn uploads(plan: &Plan) -> usize {
        plan.buffers.iter().filter(|buffer| buffer.is_weight()).count()
    }

    #[test]
    fn other_sizes_need_no_upload() {
        let (small, large) = (plan(16, 1.0), plan(24, 1.0));
        let shared = Shared::between(&small, &large);
        assert_eq!((uploads(&shared.load), shared.load.load.len()), (0, 0));
        assert_eq!(shared.buffers.iter().flatten().count(), 3);
    }

    #[test]
    fn what_is_not_the_same_is_loaded() {
        let (small, other) = (plan(16, 1.0), plan(24, 2.0));
        let shared = Shared::between(&small, &other);
        assert_eq!(uploads(&shared.load), 1);
        assert_eq!(shared.buffers.iter().flatten().count(), 2);
    }
}

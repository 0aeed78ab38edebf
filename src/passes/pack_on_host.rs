//! Weights that the host brings into the kernel's order, on software adapters.

use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::Op;
use crate::ops::packed_weight::PackedWeight;
use crate::target::Target;
use crate::tensor::{DType, Tensor};

/// The order of a convolution's weight, where that is one of the file and nothing else was done to it than to unpack it.
pub fn pack_on_host(graph: &Graph, target: &Target) -> Result<Graph> {
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::ConvWeight(packing), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        let weight = host_has(graph, target, old[0]);
        match weight.filter(|_| PackedWeight::knows(packing) && value.desc.dtype == DType::F32) {
            None => new.keep(value, inputs),
            Some(weight) => {
                let packed = PackedWeight::new(weight, graph.shape(old[0]), *packing);
                new.push_named(value.name.clone(), packed.into(), &[])
            }
        }
    })
}

/// The tensor of the file that a weight is, if the host can bring it into another order.
pub(super) fn host_has<'a>(graph: &'a Graph, target: &Target, weight: ValueId) -> Option<&'a Tensor> {
    stored(graph, weight).filter(|_| target.mappable)
}

/// The tensor of the file that this is, in another type or shape.
fn stored(graph: &Graph, mut id: ValueId) -> Option<&Tensor> {
    loop {
        match &graph.value(id).source {
            Source::Weight(tensor) => return Some(tensor),
            Source::Op { op: Op::Reshape(_) | Op::Unpack(_), inputs } => id = inputs[0],
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::DeviceClass;

    #[test]
    fn only_what_the_file_has_is_packed_on_the_host() {
        let mut g = Graph::new();
        let x = super::super::testing::input(&mut g, &[1, 8, 8, 8]);
        let w = g.weight("w", Tensor::from_f32([8, 8, 3, 3], &[0.5; 576]).to_dtype(DType::F16));
        let w = g.unpacked(w, DType::F32).unwrap();
        let twice = g.affine(w, 2.0, 0.0).unwrap();
        let a = g.conv2d(x, w, None, Default::default()).unwrap();
        let b = g.conv2d(a, twice, None, Default::default()).unwrap();
        g.output("y", b);
        let cpu = Target { class: DeviceClass::Cpu, mappable: true, ..Target::typical() };
        for (target, packed, ordered) in [(&cpu, 1, 1), (&Target::typical(), 0, 2)] {
            let graph = super::super::optimise(&g, target).unwrap();
            let count = |wanted: fn(&Op) -> bool| {
                let op = |source: &Source| matches!(source, Source::Op { op, .. } if wanted(op));
                graph.values().filter(|(_, value)| op(&value.source)).count()
            };
            assert_eq!(count(|op| matches!(op, Op::PackedWeight(_))), packed);
            assert_eq!(count(|op| matches!(op, Op::ConvWeight(_))), ordered);
            assert_eq!(graph.parameters(), g.parameters());
        }
    }
}

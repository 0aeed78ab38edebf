//! Weights that the host brings into the kernel's order, on software adapters.

use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::Op;
use crate::ops::expr::{Binary, Expr};
use crate::ops::packed_weight::{PackedWeight, Scale};
use crate::target::Target;
use crate::tensor::{DType, Tensor};

/// The order of a convolution's weight, where that is one of the file and nothing else was done to it than to unpack it, or to
/// multiply each output channel by a number that comes of the file, as the batch norm after it does.
pub fn pack_on_host(graph: &Graph, target: &Target) -> Result<Graph> {
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::ConvWeight(packing), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        let (weight, scale) = match scaled(graph, old[0]) {
            Some((weight, scale)) => (weight, Some(scale)),
            None => (old[0], None),
        };
        let weight = host_has(graph, target, weight);
        match weight.filter(|_| PackedWeight::knows(packing) && value.desc.dtype == DType::F32) {
            None => new.keep(value, inputs),
            Some(weight) => {
                let packed = PackedWeight::new(weight, graph.shape(old[0]), *packing);
                let packed = match scale {
                    Some(scale) => packed.scaled(scale),
                    None => packed,
                };
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

/// What a weight `[c_out, …]` is the product of: another, and a number for each output channel.
fn scaled(graph: &Graph, id: ValueId) -> Option<(ValueId, Scale)> {
    let Source::Op { op: Op::Elementwise(e), inputs } = &graph.value(id).source else { return None };
    let ([weight, scale], shape) = (inputs[..].try_into().ok()?, graph.shape(id));
    let product = Expr::binary(Binary::Mul, Expr::input(0), Expr::input(1));
    let channels = graph.shape(scale);
    let fits = e.expr == product
        && graph.shape(weight) == shape
        && channels.len() == shape.len()
        && channels[0] == shape[0]
        && channels.elements() == shape[0];
    if !fits {
        return None;
    }
    let mut alone = Graph::new();
    let mut left = MOST_STEPS;
    copied(graph, scale, &mut alone, &mut left)?;
    Some((weight, Scale::new(alone)))
}

/// Adds a value of one number for each channel that comes of tensors of the file by arithmetic alone to a graph.
fn copied(graph: &Graph, id: ValueId, to: &mut Graph, left: &mut usize) -> Option<ValueId> {
    *left = left.checked_sub(1)?;
    let value = graph.value(id);
    if value.desc.shape.elements() > MOST_CHANNELS {
        return None;
    }
    match &value.source {
        Source::Weight(tensor) => Some(to.weight(&value.name, tensor.clone())),
        Source::Op { op: op @ (Op::Elementwise(_) | Op::Reshape(_) | Op::Unpack(_)), inputs } => {
            let inputs: Vec<ValueId> =
                inputs.iter().map(|&input| copied(graph, input, to, left)).collect::<Option<_>>()?;
            to.push_named(value.name.clone(), op.clone(), &inputs).ok()
        }
        _ => None,
    }
}

/// More than any network has in a layer, and more than any norm takes; they bound what the host computes by itself.
const MOST_CHANNELS: usize = 1 << 16;
const MOST_STEPS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::DeviceClass;

    #[test]
    fn only_what_the_file_has_is_packed_on_the_host() {
        let mut g = Graph::new();
        let x = super::super::testing::input(&mut g, &[1, 12, 12, 8]);
        let w = g.weight("w", Tensor::from_f32([8, 8, 3, 3], &[0.5; 576]).to_dtype(DType::F16));
        let w = g.unpacked(w, DType::F32).unwrap();
        let twice = g.affine(w, 2.0, 0.0).unwrap();
        let a = g.conv2d(x, w, None, Default::default()).unwrap();
        let b = g.conv2d(a, twice, None, Default::default()).unwrap();
        // A batch norm scales each channel of the weight before it.
        let norm = [(); 4].map(|()| super::super::testing::weight(&mut g, &[8]));
        let w = super::super::testing::weight(&mut g, &[8, 8, 3, 3]);
        let c = g.conv2d(b, w, None, Default::default()).unwrap();
        let c = g.batch_norm(c, norm[0], norm[1], norm[2], norm[3], 1e-5).unwrap();
        g.output("y", c);
        let cpu = Target { class: DeviceClass::Cpu, mappable: true, ..Target::typical() };
        for (target, packed, ordered) in [(&cpu, 2, 1), (&Target::typical(), 0, 3)] {
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

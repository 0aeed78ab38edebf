//! What follows a convolution moves into it: bias, embedding, residual, activation, gate.

use crate::error::Result;
use crate::graph::{Graph, Source, Value, ValueId};
use crate::ops::epilogue::Step;
use crate::ops::expr::{Binary, Expr};
use crate::ops::{Conv2d, Op};
use crate::tensor::Shape;

/// Appends additions to, products with and functions of a convolution's result to its epilogue,
/// where nothing else reads that result. Linear layers are convolutions too, seen
/// through a reshape.
pub fn fuse_epilogue(graph: &Graph) -> Result<Graph> {
    let uses = graph.uses();
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Elementwise(e), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        let convs = |at: usize| match uses[old[at].index()] {
            1 => convolution(new, inputs[at]),
            _ => None,
        };
        let fused = match &e.expr {
            _ if e.dtype.is_some_and(|d| d != new.desc(inputs[0]).dtype) => None,
            // A tensor that the formula does not read may still give the result its shape.
            f if f.inputs() == 1 && new.shape(inputs[0]) == &value.desc.shape => {
                convs(0).map(|c| (c, Step::Apply(f.clone()), None))
            }
            Expr::Binary(operation @ (Binary::Add | Binary::Mul), a, b)
                if **a == Expr::Input(0) && **b == Expr::Input(1) =>
            {
                // The later of two convolutions: the other's result is there by then.
                let mut order = [(0, 1), (1, 0)];
                order.sort_by_key(|&(at, _)| std::cmp::Reverse(inputs[at]));
                order.into_iter().find_map(|(at, other)| {
                    let conv = convs(at)?;
                    let same = new.shape(inputs[at]) == &value.desc.shape;
                    let shapes = [new.shape(inputs[other]), &value.desc.shape, new.shape(conv.0)];
                    let step = match operation {
                        Binary::Mul => (shapes[0] == shapes[1]).then_some(Step::MulTensor)?,
                        _ => step_for(shapes)?,
                    };
                    (same && conv.1.epilogue.accepts(&step)).then_some((conv, step, Some(inputs[other])))
                })
            }
            _ => None,
        };
        match fused {
            Some(((id, conv), step, tensor)) => append(new, value, id, conv, step, tensor),
            None => new.keep(value, inputs),
        }
    })
}

/// The convolution whose result `id` is, if it is one, perhaps under another shape.
pub(super) fn convolution(graph: &Graph, mut id: ValueId) -> Option<(ValueId, Conv2d)> {
    loop {
        match &graph.value(id).source {
            Source::Op { op: Op::Conv2d(conv), .. } => return Some((id, conv.clone())),
            Source::Op { op: Op::Reshape(_), inputs } => id = inputs[0],
            _ => return None,
        }
    }
}

/// How a tensor is added to a result of shape `to` that the convolution knows as `conv`.
fn step_for([tensor, to, conv]: [&Shape; 3]) -> Option<Step> {
    let (n, c) = (to[0], to.last());
    if tensor == to {
        return Some(Step::AddTensor);
    }
    if tensor.elements() == c && tensor.last() == c {
        return Some(Step::AddChannel);
    }
    let per_sample =
        tensor.len() == to.len() && tensor[0] == n && tensor.last() == c && tensor.elements() == n * c;
    (per_sample && to == conv).then_some(Step::AddSample)
}

fn append(
    new: &mut Graph,
    value: &Value,
    id: ValueId,
    mut conv: Conv2d,
    step: Step,
    tensor: Option<ValueId>,
) -> Result<ValueId> {
    let conv_value = new.value(id).clone();
    let Source::Op { inputs, .. } = &conv_value.source else { unreachable!("a convolution is an operation") };
    let mut inputs = inputs.clone();
    if let Some(tensor) = tensor {
        inputs.push(match step {
            Step::AddTensor | Step::MulTensor => new.reshape(tensor, conv_value.desc.shape.clone())?,
            _ => tensor,
        });
    }
    conv.epilogue.steps.push(step);
    let fused = new.push_named(conv_value.name.clone(), conv.into(), &inputs)?;
    new.reshape(fused, value.desc.shape.clone())
}

#[cfg(test)]
mod tests {
    use super::super::prune::prune;
    use super::super::testing::{input, operations, weight};
    use super::*;
    use crate::ops::conv2d::Conv2dOptions;
    use crate::ops::expr::Unary;

    fn fused(g: &Graph) -> Graph {
        prune(&fuse_epilogue(g).unwrap()).unwrap()
    }

    #[test]
    fn a_residual_block_becomes_two_convolutions() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 6, 6, 8]);
        let embedding = input(&mut g, &[2, 1, 1, 8]);
        let (w, b) = (weight(&mut g, &[8, 8, 3, 3]), weight(&mut g, &[8]));
        let h = g.conv2d(x, w, Some(b), Conv2dOptions::padded(1)).unwrap();
        let h = g.add(h, embedding).unwrap();
        let h = g.silu(h).unwrap();
        let h = g.conv2d(h, w, Some(b), Conv2dOptions::padded(1)).unwrap();
        let y = g.add(x, h).unwrap();
        g.output("y", y);
        assert_eq!(operations(&g).len(), 5);
        assert_eq!(operations(&fused(&g)), ["Conv2d", "Conv2d"]);
    }

    #[test]
    fn a_linear_layer_takes_its_residual() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 9, 8]);
        let w = weight(&mut g, &[8, 8]);
        let h = g.linear(x, w, None).unwrap();
        let y = g.add(h, x).unwrap();
        g.output("y", y);
        assert_eq!(operations(&fused(&g)), ["Conv2d"]);
        assert_eq!(fused(&g).outputs().len(), 1);
    }

    #[test]
    fn a_gated_layer_becomes_two_products() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 9, 8]);
        let w = weight(&mut g, &[16, 8]);
        let (value, gate) = (g.linear(x, w, None).unwrap(), g.linear(x, w, None).unwrap());
        let gate = g.unary(Unary::Gelu, gate).unwrap();
        let y = g.mul(value, gate).unwrap();
        g.output("y", y);
        assert_eq!(operations(&fused(&g)), ["Conv2d", "Conv2d"]);
    }

    #[test]
    fn what_is_read_twice_or_broadcasts_otherwise_stays() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 6, 6, 8]);
        let w = weight(&mut g, &[8, 8, 1, 1]);
        let h = g.conv2d(x, w, None, Conv2dOptions::default()).unwrap();
        let s = g.silu(h).unwrap();
        let twice = g.mul(h, s).unwrap();
        let column = input(&mut g, &[2, 6, 1, 1]);
        let k = g.conv2d(x, w, None, Conv2dOptions::default()).unwrap();
        let odd = g.add(k, column).unwrap();
        g.output("twice", twice);
        g.output("odd", odd);
        assert_eq!(operations(&fused(&g)), operations(&g));
    }
}

//! Chains of element-wise operations become one.

use crate::error::Result;
use crate::graph::{Graph, Source};
use crate::ops::Op;
use crate::ops::elementwise::{Elementwise, MAX_INPUTS};
use crate::ops::expr::Expr;

/// Writes the expression of a producer that is read once into its reader, as
/// long as both have the same shape and the inputs of both fit one kernel.
pub fn fuse_elementwise(graph: &Graph) -> Result<Graph> {
    let uses = graph.uses();
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Elementwise(reader), inputs: old_inputs } = &value.source else {
            return new.keep(value, inputs);
        };
        let mut expr = reader.expr.clone();
        let mut inputs = inputs.to_vec();
        let dtype = reader.dtype.unwrap_or(new.desc(inputs[0]).dtype);
        for (at, &old) in old_inputs.iter().enumerate().rev() {
            let producer = new.value(inputs[at]);
            let Source::Op { op: Op::Elementwise(inner), inputs: inner_inputs } = &producer.source else {
                continue;
            };
            // Rounding to another type in between is part of the result.
            let same = producer.desc.shape == value.desc.shape && producer.desc.dtype == dtype;
            if uses[old.index()] != 1 || !same || inputs.len() - 1 + inner_inputs.len() > MAX_INPUTS {
                continue;
            }
            // The producer's inputs are appended; the slot that it had goes to the last of them.
            let first = inputs.len();
            let (inner, inner_inputs) = (inner.expr.clone(), inner_inputs.clone());
            inputs.extend(&inner_inputs);
            let last = inputs.len() - 1;
            let place = |i: usize| if i == last { at } else { i };
            expr = expr.substitute(&|i| match i == at {
                true => inner.substitute(&|k| Expr::Input(place(first + k))),
                false => Expr::Input(i),
            });
            inputs[at] = inputs[last];
            inputs.truncate(last);
        }
        new.push_named(value.name.clone(), Elementwise { expr, dtype: Some(dtype) }.into(), &inputs)
    })
}

#[cfg(test)]
mod tests {
    use super::super::prune::prune;
    use super::super::testing::{input, operations};
    use super::*;

    fn fused(g: &Graph) -> Vec<&'static str> {
        operations(&prune(&fuse_elementwise(g).unwrap()).unwrap())
    }

    #[test]
    fn a_chain_becomes_one() {
        let mut g = Graph::new();
        let [a, b, c] = [(); 3].map(|()| input(&mut g, &[2, 8]));
        let sum = g.add(a, b).unwrap();
        let active = g.silu(sum).unwrap();
        let scaled = g.affine(active, 2.0, 1.0).unwrap();
        let y = g.mul(c, scaled).unwrap();
        g.output("y", y);
        assert_eq!(operations(&g).len(), 4);
        assert_eq!(fused(&g), ["Elementwise"]);
    }

    #[test]
    fn what_is_read_twice_stays() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 8]);
        let s = g.silu(x).unwrap();
        let y = g.mul(s, s).unwrap();
        g.output("y", y);
        assert_eq!(fused(&g).len(), 2);
    }

    #[test]
    fn five_inputs_do_not_fit() {
        let mut g = Graph::new();
        let inputs = [(); 6].map(|()| input(&mut g, &[8]));
        let y = inputs[1..].iter().fold(inputs[0], |sum, &x| g.add(sum, x).unwrap());
        g.output("y", y);
        assert_eq!(fused(&g).len(), 2);
    }
}

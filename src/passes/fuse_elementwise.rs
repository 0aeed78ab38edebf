//! Chains of element-wise operations become one.

use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::Op;
use crate::ops::elementwise::{Elementwise, MAX_INPUTS};
use crate::ops::expr::Expr;
use crate::tensor::{DType, Shape};

/// Writes the expression of a producer that is read once into its reader, as
/// long as both have the same shape and floating type and the inputs of both fit one kernel.
pub fn fuse_elementwise(graph: &Graph) -> Result<Graph> {
    let uses = graph.uses();
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Elementwise(reader), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        let dtype = reader.dtype.unwrap_or(new.desc(inputs[0]).dtype);
        let once: Vec<bool> = old.iter().map(|i| uses[i.index()] == 1).collect();
        let (expr, all) = inlined(new, &reader.expr, inputs, &once, &value.desc.shape, dtype);
        new.push_named(value.name.clone(), Elementwise { expr, dtype: Some(dtype) }.into(), &all)
    })
}

/// An expression with the expressions of its inputs written in, where they are read here alone
/// (`once`) and have this shape and floating type, and as long as one kernel can read all that it needs;
/// and what it reads then, each once.
pub(super) fn inlined(
    graph: &Graph,
    expr: &Expr,
    inputs: &[ValueId],
    once: &[bool],
    shape: &Shape,
    dtype: DType,
) -> (Expr, Vec<ValueId>) {
    let mut expr = expr.clone();
    let mut all = inputs.to_vec();
    for at in (0..inputs.len()).rev() {
        let producer = graph.value(inputs[at]);
        let Source::Op { op: Op::Elementwise(inner), inputs: reads } = &producer.source else {
            continue;
        };
        // Rounding to another type in between is part of the result, and so is rounding to integers, which are not below zero.
        let rounded = producer.desc.dtype != dtype || !dtype.is_float();
        if !once[at] || producer.desc.shape != *shape || rounded {
            continue;
        }
        let mut wider = all.clone();
        let places: Vec<usize> = reads
            .iter()
            .map(|r| {
                wider.iter().enumerate().position(|(i, w)| w == r && i != at).unwrap_or_else(|| {
                    wider.push(*r);
                    wider.len() - 1
                })
            })
            .collect();
        if wider.len() - 1 > MAX_INPUTS {
            continue;
        }
        wider.remove(at);
        let close = |i: usize| if i > at { i - 1 } else { i };
        expr = expr.substitute(&|i| match i == at {
            true => inner.expr.substitute(&|k| Expr::Input(close(places[k]))),
            false => Expr::Input(close(i)),
        });
        all = wider;
    }
    // A tensor that is read twice is read through one input.
    let mut distinct: Vec<ValueId> = Vec::new();
    let to: Vec<usize> = all
        .iter()
        .map(|id| {
            distinct.iter().position(|d| d == id).unwrap_or_else(|| {
                distinct.push(*id);
                distinct.len() - 1
            })
        })
        .collect();
    (expr.substitute(&|i| Expr::Input(to[i])), distinct)
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
    fn integers_in_between_stay() {
        let mut g = Graph::new();
        let x = g.input("x", [2, 8], DType::U32);
        let less = g.affine(x, 1.0, -2.5).unwrap();
        let y = g.affine(less, 1.0, 2.5).unwrap();
        g.output("y", y);
        assert_eq!(fused(&g).len(), 2);
        let functions = super::super::fuse_functions::fuse_functions(&g).unwrap();
        assert_eq!(operations(&prune(&functions).unwrap()).len(), 2);
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

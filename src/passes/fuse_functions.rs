//! Functions of one tensor that are written as several operations become one, and get
//! their names: `x · sigmoid(x)` is SiLU, however an exporter spells it.

use super::fuse_elementwise::inlined;
use crate::error::Result;
use crate::graph::{Graph, Source};
use crate::ops::Op;
use crate::ops::elementwise::Elementwise;

/// Writes producers into their reader where that leaves one tensor to read, so
/// that convolutions and norms can take the function along.
pub fn fuse_functions(graph: &Graph) -> Result<Graph> {
    let uses = graph.uses();
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Elementwise(reader), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        let dtype = reader.dtype.unwrap_or(new.desc(inputs[0]).dtype);
        let once: Vec<bool> = old.iter().map(|i| uses[i.index()] == 1).collect();
        let (expr, all) = inlined(new, &reader.expr, inputs, &once, &value.desc.shape, dtype);
        match all[..] {
            [x] => {
                let same = new.desc(x).dtype == dtype && reader.dtype.is_none();
                let e = Elementwise { expr: expr.named(), dtype: if same { None } else { Some(dtype) } };
                new.push_named(value.name.clone(), e.into(), &[x])
            }
            _ => new.keep(value, inputs),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::prune::prune;
    use super::super::testing::{input, operations};
    use super::*;
    use crate::ops::expr::{Binary, Expr, Unary};

    fn only_expression(g: &Graph) -> Expr {
        let fused = prune(&fuse_functions(g).unwrap()).unwrap();
        assert_eq!(operations(&fused), ["Elementwise"]);
        let found = fused.values().find_map(|(_, v)| match &v.source {
            Source::Op { op: Op::Elementwise(e), .. } => Some(e.expr.clone()),
            _ => None,
        });
        found.unwrap()
    }

    #[test]
    fn silu_is_found() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 8]);
        let s = g.unary(Unary::Sigmoid, x).unwrap();
        let y = g.mul(x, s).unwrap();
        g.output("y", y);
        assert_eq!(only_expression(&g), Expr::unary(Unary::Silu, Expr::input(0)));
    }

    #[test]
    fn gelu_becomes_one_function() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 8]);
        let scaled = g.affine(x, std::f32::consts::FRAC_1_SQRT_2, 0.0).unwrap();
        let erf = g.unary(Unary::Erf, scaled).unwrap();
        let plus = g.affine(erf, 1.0, 1.0).unwrap();
        let y = g.mul(x, plus).unwrap();
        let y = g.affine(y, 0.5, 0.0).unwrap();
        g.output("y", y);
        assert_eq!(only_expression(&g).inputs(), 1);
    }

    #[test]
    fn clamps_are_found_and_sums_of_two_tensors_stay() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 8]);
        let z = input(&mut g, &[2, 8]);
        let clamp = Expr::clamp(Expr::input(0), 0.0, 6.0);
        let y = g.elementwise(clamp, &[x]).unwrap();
        g.output("y", y);
        assert_eq!(only_expression(&g), Expr::unary(Unary::Clamp(0.0, 6.0), Expr::input(0)));
        let sum = g.binary(Binary::Add, x, z).unwrap();
        let sum = g.relu(sum).unwrap();
        g.output("sum", sum);
        assert_eq!(operations(&prune(&fuse_functions(&g).unwrap()).unwrap()).len(), 3);
    }
}

//! An activation after a norm moves into it.

use crate::error::Result;
use crate::graph::{Graph, Source};
use crate::ops::Op;
use crate::ops::expr::Expr;

/// `f(norm(x))` → `norm(x)` with activation `f`, where nothing else reads the norm.
pub fn fuse_norm(graph: &Graph) -> Result<Graph> {
    let uses = graph.uses();
    graph.rewrite(|new, _, value, inputs| {
        if let Source::Op { op: Op::Elementwise(e), inputs: old } = &value.source
            && let Expr::Unary(f, x) = &e.expr
            && **x == Expr::Input(0)
            && uses[old[0].index()] == 1
            && new.shape(inputs[0]) == &value.desc.shape
            && e.dtype.is_none_or(|d| d == new.desc(inputs[0]).dtype)
        {
            let producer = new.value(inputs[0]).clone();
            if let Source::Op { op: Op::Norm(norm), inputs } = &producer.source
                && norm.activation.is_none()
            {
                let mut norm = norm.clone();
                norm.activation = Some(*f);
                return new.push_named(producer.name.clone(), norm.into(), inputs);
            }
        }
        new.keep(value, inputs)
    })
}

#[cfg(test)]
mod tests {
    use super::super::prune::prune;
    use super::super::testing::{input, operations};
    use super::*;

    #[test]
    fn norm_and_activation_are_one() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 6, 6, 8]);
        let h = g.group_norm(x, 4, None, None, 1e-5).unwrap();
        let y = g.silu(h).unwrap();
        g.output("y", y);
        assert_eq!(operations(&g), ["Norm", "Elementwise"]);
        assert_eq!(operations(&prune(&fuse_norm(&g).unwrap()).unwrap()), ["Norm"]);
        g.output("h", h);
        assert_eq!(operations(&prune(&fuse_norm(&g).unwrap()).unwrap()), ["Norm", "Elementwise"]);
    }
}

//! A scale and shift of each channel after a convolution move into its weight and bias.

use crate::error::Result;
use crate::graph::{Graph, Source};
use crate::ops::Op;
use crate::ops::epilogue::Step;
use crate::ops::expr::{Binary, Expr};

/// `conv(x, w, b) · s + t` → `conv(x, w·s, b·s + t)` for constant `s` and `t`
/// `[c_out]`: a batch norm after a convolution costs nothing. The products are
/// work on constants, done when the network is loaded.
pub fn fold_batch_norm(graph: &Graph) -> Result<Graph> {
    let uses = graph.uses();
    let constant = graph.constants();
    let affine =
        Expr::binary(Binary::Add, Expr::binary(Binary::Mul, Expr::input(0), Expr::input(1)), Expr::input(2));
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Elementwise(e), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        if e.expr != affine
            || uses[old[0].index()] != 1
            || !constant[old[1].index()]
            || !constant[old[2].index()]
        {
            return new.keep(value, inputs);
        }
        let producer = new.value(inputs[0]).clone();
        let Source::Op { op: Op::Conv2d(conv), inputs: conv_inputs } = &producer.source else {
            return new.keep(value, inputs);
        };
        let per_channel = |i: usize| graph.shape(old[i])[..] == [conv.c_out];
        let bias = match conv.epilogue.steps[..] {
            [] => None,
            [Step::AddChannel] => Some(conv_inputs[2]),
            _ => return new.keep(value, inputs),
        };
        if !per_channel(1) || !per_channel(2) || bias.is_some_and(|b| !new.constants()[b.index()]) {
            return new.keep(value, inputs);
        }
        let (scale, shift) = (inputs[1], inputs[2]);
        let scales = new.reshape(scale, [conv.c_out, 1, 1, 1])?;
        let weight = new.mul(conv_inputs[1], scales)?;
        let bias = match bias {
            Some(bias) => new.elementwise(affine.clone(), &[bias, scale, shift])?,
            None => shift,
        };
        let mut conv = conv.clone();
        conv.epilogue.steps = vec![Step::AddChannel];
        new.push_named(producer.name.clone(), conv.into(), &[conv_inputs[0], weight, bias])
    })
}

#[cfg(test)]
mod tests {
    use super::super::prune::prune;
    use super::super::testing::{input, operations, weight};
    use super::*;
    use crate::ops::conv2d::Conv2dOptions;

    #[test]
    fn a_batch_norm_disappears() {
        for with_bias in [false, true] {
            let mut g = Graph::new();
            let x = input(&mut g, &[1, 6, 6, 4]);
            let w = weight(&mut g, &[8, 4, 3, 3]);
            let [b, gamma, beta, mean, var] = [(); 5].map(|()| weight(&mut g, &[8]));
            let h = g.conv2d(x, w, with_bias.then_some(b), Conv2dOptions::padded(1)).unwrap();
            let y = g.batch_norm(h, gamma, beta, mean, var, 1e-5).unwrap();
            g.output("y", y);
            assert_eq!(operations(&g), ["Conv2d", "Elementwise"]);
            assert_eq!(operations(&prune(&fold_batch_norm(&g).unwrap()).unwrap()), ["Conv2d"]);
        }
    }

    #[test]
    fn one_that_others_read_before_stays() {
        let mut g = Graph::new();
        let x = input(&mut g, &[1, 6, 6, 4]);
        let w = weight(&mut g, &[8, 4, 3, 3]);
        let [gamma, beta, mean, var] = [(); 4].map(|()| weight(&mut g, &[8]));
        let h = g.conv2d(x, w, None, Conv2dOptions::padded(1)).unwrap();
        let y = g.batch_norm(h, gamma, beta, mean, var, 1e-5).unwrap();
        g.output("h", h);
        g.output("y", y);
        assert_eq!(operations(&prune(&fold_batch_norm(&g).unwrap()).unwrap()), ["Conv2d", "Elementwise"]);
    }
}

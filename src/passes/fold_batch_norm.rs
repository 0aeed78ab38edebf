//! A scale and shift of each channel after a convolution move into its weight and bias.

use super::fuse_epilogue::convolution;
use crate::error::Result;
use crate::graph::{Graph, Source};
use crate::ops::Op;
use crate::ops::epilogue::Step;
use crate::ops::expr::{Binary, Expr};

/// `conv(x, w, b) · s + t` → `conv(x, w·s, b·s + t)` for constant `s` and `t`
/// `[c_out]`: a batch norm after a convolution costs nothing, nor does a layer's scale, which
/// has no `t`. The products are work on constants, done when the network is loaded.
pub fn fold_batch_norm(graph: &Graph) -> Result<Graph> {
    let uses = graph.uses();
    let constant = graph.constants();
    let scaled = Expr::binary(Binary::Mul, Expr::input(0), Expr::input(1));
    let affine = Expr::binary(Binary::Add, scaled.clone(), Expr::input(2));
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Elementwise(e), inputs: old } = &value.source else {
            return new.keep(value, inputs);
        };
        let vectors = match &e.expr {
            e if *e == affine => 2,
            e if *e == scaled => 1,
            _ => return new.keep(value, inputs),
        };
        // The scale may stand on either side of a product.
        let (x, rest) = match vectors == 1 && constant[old[0].index()] {
            true => (1, vec![0]),
            false => (0, (1..=vectors).collect::<Vec<usize>>()),
        };
        if uses[old[x].index()] != 1 || rest.iter().any(|&i| !constant[old[i].index()]) {
            return new.keep(value, inputs);
        }
        let (Some((old_id, _)), Some((id, conv))) = (convolution(graph, old[x]), convolution(new, inputs[x]))
        else {
            return new.keep(value, inputs);
        };
        let Source::Op { inputs: old_inputs, .. } = &graph.value(old_id).source else {
            unreachable!("a convolution is an operation")
        };
        let producer = new.value(id).clone();
        let Source::Op { inputs: conv_inputs, .. } = &producer.source else {
            unreachable!("a convolution is an operation")
        };
        let per_channel = |i: usize| {
            let shape = graph.shape(old[i]);
            shape.elements() == conv.c_out && shape.last() == conv.c_out
        };
        let bias = match conv.epilogue.steps[..] {
            [] => None,
            [Step::AddChannel] => Some(conv_inputs[2]),
            _ => return new.keep(value, inputs),
        };
        let fits = rest.iter().all(|&i| per_channel(i)) && value.desc.shape.last() == conv.c_out;
        if !fits || old_inputs[1..].iter().any(|i| !constant[i.index()]) {
            return new.keep(value, inputs);
        }
        let scale = new.reshape(inputs[rest[0]], [conv.c_out])?;
        let shift = rest.get(1).map(|&i| new.reshape(inputs[i], [conv.c_out])).transpose()?;
        let scales = new.reshape(scale, [conv.c_out, 1, 1, 1])?;
        let weight = new.mul(conv_inputs[1], scales)?;
        let bias = match (bias, shift) {
            (Some(bias), Some(shift)) => Some(new.elementwise(affine.clone(), &[bias, scale, shift])?),
            (Some(bias), None) => Some(new.mul(bias, scale)?),
            (None, shift) => shift,
        };
        let mut conv = conv.clone();
        conv.epilogue.steps = bias.map(|_| Step::AddChannel).into_iter().collect();
        let inputs: Vec<_> = [conv_inputs[0], weight].into_iter().chain(bias).collect();
        let folded = new.push_named(producer.name.clone(), conv.into(), &inputs)?;
        new.reshape(folded, value.desc.shape.clone())
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
    fn a_scale_after_a_linear_layer_disappears() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 9, 4]);
        let w = weight(&mut g, &[8, 4]);
        let [b, scale] = [(); 2].map(|()| weight(&mut g, &[8]));
        let h = g.linear(x, w, Some(b)).unwrap();
        let y = g.mul(scale, h).unwrap();
        g.output("y", y);
        assert_eq!(operations(&prune(&fold_batch_norm(&g).unwrap()).unwrap()), ["Conv2d"]);
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

//! Enlarging by a whole factor before a convolution moves into its addressing.

use crate::error::Result;
use crate::graph::{Graph, Source};
use crate::ops::Op;
use crate::ops::resize::{Coordinates, Interpolation};

/// `conv(upsample_nearest(x))` reads `x` itself, where nothing else reads the enlarged tensor.
pub fn fuse_upsample(graph: &Graph) -> Result<Graph> {
    let uses = graph.uses();
    graph.rewrite(|new, _, value, inputs| {
        if let Source::Op { op: Op::Conv2d(conv), inputs: old } = &value.source
            && conv.options.groups == 1
            && uses[old[0].index()] == 1
            && let Source::Op { op: Op::Resize(resize), inputs: small } = &new.value(inputs[0]).source
            && resize.interpolation == Interpolation::Nearest
            && resize.coordinates == Coordinates::Asymmetric
        {
            let [_, h, w, _] = new.shape(small[0])[..] else { unreachable!("resize takes [n, h, w, c]") };
            let factor = resize.size[0] / h;
            if factor > 1 && resize.size == [h * factor, w * factor] {
                let mut conv = conv.clone();
                conv.upsample *= factor;
                let inputs = [&[small[0]], &inputs[1..]].concat();
                return new.push_named(value.name.clone(), conv.into(), &inputs);
            }
        }
        new.keep(value, inputs)
    })
}

#[cfg(test)]
mod tests {
    use super::super::prune::prune;
    use super::super::testing::{input, operations, weight};
    use super::*;
    use crate::ops::conv2d::Conv2dOptions;

    #[test]
    fn upsample_and_convolution_are_one() {
        let mut g = Graph::new();
        let x = input(&mut g, &[2, 6, 6, 8]);
        let w = weight(&mut g, &[8, 8, 3, 3]);
        let large = g.upsample_nearest(x, 2).unwrap();
        let y = g.conv2d(large, w, None, Conv2dOptions::padded(1)).unwrap();
        g.output("y", y);
        assert_eq!(operations(&g), ["Resize", "Conv2d"]);
        assert_eq!(operations(&prune(&fuse_upsample(&g).unwrap()).unwrap()), ["Conv2d"]);
        g.output("large", large);
        assert_eq!(operations(&prune(&fuse_upsample(&g).unwrap()).unwrap()), ["Resize", "Conv2d"]);
    }
}

//! Gives each operation that can be computed in several ways the one that suits
//! the device, and its weight the order that this way wants.

use crate::error::Result;
use crate::graph::{Graph, Source};
use crate::ops::Op;
use crate::target::Target;

/// Chooses the method of every convolution and repacks its weight.
pub fn choose(graph: &Graph, target: &Target) -> Result<Graph> {
    graph.rewrite(|new, _, value, inputs| {
        let Source::Op { op: Op::Conv2d(conv), .. } = &value.source else {
            return new.keep(value, inputs);
        };
        let method = conv.choose(target, new.desc(inputs[0]), &value.desc);
        let mut conv = conv.clone();
        conv.method = Some(method);
        let mut inputs = inputs.to_vec();
        if let Some(packing) = conv.packing(method) {
            inputs[1] = new.push_named(value.name.clone(), packing.into(), &[inputs[1]])?;
        }
        new.push_named(value.name.clone(), conv.into(), &inputs)
    })
}

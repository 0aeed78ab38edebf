//! Graph → graph rewrites. Each is a pure function in a file of its own.
//!
//! Folding constants needs no pass: what depends on weights alone is planned
//! apart, and runs once, on the device, when the network is loaded.

use crate::error::Result;
use crate::graph::Graph;
use crate::target::Target;

pub(crate) mod choose;
mod fold_batch_norm;
mod fuse_elementwise;
mod fuse_epilogue;
mod fuse_functions;
mod fuse_norm;
mod fuse_upsample;
mod join_projections;
pub(crate) mod norms_in_parts;
mod pack_on_host;
mod prune;
mod slice_weights;
mod split_weights;
mod unshuffle_stem;

/// All passes, in order.
pub fn optimise(graph: &Graph, target: &Target) -> Result<Graph> {
    let graph = before_methods(graph, target)?;
    with_methods(&graph, target, &choose::own(&graph, target))
}

/// Only those that a plan cannot be made without: every operation is computed as it stands in the graph. For tests.
#[doc(hidden)]
pub fn unfused(graph: &Graph, target: &Target) -> Result<Graph> {
    let graph = slice_weights::slice_weights(graph)?;
    let graph = prune::prune(&split_weights::split_weights(&graph, target)?)?;
    with_methods(&graph, target, &choose::own(&graph, target))
}

/// Those that come before the choice of methods.
pub(crate) fn before_methods(graph: &Graph, target: &Target) -> Result<Graph> {
    let graph = slice_weights::slice_weights(graph)?;
    let graph = split_weights::split_weights(&graph, target)?;
    let graph = fold_batch_norm::fold_batch_norm(&graph)?;
    let graph = fuse_upsample::fuse_upsample(&graph)?;
    let graph = prune::prune(&fuse_functions::fuse_functions(&graph)?)?;
    let graph = fuse_epilogue::fuse_epilogue(&graph)?;
    let graph = fuse_norm::fuse_norm(&graph)?;
    let graph = fuse_elementwise::fuse_elementwise(&graph)?;
    let graph = join_projections::join_projections(&graph, target)?;
    unshuffle_stem::unshuffle_stem(&graph)
}

/// This choice, and what comes after it.
pub(crate) fn with_methods(graph: &Graph, target: &Target, method: &choose::Choice) -> Result<Graph> {
    let graph = choose::choose(graph, target, method)?;
    prune::prune(&pack_on_host::pack_on_host(&graph, target)?)
}

#[cfg(test)]
mod testing {
    use crate::graph::{Graph, Source, ValueId};
    use crate::ops::Operator as _;
    use crate::tensor::{DType, Tensor};

    /// Names of the operations that compute something, in order, those on constants left out.
    pub fn operations(graph: &Graph) -> Vec<&'static str> {
        let constant = graph.constants();
        graph
            .values()
            .filter(|(id, _)| !constant[id.index()])
            .filter_map(|(_, value)| match &value.source {
                Source::Op { op, .. } if !op.is_view() => Some(op.name()),
                _ => None,
            })
            .collect()
    }

    pub fn input(graph: &mut Graph, shape: &[usize]) -> ValueId {
        graph.input("x", shape, DType::F32)
    }

    pub fn weight(graph: &mut Graph, shape: &[usize]) -> ValueId {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * 0.37).sin()).collect();
        graph.weight("w", Tensor::from_f32(shape, &values))
    }
}

//! Drops what nothing reads.

use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};

/// Drops the weights and operations that no output and no state depends on.
/// Inputs and states stay, since the caller may name them.
pub fn prune(graph: &Graph) -> Result<Graph> {
    let mut live = vec![false; graph.values().count()];
    let roots = graph.outputs().iter().map(|(_, id)| *id);
    let mut stack: Vec<ValueId> = roots.chain(graph.updates().iter().map(|(_, id)| *id)).collect();
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut live[id.index()], true)
            && let Source::Op { inputs, .. } = &graph.value(id).source
        {
            stack.extend(inputs);
        }
    }
    graph.retain(|id, value| live[id.index()] || matches!(value.source, Source::Input | Source::State(_)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{input, operations, weight};
    use super::*;

    #[test]
    fn what_nothing_reads_goes() {
        let mut g = Graph::new();
        let x = input(&mut g, &[4]);
        let unused = input(&mut g, &[4]);
        let w = weight(&mut g, &[4]);
        g.mul(unused, w).unwrap();
        let y = g.silu(x).unwrap();
        g.output("y", y);
        let pruned = prune(&g).unwrap();
        assert_eq!(operations(&g).len(), 2);
        assert_eq!(operations(&pruned).len(), 1);
        assert_eq!(pruned.parameters(), 0);
        assert_eq!(pruned.values().filter(|(_, v)| matches!(v.source, Source::Input)).count(), 2);
    }
}

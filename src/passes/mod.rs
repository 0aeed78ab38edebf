//! Graph → graph rewrites. Each is a pure function in a file of its own.

use crate::error::Result;
use crate::graph::Graph;
use crate::target::Target;

mod choose;

/// All passes, in order.
pub fn optimise(graph: &Graph, target: &Target) -> Result<Graph> {
    choose::choose(graph, target)
}

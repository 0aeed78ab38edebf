//! A user's own network as a case: there is no stored reference, so each of its operations is held to float64 as it runs.

use super::case::Label;
use super::check;
use super::network::{Made, NetworkCase, Reference};
use super::record::Check;
use crate::doctor::{self, Examination, Finding, Options};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::tensor::{DType, Tensor};

/// Floating-point operations of the reference for one operation of the network.
const WORK: u64 = 10_000_000;

/// A graph that somebody built, with random inputs.
pub fn case(label: Label, graph: Graph) -> NetworkCase {
    let inputs = doctor::random_inputs(&graph, 1);
    let make =
        move |_| Ok(Made { graph: graph.clone(), inputs: inputs.clone(), ..Made::new(Reference::Examined) });
    NetworkCase::new(label, make)
}

/// What a doctor says of a graph, and what is wrong if something is.
pub(super) fn check(
    gpu: &Gpu,
    name: &str,
    graph: &Graph,
    inputs: &[(&str, &Tensor)],
    dtype: DType,
) -> Result<(Check, Option<String>)> {
    let options = Options { work: WORK, variants: false, ..Options::default() };
    let found = doctor::examine(gpu, name, graph, inputs, &options, &mut |_, _| true)?;
    let fault = found.wrong().next().map(fault);
    Ok((summed(&found, dtype), fault))
}

fn summed(found: &Examination, dtype: DType) -> Check {
    let all = || found.operations.iter().map(|operation| &operation.judgement);
    let most = |of: fn(&doctor::Judgement) -> f64| all().map(of).fold(0.0, f64::max);
    Check {
        against: format!("float64 on the CPU, each of {} operations by itself", found.operations.len()),
        reference: None,
        compared: all().map(|j| j.compared).sum(),
        elements: all().map(|j| j.elements).sum(),
        max_abs: most(|j| j.max_abs),
        max_rel: most(|j| j.max_rel),
        rms: 0.0,
        psnr: None,
        tolerance: check::tolerance(dtype),
        nans: all().map(|j| j.nans).sum(),
        infinities: all().map(|j| j.infinities).sum(),
        replays: 1,
        distinct: 1,
    }
}

fn fault(found: &Finding) -> String {
    let Finding { operation, label, judgement, .. } = found;
    format!(
        "{operation} \"{label}\" gave {} wrong numbers of {} that were compared; `aquatint doctor` tells more",
        judgement.wrong, judgement.compared
    )
}

//! A graph as a case: made, loaded, checked and run.

use std::time::Instant;

use super::case::{Case, Estimate, Label, Subject};
use super::check::{self, Expected};
use super::record::{Check, KernelTime, Memory, Start};
use super::replays;
use crate::engine::{Network, RunTime};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::plan::Plan;
use crate::target::Target;
use crate::tensor::Tensor;

/// Whether weights have numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    Real,
    /// Shapes alone: enough for a plan.
    Hollow,
}

/// A graph with its inputs, and what it must give.
pub struct Made {
    pub graph: Graph,
    pub inputs: Vec<(String, Tensor)>,
    /// What the reference is.
    pub against: String,
    /// SHA-256 of the reference, where it is stored.
    pub reference: Option<String>,
    /// For one picture; nothing where the reference is to be computed from the graph.
    pub expected: Vec<Expected>,
    /// Bytes of weights on the host.
    pub weights: u64,
}

impl Made {
    /// An empty graph.
    pub fn new(against: &str) -> Made {
        Made {
            graph: Graph::new(),
            inputs: Vec::new(),
            against: against.to_owned(),
            reference: None,
            expected: Vec::new(),
            weights: 0,
        }
    }
}

type Make = dyn Fn(Contents) -> Result<Made> + Send + Sync;

/// A graph as a case.
pub struct NetworkCase {
    label: Label,
    make: Box<Make>,
}

impl NetworkCase {
    pub fn new(label: Label, make: impl Fn(Contents) -> Result<Made> + Send + Sync + 'static) -> Self {
        NetworkCase { label, make: Box::new(make) }
    }
}

/// How often the same input is run to see whether the same comes out.
pub const REPLAYS: u32 = 3;

impl Case for NetworkCase {
    fn label(&self) -> &Label {
        &self.label
    }

    fn estimate(&self, target: &Target) -> Result<Estimate> {
        let made = (self.make)(Contents::Hollow)?;
        let plan = Plan::compile(&made.graph, target)?;
        Ok(Estimate {
            flops: plan.flops(),
            bytes: bytes(&plan),
            weights: made.weights,
            peak: plan.peak_bytes(),
            launches: plan.run.len() as u64,
        })
    }

    fn prepare(&self, gpu: &Gpu) -> Result<Box<dyn Subject>> {
        let made = (self.make)(Contents::Real)?;
        let start = Instant::now();
        let plan = Plan::compile(&made.graph, gpu.target())?;
        let planned = start.elapsed().as_secs_f64();
        gpu.compile_all(plan.load.iter().chain(&plan.run).map(|dispatch| &*dispatch.shader))?;
        let compiled = start.elapsed().as_secs_f64();
        let network = Network::from_plan(gpu, plan)?;
        for (name, tensor) in &made.inputs {
            network.write(name, tensor)?;
        }
        let loaded = start.elapsed().as_secs_f64();
        gpu.wait(network.submit(1)?)?;
        let ran = start.elapsed().as_secs_f64();
        let start = Start {
            plan: planned,
            compile: compiled - planned,
            load: loaded - compiled,
            first_run: ran - loaded,
        };
        // The graph, and with it the weights on the host, is kept only where the reference is computed of it.
        let graph = made.expected.is_empty().then_some(made.graph);
        let Made { inputs, against, reference, expected, .. } = Made { graph: Graph::new(), ..made };
        Ok(Box::new(OnDevice {
            label: self.label.clone(),
            network,
            start,
            graph,
            inputs,
            reference: (against, reference),
            expected,
        }))
    }
}

/// Bytes that a run's kernels read or write.
pub fn bytes(plan: &Plan) -> u64 {
    plan.run.iter().map(|dispatch| dispatch.bytes).sum()
}

struct OnDevice {
    label: Label,
    network: Network,
    start: Start,
    graph: Option<Graph>,
    inputs: Vec<(String, Tensor)>,
    reference: (String, Option<String>),
    expected: Vec<Expected>,
}

impl OnDevice {
    fn outputs(&self) -> Result<Vec<(String, Tensor)>> {
        let names = self.network.plan().outputs.iter().map(|port| &port.name);
        names.map(|name| Ok((name.clone(), self.network.read(name)?))).collect()
    }
}

impl Subject for OnDevice {
    fn start(&self) -> Option<Start> {
        Some(self.start)
    }

    fn memory(&self) -> Option<Memory> {
        Some(memory(self.network.plan()))
    }

    fn check(&mut self) -> Result<Check> {
        self.network.poison()?;
        let inputs: Vec<(&str, &Tensor)> = self.inputs.iter().map(|(name, x)| (name.as_str(), x)).collect();
        let replays = replays::count(&self.network, &inputs, REPLAYS)?;
        let outputs = self.outputs()?;
        let Label { dtype, batch, .. } = self.label;
        let mut check = match &self.graph {
            Some(graph) => super::computed::compare(graph, &self.inputs, &outputs, dtype)?,
            None => {
                let (against, reference) = &self.reference;
                let reference = (against.as_str(), reference.clone());
                check::compare(reference, &self.expected, &outputs, batch as usize, dtype)
            }
        };
        (check.replays, check.distinct) = (replays.runs, replays.distinct);
        Ok(check)
    }

    fn time(&mut self, runs: u32) -> Result<RunTime> {
        self.network.time(runs as usize)
    }

    fn kernels(&mut self) -> Result<Vec<KernelTime>> {
        kernels(&self.network)
    }
}

/// Bytes of a plan by what they are for.
pub fn memory(plan: &Plan) -> Memory {
    let by_role = plan.bytes_by_role();
    let sum = |roles: &[&str]| by_role.iter().filter(|(role, _)| roles.contains(role)).map(|(_, n)| n).sum();
    Memory {
        weights: sum(&["weight", "constant"]),
        activations: sum(&["pool", "input", "output", "state"]),
        held: plan.resident_bytes(),
        peak: plan.peak_bytes(),
    }
}

/// Times of a network's kernels in one run; without timestamps, none.
pub fn kernels(network: &Network) -> Result<Vec<KernelTime>> {
    if !network.gpu().has_timestamps() {
        return Ok(Vec::new());
    }
    let profile = network.profile(3)?;
    Ok(profile
        .by_kernel()
        .into_iter()
        .map(|(kernel, launches, seconds, flops, bytes)| KernelTime {
            kernel: kernel.to_owned(),
            launches: launches as u32,
            seconds,
            flops,
            bytes,
            bound: None,
            share: None,
        })
        .collect())
}

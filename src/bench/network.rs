//! A graph as a case: made, loaded, checked and run.

use std::time::Instant;

use super::case::{Case, Estimate, Label, Subject};
use super::check::{self, Expected};
use super::record::{Check, KernelTime, Memory, Start};
use super::replays;
use super::{computed, given};
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

/// What a network is held to.
#[derive(Clone, Debug)]
pub enum Reference {
    /// Numbers of each output, for one picture; where they come from, and the SHA-256 of their file.
    Stored { source: String, sha256: String, expected: Vec<Expected> },
    /// The graph, which is small, computed in float64.
    Computed,
    /// Each operation in float64, from what it was given on the device.
    Examined,
}

/// A graph with its inputs, and what it must give.
pub struct Made {
    pub graph: Graph,
    pub inputs: Vec<(String, Tensor)>,
    pub reference: Reference,
    /// Bytes of weights on the host.
    pub weights: u64,
}

impl Made {
    /// An empty graph.
    pub fn new(reference: Reference) -> Made {
        Made { graph: Graph::new(), inputs: Vec::new(), reference, weights: 0 }
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

/// The first, the replays, one that warms up, one sample, and with timestamps and without for the kernels.
const LEAST_RUNS: u32 = 5 + REPLAYS;

/// How often the same input is run to see whether the same comes out.
const REPLAYS: u32 = 3;

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
            least_runs: LEAST_RUNS,
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
        let Made { graph, inputs, reference, .. } = made;
        // The graph, and with it the weights on the host, is kept only where the reference is computed of it.
        let graph = if matches!(reference, Reference::Stored { .. }) { Graph::new() } else { graph };
        Ok(Box::new(OnDevice { label: self.label.clone(), network, start, graph, inputs, reference }))
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
    /// Empty where the reference is stored.
    graph: Graph,
    inputs: Vec<(String, Tensor)>,
    reference: Reference,
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

    fn check(&mut self) -> Result<(Check, Option<String>)> {
        self.network.poison()?;
        let inputs: Vec<(&str, &Tensor)> = self.inputs.iter().map(|(name, x)| (name.as_str(), x)).collect();
        let replays = replays::count(&self.network, &inputs, REPLAYS)?;
        let outputs = self.outputs()?;
        let Label { dtype, batch, ref name, .. } = self.label;
        let (mut check, fault) = match &self.reference {
            Reference::Computed => (computed::compare(&self.graph, &self.inputs, &outputs, dtype)?, None),
            Reference::Examined => given::check(self.network.gpu(), name, &self.graph, &inputs, dtype)?,
            Reference::Stored { source, sha256, expected } => {
                (check::compare((source, sha256), expected, &outputs, batch as usize, dtype), None)
            }
        };
        (check.replays, check.distinct) = (replays.runs, replays.distinct);
        let examined = matches!(self.reference, Reference::Examined);
        let fault = if examined { fault } else { check::fault(&check) };
        Ok((check, fault))
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

/// Runs whose launches are timed one by one, of which the median counts.
const PROFILED: usize = 1;

/// Times of a network's kernels in one run; without timestamps, none.
pub fn kernels(network: &Network) -> Result<Vec<KernelTime>> {
    if !network.gpu().has_timestamps() {
        return Ok(Vec::new());
    }
    let profile = network.profile(PROFILED)?;
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

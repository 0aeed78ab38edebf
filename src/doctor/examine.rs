//! The examination of one network.

use std::collections::HashMap;

use serde::Serialize;

use super::capture::{Capture, Memory};
use super::judge::{Judgement, judge, places};
use super::variants::{self, Variant};
use crate::Network;
use crate::engine::{Moment, Walked};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::{Op, Operator as _};
use crate::passes;
use crate::plan::{Dispatch, Operation, Plan};
use crate::reference::{self, Values};
use crate::tensor::{Bytes, Tensor, TensorDesc};

/// How thorough an examination is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Floating-point operations of the reference for one operation; larger ones are sampled.
    pub work: u64,
    /// Of the samples.
    pub seed: u64,
    /// Whether other kernels that could do a wrong operation's work are tried.
    pub variants: bool,
    /// So many wrong operations are looked at; the rest of the network is left out.
    pub most_findings: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { work: 100_000_000, seed: 1, variants: true, most_findings: 8 }
    }
}

/// What was found of a network.
#[derive(Clone, Debug, Serialize)]
pub struct Examination {
    pub name: String,
    /// Operations that were held to the reference, in the order in which they ran.
    pub operations: Vec<Finding>,
    /// How many there are in the plan.
    pub planned: usize,
    /// The case of the first wrong one.
    #[serde(skip)]
    pub capture: Option<Capture>,
}

impl Examination {
    /// The operations that are wrong, the first one first.
    pub fn wrong(&self) -> impl Iterator<Item = &Finding> {
        self.operations.iter().filter(|found| !found.judgement.is_right())
    }
}

/// What was found of an operation.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Path in the network.
    pub label: String,
    pub operation: &'static str,
    /// A formula, a kernel size.
    pub detail: String,
    /// Whether it is done once, when the network is loaded.
    pub loading: bool,
    pub inputs: Vec<TensorDesc>,
    pub output: TensorDesc,
    pub launches: Vec<Launched>,
    pub judgement: Judgement,
    /// Other ways to compute it, if it is wrong.
    pub variants: Vec<Variant>,
}

/// One launch of an operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Launched {
    pub kernel: &'static str,
    pub variant: String,
    /// Workgroups, and invocations in each.
    pub groups: [u32; 3],
    pub workgroup_size: [u32; 3],
}

impl From<&Dispatch> for Launched {
    fn from(dispatch: &Dispatch) -> Self {
        Launched {
            kernel: dispatch.shader.kernel.name,
            variant: dispatch.shader.kernel.variant(),
            groups: dispatch.groups,
            workgroup_size: dispatch.shader.workgroup_size,
        }
    }
}

/// An operation with what was read of it.
pub(crate) struct Subject<'a> {
    pub op: &'a Op,
    pub inputs: Vec<Tensor>,
    /// Of each input, whether it depends on weights alone.
    pub constant: Vec<bool>,
}

/// Goes through a network once. `progress` is told of each operation when it is done, with how many there are, and may stop
/// the rest by `false`.
///
/// # Errors
/// Those of the device and of the plan; that an operation is wrong is no error.
pub fn examine(
    gpu: &Gpu,
    name: &str,
    graph: &Graph,
    inputs: &[(&str, &Tensor)],
    options: &Options,
    progress: &mut dyn FnMut(&Finding, usize) -> bool,
) -> Result<Examination> {
    let graph = passes::optimise(graph, gpu.target())?;
    let plan = Plan::new(&graph, gpu.target())?;
    let planned = plan.operations.len();
    let network = Network::aside(gpu, plan)?;
    for (name, tensor) in inputs {
        network.write(name, tensor)?;
    }
    let mut doctor = Doctor {
        gpu,
        graph: &graph,
        plan: network.plan(),
        constant: graph.constants(),
        options,
        kept: HashMap::new(),
        before: Vec::new(),
        done: Examination { name: name.to_owned(), operations: Vec::new(), planned, capture: None },
        stopped: false,
    };
    network.walk(&mut |walked, operation, moment| match moment {
        _ if doctor.stopped => Ok(()),
        Moment::Before => doctor.before(walked, operation),
        Moment::After => doctor.after(walked, operation, progress),
    })?;
    Ok(doctor.done)
}

struct Doctor<'a> {
    gpu: &'a Gpu,
    graph: &'a Graph,
    plan: &'a Plan,
    constant: Vec<bool>,
    options: &'a Options,
    /// Constants whose buffers are dropped after the load and that runs see as textures.
    kept: HashMap<ValueId, Tensor>,
    /// The inputs of the operation that comes next, as they lie in memory.
    before: Vec<Tensor>,
    done: Examination,
    stopped: bool,
}

impl<'a> Doctor<'a> {
    fn operation(&self, value: ValueId) -> (&'a Op, &'a [ValueId]) {
        match &self.graph.value(value).source {
            Source::Op { op, inputs } => (op, inputs),
            _ => unreachable!("only operations launch anything"),
        }
    }

    /// What a value is a view of.
    fn origin(&self, mut value: ValueId) -> ValueId {
        while let Source::Op { op, inputs } = &self.graph.value(value).source
            && op.is_view()
        {
            value = inputs[0];
        }
        value
    }

    /// A value as it lies in the device's memory, or as it was when it was made.
    fn read(&self, walked: &Walked, value: ValueId) -> Result<Tensor> {
        let desc = self.graph.desc(value).clone();
        if let Some(place) = self.plan.places[value.index()]
            && let Some(bytes) = walked.read(place, desc.bytes())?
        {
            return Ok(Tensor { desc, bytes: Bytes::Owned(bytes.into()) });
        }
        let origin = self.origin(value);
        let bytes = match &self.graph.value(origin).source {
            Source::Weight(tensor) => tensor.bytes.clone(),
            // No launch made it: this is what the host uploaded.
            Source::Op { op: Op::PackedWeight(weight), .. } => {
                let shape = self.graph.shape(origin);
                Tensor::from_f32(shape.clone(), &weight.pack(0..shape[0])).bytes
            }
            _ => self.kept[&origin].bytes.clone(),
        };
        Ok(Tensor { desc, bytes })
    }

    fn before(&mut self, walked: &Walked, operation: &Operation) -> Result<()> {
        let (_, inputs) = self.operation(operation.value);
        self.before = inputs.iter().map(|&i| self.read(walked, i)).collect::<Result<_>>()?;
        Ok(())
    }

    fn after(
        &mut self,
        walked: &Walked,
        operation: &Operation,
        progress: &mut dyn FnMut(&Finding, usize) -> bool,
    ) -> Result<()> {
        let (op, ids) = self.operation(operation.value);
        let value = self.graph.value(operation.value);
        let Some(place) = self.plan.places[operation.value.index()] else { return Ok(()) };
        let found = self.read(walked, operation.value)?;
        if operation.loading && !self.plan.buffers[place].resident() && self.shown(place) {
            self.kept.insert(operation.value, found.clone());
        }
        let inputs = std::mem::take(&mut self.before);
        let descs: Vec<&TensorDesc> = inputs.iter().map(|t| &t.desc).collect();
        let work = reference::work(op, &descs, &value.desc);
        let places = places(&value.desc, work, self.options.work, self.options.seed);
        let values: Vec<Values> = inputs.iter().map(Values::of).collect();
        let references: Vec<&Values> = values.iter().collect();
        let expected = reference::evaluate_at(op, &references, &value.desc, &places);
        let judgement = judge(&Values::of(&found), &places, &expected);
        let dispatches = match operation.loading {
            true => &self.plan.load[operation.launches.clone()],
            false => &self.plan.run[operation.launches.clone()],
        };
        let mut finding = Finding {
            label: value.name.clone(),
            operation: op.name(),
            detail: op.detail(),
            loading: operation.loading,
            inputs: inputs.iter().map(|t| t.desc.clone()).collect(),
            output: value.desc.clone(),
            launches: dispatches.iter().map(Launched::from).collect(),
            judgement,
            variants: Vec::new(),
        };
        if !finding.judgement.is_right() {
            let constant = ids.iter().map(|i| self.constant[i.index()]).collect();
            let subject = Subject { op, inputs, constant };
            if self.options.variants {
                finding.variants = variants::variants(self.gpu, &subject, &places, &expected)?;
            }
            if self.done.capture.is_none() {
                let memory: Vec<Memory> = ids
                    .iter()
                    .zip(&subject.inputs)
                    .filter_map(|(id, t)| Some((self.plan.places[id.index()]?, t)))
                    .collect();
                let (plan, output) = (self.plan, place);
                self.done.capture = Some(Capture::of(
                    self.gpu,
                    plan,
                    operation,
                    &memory,
                    output,
                    &found,
                    (&places, &expected),
                )?);
            }
        }
        let go_on = progress(&finding, self.done.planned);
        self.done.operations.push(finding);
        self.stopped = !go_on || self.done.wrong().count() >= self.options.most_findings;
        Ok(())
    }

    /// Whether runs read a buffer as a texture.
    fn shown(&self, place: usize) -> bool {
        self.plan.load_fills.iter().any(|fill| fill.buffer == place)
    }
}

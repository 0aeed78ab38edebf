//! The ways in which a network can be computed.

use std::time::Duration;

use aquatint::cache::Cache;
use aquatint::frame::{Bound, Costs, Slices, TiledNetwork, TiledPlan};
use aquatint::tune::{TuneOptions, tune};
use aquatint::{
    DeviceClass, Gpu, Network, Plan, Result, Scratch, Shares, Target, Tensor, Tuning, passes, wgpu,
};

use crate::open;
use crate::subjects::{Subject, given};

/// Outputs, then states, after `runs` runs.
pub type Answer = Vec<Tensor>;

fn read(network: &Network) -> Result<Answer> {
    let plan = network.plan();
    plan.outputs.iter().chain(&plan.states).map(|port| network.read(&port.name)).collect()
}

fn ready(network: Network, n: usize) -> Result<Network> {
    network.poison()?;
    for (name, tensor) in given(network.plan(), n) {
        network.write(&name, &tensor)?;
    }
    Ok(network)
}

pub fn answer(network: Network, n: usize) -> Result<Answer> {
    let network = ready(network, n)?;
    network.submit(1)?;
    read(&network)
}

/// How far an answer may be from another.
#[derive(Clone, Copy, PartialEq)]
pub enum Held {
    /// Not at all.
    Bits,
    /// As far as other orders of the same sums explain.
    Sums,
    /// Not at all on software adapters; on GPUs, whose compilers make one multiply-add of other products, as sums.
    Compiled,
}

impl Held {
    /// What it is held to on a device.
    pub fn on(self, gpu: &Gpu) -> Held {
        match self {
            Held::Compiled if gpu.target().class == DeviceClass::Cpu => Held::Bits,
            Held::Compiled => Held::Sums,
            held => held,
        }
    }
}

/// A way of computing a network, and what it is held to.
pub struct Way {
    pub name: &'static str,
    pub held: Held,
    pub why: &'static str,
    /// `None` where the way is none for this network.
    pub compute: fn(&Gpu, &Subject) -> Result<Option<Answer>>,
}

fn planned(gpu: &Gpu, subject: &Subject, target: Target) -> Result<Option<Answer>> {
    if !subject.may_compile() {
        return Ok(None);
    }
    let plan = Plan::compile(&(subject.graph)(1)?, &target)?;
    answer(Network::from_plan(gpu, plan)?, 1).map(Some)
}

fn own(gpu: &Gpu, subject: &Subject) -> Result<Network> {
    ready(Network::new(gpu, &(subject.graph)(1)?)?, 1)
}

#[rustfmt::skip]
pub const WAYS: [Way; 18] = [
    Way { name: "run again, on the same network", held: Held::Bits, why: "a run leaves nothing but states", compute: again },
    Way { name: "loaded again", held: Held::Bits, why: "the same plan", compute: |gpu, s| answer(Network::new(gpu, &(s.graph)(1)?)?, 1).map(Some) },
    Way { name: "on a device opened anew, kernels out of the cache", held: Held::Bits, why: "the same kernels", compute: anew },
    Way { name: "operation by operation, each read back", held: Held::Bits, why: "the same launches", compute: watched },
    Way { name: "in slices, a launch a submission", held: Held::Bits, why: "the same launches", compute: sliced },
    Way { name: "two runs in one submission, or one after the other", held: Held::Bits, why: "the same launches", compute: two_runs },
    Way { name: "weights in some 64 parts", held: Held::Bits, why: "weights arrive as they are", compute: parts },
    Way { name: "weights not written by the host in place", held: Held::Sums, why: "other methods, where the host does not pack weights", compute: |gpu, s| planned(gpu, s, Target { mappable: false, ..gpu.target().clone() }) },
    Way { name: "weights and scratch memory shared", held: Held::Bits, why: "the same launches on other buffers", compute: shared },
    Way { name: "kernels with bounds checks", held: Held::Compiled, why: "checks find nothing to change", compute: checked },
    Way { name: "one of three pictures", held: Held::Bits, why: "no sum goes over pictures", compute: batch },
    Way { name: "in tiles (`frame::TiledNetwork`)", held: Held::Bits, why: "tiles take the whole picture's method and grid", compute: tiled },
    Way { name: "no bytes to spare for Winograd's weights", held: Held::Sums, why: "other methods for some convolutions", compute: |gpu, s| planned(gpu, s, Target { spare: 0, ..gpu.target().clone() }) },
    Way { name: "without textures", held: Held::Sums, why: "other kernels", compute: |gpu, s| planned(gpu, s, gpu.target().without_textures()) },
    Way { name: "planned for a discrete GPU", held: Held::Sums, why: "other kernels and methods", compute: |gpu, s| { planned(gpu, s, Target { class: DeviceClass::Discrete, mappable: false, ..gpu.target().clone() }) } },
    Way { name: "without subgroups", held: Held::Sums, why: "sums in workgroup memory", compute: |gpu, s| { planned(gpu, s, Target { subgroups: false, subgroup_size: 1, ..gpu.target().clone() }) } },
    Way { name: "tuned", held: Held::Sums, why: "the way that was measured to be fastest", compute: tuned },
    Way { name: "nothing fused", held: Held::Sums, why: "scales are not multiplied into weights", compute: unfused },
];

fn again(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    let network = Network::new(gpu, &(subject.graph)(1)?)?;
    if !network.plan().states.is_empty() {
        return Ok(None);
    }
    let network = ready(network, 1)?;
    // A small network a thousand times, a large one twenty times.
    let runs = (2_000_000_000 / network.plan().flops().max(1)).clamp(20, 999);
    for _ in 0..runs {
        network.submit(1)?;
    }
    read(&network).map(Some)
}

fn anew(_: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    if !subject.may_compile() {
        return Ok(None);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::at(folder.path());
    let mut last = None;
    for _ in 0..2 {
        let Some(gpu) = open(&cache) else { return Ok(None) };
        last = Some(answer(Network::new(&gpu, &(subject.graph)(1)?)?, 1)?);
    }
    Ok(last)
}

fn watched(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    let network = own(gpu, subject)?;
    assert_eq!(network.run_watched()?, None, "{}", subject.name);
    read(&network).map(Some)
}

fn sliced(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    let network = own(gpu, subject)?;
    let bindings = network.bind(&[])?;
    let mut slices = Slices::new(&bindings, &Costs::predicted(network.plan()), 1)?;
    while !slices.is_done() {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        slices.record(&mut encoder, Duration::ZERO)?;
        gpu.wait(gpu.queue().submit([encoder.finish()]))?;
    }
    read(&network).map(Some)
}

/// States after two runs must agree; what one run gives is looked at by the others.
fn two_runs(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    let [together, apart] = [own(gpu, subject)?, own(gpu, subject)?];
    together.submit(2)?;
    for _ in 0..2 {
        let submission = apart.submit(1)?;
        gpu.wait(submission)?;
    }
    let [together, apart] = [read(&together)?, read(&apart)?];
    assert!(same(&together, &apart), "{}: two runs", subject.name);
    answer(Network::new(gpu, &(subject.graph)(1)?)?, 1).map(Some)
}

fn parts(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    let mut plan = Plan::compile(&(subject.graph)(1)?, gpu.target())?;
    // And no whole number of words each.
    plan.load_chunk = (plan.resident_bytes() / 64).max(1024) + 1;
    answer(Network::from_plan(gpu, plan)?, 1).map(Some)
}

fn shared(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    let graph = (subject.graph)(1)?;
    let first = Network::new(gpu, &graph)?;
    let plan = Plan::compile(&graph, gpu.target())?;
    let scratch = Scratch::new(gpu, &[&plan])?;
    let shares = Shares { weights_of: Some(&first), scratch: Some(&scratch) };
    answer(Network::sharing(gpu, plan, shares)?, 1).map(Some)
}

fn checked(_: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    if !subject.may_compile() {
        return Ok(None);
    }
    let Some(gpu) = open(&Cache::off()) else { return Ok(None) };
    gpu.check_bounds();
    answer(Network::new(&gpu, &(subject.graph)(1)?)?, 1).map(Some)
}

fn batch(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    if !subject.batches {
        return Ok(None);
    }
    let all = answer(Network::new(gpu, &(subject.graph)(3)?)?, 3)?;
    let first = |tensor: Tensor| {
        let mut shape = tensor.desc.shape.to_vec();
        shape[0] /= 3;
        let values = tensor.to_f32();
        Tensor::from_f32(shape, &values[..values.len() / 3])
    };
    Ok(Some(all.into_iter().map(first).collect()))
}

/// The picture that is cut, and held to itself at once.
const LARGE: [usize; 2] = [1083, 37];

fn tiled(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    let Some(sized) = subject.sized else { return Ok(None) };
    // As large as is needed for a tile to be smaller.
    let [height, width] = LARGE;
    let whole = Plan::compile(&sized(width, height)?, gpu.target())?;
    let plan = (5..10)
        .rev()
        .find_map(|tenths| {
            let most = whole.peak_bytes() * tenths / 10;
            TiledPlan::new(gpu.target(), [width, height], most, sized).ok().filter(|plan| plan.tiles() > 1)
        })
        .unwrap_or_else(|| panic!("{}: no tiles", subject.name));
    let whole = Network::from_plan(gpu, whole)?;
    let network = TiledNetwork::new(gpu, plan)?;
    network.network().poison()?;
    // Buffers of the whole, which tiles read and write.
    let whole = ready(whole, 1)?;
    let ports = whole.plan().inputs.iter().chain(&whole.plan().outputs);
    let buffers: Vec<(String, wgpu::Buffer)> = ports
        .map(|port| Ok((port.name.clone(), whole.buffer(&port.name)?.clone())))
        .collect::<Result<_>>()?;
    let bound: Vec<(&str, Bound)> = buffers.iter().map(|(name, b)| (name.as_str(), b.into())).collect();
    let bindings = network.bind(&bound)?;
    whole.submit(1)?;
    let wanted = read(&whole)?;
    whole.poison()?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    bindings.record(&mut encoder)?;
    gpu.wait(gpu.queue().submit([encoder.finish()]))?;
    assert!(same(&wanted, &read(&whole)?), "{}: tiles", subject.name);
    answer(Network::new(gpu, &(subject.graph)(1)?)?, 1).map(Some)
}

fn tuned(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    if !subject.may_compile() {
        return Ok(None);
    }
    let graph = (subject.graph)(1)?;
    let mut tuning = Tuning::default();
    let options = TuneOptions { time_limit: 0.5, again: true };
    tune(gpu, &graph, &mut tuning, &options, &mut |_, _| true)?;
    let gpu = gpu.tuned(tuning);
    answer(Network::new(&gpu, &graph)?, 1).map(Some)
}

fn unfused(gpu: &Gpu, subject: &Subject) -> Result<Option<Answer>> {
    let graph = passes::unfused(&(subject.graph)(1)?, gpu.target())?;
    answer(Network::from_plan(gpu, Plan::new(&graph, gpu.target())?)?, 1).map(Some)
}

pub fn same(a: &[Tensor], b: &[Tensor]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.desc == b.desc && *a.bytes == *b.bytes)
}

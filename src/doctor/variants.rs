//! Which of the ways to compute an operation are right on a device.

use serde::Serialize;

use super::examine::{Launched, Subject};
use super::judge::{Judgement, judge};
use crate::Network;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::ops::Op;
use crate::ops::conv2d::{Conv2d, Method};
use crate::passes;
use crate::plan::Plan;
use crate::reference::{Approx, Values, conv};
use crate::target::{DeviceClass, Target};
use crate::tensor::{DType, Tensor, TensorDesc};

/// One way to compute an operation, tried by itself.
#[derive(Clone, Debug, Serialize)]
pub struct Variant {
    /// What it was planned for: `as planned`, `without textures`, `direct`.
    pub name: String,
    pub launches: Vec<Launched>,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    Right {
        judgement: Judgement,
    },
    Wrong {
        judgement: Judgement,
    },
    /// The device refused it.
    Failed {
        reason: String,
    },
}

/// The device with something taken away.
fn targets(own: &Target) -> Vec<(&'static str, Target)> {
    let class = |class| Target { class, ..own.clone() };
    vec![
        ("as planned", own.clone()),
        ("without textures", Target { max_texture: 0, ..own.clone() }),
        ("without subgroups", Target { subgroups: false, subgroup_size: 1, ..own.clone() }),
        ("without cooperative matrices", Target { matrices: None, ..own.clone() }),
        ("as for a discrete GPU", class(DeviceClass::Discrete)),
        ("as for an integrated GPU", class(DeviceClass::Integrated)),
        ("as for a software adapter", class(DeviceClass::Cpu)),
    ]
}

/// The operation in a graph of its own, and its inputs.
struct Alone {
    graph: Graph,
    inputs: Vec<(String, Tensor)>,
}

/// The plan of an operation alone, and what its inputs are.
type Planned = (Plan, Vec<(String, Tensor)>);

/// Puts the operation into a graph of its own, its float inputs in another type if one is given. A convolution's weight is
/// given as the file has it, and how it is computed left open.
fn alone(subject: &Subject, dtype: Option<DType>) -> Result<Alone> {
    let mut op = subject.op.clone();
    let mut tensors = subject.inputs.clone();
    if let Op::Conv2d(conv) = &mut op {
        let stored = tensors[0].desc.dtype;
        tensors[1] = conv::unpacked(conv, &Values::of(&tensors[1]), stored);
        tensors[0] = first_channels(&tensors[0], conv.c_in);
        conv.method = None;
    }
    if let Some(dtype) = dtype {
        for tensor in &mut tensors {
            if tensor.desc.dtype == DType::F16 {
                *tensor = tensor.to_dtype(dtype);
            }
        }
    }
    let (mut graph, mut inputs) = (Graph::new(), Vec::new());
    let mut ids = Vec::new();
    for (i, (tensor, constant)) in tensors.into_iter().zip(&subject.constant).enumerate() {
        let name = format!("input{i}");
        ids.push(match constant {
            true => graph.weight(&name, tensor),
            false => {
                let id = graph.input(&name, tensor.desc.shape.clone(), tensor.desc.dtype);
                inputs.push((name, tensor));
                id
            }
        });
    }
    // An operation of weights alone would be done while loading; here it is to run.
    let result = graph.push(op, &ids)?;
    graph.output("result", result);
    Ok(Alone { graph, inputs })
}

/// `[n, h, w, c]` without channels that were added to fill texels.
fn first_channels(tensor: &Tensor, c: usize) -> Tensor {
    let own = tensor.desc.shape.last();
    if own == c {
        return tensor.clone();
    }
    let size = tensor.desc.dtype.bytes();
    let bytes: Vec<u8> =
        tensor.bytes.chunks_exact(own * size).flat_map(|pixel| &pixel[..c * size]).copied().collect();
    let mut shape = tensor.desc.shape.to_vec();
    *shape.last_mut().expect("a feature map") = c;
    Tensor {
        desc: TensorDesc::new(shape, tensor.desc.dtype),
        bytes: crate::tensor::Bytes::Owned(bytes.into()),
    }
}

/// Tries all ways; those that come to the same launches are tried once.
pub(crate) fn variants(
    gpu: &Gpu,
    subject: &Subject,
    places: &[usize],
    expected: &[Approx],
) -> Result<Vec<Variant>> {
    let own = gpu.target();
    let mut candidates: Vec<(String, Result<Planned>)> = Vec::new();
    let mut offer =
        |name: &str, dtype: Option<DType>, target: &Target, method: Option<&dyn Fn(&Conv2d) -> Method>| {
            let made = alone(subject, dtype).and_then(|alone| {
                let graph = match method {
                    None => passes::optimise(&alone.graph, target)?,
                    Some(method) => {
                        passes::choose::choose(&alone.graph, target, &|_, conv, _, _, _, _| method(conv))?
                    }
                };
                let plan = Plan::new(&graph, target)?;
                Ok((plan, alone.inputs))
            });
            candidates.push((name.to_owned(), made));
        };
    for (name, target) in targets(own) {
        offer(name, None, &target, None);
    }
    if let Op::Conv2d(conv) = subject.op {
        for (name, method) in [("direct", Method::Direct), ("depthwise", Method::Depthwise)] {
            if conv::allows(conv, method) {
                offer(name, None, own, Some(&move |_: &Conv2d| method));
            }
        }
    }
    if subject.inputs.iter().any(|t| t.desc.dtype == DType::F16) {
        offer("in f32", Some(DType::F32), own, None);
    }
    let mut seen = Vec::new();
    let mut tried = Vec::new();
    for (name, made) in candidates {
        let (plan, inputs) = match made {
            Ok(made) => made,
            // Not every operation can be planned for every device, nor in every type.
            Err(error) => {
                tried.push(Variant {
                    name,
                    launches: Vec::new(),
                    verdict: Verdict::Failed { reason: error.to_string() },
                });
                continue;
            }
        };
        let dispatches = || plan.load.iter().chain(&plan.run);
        let signature: Vec<_> = dispatches().map(|d| (d.shader.kernel.clone(), d.groups)).collect();
        if seen.contains(&signature) {
            continue;
        }
        seen.push(signature);
        let launches = dispatches().map(Launched::from).collect();
        let verdict = match run(gpu, plan, &inputs) {
            Ok(found) => {
                let judgement = judge(&Values::of(&found), places, expected);
                match judgement.is_right() {
                    true => Verdict::Right { judgement },
                    false => Verdict::Wrong { judgement },
                }
            }
            Err(lost @ Error::DeviceLost { .. }) => return Err(lost),
            Err(error) => Verdict::Failed { reason: error.to_string() },
        };
        tried.push(Variant { name, launches, verdict });
    }
    Ok(tried)
}

fn run(gpu: &Gpu, plan: Plan, inputs: &[(String, Tensor)]) -> Result<Tensor> {
    let network = Network::from_plan(gpu, plan)?;
    network.poison()?;
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    Ok(network.run(&inputs)?.remove(0))
}

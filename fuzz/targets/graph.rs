//! Graphs out of bytes, rewritten and planned for devices out of bytes: no panic, sound kernels, no tensor written over
//! while it is needed, memory as the plan says, and the same answers after the passes as before them.

use aquatint::passes;
use aquatint::{DeviceClass, Error, Graph, Matrices, Plan, Source, Target, Value, ValueId};

use super::build::Builder;
use super::draw::Draw;
use super::{answers, memory};

/// Operations of a graph.
const MOST: usize = 24;

/// A device, then operations.
pub fn graph(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let target = target(&mut draw);
    let mut builder = Builder::new(&mut draw, target.f16);
    for _ in 0..MOST {
        if draw.is_done() {
            break;
        }
        // What does not fit is refused, and the graph goes on without it.
        if let Err(error @ (Error::Shader { .. } | Error::Gpu { .. })) = builder.operation(&mut draw) {
            panic!("{error}");
        }
    }
    let Some(graph) = builder.finish(&mut draw) else { return };
    let Some((optimised, plan)) = planned(&graph, &target) else { return };
    memory::check(&optimised, &plan);
    let again = Plan::new(&optimised, &target).expect("it was planned just now");
    assert_eq!(
        format!("{:?}", plan.buffers),
        format!("{:?}", again.buffers),
        "the same graph, the same plan"
    );
    assert_eq!(plan.memory(), again.memory());
    if builder.is_smooth() {
        answers::check(&graph, &optimised);
    }
}

/// The graph as the passes leave it, with its plan; none where the device is too small for it or more is asked than allowed.
fn planned(graph: &Graph, target: &Target) -> Option<(Graph, Plan)> {
    let made = passes::optimise(graph, target).and_then(|graph| {
        let plan = Plan::new(&graph, target)?;
        Ok((graph, plan))
    });
    match made {
        Ok(made) => Some(made),
        Err(Error::Limit { .. } | Error::Bound { .. }) => None,
        // Every operation was accepted, so that nothing else can be wrong with the graph.
        Err(error) => panic!("{error}\nof the graph\n{}", listed(graph)),
    }
}

/// A line for each value.
pub fn listed(graph: &Graph) -> String {
    let line = |(id, value): (ValueId, &Value)| match &value.source {
        Source::Op { op, inputs } => format!("{id:?} = {op:?} of {inputs:?}: {}\n", value.desc),
        Source::Input => format!("{id:?} = input {}: {}\n", value.name, value.desc),
        Source::Weight(_) => format!("{id:?} = weight {}: {}\n", value.name, value.desc),
        Source::State(_) => format!("{id:?} = state {}: {}\n", value.name, value.desc),
    };
    graph.values().map(line).collect()
}

/// Devices from the weakest that WebGPU allows to the largest.
fn target(draw: &mut Draw) -> Target {
    let class = draw.of(&[DeviceClass::Discrete, DeviceClass::Integrated, DeviceClass::Cpu]);
    let subgroups = draw.flag();
    let f16 = draw.flag();
    let sides: [&[u32]; 4] = [&[], &[16], &[8], &[16, 8]];
    let sides = draw.of(&sides);
    let matrices = !sides.is_empty() && subgroups && f16;
    let max_binding = draw.of(&[(1u64 << 31) - 4, 128 << 20, 1 << 20, 1 << 14]);
    Target {
        name: "device".to_owned(),
        class,
        f16,
        subgroups,
        subgroup_size: if subgroups { draw.of(&[32, 4, 8, 16, 64]) } else { 1 },
        matrices: matrices.then(|| Matrices { sides: sides.to_vec(), subgroup_size: 64 }),
        max_buffer: draw.of(&[1 << 31, 256 << 20, 1 << 20, 1 << 14]).max(max_binding),
        max_binding,
        max_texture: draw.of(&[16384, 8192, 4096, 2048, 0]),
        max_storage_buffers: draw.of(&[16, 8, 4, 31]),
        max_workgroups: draw.of(&[65535, 256, 3]),
        max_invocations: draw.of(&[1024, 256, 128]),
        shared_memory: draw.of(&[32 << 10, 16 << 10, 48 << 10]),
        uniform_alignment: draw.of(&[256, 32]),
        spare: draw.of(&[2 << 30, 0, 1 << 16]),
        mappable: draw.flag(),
        tuning: None,
    }
}

//! Kernels whose threads fetch for one another, in subgroups of every size: what a thread hands to the others goes through workgroup
//! memory there, behind barriers, where WGSL says for subgroups of a size what a device of another size cannot show.

use aquatint::ops::attention::AttentionOptions;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{DType, DeviceClass, Graph, Network, Plan, Target, Tensor};

use crate::harness::{self, Array, Rng};

/// All kernels that share what they fetch.
const KERNELS: [&str; 4] = ["attention_texels", "conv2d_texels", "matmul_texels", "winograd_products"];

/// One network for each of these kernels, and the shapes of its inputs.
fn networks() -> Vec<(&'static str, Graph, Vec<Vec<usize>>)> {
    let input =
        |g: &mut Graph, i: usize, shape: &[usize]| g.input(&format!("input{i}"), shape.to_vec(), DType::F32);
    let weight = |g: &mut Graph, shape: &[usize]| {
        let array = Rng::new("weight").array(shape);
        g.weight("w", harness::tensor(&array, DType::F32))
    };
    let mut made = Vec::new();
    let mut add = |kernel,
                   shapes: &[&[usize]],
                   build: &dyn Fn(&mut Graph, &[aquatint::ValueId]) -> aquatint::ValueId| {
        let mut g = Graph::new();
        let values: Vec<_> = shapes.iter().enumerate().map(|(i, shape)| input(&mut g, i, shape)).collect();
        let y = build(&mut g, &values);
        g.output("y", y);
        made.push((kernel, g, shapes.iter().map(|shape| shape.to_vec()).collect()));
    };
    // Large enough to be read as textures; some threads of the last workgroup have nothing of their own to compute.
    add("attention_texels", &[&[2, 139, 32], &[2, 21, 32], &[2, 21, 32]], &|g, v| {
        g.attention(v[0], v[1], v[2], 2, AttentionOptions::default()).unwrap()
    });
    add("conv2d_texels", &[&[2, 17, 19, 32]], &|g, v| {
        let w = weight(g, &[32, 32, 3, 3]);
        g.conv2d(v[0], w, None, Conv2dOptions::padded(1).stride(2)).unwrap()
    });
    add("matmul_texels", &[&[133, 64], &[64, 132]], &|g, v| {
        g.matmul(v[0], v[1], Default::default()).unwrap()
    });
    add("winograd_products", &[&[1, 13, 14, 64]], &|g, v| {
        let w = weight(g, &[64, 64, 3, 3]);
        g.conv2d(v[0], w, None, Conv2dOptions::padded(1)).unwrap()
    });
    made
}

/// The kernels of a run with what they are made of.
fn kernels(plan: &Plan) -> Vec<String> {
    plan.run.iter().map(|launch| format!("{:?}", launch.shader.kernel)).collect()
}

fn target(own: &Target, subgroup_size: u32) -> Target {
    Target { class: DeviceClass::Cpu, subgroups: true, subgroup_size, ..own.clone() }
}

/// A device whose subgroups have so many invocations, one after the other: `broadcast` hands over what a thread of them holds.
fn played(size: u32) -> aquatint::Gpu {
    let gpu = aquatint::Gpu::headless().expect("there was one before");
    let broadcast = format!(
        "var<private> own_index: u32;
var<workgroup> held_by: array<V, LANES>;
fn broadcast(held: V, lane: u32) -> V {{
    workgroupBarrier();
    held_by[own_index] = held;
    workgroupBarrier();
    return held_by[min(own_index / {size}u * {size}u + lane, LANES - 1u)];
}}
@compute "
    );
    for kernel in KERNELS {
        gpu.plant_fault(kernel, "subgroupBroadcast(", "broadcast(");
        gpu.plant_fault(kernel, "subgroupShuffle(", "broadcast(");
        gpu.plant_fault(kernel, "@compute ", &broadcast);
        let main = "@builtin(local_invocation_index) local: u32) {";
        gpu.plant_fault(kernel, main, &format!("{main}\n    own_index = local;"));
    }
    gpu
}

#[test]
fn from_eight_on_all_sizes_have_the_same_kernels() {
    for (name, graph, _) in networks() {
        let plan = |size| Plan::compile(&graph, &target(&Target::typical(), size)).unwrap();
        let eight = plan(8);
        assert!(eight.run.iter().any(|launch| launch.shader.kernel.name == name), "{:?}", kernels(&eight));
        for size in [16, 32, 64, 128] {
            assert_eq!(kernels(&plan(size)), kernels(&eight), "{name}, {size}");
        }
        assert!(kernels(&plan(4)) != kernels(&eight), "{name}: nothing is shared by eight");
        for launch in eight.run.iter().filter(|launch| KERNELS.contains(&launch.shader.kernel.name)) {
            let threads = launch.shader.workgroup_size.iter().product::<u32>();
            assert_eq!(threads, 8, "{name}: all of them are in one subgroup of eight or more");
        }
    }
}

#[test]
fn every_size_gives_the_same_numbers() {
    // Kernels still name what they broadcast by.
    let Some(gpu) = harness::gpu().filter(|gpu| gpu.target().subgroups) else { return };
    let run = |gpu: &aquatint::Gpu, graph: &Graph, inputs: &[Array], planned: u32| {
        let plan = Plan::compile(graph, &target(gpu.target(), planned)).unwrap();
        let network = Network::from_plan(gpu, plan).unwrap_or_else(|e| panic!("{e}"));
        network.poison().unwrap();
        let tensors: Vec<(String, Tensor)> = inputs
            .iter()
            .enumerate()
            .map(|(i, array)| (format!("input{i}"), harness::tensor(array, DType::F32)))
            .collect();
        let named: Vec<(&str, &Tensor)> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        network.run(&named).unwrap_or_else(|e| panic!("{e}")).remove(0).to_f32()
    };
    let devices = [4, 8, 64].map(|size| (size, played(size)));
    // For how many a kernel is made, by what its device has at least, and how many there are.
    let ways = [(4, 0), (8, 1), (4, 2)];
    for (name, graph, shapes) in networks() {
        let inputs: Vec<Array> = shapes.iter().map(|shape| Rng::new(name).array(shape)).collect();
        // Without subgroups every thread fetches for itself.
        let alone = run(gpu, &graph, &inputs, 1);
        let alone = Array { shape: vec![alone.len()], data: alone.iter().map(|&x| x.into()).collect() };
        for (planned, which) in ways {
            let (size, device) = &devices[which];
            let found = run(device, &graph, &inputs, planned);
            harness::compare(&format!("{name} in subgroups of {size}"), &found, &alone, harness::F32);
        }
        // Nothing of this would be seen if the kernels did not share.
        let wrong = run(&devices[0].1, &graph, &inputs, 8);
        let right = run(&devices[1].1, &graph, &inputs, 8);
        assert!(wrong != right, "{name}: eight in subgroups of four");
    }
}

//! Convolutions and products whose sides workgroups bring into their memory, planned as for GPUs: in every tile, with sums whole
//! and in parts.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::{Matmul, Op};
use aquatint::{
    DType, DeviceClass, Graph, Network, Plan, Result, Source, Target, Tensor, Tuning, ValueId, passes,
};

use crate::conv2d::conv2d;
use crate::harness::{self, Array, Rng};
use crate::matmul::product;

/// The device as if it were a GPU without cooperative matrices.
pub fn as_gpu(own: &Target) -> Target {
    Target { class: DeviceClass::Discrete, matrices: None, ..own.clone() }
}

/// For the convolution of a graph, the ways of this kind, each with a target that takes it.
pub fn forms(graph: &Graph, target: &Target, kind: &str) -> Vec<(String, Target)> {
    let graph = passes::optimise(graph, target).unwrap();
    let mut forms = Vec::new();
    for (id, value) in graph.values() {
        let Source::Op { op: Op::Conv2d(conv), inputs } = &value.source else { continue };
        let (source, output) = (graph.desc(inputs[0]), graph.desc(id));
        for method in conv.candidates(target, source, output, None) {
            let name = method.to_string();
            if name.starts_with(kind) {
                let mut tuning = Tuning::default();
                tuning.set(conv.key(source, output, None), name.clone());
                forms.push((name, Target { tuning: Some(tuning.into()), ..target.clone() }));
            }
        }
    }
    forms
}

/// Runs an operation in each form, in f32 and in f16. Inputs that are constant go in as weights.
fn check(
    name: &str,
    kernel: &str,
    inputs: &[(&Array, bool)],
    build: impl Fn(&mut Graph, &[ValueId]) -> Result<ValueId>,
    reference: impl Fn(&[Array]) -> Array,
) {
    let Some(gpu) = harness::gpu() else { return };
    for (dtype, tolerance) in [(DType::F32, harness::F32), (DType::F16, harness::F16)] {
        if dtype == DType::F16 && !gpu.target().f16 {
            continue;
        }
        let tensors: Vec<Tensor> = inputs.iter().map(|(array, _)| harness::tensor(array, dtype)).collect();
        let rounded: Vec<Array> = tensors
            .iter()
            .map(|t| Array {
                shape: t.desc.shape.to_vec(),
                data: t.to_f32().into_iter().map(f64::from).collect(),
            })
            .collect();
        let mut graph = Graph::new();
        let names: Vec<String> = (0..inputs.len()).map(|i| format!("input{i}")).collect();
        let (mut values, mut given) = (Vec::new(), Vec::new());
        for (i, ((_, constant), tensor)) in inputs.iter().zip(&tensors).enumerate() {
            values.push(match constant {
                true => graph.weight(&names[i], tensor.clone()),
                false => graph.input(&names[i], tensor.desc.shape.clone(), dtype),
            });
            if !constant {
                given.push((names[i].as_str(), tensor));
            }
        }
        let result = build(&mut graph, &values).unwrap_or_else(|e| panic!("{name}: {e}"));
        graph.output("result", result);
        let expected = reference(&rounded);
        let target = as_gpu(gpu.target());
        let mut forms = forms(&graph, &target, "shared");
        if forms.is_empty() {
            // The chosen way of any other graph.
            forms.push(("as planned".to_owned(), target));
        }
        for (form, target) in forms {
            let name = format!("{name}, {dtype}, {form}");
            let plan = Plan::compile(&graph, &target).unwrap_or_else(|e| panic!("{name}: {e}"));
            let kernels: Vec<&str> = plan.run.iter().map(|launch| launch.shader.kernel.name).collect();
            assert!(kernels.contains(&kernel), "{name}: {kernels:?}");
            assert_eq!(kernels.contains(&"sum_parts"), form.contains(" in "), "{name}: {kernels:?}");
            let network = Network::from_plan(gpu, plan).unwrap_or_else(|e| panic!("{name}: {e}"));
            network.poison().unwrap();
            let found = network.run(&given).unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
            harness::compare(&name, &found.to_f32(), &expected, tolerance);
        }
    }
}

fn convolution(x: [usize; 4], w: [usize; 4], options: Conv2dOptions) {
    let name = format!("conv2d {x:?} {w:?} {options:?}");
    let mut rng = Rng::new(&name);
    let (x, w, b) = (rng.array(&x), rng.array(&w), rng.array(&w[..1]));
    check(
        &name,
        "conv2d_shared",
        &[(&x, false), (&w, true), (&b, true)],
        |g, v| g.conv2d(v[0], v[1], Some(v[2]), options),
        |a| conv2d(&a[0], &a[1], Some(&a[2]), &options),
    );
}

#[test]
fn convolutions() {
    // More workgroups than one, in both directions, for the largest tile.
    convolution([1, 9, 11, 16], [140, 16, 3, 3], Conv2dOptions::padded(1));
    // Nothing fills a part: pixels, channels, depth.
    convolution([2, 7, 9, 20], [36, 20, 3, 3], Conv2dOptions::padded(1).stride(2));
    convolution([1, 6, 5, 19], [21, 19, 2, 5], Conv2dOptions::padded(2).dilation(2));
    convolution([3, 5, 4, 9], [10, 9, 3, 1], Conv2dOptions { padding: [0, 2, 1, 0], ..Default::default() });
}

#[test]
fn pointwise_convolutions_and_linear_layers() {
    convolution([1, 1, 1, 8], [8, 8, 1, 1], Conv2dOptions::default());
    convolution([2, 9, 8, 64], [40, 64, 1, 1], Conv2dOptions::default());
    convolution([2, 5, 3, 34], [30, 34, 1, 1], Conv2dOptions::default().stride(2));
    convolution([77, 1, 1, 100], [70, 100, 1, 1], Conv2dOptions::default());
}

/// Enlarged on the way, with all that an epilogue can have.
#[test]
fn epilogues() {
    for channels in [32, 18] {
        let name = format!("conv2d with an epilogue, {channels}");
        let mut rng = Rng::new(&name);
        let (x, w) = (rng.array(&[2, 4, 5, 16]), rng.array(&[channels, 16, 3, 3]));
        let (b, t) = (rng.array(&[channels]), rng.array(&[2, 1, 1, channels]));
        let residual = rng.array(&[2, 8, 10, channels]);
        check(
            &name,
            "conv2d_shared",
            &[(&x, false), (&w, true), (&b, true), (&t, false), (&residual, false)],
            |g, v| {
                let x = g.upsample_nearest(v[0], 2)?;
                let y = g.conv2d(x, v[1], Some(v[2]), Conv2dOptions::padded(1))?;
                let y = g.add(y, v[3])?;
                let y = g.add(y, v[4])?;
                g.relu(y)
            },
            |a| {
                let large = Array::from_fn(&[2, 8, 10, 16], |i| a[0].at(&[i[0], i[1] / 2, i[2] / 2, i[3]]));
                let y = conv2d(&large, &a[1], Some(&a[2]), &Conv2dOptions::padded(1));
                Array::from_fn(&y.shape, |i| (y.at(i) + a[3].at(&[i[0], 0, 0, i[3]]) + a[4].at(i)).max(0.0))
            },
        );
    }
}

#[test]
fn products() {
    // The smaller tile, and so many matrices that it is the larger one.
    for (batch, [m, k, n]) in [(1, [64, 64, 64]), (3, [50, 20, 44]), (2, [130, 36, 68]), (512, [65, 16, 64])]
    {
        let name = format!("matmul of {batch}, {m}×{k}×{n}");
        let mut rng = Rng::new(&name);
        let (a, b) = (rng.array(&[batch, m, k]), rng.array(&[1, k, n]));
        check(
            &name,
            "matmul_shared",
            &[(&a, false), (&b, false)],
            |g, v| g.matmul(v[0], v[1], Matmul::default()),
            |x| product(&x[0], &x[1], Matmul::default()),
        );
    }
}

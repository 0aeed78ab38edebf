//! Kernels with cooperative matrices, in each form that a workgroup's part can have: exactly, with whole numbers whose sums
//! no order of summation rounds, and with any numbers as closely as results of f16 can be.

use std::sync::OnceLock;

use aquatint::ops::attention::AttentionOptions;
use aquatint::ops::conv_transpose2d::ConvTranspose2dOptions;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::{Matmul, Op};
use aquatint::{
    DType, DeviceClass, Gpu, Graph, Matrices, Network, Plan, Source, Target, Tensor, Tuning, ValueId,
};
use aquatint::{gpu, passes};

use crate::attention::{Projected, attention};
use crate::conv_transpose2d::conv_transpose2d;
use crate::conv2d::conv2d;
use crate::harness::{self, Array, Rng};
use crate::matmul::product;

/// The device with cooperative matrices, opened once; that there are none is said.
fn device() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| {
        let options = aquatint::AdapterOptions { experimental: true, ..aquatint::AdapterOptions::from_env() };
        let found = gpu::adapters(&options).map(|found| !found.is_empty()).unwrap_or(false);
        let gpu = found.then(|| Gpu::with_options(&options).unwrap_or_else(|e| panic!("{e}")));
        match gpu.filter(|gpu| gpu.target().matrices.is_some()) {
            Some(gpu) => Some(gpu),
            None => {
                assert!(
                    std::env::var_os("REQUIRE_MATRICES").is_none(),
                    "REQUIRE_MATRICES is set, and the device has no cooperative matrices"
                );
                eprintln!(
                    "SKIPPED on the device: it has no cooperative matrices of f16; their plans are checked"
                );
                None
            }
        }
    })
    .as_ref()
}

/// Devices that plans are made for: the one that there is, for each of its sides alone, or else some that there could be.
/// Their subgroups could be larger than they are, so many times.
fn targets(spare: u32) -> Vec<Target> {
    let one = |own: &Target, side, subgroup_size: u32| Target {
        class: DeviceClass::Discrete,
        matrices: Some(Matrices { sides: vec![side], subgroup_size: subgroup_size * spare }),
        ..own.clone()
    };
    match device() {
        Some(gpu) => {
            let Matrices { sides, subgroup_size } = gpu.target().matrices.clone().expect("it was looked for");
            sides.into_iter().map(|side| one(gpu.target(), side, subgroup_size)).collect()
        }
        None => [(16, 32), (8, 32), (16, 64), (8, 8)]
            .map(|(side, size)| one(&Target::typical(), side, size))
            .into(),
    }
}

/// For a convolution, a device for each form that it can be computed in; of those whose sums are cut, the last block alone,
/// as software adapters take seconds to compile each.
fn forms(graph: &Graph, target: &Target) -> Vec<(String, Target)> {
    let graph = passes::optimise(graph, target).unwrap();
    let mut forms = Vec::new();
    for (id, value) in graph.values() {
        let Source::Op { op: Op::Conv2d(conv), inputs } = &value.source else { continue };
        let (source, output) = (graph.desc(inputs[0]), graph.desc(id));
        let methods = conv.candidates(target, source, output, None);
        let names: Vec<String> = methods.iter().map(ToString::to_string).collect();
        let whole = |name: &&String| name.starts_with("matrices") && !name.contains(" in ");
        let last = names.iter().rfind(whole).expect("it has channels enough");
        for name in &names {
            if whole(&name) || name.strip_prefix(last.as_str()).is_some() {
                let mut tuning = Tuning::default();
                tuning.set(conv.key(source, output, None), name.clone());
                forms.push((name.clone(), Target { tuning: Some(tuning.into()), ..target.clone() }));
            }
        }
    }
    forms
}

/// One operation of f16.
struct Case<'a> {
    name: String,
    inputs: Vec<(&'a Array, bool)>,
    spare: u32,
    /// Whether convolutions are tried in each form.
    forms: bool,
}

impl Case<'_> {
    /// Plans it for each device and form, each with its `kernel`, and runs it where it can be. `exact`: results are the numbers of
    /// f16 that are nearest to those of the reference.
    fn check(
        &self,
        kernel: impl Fn(&Target) -> &'static str,
        exact: bool,
        build: impl Fn(&mut Graph, &[ValueId]) -> aquatint::Result<ValueId>,
        reference: impl Fn(&[Array]) -> Array,
    ) {
        let tensors: Vec<Tensor> =
            self.inputs.iter().map(|(array, _)| harness::tensor(array, DType::F16)).collect();
        let rounded: Vec<Array> = tensors
            .iter()
            .map(|t| Array {
                shape: t.desc.shape.to_vec(),
                data: t.to_f32().into_iter().map(f64::from).collect(),
            })
            .collect();
        let mut graph = Graph::new();
        let (mut values, mut given) = (Vec::new(), Vec::new());
        for (i, ((_, constant), tensor)) in self.inputs.iter().zip(&tensors).enumerate() {
            let name = format!("input{i}");
            values.push(match constant {
                true => graph.weight(&name, tensor.clone()),
                false => graph.input(&name, tensor.desc.shape.clone(), DType::F16),
            });
            if !constant {
                given.push((name, tensor));
            }
        }
        let result = build(&mut graph, &values).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        graph.output("result", result);
        let expected = reference(&rounded);
        assert_eq!(graph.shape(result)[..], expected.shape[..], "{}: shape", self.name);
        let given: Vec<(&str, &Tensor)> =
            given.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
        for target in targets(self.spare) {
            let mut planned = if self.forms { forms(&graph, &target) } else { Vec::new() };
            if planned.is_empty() {
                planned.push(("as planned".to_owned(), target));
            }
            for (form, target) in planned {
                let name = format!("{}, {form}, {:?}", self.name, target.matrices);
                let plan = Plan::compile(&graph, &target).unwrap_or_else(|e| panic!("{name}: {e}"));
                let kernels: Vec<&str> = plan.run.iter().map(|launch| launch.shader.kernel.name).collect();
                assert!(kernels.contains(&kernel(&target)), "{name}: {kernels:?}");
                let Some(gpu) = device() else { continue };
                let network = Network::from_plan(gpu, plan).unwrap_or_else(|e| panic!("{name}: {e}"));
                network.poison().unwrap();
                let found = network.run(&given).unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
                match exact {
                    true => assert_equal(&name, &found, &expected),
                    false => harness::compare(&name, &found.to_f32(), &expected, 1e-3),
                }
            }
        }
    }
}

fn assert_equal(name: &str, found: &Tensor, expected: &Array) {
    let expected = harness::tensor(expected, DType::F16).to_f32();
    let found = found.to_f32();
    let wrong: Vec<usize> = (0..expected.len()).filter(|&i| found[i] != expected[i]).collect();
    if let Some(&i) = wrong.first() {
        panic!(
            "{name}: {} of {} differ, the first is {i}: {}, expected {}",
            wrong.len(),
            found.len(),
            found[i],
            expected[i]
        );
    }
}

/// Whole numbers from −2 to 2, or any from −1 to 1.
fn drawn(rng: &mut Rng, shape: &[usize], exact: bool) -> Array {
    match exact {
        true => Array::from_fn(shape, |_| rng.below(5) as f64 - 2.0),
        false => rng.array(shape),
    }
}

fn convolution(x: [usize; 4], w: [usize; 4], options: Conv2dOptions) {
    convolution_with(1, x, w, options);
}

fn convolution_with(spare: u32, x: [usize; 4], w: [usize; 4], options: Conv2dOptions) {
    for exact in [true, false] {
        let name = format!("conv2d {x:?} {w:?} {options:?}");
        let mut rng = Rng::new(&name);
        let (x, w, b) =
            (drawn(&mut rng, &x, exact), drawn(&mut rng, &w, exact), drawn(&mut rng, &w[..1], exact));
        Case { name, inputs: vec![(&x, false), (&w, true), (&b, true)], spare, forms: true }.check(
            |_| "conv2d_matrices",
            exact,
            |g, v| g.conv2d(v[0], v[1], Some(v[2]), options),
            |a| conv2d(&a[0], &a[1], Some(&a[2]), &options),
        );
    }
}

#[test]
fn convolutions() {
    convolution([1, 8, 8, 32], [32, 32, 3, 3], Conv2dOptions::padded(1));
    // Nothing fills a part: pixels, channels, depth.
    convolution([2, 7, 9, 20], [36, 20, 3, 3], Conv2dOptions::padded(1));
    convolution([1, 13, 11, 48], [17, 48, 3, 3], Conv2dOptions::padded(1).stride(2));
    convolution([1, 6, 5, 19], [21, 19, 2, 5], Conv2dOptions::padded(2).dilation(2));
    convolution([3, 5, 4, 18], [16, 18, 3, 1], Conv2dOptions { padding: [0, 2, 1, 0], ..Default::default() });
}

#[test]
fn pointwise_convolutions_and_linear_layers() {
    convolution([1, 1, 1, 16], [16, 16, 1, 1], Conv2dOptions::default());
    convolution([2, 9, 8, 64], [40, 64, 1, 1], Conv2dOptions::default());
    convolution([2, 5, 3, 34], [30, 34, 1, 1], Conv2dOptions::default().stride(2));
    convolution([77, 1, 1, 100], [70, 100, 1, 1], Conv2dOptions::default());
}

/// More workgroups than one, in both directions, for the largest part.
#[test]
fn convolutions_in_several_parts() {
    convolution([1, 17, 19, 24], [150, 24, 3, 3], Conv2dOptions::padded(1));
    convolution([300, 1, 1, 40], [140, 40, 1, 1], Conv2dOptions::default());
}

/// Enlarged on the way, with all that an epilogue can have.
#[test]
fn epilogues() {
    for (channels, exact) in [(32, true), (18, true), (24, false)] {
        let name = format!("conv2d with an epilogue, {channels}");
        let mut rng = Rng::new(&name);
        let x = drawn(&mut rng, &[2, 4, 5, 16], exact);
        let w = drawn(&mut rng, &[channels, 16, 3, 3], exact);
        let (b, t) = (drawn(&mut rng, &[channels], exact), drawn(&mut rng, &[2, 1, 1, channels], exact));
        let residual = drawn(&mut rng, &[2, 8, 10, channels], exact);
        let inputs = vec![(&x, false), (&w, true), (&b, true), (&t, false), (&residual, false)];
        Case { name, inputs, spare: 1, forms: true }.check(
            |_| "conv2d_matrices",
            exact,
            |g, v| {
                let x = g.upsample_nearest(v[0], 2)?;
                let y = g.conv2d(x, v[1], Some(v[2]), Conv2dOptions::padded(1))?;
                let y = g.add(y, v[3])?;
                let y = g.add(y, v[4])?;
                g.relu(y)
            },
            |a| {
                let big = Array::from_fn(&[2, 8, 10, 16], |i| a[0].at(&[i[0], i[1] / 2, i[2] / 2, i[3]]));
                let y = conv2d(&big, &a[1], Some(&a[2]), &Conv2dOptions::padded(1));
                Array::from_fn(&y.shape, |i| (y.at(i) + a[3].at(&[i[0], 0, 0, i[3]]) + a[4].at(i)).max(0.0))
            },
        );
    }
}

fn matmul(batch_a: &[usize], batch_b: &[usize], size: [usize; 3], options: Matmul) {
    matmul_with(1, batch_a, batch_b, size, options);
}

fn matmul_with(spare: u32, batch_a: &[usize], batch_b: &[usize], [m, k, n]: [usize; 3], options: Matmul) {
    let Matmul { transpose_a, transpose_b } = options;
    for exact in [true, false] {
        let name = format!("matmul {batch_a:?}×{batch_b:?} {m}×{k}×{n} {options:?}");
        let mut rng = Rng::new(&name);
        let shape = |batch: &[usize], size: [usize; 2], turned| {
            [batch, &if turned { [size[1], size[0]] } else { size }].concat()
        };
        let a = drawn(&mut rng, &shape(batch_a, [m, k], transpose_a), exact);
        let b = drawn(&mut rng, &shape(batch_b, [k, n], transpose_b), exact);
        Case { name, inputs: vec![(&a, false), (&b, false)], spare, forms: true }.check(
            |_| "matmul_matrices",
            exact,
            |g, v| g.matmul(v[0], v[1], options),
            |x| product(&x[0], &x[1], options),
        );
    }
}

fn in_all_directions(batch_a: &[usize], batch_b: &[usize], size: [usize; 3]) {
    for transpose_a in [false, true] {
        for transpose_b in [false, true] {
            matmul(batch_a, batch_b, size, Matmul { transpose_a, transpose_b });
        }
    }
}

#[test]
fn products() {
    in_all_directions(&[], &[], [16, 16, 16]);
    in_all_directions(&[], &[], [32, 64, 40]);
    // Nothing fills a part, or is a multiple of four.
    in_all_directions(&[2], &[2], [37, 41, 22]);
    in_all_directions(&[2, 1], &[1, 3], [33, 70, 35]);
}

/// Enough of them that the larger parts are chosen, whose ends lie within and past one.
#[test]
fn products_in_large_parts() {
    in_all_directions(&[130], &[], [20, 33, 19]);
    in_all_directions(&[40], &[40], [70, 18, 66]);
    matmul(&[33], &[33], [130, 32, 129], Matmul::default());
}

/// `mask` has so many samples and heads.
/// Whose products stay in f32 until they are put together.
#[test]
fn transposed_convolutions() {
    let double = ConvTranspose2dOptions { stride: [2; 2], ..Default::default() };
    let rows = [
        ([1, 9, 7, 32], [32, 12, 2, 2], double),
        ([2, 5, 8, 20], [20, 8, 4, 4], ConvTranspose2dOptions { padding: [1; 4], ..double }),
        ([1, 2, 2, 16], [16, 4, 3, 3], ConvTranspose2dOptions { output_padding: [1; 2], ..double }),
    ];
    for (x, w, options) in rows {
        for exact in [true, false] {
            let name = format!("conv_transpose2d {x:?} {w:?} {options:?}");
            let mut rng = Rng::new(&name);
            let bias = drawn(&mut rng, &w[1..2], exact);
            let (x, w) = (drawn(&mut rng, &x, exact), drawn(&mut rng, &w, exact));
            Case { name, inputs: vec![(&x, false), (&w, true), (&bias, true)], spare: 1, forms: true }.check(
                |_| "matmul_matrices",
                exact,
                |g, v| g.conv_transpose2d(v[0], v[1], Some(v[2]), options),
                |a| conv_transpose2d(&a[0], &a[1], Some(&a[2]), &options),
            );
        }
    }
}

fn attended(n: usize, lengths: [usize; 2], heads: [usize; 2], causal: bool, mask: Option<[usize; 2]>) {
    attended_with(1, n, lengths, heads, causal, mask);
}

fn attended_with(
    spare: u32,
    n: usize,
    [lq, lk]: [usize; 2],
    [heads, d]: [usize; 2],
    causal: bool,
    mask: Option<[usize; 2]>,
) {
    let name = format!("attention n {n}, {lq}×{lk}, {heads} heads of {d}, causal {causal}, mask {mask:?}");
    let mut rng = Rng::new(&name);
    // Wide enough that the softmax is not flat.
    let mut sequence = |l: usize| rng.array_in(&[n, l, heads * d], -2.0, 2.0);
    let (q, k, v) = (sequence(lq), sequence(lk), sequence(lk));
    let mask = mask.map(|[a, b]| {
        let mut mask = rng.array_in(&[a, b, lq, lk], -3.0, 3.0);
        mask.data.iter_mut().for_each(|m| *m = if rng.below(4) == 0 { f64::NEG_INFINITY } else { *m });
        // One query that sees nothing.
        mask.data[..lk].fill(f64::NEG_INFINITY);
        mask
    });
    let mut inputs = vec![(&q, false), (&k, false), (&v, false)];
    inputs.extend(mask.as_ref().map(|mask| (mask, false)));
    Case { name, inputs, spare, forms: true }.check(
        |target| kernel_of_attention(target, d),
        false,
        |g, x| {
            let options = AttentionOptions { causal, mask: x.get(3).copied(), scale: None };
            g.attention(x[0], x[1], x[2], heads, options)
        },
        |a| attention(&a[0], &a[1], &a[2], heads, (d as f64).powf(-0.5), causal, a.get(3)),
    );
}

/// Once through the keys where subgroups are all alike, and their threads share matrices evenly.
fn kernel_of_attention(target: &Target, head_size: usize) -> &'static str {
    let Matrices { sides, subgroup_size } = target.matrices.as_ref().expect("it was given");
    let alike =
        target.subgroup_size == *subgroup_size && (sides[0] * sides[0]).is_multiple_of(*subgroup_size);
    if alike && head_size.is_multiple_of(8) { "attention_subgroups" } else { "attention_matrices" }
}

/// Queries, keys and values side by side in one tensor.
#[test]
fn attention_of_projections() {
    for (keys, heads, bias, causal) in [
        (None, [2, 24], false, false),
        (Some(37), [2, 16], true, false),
        (None, [3, 20], true, true),
        (Some(33), [1, 20], false, false),
    ] {
        let case = Projected { n: 2, queries: 35, keys, channels: 40, heads, bias, causal };
        let (tensors, constants) = case.arrays();
        let tensors = tensors.iter().map(|array| (array, false));
        let inputs = tensors.chain(constants.iter().map(|array| (array, true))).collect();
        Case { name: case.name(), inputs, spare: 1, forms: false }.check(
            |target| kernel_of_attention(target, heads[1]),
            false,
            |g, x| case.build(g, x),
            |a| case.reference(a),
        );
    }
}

#[test]
fn attention_over_long_and_short_sequences() {
    attended(1, [16, 16], [1, 16], false, None);
    attended(2, [64, 77], [2, 40], false, None);
    attended(1, [70, 33], [3, 20], false, None);
    attended(1, [17, 130], [1, 64], false, None);
    attended(1, [33, 20], [1, 160], false, None);
}

#[test]
fn attention_that_hides_keys() {
    attended(1, [50, 50], [2, 32], true, None);
    attended(2, [19, 37], [2, 24], true, Some([2, 1]));
    attended(2, [70, 40], [2, 16], false, Some([1, 2]));
}

/// Where a driver makes subgroups smaller than they can be, workgroups have more of them than there are parts.
#[test]
fn subgroups_to_spare() {
    convolution_with(2, [1, 7, 9, 16], [20, 16, 3, 3], Conv2dOptions::padded(1));
    matmul_with(2, &[2], &[2], [37, 24, 22], Matmul::default());
    attended_with(2, 1, [20, 19], [2, 16], true, None);
    matmul_with(4, &[], &[], [33, 16, 17], Matmul { transpose_b: true, ..Default::default() });
}

//! Winograd's convolution as it is planned for GPUs: in squares of both sizes, with the products in every tile.

use aquatint::bench::network::Contents;
use aquatint::bench::workloads::published::Published;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{
    DType, DeviceClass, Graph, Network, Plan, Result, Target, Tensor, ValueId, passes, reference,
};

use crate::conv2d::conv2d;
use crate::harness::{self, Array, Rng};
use crate::shared::{as_gpu, forms};

/// The device, or a typical one if there is none: then plans are made and their kernels validated.
fn own() -> Target {
    harness::gpu().map_or_else(Target::typical, |gpu| gpu.target().clone())
}

/// As for software adapters: squares of 4 × 4 lose twice as much to rounding as plain sums.
fn tolerance(form: &str) -> f64 {
    if form.starts_with("winograd 4×4") { 3e-5 } else { harness::F32 }
}

/// An array as f32 has it.
fn rounded(array: &Array) -> Array {
    array.map(|v| f64::from(v as f32))
}

/// Inputs by name, those that are constant as weights.
type Inputs<'a> = [(&'a Array, bool)];

fn graph(inputs: &Inputs, build: &dyn Fn(&mut Graph, &[ValueId]) -> Result<ValueId>) -> Graph {
    let mut g = Graph::new();
    let values: Vec<ValueId> = inputs
        .iter()
        .enumerate()
        .map(|(i, (array, constant))| {
            let (name, tensor) = (format!("input{i}"), harness::tensor(array, DType::F32));
            match constant {
                true => g.weight(&name, tensor),
                false => g.input(&name, tensor.desc.shape.clone(), DType::F32),
            }
        })
        .collect();
    let y = build(&mut g, &values).unwrap();
    g.output("y", y);
    g
}

/// Runs a convolution in each form on `target`, and with a weight that the host brings to the points and one that a kernel does.
fn check_on(
    target: &Target,
    name: &str,
    inputs: &Inputs,
    build: &dyn Fn(&mut Graph, &[ValueId]) -> Result<ValueId>,
    expected: &Array,
) {
    let g = graph(inputs, build);
    let given: Vec<(String, Tensor)> = (inputs.iter().enumerate())
        .filter(|(_, (_, constant))| !constant)
        .map(|(i, (array, _))| (format!("input{i}"), harness::tensor(array, DType::F32)))
        .collect();
    let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut seen = [0, 0];
    for mappable in [target.mappable, false] {
        let target = Target { mappable, ..target.clone() };
        for (form, target) in forms(&g, &target, "winograd") {
            let name = format!("{name}, {form}");
            let squares = usize::from(form.starts_with("winograd 4×4"));
            let plan = Plan::compile(&g, &target).unwrap_or_else(|e| panic!("{name}: {e}"));
            let kernels: Vec<&str> = plan.run.iter().map(|launch| launch.shader.kernel.name).collect();
            let steps = ["winograd_source", "matmul_shared", "winograd_result"];
            assert!(kernels.chunks(3).all(|three| three == steps), "{name}: {kernels:?}");
            // The library's reference at the points takes its time.
            if seen[squares] == 0 && expected.data.len() < 10_000 {
                let optimised = passes::optimise(&g, &target).unwrap();
                let found = reference::run(&optimised, &given).unwrap();
                harness::compare(&format!("{name}, reference"), &found[0].to_vec(), expected, 1e-6);
            }
            seen[squares] += 1;
            let Some(gpu) = harness::gpu() else { continue };
            let network = Network::from_plan(gpu, plan).unwrap_or_else(|e| panic!("{name}: {e}"));
            network.poison().unwrap();
            let found = network.run(&given).unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
            harness::compare(&name, &found.to_f32(), expected, tolerance(&form));
        }
    }
    assert!(seen.into_iter().all(|forms| forms >= 2), "{name}: {seen:?} forms in squares of 2 × 2 and 4 × 4");
}

fn convolution_on(target: &Target, x: [usize; 4], w: [usize; 4], options: Conv2dOptions) {
    let name = format!("conv2d {x:?} {w:?} {options:?}");
    let mut rng = Rng::new(&name);
    let (x, w, b) = (rng.array(&x), rng.array(&w), rng.array(&w[..1]));
    let [x, w, b] = [x, w, b].map(|array| rounded(&array));
    let expected = conv2d(&x, &w, Some(&b), &options);
    let build = |g: &mut Graph, v: &[ValueId]| g.conv2d(v[0], v[1], Some(v[2]), options);
    check_on(target, &name, &[(&x, false), (&w, true), (&b, true)], &build, &expected);
}

fn convolution(x: [usize; 4], w: [usize; 4], options: Conv2dOptions) {
    convolution_on(&as_gpu(&own()), x, w, options);
}

#[test]
fn convolutions() {
    // Squares that are whole and that are cut off, channels that fill no tile, several samples.
    convolution([1, 8, 8, 16], [16, 16, 3, 3], Conv2dOptions::padded(1));
    convolution([2, 9, 11, 20], [36, 20, 3, 3], Conv2dOptions::padded(1));
    convolution([3, 7, 10, 8], [12, 8, 3, 3], Conv2dOptions::default());
    convolution([1, 6, 13, 12], [8, 12, 3, 3], Conv2dOptions::padded(2));
    // More workgroups than one, in both directions, for the largest tile.
    convolution([2, 33, 34, 36], [132, 36, 3, 3], Conv2dOptions::padded(1));
    // Hardly a square.
    convolution([1, 1, 5, 8], [8, 8, 3, 3], Conv2dOptions::padded(1));
    convolution([2, 3, 3, 8], [8, 8, 3, 3], Conv2dOptions::default());
}

#[test]
fn uneven_padding() {
    let options = Conv2dOptions { padding: [2, 0, 1, 3], ..Default::default() };
    convolution([1, 10, 11, 32], [28, 32, 3, 3], options);
    convolution([2, 5, 4, 12], [16, 12, 3, 3], Conv2dOptions { padding: [0, 1, 2, 0], ..Default::default() });
}

/// Where a binding holds a part of what lies between the steps.
#[test]
fn bands() {
    let target = Target { max_binding: 1 << 20, ..as_gpu(&own()) };
    let options = Conv2dOptions::padded(1);
    let g = {
        let [x, w] = [[2, 43, 51, 32], [40, 32, 3, 3]].map(|shape| Array::from_fn(&shape, |_| 1.0));
        graph(&[(&x, false), (&w, true)], &|g, v| g.conv2d(v[0], v[1], None, options))
    };
    for (form, target) in forms(&g, &target, "winograd") {
        let plan = Plan::compile(&g, &target).unwrap();
        assert!(plan.run.len() > 6 && plan.scratch_bytes() <= 1 << 20, "{form}: {} launches", plan.run.len());
    }
    convolution_on(&target, [2, 43, 51, 32], [40, 32, 3, 3], options);
}

/// Enlarged on the way, with all that an epilogue can have.
#[test]
fn epilogues() {
    let mut rng = Rng::new("winograd with an epilogue");
    let (x, w) = (rng.array(&[2, 4, 5, 16]), rng.array(&[20, 16, 3, 3]));
    let (b, t, r) = (rng.array(&[20]), rng.array(&[2, 1, 1, 20]), rng.array(&[2, 8, 10, 20]));
    let [x, w, b, t, r] = [x, w, b, t, r].map(|array| rounded(&array));
    let options = Conv2dOptions::padded(1);
    let large = Array::from_fn(&[2, 8, 10, 16], |i| x.at(&[i[0], i[1] / 2, i[2] / 2, i[3]]));
    let plain = conv2d(&large, &w, Some(&b), &options);
    let silu = |x: f64| x / (1.0 + (-x).exp());

    let expected = Array::from_fn(&plain.shape, |i| silu(plain.at(i) + t.at(&[i[0], 0, 0, i[3]]) + r.at(i)));
    let build = |g: &mut Graph, v: &[ValueId]| {
        let x = g.upsample_nearest(v[0], 2)?;
        let y = g.conv2d(x, v[1], Some(v[2]), options)?;
        let y = g.add(y, v[3])?;
        let y = g.add(y, v[4])?;
        g.silu(y)
    };
    let inputs = [(&x, false), (&w, true), (&b, true), (&t, false), (&r, false)];
    check_on(&as_gpu(&own()), "sums, enlarged", &inputs, &build, &expected);

    let expected = Array::from_fn(&plain.shape, |i| plain.at(i).max(0.0) * r.at(i));
    let build = |g: &mut Graph, v: &[ValueId]| {
        let x = g.upsample_nearest(v[0], 2)?;
        let y = g.conv2d(x, v[1], Some(v[2]), options)?;
        let y = g.relu(y)?;
        g.mul(y, v[3])
    };
    let inputs = [(&x, false), (&w, true), (&b, true), (&r, false)];
    check_on(&as_gpu(&own()), "a gate, enlarged", &inputs, &build, &expected);
}

/// A sample is the same to the bit, with however many others and in whatever tile.
#[test]
fn samples_do_not_depend_on_each_other() {
    let Some(gpu) = harness::gpu() else { return };
    let target = as_gpu(gpu.target());
    let mut rng = Rng::new("winograd, samples");
    let (x, w) = (rng.array(&[5, 13, 10, 24]), rng.array(&[40, 24, 3, 3]));
    let one = Array { shape: vec![1, 13, 10, 24], data: x.data[..13 * 10 * 24].to_vec() };
    let run = |x: &Array| -> Vec<(String, Vec<u32>)> {
        let build = |g: &mut Graph, v: &[ValueId]| g.conv2d(v[0], v[1], None, Conv2dOptions::padded(1));
        let g = graph(&[(x, false), (&w, true)], &build);
        let given = harness::tensor(x, DType::F32);
        let bits = |(form, target): (String, Target)| {
            let network = Network::from_plan(gpu, Plan::compile(&g, &target).unwrap()).unwrap();
            network.poison().unwrap();
            let found = network.run(&[("input0", &given)]).unwrap().remove(0).to_f32();
            (form, found[..13 * 10 * 40].iter().map(|v| v.to_bits()).collect())
        };
        forms(&g, &target, "winograd").into_iter().map(bits).collect()
    };
    let (alone, together) = (run(&one), run(&x));
    for side in ["winograd 2×2", "winograd 4×4"] {
        let all = alone.iter().chain(&together).filter(|(form, _)| form.starts_with(side));
        let all: Vec<_> = all.collect();
        assert!(all.len() >= 4, "{side}: {} forms", all.len());
        for (form, bits) in &all {
            assert!(*bits == all[0].1, "{form} and {}", all[0].0);
        }
    }
}

/// What the way cannot do is not offered: strides, dilation, groups, other kernels, odd channels, f16, software adapters.
#[test]
fn what_is_not_offered() {
    let target = Target::typical();
    let count = |dtype, x: [usize; 4], w: [usize; 4], options, target: &Target| {
        let mut g = Graph::new();
        let x = g.input("x", x, dtype);
        let numbers = vec![0.5; w.iter().product()];
        let w = g.weight("w", Tensor::from_f32(w, &numbers).to_dtype(dtype));
        let y = g.conv2d(x, w, None, options).unwrap();
        g.output("y", y);
        forms(&g, target, "winograd").len()
    };
    let (x, w, padded) = ([1, 9, 9, 16], [16, 16, 3, 3], Conv2dOptions::padded(1));
    assert_eq!(count(DType::F32, x, w, padded, &target), 8);
    let small = Target { max_invocations: 256, shared_memory: 16 << 10, ..target.clone() };
    assert_eq!(count(DType::F32, x, w, padded, &small), 6);
    let none = Target { shared_memory: 4 << 10, ..target.clone() };
    for (dtype, x, w, options, target) in [
        (DType::F16, x, w, padded, &target),
        (DType::F32, x, w, padded.stride(2), &target),
        (DType::F32, x, w, padded.dilation(2), &target),
        (DType::F32, x, [16, 8, 3, 3], padded.groups(2), &target),
        (DType::F32, x, [16, 16, 1, 1], padded, &target),
        (DType::F32, x, [16, 16, 5, 5], padded, &target),
        (DType::F32, x, [18, 16, 3, 3], padded, &target),
        (DType::F32, [1, 9, 9, 18], [16, 18, 3, 3], padded, &target),
        (DType::F32, [1, 9, 9, 4], [16, 4, 3, 3], padded, &target),
        (DType::F32, x, w, padded, &none),
        (DType::F32, x, w, padded, &Target { class: DeviceClass::Cpu, ..target.clone() }),
    ] {
        assert_eq!(count(dtype, x, w, options, target), 0, "{dtype} {x:?} {w:?} {options:?}");
    }
}

/// What it does to a large network, by the plan: Stable Diffusion 1.5's UNet at 64×64, two samples, in f32.
#[test]
fn the_unet_of_stable_diffusion() {
    let made = Published::find("unet_64").make(Contents::Hollow, 2, DType::F32).unwrap();
    let plan = |spare| Plan::compile(&made.graph, &Target { spare, ..Target::typical() }).unwrap();
    let spared = Target::typical().spare;
    let [without, with] = [0, spared].map(plan);
    let of = |plan: &Plan, name: &str| plan.run.iter().filter(|d| d.shader.kernel.name == name).count();
    assert_eq!(of(&without, "winograd_source"), 0);
    let convolutions = of(&with, "winograd_source");
    assert_eq!(convolutions, of(&with, "winograd_result"), "a band each");
    // Of the 49 that it has of 3×3 and stride one all but the first, the last and those at 8×8.
    assert_eq!(convolutions, 33);

    let scratch = [&without, &with].map(Plan::scratch_bytes);
    let resident = [&without, &with].map(Plan::resident_bytes);
    assert!(scratch[1] <= scratch[0] + (100 << 20), "{scratch:?} bytes of scratch");
    assert!(resident[1] <= resident[0] + spared + (100 << 20), "{resident:?} bytes held");
    // Operations that are done: of squares of m × m results, (m + 2)² · m⁻² products in place of 9.
    let mut done = [0, 0];
    let mut of_two = 0;
    let mut seconds = [0.0, 0.0];
    for (i, plan) in [&without, &with].into_iter().enumerate() {
        let mut squares = None;
        for launch in &plan.run {
            let kernel = &launch.shader.kernel;
            let variant = kernel.variant();
            if kernel.name == "winograd_source" {
                let two = variant.contains("results=2");
                of_two += usize::from(two);
                squares = Some(if two { 2.25 } else { 4.0 });
            }
            let fewer = squares.filter(|_| kernel.name == "matmul_shared" && launch.op == "Conv2d");
            let flops = launch.flops as f64 / fewer.unwrap_or(1.0);
            done[i] += flops as u64;
            // As an H200 does: products at 30 TFLOP/s, plain convolutions and what else there is at 24, all other steps at
            // two thirds of 4.1 TB/s, a launch in 3 µs.
            let bytes = launch.bytes as f64;
            let rate = if kernel.name == "matmul_shared" { 30e12 } else { 24e12 };
            seconds[i] += (flops / rate).max(bytes / 2.7e12) + 3e-6;
            if kernel.name == "winograd_result" {
                squares = None;
            }
        }
    }
    // Half of all are in these convolutions, and 36 % of those are left.
    assert!(10 * done[1] < 7 * done[0], "{done:?} operations");
    println!(
        "figure winograd.unet: {convolutions} convolutions, {of_two} of them in squares of 2 × 2; {done:?} operations; {scratch:?} bytes of scratch; {resident:?} bytes held; \
         modelled seconds {seconds:.4?}"
    );
}

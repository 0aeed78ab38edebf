use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::plan::Dispatch;
use aquatint::{DType, DeviceClass, Graph, Network, Plan, Target, passes, reference};
use proptest::prelude::*;

use crate::harness::{self, Array, Case, Rng};

/// Cross-correlation by its definition. `x`: [n, h, w, c], `w`: [c_out, c_in / groups, kh, kw].
pub fn conv2d(x: &Array, w: &Array, bias: Option<&Array>, o: &Conv2dOptions) -> Array {
    let [n, height, width, _] = x.shape[..] else { panic!() };
    let [c_out, c_in, kh, kw] = w.shape[..] else { panic!() };
    let [top, left, bottom, right] = o.padding;
    let size = |size: usize, pad: usize, k: usize, i: usize| {
        (size + pad - o.dilation[i] * (k - 1) - 1) / o.stride[i] + 1
    };
    let shape = [n, size(height, top + bottom, kh, 0), size(width, left + right, kw, 1), c_out];
    Array::from_fn(&shape, |i| {
        let mut sum = bias.map_or(0.0, |b| b.at(&[i[3]]));
        let first = i[3] / (c_out / o.groups) * c_in;
        for ky in 0..kh {
            for kx in 0..kw {
                let y = (i[1] * o.stride[0] + ky * o.dilation[0]).wrapping_sub(top);
                let x_at = (i[2] * o.stride[1] + kx * o.dilation[1]).wrapping_sub(left);
                if y < height && x_at < width {
                    let pixel = &x.data[((i[0] * height + y) * width + x_at) * x.shape[3] + first..][..c_in];
                    let taps = w.data[i[3] * c_in * kh * kw..].iter().skip(ky * kw + kx).step_by(kh * kw);
                    sum += pixel.iter().zip(taps).map(|(x, w)| x * w).sum::<f64>();
                }
            }
        }
        sum
    })
}

fn check(x: [usize; 4], w: [usize; 4], options: Conv2dOptions, bias: bool) {
    check_within(harness::F32, x, w, options, bias);
}

fn check_within(tolerance: f64, x: [usize; 4], w: [usize; 4], options: Conv2dOptions, bias: bool) {
    let name = format!("conv2d {x:?} {w:?} {options:?} bias {bias}");
    let mut rng = Rng::new(&name);
    let (x, w) = (rng.array(&x), rng.array(&w));
    let b = rng.array(&w.shape[..1]);
    let mut case = Case::new(name).input(&x).weight(&w).tolerance(tolerance, harness::F16);
    if bias {
        case = case.weight(&b);
    }
    case.check(
        |g, v| g.conv2d(v[0], v[1], v.get(2).copied(), options),
        |a| conv2d(&a[0], &a[1], a.get(2), &options),
    );
}

#[test]
fn sizes_of_real_networks() {
    check([1, 8, 8, 96], [96, 96, 3, 3], Conv2dOptions::padded(1), true);
    check([2, 16, 16, 48], [96, 48, 3, 3], Conv2dOptions::padded(1).stride(2), true);
    check([2, 32, 32, 1], [16, 1, 3, 3], Conv2dOptions::padded(1), true);
    check([1, 32, 32, 16], [1, 16, 3, 3], Conv2dOptions::padded(1), true);
    check([1, 15, 15, 3], [24, 3, 7, 7], Conv2dOptions::padded(3).stride(2), false);
    check([1, 64, 64, 3], [64, 3, 7, 7], Conv2dOptions::padded(3).stride(2), true);
    check([3, 20, 20, 20], [20, 20, 3, 3], Conv2dOptions::padded(1), true);
    check([1, 13, 19, 32], [17, 32, 3, 3], Conv2dOptions::padded(1), true);
}

#[test]
fn pointwise() {
    check([1, 7, 7, 64], [128, 64, 1, 1], Conv2dOptions::default(), true);
    check([3, 1, 1, 7], [5, 7, 1, 1], Conv2dOptions::default(), true);
    check([2, 5, 3, 12], [9, 12, 1, 1], Conv2dOptions::default().stride(2), false);
}

#[test]
fn depthwise_and_grouped() {
    check([2, 9, 9, 32], [32, 1, 3, 3], Conv2dOptions::padded(1).groups(32), true);
    check([1, 9, 9, 12], [12, 1, 5, 5], Conv2dOptions::padded(2).groups(12).stride(2), true);
    check([1, 6, 7, 5], [5, 1, 3, 3], Conv2dOptions::padded(1).groups(5), true);
    check([1, 14, 15, 64], [64, 1, 3, 3], Conv2dOptions::padded(1).groups(64), true);
    check([2, 23, 17, 32], [32, 1, 5, 5], Conv2dOptions::padded(2).groups(32).stride(2), true);
    check([1, 20, 20, 48], [48, 1, 7, 7], Conv2dOptions::padded(3).groups(48), true);
    check([1, 20, 20, 48], [48, 1, 3, 3], Conv2dOptions::padded(6).groups(48).dilation(6), true);
    check([1, 6, 6, 8], [16, 4, 3, 3], Conv2dOptions::padded(1).groups(2), true);
    check([1, 6, 6, 6], [12, 2, 3, 3], Conv2dOptions::padded(1).groups(3).dilation(2), false);
    check([1, 6, 6, 4], [8, 1, 3, 3], Conv2dOptions::padded(1).groups(4), true);
    check([2, 14, 14, 64], [96, 16, 3, 3], Conv2dOptions::padded(1).groups(4), true);
    check([1, 15, 13, 128], [128, 4, 3, 3], Conv2dOptions::padded(1).groups(32).stride(2), false);
    check([1, 16, 16, 64], [64, 32, 1, 1], Conv2dOptions::default().groups(2), true);
}

#[test]
fn uneven_padding_and_rectangles() {
    let options = Conv2dOptions { stride: [2, 1], padding: [0, 2, 1, 0], dilation: [1, 2], groups: 1 };
    check([2, 7, 11, 5], [6, 5, 2, 3], options, true);
    check([1, 1, 1, 1], [1, 1, 1, 1], Conv2dOptions::default(), true);
    check([1, 1, 40, 4], [4, 4, 1, 9], Conv2dOptions { padding: [0, 4, 0, 4], ..Default::default() }, true);
}

#[test]
fn linear() {
    let mut rng = Rng::new("linear");
    for (rows, k, m) in [(1, 1, 1), (3, 17, 9), (64, 64, 192), (5, 96, 37)] {
        let (x, w, b) = (rng.array(&[rows, k]), rng.array(&[m, k]), rng.array(&[m]));
        Case::new(format!("linear {rows} {k} {m}")).input(&x).weight(&w).weight(&b).check(
            |g, v| g.linear(v[0], v[1], Some(v[2])),
            |a| {
                Array::from_fn(&[rows, m], |i| {
                    a[2].at(&[i[1]]) + (0..k).map(|j| a[0].at(&[i[0], j]) * a[1].at(&[i[1], j])).sum::<f64>()
                })
            },
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_shape(
        n in 1usize..3, h in 1usize..14, w in 1usize..14, kh in 1usize..5, kw in 1usize..5,
        c_in in 1usize..11, c_out in 1usize..20, groups in 1usize..4,
        stride in prop::array::uniform2(1usize..4), dilation in prop::array::uniform2(1usize..3),
        padding in prop::array::uniform4(0usize..4), bias: bool,
    ) {
        let options = Conv2dOptions { stride, padding, dilation, groups };
        prop_assume!(h + padding[0] + padding[2] > dilation[0] * (kh - 1));
        prop_assume!(w + padding[1] + padding[3] > dilation[1] * (kw - 1));
        check([n, h, w, c_in * groups], [c_out * groups, c_in, kh, kw], options, bias);
    }
}

/// Where a software adapter takes Winograd's way: squares that are cut off, several samples, channels that fill no tile,
/// more squares than one band has. Rounding costs it about twice what it costs a plain sum, and the worst of 10⁵ results is
/// some six deviations out.
#[test]
fn three_by_three_in_squares() {
    let check = |x, w, options, bias| check_within(3e-5, x, w, options, bias);
    check([1, 8, 8, 64], [64, 64, 3, 3], Conv2dOptions::padded(1), true);
    check([1, 30, 33, 64], [68, 64, 3, 3], Conv2dOptions::padded(1), true);
    check([3, 19, 18, 36], [52, 36, 3, 3], Conv2dOptions::padded(1), false);
    check([2, 17, 22, 48], [80, 48, 3, 3], Conv2dOptions::default(), true);
    check(
        [1, 40, 41, 32],
        [32, 32, 3, 3],
        Conv2dOptions { padding: [2, 0, 1, 3], ..Default::default() },
        true,
    );
    check([2, 246, 250, 16], [16, 16, 3, 3], Conv2dOptions::padded(1), true);
}

/// As [`three_by_three_in_squares`], in the smaller squares that are left where there is little to spare, with a weight that
/// the host takes to the points and with one that a kernel does. They round hardly more than plain sums.
#[test]
fn three_by_three_in_squares_of_two() {
    let uneven = Conv2dOptions { padding: [2, 0, 1, 3], ..Default::default() };
    for (x, w, options) in [
        ([1, 8, 8, 64], [64, 64, 3, 3], Conv2dOptions::padded(1)),
        ([1, 30, 33, 64], [68, 64, 3, 3], Conv2dOptions::padded(1)),
        ([3, 19, 18, 36], [52, 36, 3, 3], Conv2dOptions::padded(1)),
        ([2, 17, 22, 48], [80, 48, 3, 3], Conv2dOptions::default()),
        ([1, 40, 41, 64], [64, 64, 3, 3], uneven),
        ([1, 8, 8, 512], [132, 512, 3, 3], Conv2dOptions::padded(1)),
        ([1, 153, 150, 48], [48, 48, 3, 3], Conv2dOptions::padded(1)),
    ] {
        let name = format!("conv2d {x:?} {w:?} {options:?} in squares of 2×2");
        let mut rng = Rng::new(&name);
        let (x, w) = (rng.array(&x), rng.array(&w));
        let bias = rng.array(&w.shape[..1]);
        let tensors = [&x, &w, &bias].map(|array| harness::tensor(array, DType::F32));
        let [x, w, bias] = [x, w, bias].map(|array| array.map(|v| f64::from(v as f32)));
        let mut g = Graph::new();
        let input = g.input("x", x.shape.clone(), DType::F32);
        let [weight, of_bias] = [1, 2].map(|i| g.weight("w", tensors[i].clone()));
        let y = g.conv2d(input, weight, Some(of_bias), options).unwrap();
        g.output("y", y);
        let expected = conv2d(&x, &w, Some(&bias), &options);
        // What the larger squares take, less one byte.
        let spare = (4 * w.shape[0] * w.shape[1] * (36 - 9) - 1) as u64;
        let device = harness::gpu();
        let own = device.map_or_else(Target::typical, |gpu| gpu.target().clone());
        for mappable in [own.mappable, false] {
            let target = Target { class: DeviceClass::Cpu, spare, mappable, ..own.clone() };
            let plan = Plan::compile(&g, &target).unwrap();
            let of_two = |launch: &Dispatch| launch.shader.kernel.variant().contains("results=2 points=4");
            assert_eq!(plan.run.iter().filter(|launch| of_two(launch)).count() % 2, 0, "{name}");
            assert!(plan.run.iter().any(of_two), "{name}: {:?}", plan.run[0].shader.kernel);
            // The library's reference at the points takes its time.
            if expected.data.len() < 20_000 {
                let rewritten = passes::optimise(&g, &target).unwrap();
                let found = reference::run(&rewritten, &[("x", &tensors[0])]).unwrap();
                harness::compare(&format!("{name}, reference"), &found[0].to_vec(), &expected, 1e-6);
            }
            let Some(gpu) = device else { continue };
            let network = Network::from_plan(gpu, plan).unwrap();
            network.poison().unwrap();
            let found = network.run(&[("x", &tensors[0])]).unwrap().remove(0);
            harness::compare(&name, &found.to_f32(), &expected, harness::F32);
        }
    }
}

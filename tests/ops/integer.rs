//! Integers on a grid, and sums of their products: every result exact.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::quantize::{Per, Quantize};
use aquatint::ops::typed::Function;
use aquatint::{DType, Graph, Network, Plan, Result, Tensor, ValueId};

use crate::harness::{Rng, examined, gpu};
use crate::shared::as_gpu;

/// What the device makes of inputs; `None` without one.
fn run(
    inputs: &[Tensor],
    build: impl FnOnce(&mut Graph, &[ValueId]) -> Result<ValueId>,
) -> Option<(Vec<usize>, Vec<u32>)> {
    let gpu = gpu()?;
    let mut graph = Graph::new();
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("input{i}")).collect();
    let ids: Vec<ValueId> = names
        .iter()
        .zip(inputs)
        .map(|(name, t)| graph.input(name, t.desc.shape.clone(), t.desc.dtype))
        .collect();
    let y = build(&mut graph, &ids).unwrap();
    graph.output("y", y);
    let network = Network::new(gpu, &graph).unwrap();
    network.poison().unwrap();
    let given: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(inputs).collect();
    let y = network.run(&given).unwrap().remove(0);
    examined(gpu, "integer", &graph, &given);
    // As it is planned for GPUs: the same bits.
    let plan = Plan::compile(&graph, &as_gpu(gpu.target())).unwrap();
    let other = Network::from_plan(gpu, plan).unwrap();
    other.poison().unwrap();
    assert!(other.run(&given).unwrap().remove(0).bytes[..] == y.bytes[..], "as for a GPU: {:?}", y.desc);
    let words = y.bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap()));
    Some((y.desc.shape.to_vec(), words.collect()))
}

fn integers((shape, words): (Vec<usize>, Vec<u32>)) -> (Vec<usize>, Vec<i32>) {
    (shape, words.into_iter().map(|w| w as i32).collect())
}

/// The place of the scale of element `i`, and how many scales there are.
fn place(shape: &[usize], per: Per, i: usize) -> (usize, Vec<usize>) {
    let mut at = vec![0; shape.len()];
    let mut rest = i;
    for d in (0..shape.len()).rev() {
        at[d] = rest % shape[d];
        rest /= shape[d];
    }
    match per {
        Per::Tensor => (0, vec![1]),
        Per::Axis(a) => (at[a], vec![shape[a]]),
        Per::Block { axis, size } => {
            let mut dims = shape.to_vec();
            dims[axis] = dims[axis].div_ceil(size);
            at[axis] /= size;
            (at.iter().zip(&dims).fold(0, |k, (&i, &n)| k * n + i), dims)
        }
    }
}

const SHAPES: [(&[usize], Per); 7] = [
    (&[257], Per::Tensor),
    (&[2, 3, 5, 7], Per::Tensor),
    (&[2, 3, 5, 7], Per::Axis(1)),
    (&[3, 9], Per::Axis(1)),
    (&[4, 1, 6], Per::Axis(0)),
    (&[2, 7, 3], Per::Block { axis: 1, size: 3 }),
    (&[5, 8], Per::Block { axis: 1, size: 4 }),
];

/// Scales and zero points, and numbers of which many lie on, or next to, the middle between two points.
#[test]
fn numbers_to_the_grid_and_back() {
    let mut rng = Rng::new("quantize");
    for (shape, per) in SHAPES {
        for (low, high) in [(0, 255), (-128, 127), (0, 65535), (-32768, 32767)] {
            for points in [false, true] {
                let count: usize = shape.iter().product();
                let dims = place(shape, per, 0).1;
                let scales: Vec<f32> =
                    (0..dims.iter().product()).map(|_| rng.uniform(1e-3, 3.0) as f32).collect();
                let zeros: Vec<i32> =
                    scales.iter().map(|_| low + rng.below((high - low + 1) as usize) as i32).collect();
                let x: Vec<f32> = (0..count)
                    .map(|i| {
                        let s = scales[place(shape, per, i).0];
                        let half =
                            rng.below(2 * (high - low) as usize) as f32 / 2.0 - (high - low) as f32 / 2.0;
                        match rng.below(4) {
                            0 => half * s,
                            1 => f32::from_bits((half * s).to_bits() + 1),
                            2 => f32::from_bits((half * s).to_bits().saturating_sub(1)),
                            _ => rng.uniform(-1e5, 1e5) as f32,
                        }
                    })
                    .collect();
                let scale = Tensor::from_f32(dims.clone(), &scales);
                let zero = Tensor::from_i32(dims, &zeros);
                for dtype in [DType::F32, DType::F16] {
                    if dtype == DType::F16 && !gpu().is_some_and(|g| g.target().f16) {
                        continue;
                    }
                    let given = Tensor::from_f32(shape, &x).to_dtype(dtype);
                    let stored = given.to_f32();
                    let mut inputs = vec![given, scale.clone()];
                    inputs.extend(points.then(|| zero.clone()));
                    let options = Quantize { per, low, high, times: false, back: false };
                    let found = run(&inputs, |g, v| g.quantize(v[0], v[1], v.get(2).copied(), options));
                    let Some(found) = found else { return };
                    let (found_shape, found) = integers(found);
                    assert_eq!(found_shape, shape);
                    for i in 0..count {
                        let k = place(shape, per, i).0;
                        let point = if points { zeros[k] } else { 0 };
                        // f16 has no numbers beyond 65504 but infinity.
                        let steps = (stored[i] / scales[k]).round_ties_even().clamp(-1e9, 1e9) as i64;
                        let expected = (steps + i64::from(point)).clamp(low.into(), high.into());
                        assert_eq!(
                            i64::from(found[i]),
                            expected,
                            "{} by {} at {i} of {shape:?}, {per:?}",
                            stored[i],
                            scales[k]
                        );
                    }
                }
                // Rounded to the grid in one go: the numbers that the integers stand for.
                let mut inputs = vec![Tensor::from_f32(shape, &x), scale.clone()];
                inputs.extend(points.then(|| zero.clone()));
                let options = Quantize { per, low, high, times: false, back: false };
                let both = [false, true].map(|back| {
                    let options = Quantize { back, ..options.clone() };
                    run(&inputs, |g, v| g.quantize(v[0], v[1], v.get(2).copied(), options))
                });
                let [Some((_, steps)), Some((_, numbers))] = both else { return };
                for (i, (&step, &number)) in steps.iter().zip(&numbers).enumerate() {
                    let k = place(shape, per, i).0;
                    let point = if points { zeros[k] } else { 0 };
                    let expected = (step as i32 - point) as f32 * scales[k];
                    assert_eq!(f32::from_bits(number), expected, "at {i} of {shape:?}, {per:?}");
                }
                let whole: Vec<i32> =
                    (0..count).map(|_| low + rng.below((high - low + 1) as usize) as i32).collect();
                let mut inputs = vec![Tensor::from_i32(shape, &whole), scale];
                inputs.extend(points.then_some(zero));
                let found = run(&inputs, |g, v| g.dequantize(v[0], v[1], v.get(2).copied(), per));
                let Some((_, found)) = found else { return };
                for i in 0..count {
                    let k = place(shape, per, i).0;
                    let point = if points { zeros[k] } else { 0 };
                    let expected = (whole[i] - point) as f32 * scales[k];
                    assert_eq!(f32::from_bits(found[i]), expected, "at {i} of {shape:?}, {per:?}");
                }
            }
        }
    }
}

/// Sums of products by a factor.
#[test]
fn sums_to_the_grid() {
    let mut rng = Rng::new("requantize");
    let sums: Vec<i32> = (0..3 * 77).map(|_| rng.below(1 << 26) as i32 - (1 << 25)).collect();
    let factors: Vec<f32> = (0..77).map(|_| rng.uniform(1e-7, 1e-5) as f32).collect();
    let points: Vec<i32> = (0..77).map(|_| rng.below(256) as i32).collect();
    let inputs =
        [Tensor::from_i32([3, 77], &sums), Tensor::from_f32([77], &factors), Tensor::from_i32([77], &points)];
    let options = Quantize { per: Per::Axis(1), low: 0, high: 255, times: true, back: false };
    let Some(found) = run(&inputs, |g, v| g.quantize(v[0], v[1], Some(v[2]), options)) else { return };
    for (i, found) in integers(found).1.into_iter().enumerate() {
        let k = i % 77;
        let expected = (sums[i] as f32 * factors[k]).round_ties_even() as i32 + points[k];
        assert_eq!(found, expected.clamp(0, 255), "{} by {}", sums[i], factors[k]);
    }
}

/// Bit by bit as the processor divides.
#[test]
fn quotients_are_those_of_ieee_754() {
    let mut rng = Rng::new("quotient");
    let number = |rng: &mut Rng, exponents: u32| {
        let exponent = 127 - exponents / 2 + rng.below(exponents as usize) as u32;
        let significand = match rng.below(3) {
            0 => rng.below(8) as u32,
            1 => 0x7f_ffff - rng.below(8) as u32,
            _ => rng.below(1 << 23) as u32,
        };
        f32::from_bits((rng.below(2) as u32) << 31 | exponent << 23 | significand)
    };
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        a.push(number(&mut rng, 100));
        b.push(number(&mut rng, 100));
    }
    a.extend([0.0, -0.0, 1.0, 7.0, 255.0]);
    b.extend([3.0, 3.0, 255.0, 7.0, 0.1]);
    let inputs = [Tensor::from_f32([a.len()], &a), Tensor::from_f32([b.len()], &b)];
    let Some((_, found)) = run(&inputs, |g, v| g.typed(Function::Quotient, v)) else { return };
    for (i, &found) in found.iter().enumerate() {
        let expected = a[i] / b[i];
        assert!(
            found == expected.to_bits() || expected == 0.0,
            "{} / {} is {}, found {}",
            a[i],
            b[i],
            expected,
            f32::from_bits(found)
        );
    }
}

#[test]
fn convolutions() {
    let mut rng = Rng::new("conv2d integer");
    // n, h, w, c, kernel, outputs, groups, stride, dilation, padding
    type Row = ([usize; 4], [usize; 2], usize, usize, [usize; 2], [usize; 2], [usize; 4]);
    let rows: [Row; 9] = [
        ([2, 7, 9, 3], [3, 3], 8, 1, [1, 1], [1, 1], [1, 1, 1, 1]),
        ([1, 5, 6, 4], [2, 3], 5, 1, [2, 1], [1, 2], [0, 2, 1, 0]),
        ([1, 8, 8, 6], [3, 3], 6, 6, [1, 2], [2, 1], [2, 0, 2, 3]),
        ([2, 4, 4, 8], [1, 1], 12, 1, [1, 1], [1, 1], [0; 4]),
        ([1, 9, 5, 8], [3, 2], 16, 2, [2, 2], [1, 1], [1, 0, 0, 1]),
        ([1, 1, 1, 1], [1, 1], 1, 1, [1, 1], [1, 1], [0; 4]),
        ([1, 6, 6, 65], [3, 3], 4, 1, [1, 1], [1, 1], [1; 4]),
        ([2, 5, 19, 8], [3, 3], 40, 1, [1, 1], [1, 1], [1; 4]),
        ([1, 3, 21, 12], [1, 3], 84, 2, [1, 2], [1, 1], [0, 1, 0, 1]),
    ];
    for (shape, kernel, outputs, groups, stride, dilation, padding) in rows {
        let [n, h, w, c] = shape;
        let each = c / groups;
        // Large enough that f32 would not hold the sums, and that some wrap.
        let wide = if c == 65 { 1 << 17 } else { 511 };
        let mut draw = |count: usize| -> Vec<i32> {
            (0..count).map(|_| rng.below(2 * wide) as i32 - wide as i32).collect()
        };
        let (x, weight) = (draw(n * h * w * c), draw(kernel[0] * kernel[1] * each * outputs));
        let inputs =
            [Tensor::from_i32(shape, &x), Tensor::from_i32([kernel[0], kernel[1], each, outputs], &weight)];
        let options = Conv2dOptions { stride, padding, dilation, groups };
        let Some(found) = run(&inputs, |g, v| g.conv2d_integer(v[0], v[1], options)) else { return };
        let (found_shape, found) = integers(found);
        let extent = |i: usize, size: usize| {
            (size + padding[i] + padding[i + 2] - dilation[i] * (kernel[i] - 1) - 1) / stride[i] + 1
        };
        let (oh, ow) = (extent(0, h), extent(1, w));
        assert_eq!(found_shape, [n, oh, ow, outputs]);
        for (i, &found) in found.iter().enumerate() {
            let (o, px, py, b) =
                (i % outputs, i / outputs % ow, i / outputs / ow % oh, i / outputs / ow / oh);
            let mut sum = 0i32;
            for j in 0..kernel[0] {
                for k in 0..kernel[1] {
                    let v = (py * stride[0] + j * dilation[0]).checked_sub(padding[0]).filter(|&v| v < h);
                    let u = (px * stride[1] + k * dilation[1]).checked_sub(padding[1]).filter(|&u| u < w);
                    let (Some(v), Some(u)) = (v, u) else { continue };
                    for l in 0..each {
                        let channel = o / (outputs / groups) * each + l;
                        let product = x[((b * h + v) * w + u) * c + channel]
                            .wrapping_mul(weight[((j * kernel[1] + k) * each + l) * outputs + o]);
                        sum = sum.wrapping_add(product);
                    }
                }
            }
            assert_eq!(found, sum, "element {i} of {shape:?} by {kernel:?}, {options:?}");
        }
    }
}

#[test]
fn matrix_products() {
    let mut rng = Rng::new("matmul integer");
    for (batch, m, k, n) in
        [(1, 1, 1, 1), (3, 5, 7, 4), (2, 9, 300, 13), (6, 4, 3, 8), (2, 67, 40, 68), (1, 130, 24, 132)]
    {
        let mut draw =
            |count: usize| -> Vec<i32> { (0..count).map(|_| rng.below(511) as i32 - 255).collect() };
        let (a, b) = (draw(batch * m * k), draw(batch * k * n));
        let inputs = [Tensor::from_i32([batch, m, k], &a), Tensor::from_i32([batch, k, n], &b)];
        let Some(found) = run(&inputs, |g, v| g.matmul_integer(v[0], v[1])) else { return };
        let (shape, found) = integers(found);
        assert_eq!(shape, [batch, m, n]);
        for (i, &found) in found.iter().enumerate() {
            let (j, row) = (i % n, i / n);
            let sum: i32 = (0..k).map(|l| a[row * k + l] * b[(row / m * k + l) * n + j]).sum();
            assert_eq!(found, sum, "element {i} of {batch} {m} {k} {n}");
        }
    }
}

#[test]
fn bytes_of_words() {
    let mut rng = Rng::new("unpack bytes");
    for count in [1usize, 2, 3, 4, 5, 1023, 4096] {
        for signed in [false, true] {
            let bytes: Vec<u8> = (0..count).map(|_| rng.below(256) as u8).collect();
            let mut padded = bytes.clone();
            padded.resize(count.next_multiple_of(4), 77);
            let words: Vec<u32> =
                padded.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
            let found = run(&[Tensor::from_u32([words.len()], &words)], |g, v| {
                g.unpack_bytes(v[0], [count, 1], signed)
            });
            let Some(found) = found else { return };
            let expected: Vec<i32> =
                bytes.iter().map(|&v| if signed { i32::from(v as i8) } else { i32::from(v) }).collect();
            assert_eq!(integers(found), (vec![count, 1], expected));
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let mut graph = Graph::new();
    let x = graph.input("x", [1, 4, 4, 6], DType::I32);
    let f = graph.input("f", [1, 4, 4, 6], DType::F32);
    let w = graph.input("w", [3, 3, 4, 8], DType::I32);
    let scale = graph.input("scale", [4], DType::F32);
    let options = Quantize { per: Per::Axis(3), low: 0, high: 255, times: false, back: false };
    let found = graph.quantize(f, scale, None, options.clone());
    assert!(found.is_err_and(|e| e.to_string().contains("scale must be f32 Axis(3) of [1, 4, 4, 6]")));
    let found = graph.quantize(f, scale, None, Quantize { low: 3, high: 2, ..options });
    assert!(found.is_err_and(|e| e.to_string().contains("found 3 to 2")));
    let found = graph.dequantize(f, scale, None, Per::Axis(1));
    assert!(found.is_err_and(|e| e.to_string().contains("input must be i32")));
    let found = graph.conv2d_integer(x, w, Conv2dOptions::default());
    assert!(found.is_err_and(|e| e.to_string().contains("1 groups of 4 channels")));
    let found = graph.conv2d_integer(f, w, Conv2dOptions::default());
    assert!(found.is_err_and(|e| e.to_string().contains("inputs must be i32")));
    let found = graph.matmul_integer(x, w);
    assert!(found.is_err_and(|e| e.to_string().contains("wants […, m, k] and […, k, n]")));
    let words = graph.input("words", [3], DType::U32);
    let found = graph.unpack_bytes(words, [13], false);
    assert!(found.is_err_and(|e| e.to_string().contains("are u32[4]")));
}

//! Weights in ggml's blocks: their bits against its formulae, products against f64 on the numbers that they stand for.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::quantized::BlockFormat;
use aquatint::ops::{ConvWeight, Operator as _};
use aquatint::{DType, DeviceClass, Gpu, Graph, Network, Plan, Target, Tensor};
use half::f16;

use crate::harness::{Array, F16, F32, Rng, examined, gpu};

const FORMATS: [BlockFormat; 2] = [BlockFormat::Q8_0, BlockFormat::Q4_0];

/// `quantize_row_q8_0_ref` and `quantize_row_q4_0_ref` of ggml: the scale and the integers of a block.
fn quantised(format: BlockFormat, x: &[f32]) -> (f16, Vec<i32>) {
    let inverse = |d: f32| if d == 0.0 { 0.0 } else { 1.0 / d };
    match format {
        BlockFormat::Q8_0 => {
            let d = x.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
            (f16::from_f32(d), x.iter().map(|v| (v * inverse(d)).round() as i32).collect())
        }
        BlockFormat::Q4_0 => {
            let mut extreme = 0f32;
            for &v in x {
                if v.abs() > extreme.abs() {
                    extreme = v;
                }
            }
            let d = extreme / -8.0;
            (f16::from_f32(d), x.iter().map(|v| ((v * inverse(d) + 8.5) as i32).min(15)).collect())
        }
    }
}

/// Block by block along the input axis of `[co, ci, kh, kw]`: `f(co, block, tap)` of its scale and integers, padded
/// with zeros.
fn blocks(
    format: BlockFormat,
    shape: [usize; 4],
    weight: &[f32],
    mut f: impl FnMut([usize; 3], f16, &[i32]),
) {
    let [c_out, c_in, kh, kw] = shape;
    for co in 0..c_out {
        for block in 0..c_in.div_ceil(32) {
            for tap in 0..kh * kw {
                let number =
                    |ci: usize| if ci < c_in { weight[(co * c_in + ci) * kh * kw + tap] } else { 0.0 };
                let x: Vec<f32> = (block * 32..block * 32 + 32).map(number).collect();
                let (d, integers) = quantised(format, &x);
                f([co, block, tap], d, &integers);
            }
        }
    }
}

/// The numbers that the blocks stand for.
fn restored(format: BlockFormat, shape: [usize; 4], weight: &[f32]) -> Vec<f64> {
    let [_, c_in, kh, kw] = shape;
    let mut numbers = vec![0.0; weight.len()];
    blocks(format, shape, weight, |[co, block, tap], d, integers| {
        for (k, &q) in integers.iter().enumerate().take(c_in - block * 32) {
            let q = if format == BlockFormat::Q4_0 { q - 8 } else { q };
            numbers[(co * c_in + block * 32 + k) * kh * kw + tap] = d.to_f64() * f64::from(q);
        }
    });
    numbers
}

fn floats(rng: &mut Rng, shape: &[usize]) -> Vec<f32> {
    rng.array(shape).data.iter().map(|&v| v as f32).collect()
}

#[test]
fn bits_are_ggmls() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        for (shape, taps, quads) in
            [([32, 64, 1, 1], 1, 4), ([5, 36, 3, 3], 3, 2), ([8, 100, 1, 7], 1, 1), ([16, 32, 3, 3], 3, 4)]
        {
            let mut rng = Rng::new(&format!("blocks {format:?} {shape:?}"));
            let mut weight = floats(&mut rng, &shape);
            // A block of zeros; scales below what f16 has as normal; a tie between magnitudes; a half to round.
            weight[..32.min(shape[1]) * shape[2] * shape[3]].fill(0.0);
            let end = weight.len();
            weight[end - 300..].iter_mut().for_each(|v| *v *= 1e-5);
            (weight[end - 320], weight[end - 319], weight[end - 318]) = (-1.0, 1.0, 63.5 / 127.0);

            assert_eq!(differences(gpu, format, shape, [taps, quads], &weight), [""; 0]);
        }
    }
}

/// Packs a weight on the device and says where a scale or an integer is not ggml's.
fn differences(
    gpu: &Gpu,
    format: BlockFormat,
    shape: [usize; 4],
    [taps, quads]: [usize; 2],
    weight: &[f32],
) -> Vec<String> {
    let mut g = Graph::new();
    let x = g.input("x", shape, DType::F32);
    let y = g.push(ConvWeight::Blocks { taps, quads, format }, &[x]).unwrap();
    g.output("y", y);
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let found = network.run(&[("x", &Tensor::from_f32(shape, weight))]).unwrap().remove(0);
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&found.bytes);

    let [c_out, c_in, kh, kw] = shape;
    let (blocks_in, pairs, wide) = (c_in.div_ceil(32), taps * quads, 4 * format.words() / 16);
    let record = found.desc.shape[1];
    let (mut checked, mut wrong) = (0, Vec::new());
    blocks(format, shape, weight, |[co, block, tap], d, integers| {
        let (tile, q, lane) = (co / (4 * quads), co / 4 % quads, co % 4);
        let (ky, step, kx) = (tap / kw, tap % kw / taps, tap % kw % taps);
        let first = (((tile * kh + ky) * (kw / taps) + step) * blocks_in + block) * record;
        let at = kx * quads + q;
        let scale = words[first + 2 * at + lane / 2] >> (16 * (lane % 2)) & 0xffff;
        if scale != u32::from(d.to_bits()) {
            wrong.push(format!("{format:?} {shape:?}: scale of {co}, {block}, {tap}: {scale:x} for {d}"));
        }
        for (k, &integer) in integers.iter().enumerate() {
            let word = first + 2 * pairs + (k / 4 * pairs + at) * 2 * wide;
            let found = match format {
                BlockFormat::Q8_0 => (words[word + k % 4] << (24 - 8 * lane)) as i32 >> 24,
                BlockFormat::Q4_0 => (words[word + k % 4 / 2] >> (16 * (k % 2) + 4 * lane) & 15) as i32,
            };
            if found != integer {
                wrong.push(format!("{format:?} {shape:?}: {co}, {block}, {tap}, {k}: {found} for {integer}"));
            }
            checked += 1;
        }
    });
    assert_eq!(checked, c_out * blocks_in * 32 * kh * kw);
    wrong
}

/// Weights that lie just between two integers, as those that were f16 often do, and next to there: which one it is hangs on
/// the last bit of 1 / d, of the product and, for q4_0, of a sum. The device divides as badly as WGSL lets it.
#[test]
fn ties_are_ggmls() {
    if gpu().is_none() {
        return;
    }
    let sloppy = |text: &str, quotient: &str| {
        let gpu = Gpu::headless().unwrap();
        gpu.plant_fault("conv_weight_blocks", text, &format!("bitcast<f32>(bitcast<u32>({quotient}) + 2u)"));
        gpu
    };
    let gpu = sloppy("a / b", "a / b");
    // What this test finds where a kernel leaves it at such a division.
    let trusting = sloppy("quotient(1.0, d)", "1.0 / d");
    let (c_out, blocks_in) = (96, 4);
    let shape = [c_out, 32 * blocks_in, 1, 1];
    let mut trusted = Vec::new();
    for format in FORMATS {
        let mut rng = Rng::new(&format!("ties {format:?}"));
        let mut weight = Vec::new();
        for block in 0..c_out * blocks_in {
            let halves = |x: f64| f16::from_f64(x).to_f32();
            // Scales that are powers of two, those of numbers in f16, any.
            let extreme = match block % 3 {
                0 => 8.0 * 2f32.powi(rng.below(9) as i32 - 8),
                1 => halves(rng.uniform(0.1, 2.0)),
                _ => rng.uniform(0.1, 2.0) as f32,
            };
            let extreme = if rng.below(2) == 0 { extreme } else { -extreme };
            let (d, steps) = match format {
                BlockFormat::Q8_0 => (extreme.abs() / 127.0, 127),
                BlockFormat::Q4_0 => (extreme / -8.0, 8),
            };
            weight.push(extreme);
            for _ in 1..32 {
                let tie = rng.below(2 * steps) as f32 - steps as f32 + 0.5;
                let near =
                    f32::from_bits((tie * d).to_bits().wrapping_add(rng.below(5) as u32).wrapping_sub(2));
                weight.push(if rng.below(3) == 0 { halves(f64::from(near)) } else { near });
            }
        }
        assert_eq!(differences(&gpu, format, shape, [1, 4], &weight), [""; 0]);
        let found = differences(&trusting, format, shape, [1, 4], &weight).len();
        assert!(found > 100, "{found}");
        trusted.push(format!("{found} of {format:?}"));
    }
    let count = c_out * blocks_in * 32;
    println!(
        "figure blocks: of {count} weights near ties none differs, where a kernel trusts the division {} do",
        trusted.join(" and ")
    );
}

struct Case {
    source: [usize; 4],
    c_out: usize,
    kernel: [usize; 2],
    options: Conv2dOptions,
    stored: DType,
}

fn check(case: &Case, format: BlockFormat, dtype: DType) {
    let Case { source: [n, h, w, c_in], c_out, kernel: [kh, kw], options, stored } = *case;
    let name = format!("{format:?} {dtype} {:?} {c_out} {:?}", case.source, case.kernel);
    let mut rng = Rng::new(&name);
    let x = Tensor::from_f32(case.source, &floats(&mut rng, &case.source)).to_dtype(dtype);
    let shape = [c_out, c_in, kh, kw];
    let weight = Tensor::from_f32(shape, &floats(&mut rng, &shape)).to_dtype(stored);
    let bias = Tensor::from_f32([c_out], &floats(&mut rng, &[c_out])).to_dtype(dtype);

    let mut g = Graph::new();
    let input = g.input("x", case.source, dtype);
    let stored = g.weight("w", weight.clone());
    let unpacked = g.unpacked(stored, dtype).unwrap();
    let blocks = g.quantized(unpacked, format).unwrap();
    let b = g.weight("b", bias.clone());
    let y = g.conv2d(input, blocks, Some(b), options).unwrap();
    let y = g.silu(y).unwrap();
    let y = g.cast(y, DType::F32).unwrap();
    g.output("y", y);

    for class in [DeviceClass::Cpu, DeviceClass::Discrete] {
        let plan = Plan::compile(&g, &Target { class, ..Target::typical() }).unwrap();
        assert!(plan.run.iter().any(|d| d.shader.kernel.name == "conv2d_blocks"), "{name}: {:?}", plan.run);
        let weights = (c_out * c_in * kh * kw) as u64;
        let role = |b: &&aquatint::plan::Buffer| ["weight", "constant"].contains(&b.role_name());
        let kept = plan.buffers.iter().filter(|b| b.resident()).filter(role);
        let most = kept.map(|b| b.bytes).max().unwrap();
        // What is no whole number of blocks and tiles is filled up.
        let filled = !c_in.is_multiple_of(32) || !c_out.is_multiple_of(16);
        assert!(filled || most <= weights * 17 / 16, "{name}: {most} bytes for {weights} weights");
    }
    let Some(gpu) = gpu() else { return };
    if dtype == DType::F16 && !gpu.target().f16 {
        return;
    }
    let network = Network::new(gpu, &g).unwrap();
    network.poison().unwrap();
    let found = network.run(&[("x", &x)]).unwrap().remove(0).to_f32();
    examined(gpu, &name, &g, &[("x", &x)]);

    let numbers = restored(format, shape, &weight.to_dtype(dtype).to_f32());
    let (x, bias) = (x.to_f32(), bias.to_f32());
    let [top, left, ..] = options.padding;
    let [_, oh, ow, _] = network.desc("y").unwrap().shape[..] else { panic!("a feature map") };
    let wanted = Array::from_fn(&[n, oh, ow, c_out], |i| {
        let mut sum = f64::from(bias[i[3]]);
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let y = (i[1] * options.stride[0] + ky).wrapping_sub(top);
            let column = (i[2] * options.stride[1] + kx).wrapping_sub(left);
            if y < h && column < w {
                for ci in 0..c_in {
                    let v = f64::from(x[((i[0] * h + y) * w + column) * c_in + ci]);
                    sum += v * numbers[((i[3] * c_in + ci) * kh + ky) * kw + kx];
                }
            }
        }
        sum / (1.0 + (-sum).exp())
    });
    let tolerance = if dtype == DType::F16 { F16 } else { F32 };
    let largest = wanted.data.iter().fold(1f64, |m, v| m.max(v.abs()));
    for (i, (&a, &b)) in found.iter().zip(&wanted.data).enumerate() {
        let error = (f64::from(a) - b).abs() / largest;
        assert!(error <= tolerance, "{name}: {a} for {b} at {i}");
    }
}

#[test]
fn products_are_those_of_the_numbers_that_blocks_stand_for() {
    let plain = Conv2dOptions::default();
    let padded = Conv2dOptions::padded(1);
    let cases = [
        // Matrix products: whole blocks, a part of one, channels that are no multiple of four.
        Case { source: [1, 40, 1, 64], c_out: 96, kernel: [1, 1], options: plain, stored: DType::F32 },
        Case { source: [1, 77, 1, 132], c_out: 37, kernel: [1, 1], options: plain, stored: DType::F16 },
        // Convolutions: odd sizes, a stride, a kernel whose taps are taken one by one.
        Case { source: [2, 9, 7, 36], c_out: 20, kernel: [3, 3], options: padded, stored: DType::BF16 },
        Case { source: [1, 16, 16, 64], c_out: 64, kernel: [3, 3], options: padded, stored: DType::F32 },
        Case {
            source: [1, 11, 13, 32],
            c_out: 16,
            kernel: [3, 3],
            options: padded.stride(2),
            stored: DType::F32,
        },
        Case { source: [1, 9, 12, 40], c_out: 18, kernel: [1, 7], options: plain, stored: DType::F32 },
    ];
    for case in &cases {
        for format in FORMATS {
            check(case, format, DType::F32);
            check(case, format, DType::F16);
        }
    }
}

#[test]
fn what_is_small_or_has_groups_stays() {
    for (shape, groups) in [([8, 4, 3, 3], 1), ([16, 32, 1, 1], 1), ([64, 32, 3, 3], 2)] {
        let mut g = Graph::new();
        let x = g.input("x", [1, 8, 8, shape[1] * groups], DType::F32);
        let w = g.weight("w", Tensor::from_f32(shape, &vec![0.5; shape.iter().product()]));
        let w = g.quantized(w, BlockFormat::Q8_0).unwrap();
        let options = Conv2dOptions { groups, ..Conv2dOptions::default() };
        let y = g.conv2d(x, w, None, options).unwrap();
        g.output("y", y);
        let plan = Plan::compile(&g, &Target::typical()).unwrap();
        assert!(plan.run.iter().all(|d| d.shader.kernel.name != "conv2d_blocks"), "{shape:?}");
    }
    assert!(aquatint::ops::Quantized { format: BlockFormat::Q4_0 }.is_view());
}

use aquatint::ops::attention::AttentionOptions;
use aquatint::{DType, DeviceClass, Gpu, Graph, Network, Plan, Result, Target, Tensor, ValueId};

use crate::harness::{self, Array, Case, Rng, tensor};

pub fn attention(
    q: &Array,
    k: &Array,
    v: &Array,
    heads: usize,
    scale: f64,
    causal: bool,
    mask: Option<&Array>,
) -> Array {
    let (lk, d) = (k.shape[1], q.shape[2] / heads);
    Array::from_fn(&q.shape, |i| {
        let (n, row, head) = (i[0], i[1], i[2] / d);
        let scores: Vec<f64> = (0..lk)
            .map(|j| {
                let dot: f64 =
                    (0..d).map(|c| q.at(&[n, row, head * d + c]) * k.at(&[n, j, head * d + c])).sum();
                let bias = mask.map_or(0.0, |m| m.at(&[n % m.shape[0], head % m.shape[1], row, j]));
                if causal && j > row { f64::NEG_INFINITY } else { dot * scale + bias }
            })
            .collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if highest == f64::NEG_INFINITY {
            return 0.0;
        }
        let weights: Vec<f64> = scores.iter().map(|s| (s - highest).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..lk).map(|j| weights[j] * v.at(&[n, j, i[2]])).sum::<f64>() / total
    })
}

/// `mask` has so many samples and heads.
fn check(n: usize, lq: usize, lk: usize, heads: usize, d: usize, causal: bool, mask: Option<[usize; 2]>) {
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
    let mut case = Case::new(name).played().input(&q).input(&k).input(&v);
    if let Some(mask) = &mask {
        case = case.input(mask);
    }
    case.check(
        |g, x| {
            g.attention(
                x[0],
                x[1],
                x[2],
                heads,
                AttentionOptions { causal, mask: x.get(3).copied(), scale: None },
            )
        },
        |a| attention(&a[0], &a[1], &a[2], heads, (d as f64).powf(-0.5), causal, a.get(3)),
    );
}

#[test]
fn sizes_of_real_networks() {
    check(2, 64, 64, 3, 32, false, None);
    check(1, 80, 77, 4, 40, false, None);
    check(1, 50, 50, 2, 64, true, None);
    check(1, 150, 260, 2, 40, false, None);
}

#[test]
fn awkward_sizes() {
    check(1, 1, 1, 1, 1, false, None);
    check(2, 5, 3, 2, 7, false, None);
    check(1, 9, 17, 1, 30, true, None);
    check(1, 3, 6, 1, 256, false, None);
    check(1, 4, 5, 2, 130, false, None);
}

#[test]
fn masks() {
    check(2, 6, 10, 2, 8, false, Some([1, 1]));
    check(2, 7, 9, 2, 8, true, Some([2, 2]));
    check(2, 5, 5, 3, 6, false, Some([2, 1]));
    check(2, 4, 33, 3, 4, false, Some([1, 3]));
}

#[test]
fn large_scores_do_not_overflow() {
    let mut rng = Rng::new("large");
    let q = rng.array_in(&[1, 8, 16], -40.0, 40.0);
    let k = rng.array_in(&[1, 8, 16], -40.0, 40.0);
    let v = rng.array(&[1, 8, 16]);
    // Scores near 10⁴ have a spacing of 1e-3 in f32, and exp passes it on.
    Case::new("large").input(&q).input(&k).input(&v).tolerance(2e-3, 2e-3).check(
        |g, x| g.attention(x[0], x[1], x[2], 1, AttentionOptions { scale: Some(1.0), ..Default::default() }),
        |a| attention(&a[0], &a[1], &a[2], 1, 1.0, false, None),
    );
}

/// By more than any weight may have, several times, for one query in 16: sums are scaled again where others' need not be.
#[test]
fn scores_that_rise() {
    let mut rng = Rng::new("rising");
    let mut sequence = |l: usize| rng.array_in(&[1, l, 2 * 40], -1.0, 1.0);
    let (q, k, v) = (sequence(130), sequence(110), sequence(110));
    let mask = Array::from_fn(&[1, 2, 130, 110], |i| match i[2] % 16 {
        3 => 50.0 * ((i[3] + i[2] + 3 * i[1]) / 20 % 7) as f64,
        _ => 0.0,
    });
    // Scores up to 300, or 430 in units of log 2, have a spacing of 3e-5 in f32, and exp passes that on.
    Case::new("rising").input(&q).input(&k).input(&v).input(&mask).tolerance(1e-4, harness::F16).check(
        |g, x| g.attention(x[0], x[1], x[2], 2, AttentionOptions { mask: Some(x[3]), ..Default::default() }),
        |a| attention(&a[0], &a[1], &a[2], 2, 40f64.powf(-0.5), false, a.get(3)),
    );
}

/// Enough numbers to be read as textures where there are any.
#[test]
fn long_sequences() {
    // Heads of SD 1.5, and large ones; keys that are no multiple of what is fetched at once.
    check(1, 131, 77, 2, 40, false, None);
    check(2, 70, 43, 1, 80, false, None);
    check(1, 60, 17, 1, 160, false, None);
    // One key, less than a block of them, and few of them to many queries.
    check(1, 300, 1, 1, 32, false, None);
    check(2, 530, 3, 2, 4, false, None);
}

#[test]
fn long_sequences_that_hide_keys() {
    check(1, 150, 150, 4, 16, true, None);
    check(1, 230, 90, 2, 20, true, None);
    check(1, 90, 140, 5, 20, true, None);
    check(2, 75, 77, 3, 20, false, Some([2, 1]));
    check(2, 75, 43, 3, 20, true, Some([1, 3]));
}

/// As it is planned for a discrete GPU without cooperative matrices: the kernels' names, and the result.
fn as_discrete(
    gpu: &Gpu,
    dtype: DType,
    arrays: &[&Array],
    heads: usize,
    causal: bool,
) -> (Vec<&'static str>, Tensor) {
    let tensors: Vec<Tensor> = arrays.iter().map(|array| tensor(array, dtype)).collect();
    let names = ["query", "key", "value", "mask"];
    let mut g = Graph::new();
    let x: Vec<_> =
        tensors.iter().zip(names).map(|(t, name)| g.input(name, t.desc.shape.clone(), dtype)).collect();
    let options = AttentionOptions { causal, mask: x.get(3).copied(), scale: None };
    let y = g.attention(x[0], x[1], x[2], heads, options).unwrap();
    g.output("y", y);
    let target = Target { class: DeviceClass::Discrete, matrices: None, ..gpu.target().clone() };
    let plan = Plan::compile(&g, &target).unwrap();
    let kernels = plan.run.iter().map(|launch| launch.shader.kernel.name).collect();
    let network = Network::from_plan(gpu, plan).unwrap();
    network.poison().unwrap();
    let inputs: Vec<(&str, &Tensor)> = names.into_iter().zip(&tensors).collect();
    (kernels, network.run(&inputs).unwrap().remove(0))
}

/// Tiles that threads share in workgroup memory, in both types; `hides` by a mask, too.
fn check_shared([n, lq, lk]: [usize; 3], heads: usize, d: usize, causal: bool, hides: bool) {
    let Some(gpu) = harness::gpu() else { return };
    let name = format!("n {n}, {lq}×{lk}, {heads} heads of {d}, causal {causal}, mask {hides}");
    let mut rng = Rng::new(&name);
    let mut sequence = |l: usize| rng.array_in(&[n, l, heads * d], -2.0, 2.0);
    let mut arrays = vec![sequence(lq), sequence(lk), sequence(lk)];
    if hides {
        let mut mask = rng.array_in(&[1, heads, lq, lk], -3.0, 3.0);
        mask.data.iter_mut().for_each(|m| *m = if rng.below(4) == 0 { f64::NEG_INFINITY } else { *m });
        mask.data[..lk].fill(f64::NEG_INFINITY);
        arrays.push(mask);
    }
    for (dtype, tolerance) in [(DType::F32, harness::F32), (DType::F16, harness::F16)] {
        if dtype == DType::F16 && !gpu.target().f16 {
            continue;
        }
        let name = format!("{name}, {dtype}");
        let (kernels, found) = as_discrete(gpu, dtype, &arrays.iter().collect::<Vec<_>>(), heads, causal);
        // The largest heads take more memory than some devices have.
        let fits = d <= 64 || d <= 160 && gpu.target().shared_memory >= 32 << 10;
        assert_eq!(kernels, [if fits { "attention_shared" } else { kernels[0] }], "{name}");
        let rounded = arrays.iter().map(|array| Array {
            shape: array.shape.clone(),
            data: tensor(array, dtype).to_f32().into_iter().map(f64::from).collect(),
        });
        let a: Vec<Array> = rounded.collect();
        let expected = attention(&a[0], &a[1], &a[2], heads, (d as f64).powf(-0.5), causal, a.get(3));
        harness::compare(&name, &found.to_f32(), &expected, tolerance);
    }
}

#[test]
fn shared_tiles_of_all_head_sizes() {
    // Queries and keys that are no multiple of a tile, and channels that are none of what threads hold.
    for (d, heads, lq, lk) in [
        (4, 3, 70, 37),
        (8, 2, 67, 300),
        (12, 1, 131, 65),
        (28, 1, 35, 33),
        (40, 2, 70, 77),
        (44, 1, 33, 40),
        (64, 2, 65, 63),
        (80, 1, 66, 50),
        (128, 1, 34, 36),
        (160, 1, 33, 35),
        (256, 1, 17, 19),
    ] {
        check_shared([1, lq, lk], heads, d, false, false);
    }
    // Long enough for the largest tiles.
    check_shared([2, 67, 261], 1, 16, false, false);
    check_shared([1, 67, 257], 1, 40, false, false);
    // One key, and fewest queries.
    check_shared([2, 16, 1], 2, 40, false, false);
    check_shared([1, 16, 16], 1, 8, false, false);
}

#[test]
fn shared_tiles_that_hide_keys() {
    check_shared([1, 150, 150], 2, 16, true, false);
    check_shared([1, 300, 300], 1, 8, true, false);
    check_shared([1, 90, 140], 1, 40, true, false);
    check_shared([1, 140, 90], 1, 20, true, true);
    check_shared([2, 75, 77], 2, 40, false, true);
    check_shared([1, 70, 270], 2, 8, false, true);
    check_shared([2, 33, 1], 2, 40, false, true);
}

#[test]
fn a_sequence_comes_out_the_same_in_any_batch() {
    let Some(gpu) = harness::gpu() else { return };
    let mut rng = Rng::new("batch");
    let (heads, d) = (2, 40);
    let arrays = [70, 83, 83].map(|l| rng.array_in(&[3, l, heads * d], -2.0, 2.0));
    let (_, all) = as_discrete(gpu, DType::F32, &arrays.each_ref(), heads, false);
    for i in 0..3 {
        let one = arrays.each_ref().map(|array| {
            let [_, l, c] = array.shape[..] else { unreachable!() };
            Array { shape: vec![1, l, c], data: array.data[i * l * c..][..l * c].to_vec() }
        });
        let (_, alone) = as_discrete(gpu, DType::F32, &one.each_ref(), heads, false);
        let size = alone.to_f32().len();
        assert_eq!(alone.to_f32(), all.to_f32()[i * size..][..size], "sequence {i}");
    }
}

/// Attention of queries, keys and values that are fully connected layers of one tensor, or keys and values of another; a GPU
/// computes such layers as one.
pub struct Projected {
    pub n: usize,
    pub queries: usize,
    /// Where keys and values are of another tensor.
    pub keys: Option<usize>,
    pub channels: usize,
    pub heads: [usize; 2],
    pub bias: bool,
    pub causal: bool,
}

impl Projected {
    pub fn name(&self) -> String {
        let Projected { n, queries, keys, channels, heads: [heads, d], bias, causal } = self;
        format!(
            "projected n {n}, {queries}×{keys:?}, {channels} to {heads} heads of {d}, bias {bias}, causal {causal}"
        )
    }

    /// The tensors, then weights, then biases. Each channel is one of the tensor's or half of it, and all are multiples of a
    /// power of two, so that f16 holds them exactly.
    pub fn arrays(&self) -> (Vec<Array>, Vec<Array>) {
        let mut rng = Rng::new(&self.name());
        let wide = self.heads[0] * self.heads[1];
        let mut grid = |shape: &[usize], steps: f64| {
            let mut array = rng.array_in(shape, -2.0, 2.0);
            array.data.iter_mut().for_each(|x| *x = (*x * steps).round() / steps);
            array
        };
        let lengths = std::iter::once(self.queries).chain(self.keys);
        let tensors = lengths.map(|l| grid(&[self.n, l, self.channels], 64.0)).collect();
        let biases: Vec<Array> = (0..if self.bias { 3 } else { 0 }).map(|_| grid(&[wide], 4.0)).collect();
        let weights = (0..3).map(|_| {
            let mut weight =
                Array { shape: vec![wide, self.channels], data: vec![0.0; wide * self.channels] };
            for row in weight.data.chunks_mut(self.channels) {
                row[rng.below(self.channels)] = [1.0, -1.0, 0.5, -0.5][rng.below(4)];
            }
            weight
        });
        (tensors, weights.chain(biases).collect())
    }

    pub fn build(&self, g: &mut Graph, x: &[ValueId]) -> Result<ValueId> {
        let (tensors, layers) = x.split_at(1 + usize::from(self.keys.is_some()));
        let sources = [tensors[0], *tensors.last().unwrap(), *tensors.last().unwrap()];
        let mut made = Vec::new();
        for (i, source) in sources.into_iter().enumerate() {
            made.push(g.linear(source, layers[i], layers.get(3 + i).copied())?);
        }
        let options = AttentionOptions { causal: self.causal, ..AttentionOptions::default() };
        g.attention(made[0], made[1], made[2], self.heads[0], options)
    }

    pub fn reference(&self, a: &[Array]) -> Array {
        let (tensors, layers) = a.split_at(1 + usize::from(self.keys.is_some()));
        let sources = [&tensors[0], tensors.last().unwrap(), tensors.last().unwrap()];
        let [q, k, v] = [0, 1, 2].map(|which| {
            let (x, w) = (sources[which], &layers[which]);
            Array::from_fn(&[x.shape[0], x.shape[1], w.shape[0]], |i| {
                let sum: f64 = (0..self.channels).map(|c| x.at(&[i[0], i[1], c]) * w.at(&[i[2], c])).sum();
                sum + layers.get(3 + which).map_or(0.0, |bias| bias.at(&[i[2]]))
            })
        });
        let [heads, d] = self.heads;
        attention(&q, &k, &v, heads, (d as f64).powf(-0.5), self.causal, None)
    }
}

#[test]
fn projections_of_one_tensor() {
    for (n, queries, keys, channels, heads, bias, causal) in [
        // Tiles in workgroup memory, heads of whole quads and others, few queries.
        (2, 70, None, 24, [3, 8], true, false),
        (1, 67, None, 12, [2, 40], false, true),
        (2, 33, Some(77), 16, [2, 16], true, false),
        (1, 9, None, 10, [2, 7], true, true),
        (2, 5, Some(17), 9, [3, 5], false, false),
        (1, 7, Some(40), 8, [2, 12], false, false),
    ] {
        let case = Projected { n, queries, keys, channels, heads, bias, causal };
        let (tensors, constants) = case.arrays();
        let mut test = Case::new(case.name()).played();
        for tensor in &tensors {
            test = test.input(tensor);
        }
        for constant in &constants {
            test = test.weight(constant);
        }
        test.check(|g, x| case.build(g, x), |a| case.reference(a));
        let Some(gpu) = harness::gpu() else { continue };
        let mut g = Graph::new();
        let inputs = tensors.iter().map(|t| g.input("x", t.shape.clone(), DType::F32)).collect::<Vec<_>>();
        let weights = constants.iter().map(|t| g.weight("w", tensor(t, DType::F32))).collect::<Vec<_>>();
        let y = case.build(&mut g, &[inputs, weights].concat()).unwrap();
        g.output("y", y);
        let plan =
            Plan::compile(&g, &Target { class: DeviceClass::Discrete, ..gpu.target().clone() }).unwrap();
        let products = plan.run.iter().filter(|launch| launch.op == "Conv2d" && launch.flops > 0).count();
        assert_eq!(products, 1 + usize::from(keys.is_some()), "{}", case.name());
    }
}

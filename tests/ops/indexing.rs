//! Operations that choose, place and order elements by computed indices, held to plain Rust: nothing is rounded, so
//! results must be equal.

use aquatint::ops::cumulate::{Cumulate, Running};
use aquatint::ops::scatter::Combine;
use aquatint::ops::top_k::TopK;
use aquatint::{DType, Graph, Network, Result, Tensor, ValueId};

use crate::harness::{Rng, examined, gpu};

/// A tensor of whole numbers, which every type holds.
#[derive(Clone, Debug)]
struct Whole {
    shape: Vec<usize>,
    data: Vec<i32>,
}

impl Whole {
    fn draw(rng: &mut Rng, shape: &[usize], low: i32, high: i32) -> Self {
        let count = shape.iter().product();
        let data = (0..count).map(|_| low + rng.below((high - low) as usize) as i32).collect();
        Whole { shape: shape.to_vec(), data }
    }

    fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> i32) -> Self {
        let data = (0..shape.iter().product()).map(|flat| f(&coordinates(shape, flat))).collect();
        Whole { shape: shape.to_vec(), data }
    }

    fn at(&self, index: &[usize]) -> i32 {
        self.data[flat(&self.shape, index)]
    }

    fn tensor(&self, dtype: DType) -> Tensor {
        let floats: Vec<f32> = self.data.iter().map(|&v| v as f32).collect();
        match dtype {
            DType::I32 => Tensor::from_i32(self.shape.clone(), &self.data),
            _ => Tensor::from_f32(self.shape.clone(), &floats).to_dtype(dtype),
        }
    }
}

fn coordinates(shape: &[usize], mut flat: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for d in (0..shape.len()).rev() {
        index[d] = flat % shape[d];
        flat /= shape[d];
    }
    index
}

fn flat(shape: &[usize], index: &[usize]) -> usize {
    assert_eq!(shape.len(), index.len());
    index.iter().zip(shape).fold(0, |flat, (i, n)| {
        assert!(i < n, "{index:?} in {shape:?}");
        flat * n + i
    })
}

/// Where an index reads: from the end where it is negative, the last element where it is outside.
fn place(i: i32, n: usize) -> usize {
    let wrapped = if i < 0 { i64::from(i) + n as i64 } else { i64::from(i) };
    usize::try_from(wrapped).map_or(n - 1, |i| i.min(n - 1))
}

/// Builds and runs an operation of tensors; whole numbers come back.
fn run(
    inputs: &[Tensor],
    build: impl Fn(&mut Graph, &[ValueId]) -> Result<ValueId>,
) -> Option<(Vec<usize>, Vec<f32>)> {
    let mut graph = Graph::new();
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("input{i}")).collect();
    let ids: Vec<ValueId> = names
        .iter()
        .zip(inputs)
        .map(|(name, t)| graph.input(name, t.desc.shape.clone(), t.desc.dtype))
        .collect();
    let y = build(&mut graph, &ids).unwrap();
    graph.output("y", y);
    let gpu = gpu()?;
    let network = Network::new(gpu, &graph).unwrap();
    network.poison().unwrap();
    let given: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(inputs).collect();
    let y = network.run(&given).unwrap().remove(0);
    examined(gpu, "indexing", &graph, &given);
    let words = y.bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap()));
    let values = match y.desc.dtype {
        DType::I32 => words.map(|w| w as i32 as f32).collect(),
        _ => y.to_f32(),
    };
    Some((y.desc.shape.to_vec(), values))
}

fn check(name: &str, found: Option<(Vec<usize>, Vec<f32>)>, expected: &Whole) {
    let Some((shape, values)) = found else { return };
    assert_eq!(shape, expected.shape, "{name}");
    for (i, (f, e)) in values.iter().zip(&expected.data).enumerate() {
        assert_eq!(*f, *e as f32, "{name}: element {i} of {shape:?}");
    }
}

const TYPES: [DType; 3] = [DType::F32, DType::I32, DType::F16];

fn types() -> Vec<DType> {
    let f16 = gpu().is_some_and(|gpu| gpu.target().f16);
    TYPES.into_iter().filter(|&t| t != DType::F16 || f16).collect()
}

#[test]
fn elements_one_by_one() {
    let mut rng = Rng::new("gather elements");
    for (shape, smaller) in [
        (vec![7], vec![12]),
        (vec![3, 5], vec![2, 9]),
        (vec![2, 3, 4], vec![2, 3, 4]),
        (vec![1, 4, 1, 6], vec![1, 2, 1, 5]),
        (vec![2, 1, 3, 2, 5], vec![1, 1, 3, 2, 5]),
    ] {
        for axis in 0..shape.len() {
            let n = shape[axis] as i32;
            let mut wanted: Vec<usize> = smaller.iter().zip(&shape).map(|(&a, &b)| a.min(b)).collect();
            wanted[axis] = smaller[axis];
            for dtype in types() {
                let x = Whole::draw(&mut rng, &shape, -500, 500);
                let at = Whole::draw(&mut rng, &wanted, -n - 2, n + 2);
                let expected = Whole::from_fn(&wanted, |i| {
                    let mut from = i.to_vec();
                    from[axis] = place(at.at(i), shape[axis]);
                    x.at(&from)
                });
                let found = run(&[x.tensor(dtype), at.tensor(DType::I32)], |g, v| {
                    g.gather_elements(v[0], v[1], axis)
                });
                check(&format!("gather_elements {shape:?} {wanted:?} {axis} {dtype}"), found, &expected);
            }
        }
    }
}

/// Tensors, and tuples of indices into them: shape, axes of batch, tuples' shape, depth.
const TUPLES: [(&[usize], usize, &[usize], usize); 8] = [
    (&[9], 0, &[4], 1),
    (&[3, 5], 0, &[6], 2),
    (&[3, 5], 0, &[], 1),
    (&[4, 3, 8], 0, &[2, 3], 2),
    (&[5, 2, 3, 7], 0, &[4], 1),
    (&[2, 3, 4, 8], 1, &[5], 2),
    (&[2, 3, 6], 2, &[4], 1),
    (&[1, 3, 2, 2, 4], 1, &[1, 2], 3),
];

#[test]
fn slices_by_tuples() {
    let mut rng = Rng::new("gather nd");
    for (shape, batch, middle, depth) in TUPLES {
        let front = [&shape[..batch], middle].concat();
        let result = [&front[..], &shape[batch + depth..]].concat();
        for dtype in types() {
            let x = Whole::draw(&mut rng, shape, -500, 500);
            let at = Whole::draw(&mut rng, &[&front[..], &[depth]].concat(), -6, 10);
            let expected = Whole::from_fn(&result, |i| {
                let mut from = i[..batch].to_vec();
                for k in 0..depth {
                    let index = at.at(&[&i[..front.len()], &[k]].concat());
                    from.push(place(index, shape[batch + k]));
                }
                from.extend_from_slice(&i[front.len()..]);
                x.at(&from)
            });
            let found = run(&[x.tensor(dtype), at.tensor(DType::I32)], |g, v| g.gather_nd(v[0], v[1], batch));
            check(&format!("gather_nd {shape:?} {batch} {middle:?} {depth} {dtype}"), found, &expected);
        }
    }
}

const COMBINE: [Combine; 5] = [Combine::Replace, Combine::Add, Combine::Mul, Combine::Min, Combine::Max];

fn combined(combine: Combine, old: i32, new: i32) -> i32 {
    match combine {
        Combine::Replace => new,
        Combine::Add => old + new,
        Combine::Mul => old * new,
        Combine::Min => old.min(new),
        Combine::Max => old.max(new),
    }
}

/// Where an index writes.
fn target(i: i32, n: usize) -> Option<usize> {
    let i = if i < 0 { i64::from(i) + n as i64 } else { i64::from(i) };
    usize::try_from(i).ok().filter(|&i| i < n)
}

/// Factors whose products stay small: f16 must hold them.
fn small(mut w: Whole) -> Whole {
    w.data.iter_mut().for_each(|v| *v = if *v % 3 == 0 { *v % 7 } else { v.signum() });
    w
}

#[test]
fn updates_one_by_one() {
    let mut rng = Rng::new("scatter elements");
    for (shape, smaller) in [
        (vec![9], vec![14]),
        (vec![3, 5], vec![2, 4]),
        (vec![2, 3, 4], vec![2, 3, 4]),
        (vec![1, 4, 1, 6], vec![1, 2, 1, 5]),
        (vec![2, 1, 300], vec![2, 1, 11]),
    ] {
        for axis in 0..shape.len() {
            let n = shape[axis] as i32;
            let mut given: Vec<usize> = smaller.iter().zip(&shape).map(|(&a, &b)| a.min(b)).collect();
            given[axis] = smaller[axis];
            for (dtype, combine) in types().into_iter().flat_map(|t| COMBINE.map(|c| (t, c))) {
                let x = small(Whole::draw(&mut rng, &shape, -50, 50));
                let at = Whole::draw(&mut rng, &given, -n - 2, n + 2);
                let updates = small(Whole::draw(&mut rng, &given, -50, 50));
                let mut expected = x.clone();
                // Row-major order is the order along every axis.
                for u in 0..at.data.len() {
                    let mut to = coordinates(&given, u);
                    let Some(row) = target(at.data[u], shape[axis]) else { continue };
                    to[axis] = row;
                    let to = flat(&shape, &to);
                    expected.data[to] = combined(combine, expected.data[to], updates.data[u]);
                }
                let inputs = [x.tensor(dtype), at.tensor(DType::I32), updates.tensor(dtype)];
                let found = run(&inputs, |g, v| g.scatter_elements(v[0], v[1], v[2], axis, combine));
                check(
                    &format!("scatter_elements {shape:?} {given:?} {axis} {combine:?} {dtype}"),
                    found,
                    &expected,
                );
            }
        }
    }
}

#[test]
fn updates_by_tuples() {
    let mut rng = Rng::new("scatter nd");
    for (shape, batch, middle, depth) in TUPLES.into_iter().chain([(&[500, 2][..], 0, &[40][..], 2)]) {
        if batch != 0 {
            continue; // ONNX's ScatterND has no batch
        }
        let given = [middle, &shape[depth..]].concat();
        for (dtype, combine) in types().into_iter().flat_map(|t| COMBINE.map(|c| (t, c))) {
            let x = small(Whole::draw(&mut rng, shape, -50, 50));
            let at = Whole::draw(&mut rng, &[middle, &[depth]].concat(), -6, 10);
            let updates = small(Whole::draw(&mut rng, &given, -50, 50));
            let mut expected = x.clone();
            for u in 0..updates.data.len() {
                let from = coordinates(&given, u);
                let tuple = (0..depth).map(|k| {
                    let index = at.at(&[&from[..middle.len()], &[k]].concat());
                    target(index, shape[k])
                });
                let Some(mut to) = tuple.collect::<Option<Vec<usize>>>() else { continue };
                to.extend_from_slice(&from[middle.len()..]);
                let to = flat(shape, &to);
                expected.data[to] = combined(combine, expected.data[to], updates.data[u]);
            }
            let inputs = [x.tensor(dtype), at.tensor(DType::I32), updates.tensor(dtype)];
            let found = run(&inputs, |g, v| g.scatter_nd(v[0], v[1], v[2], combine));
            check(&format!("scatter_nd {shape:?} {middle:?} {depth} {combine:?} {dtype}"), found, &expected);
        }
    }
}

#[test]
fn running_sums_and_products() {
    let mut rng = Rng::new("cumulate");
    for shape in [vec![11], vec![3, 5], vec![2, 3, 4], vec![1, 7, 1, 6], vec![2, 33, 8]] {
        for axis in 0..shape.len() {
            for variant in 0..8 {
                let (exclusive, reverse) = (variant & 1 != 0, variant & 2 != 0);
                let running = if variant & 4 == 0 { Running::Sum } else { Running::Product };
                for dtype in types() {
                    let x = match running {
                        Running::Sum => Whole::draw(&mut rng, &shape, -50, 50),
                        // Products of a few twos.
                        Running::Product => Whole::from_fn(&shape, |_| [1, -1, 1, 2][rng.below(4)]),
                    };
                    let n = shape[axis];
                    let term = |i: &[usize], k: usize| {
                        let mut from = i.to_vec();
                        from[axis] = k;
                        f64::from(x.at(&from))
                    };
                    let expected: Vec<f64> = (0..x.data.len())
                        .map(|flat| {
                            let i = coordinates(&shape, flat);
                            let counts = |k: usize| match reverse {
                                false => k < i[axis] + usize::from(!exclusive),
                                true => k + usize::from(!exclusive) > i[axis],
                            };
                            let terms = (0..n).filter(|&k| counts(k)).map(|k| term(&i, k));
                            match running {
                                Running::Sum => terms.sum(),
                                Running::Product => terms.product(),
                            }
                        })
                        .collect();
                    let found = run(&[x.tensor(dtype)], |g, v| {
                        g.push(Cumulate { running, axis, exclusive, reverse }, &[v[0]])
                    });
                    let Some((_, found)) = found else { continue };
                    for (i, (&f, &e)) in found.iter().zip(&expected).enumerate() {
                        // Whole numbers are exact but for what f16 rounds when it is stored, and what it has no number for.
                        let e = if dtype == DType::F16 { f64::from(half(e as f32)) } else { e };
                        let name = format!("{running:?} {shape:?} {axis} {exclusive} {reverse} {dtype}");
                        assert_eq!(f64::from(f), e, "{name}: element {i}");
                    }
                }
            }
        }
    }
}

fn half(x: f32) -> f32 {
    Tensor::from_f32([1], &[x]).to_dtype(DType::F16).to_f32()[0]
}

#[test]
fn places_of_the_largest_and_smallest() {
    let mut rng = Rng::new("top k");
    for (shape, axis) in [
        (vec![1], 0),
        (vec![9], 0),
        (vec![3, 5], 0),
        (vec![2, 3, 40], 2),
        (vec![2, 70, 3], 1),
        (vec![256, 2], 0),
        (vec![257], 0),
        (vec![2, 300, 3], 1),
        (vec![3, 1000], 1),
        (vec![70_000], 0),
    ] {
        let n: usize = shape[axis];
        for keep in [1, n / 7 + 1, n / 2 + 1, n].map(|k| if n > 1000 { k % 300 + 1 } else { k }) {
            // Few different numbers, so that there are equals, and many.
            for (most, smallest) in [(3, false), (2000, true), (2000, false)] {
                for dtype in types() {
                    let x = Whole::draw(&mut rng, &shape, -most, most);
                    let mut wanted = shape.clone();
                    wanted[axis] = keep;
                    let mut expected =
                        Whole { data: vec![0; wanted.iter().product()], shape: wanted.clone() };
                    let mut lines = shape.clone();
                    lines[axis] = 1;
                    for line in 0..lines.iter().product() {
                        let mut at = coordinates(&lines, line);
                        let mut order: Vec<(i32, usize)> = (0..n)
                            .map(|i| {
                                at[axis] = i;
                                (x.at(&at) * if smallest { 1 } else { -1 }, i)
                            })
                            .collect();
                        order.sort_unstable();
                        for (j, &(_, i)) in order[..keep].iter().enumerate() {
                            at[axis] = j;
                            expected.data[flat(&wanted, &at)] = i as i32;
                        }
                    }
                    let found =
                        run(&[x.tensor(dtype)], |g, v| g.push(TopK { axis, keep, smallest }, &[v[0]]));
                    check(&format!("top_k {shape:?} {axis} {keep} {smallest} {dtype}"), found, &expected);
                }
            }
        }
    }
}

/// Fractions, infinities and both zeros, which are equal.
#[test]
fn order_of_real_numbers() {
    for n in [40, 900] {
        let mut rng = Rng::new("order");
        let mut values: Vec<f32> = (0..n).map(|_| rng.uniform(-1e-3, 1e3) as f32).collect();
        for i in 0..n / 4 {
            values[4 * i] = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1e-30, -1e-30][rng.below(6)];
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap());
        let expected = Whole { shape: vec![n], data: order.into_iter().map(|i| i as i32).collect() };
        let found = run(&[Tensor::from_f32([n], &values)], |g, v| g.top_k(v[0], 0, n));
        check(&format!("order of {n}"), found, &expected);
    }
}

#[test]
fn indices_that_do_not_fit_are_errors() {
    let mut graph = Graph::new();
    let x = graph.input("x", [4, 3], DType::F32);
    let at = graph.input("at", [5, 3], DType::I32);
    let other = graph.input("other", [4, 3], DType::U32);
    assert!(graph.gather_elements(x, at, 1).is_err_and(|e| e.to_string().contains("along axis 1")));
    assert!(graph.gather_elements(x, other, 0).is_err_and(|e| e.to_string().contains("must be i32")));
    assert!(graph.gather_nd(x, at, 0).is_err_and(|e| e.to_string().contains("do not address")));
    assert!(graph.gather_nd(x, at, 1).is_err_and(|e| e.to_string().contains("do not address")));
    let columns = graph.input("columns", [2, 1], DType::I32);
    let short = graph.input("short", [2, 2], DType::F32);
    let found = graph.scatter_nd(x, columns, short, Combine::Add);
    assert!(found.is_err_and(|e| e.to_string().contains("updates must be f32[2, 3], found f32[2, 2]")));
    let found = graph.scatter_elements(x, at, x, 0, Combine::Add);
    assert!(found.is_err_and(|e| e.to_string().contains("updates must be f32[5, 3]")));
}

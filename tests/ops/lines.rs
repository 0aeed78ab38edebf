//! Softmax, reductions and arg-max.

use aquatint::ops::reduce::Reduction;

use crate::harness::{Array, Case, Rng};

const SHAPES: [(&[usize], usize); 10] = [
    (&[3, 10], 1),
    (&[2, 77, 5], 1),
    (&[4, 6, 8], 0),
    (&[2, 3, 4, 1000], 3),
    (&[7], 0),
    (&[5, 1, 4], 1),
    (&[130, 1], 1),
    (&[3, 333], 1),
    (&[1, 2311], 1),
    (&[2, 100, 13], 1),
];

/// The numbers of the line through `index` along `axis`.
fn line(a: &Array, index: &[usize], axis: usize) -> Vec<f64> {
    let mut at = index.to_vec();
    (0..a.shape[axis])
        .map(|i| {
            at[axis] = i;
            a.at(&at)
        })
        .collect()
}

#[test]
fn softmax() {
    let mut rng = Rng::new("softmax");
    for (shape, axis) in SHAPES {
        let x = rng.array_in(shape, -8.0, 8.0);
        let sum = |a: &Array, i: &[usize]| line(a, i, axis).iter().map(|v| (v - a.at(i)).exp()).sum::<f64>();
        Case::new(format!("softmax {shape:?} {axis}"))
            .played()
            .input(&x)
            .check(|g, v| g.softmax(v[0], axis), |a| Array::from_fn(shape, |i| 1.0 / sum(&a[0], i)));
        Case::new(format!("log softmax {shape:?} {axis}"))
            .played()
            .input(&x)
            .check(|g, v| g.log_softmax(v[0], axis), |a| Array::from_fn(shape, |i| -sum(&a[0], i).ln()));
    }
}

/// Whole quads, of a number that no block of them divides.
#[test]
fn softmax_of_long_rows() {
    let mut rng = Rng::new("softmax of long rows");
    for shape in [&[9, 4][..], &[3, 70, 20], &[21, 1000], &[2, 3, 36], &[131, 8], &[1, 8196]] {
        let (axis, size) = (shape.len() - 1, shape[shape.len() - 1]);
        let x = rng.array_in(shape, -8.0, 8.0);
        let rows = |a: &Array, result: fn(f64, f64) -> f64| {
            let mut y = a.clone();
            for row in y.data.chunks_mut(size) {
                let sum = row.iter().map(|v| v.exp()).sum::<f64>();
                row.iter_mut().for_each(|v| *v = result(*v, sum));
            }
            y
        };
        Case::new(format!("softmax {shape:?}"))
            .played()
            .input(&x)
            .check(|g, v| g.softmax(v[0], axis), |a| rows(&a[0], |x, sum| x.exp() / sum));
        Case::new(format!("log softmax {shape:?}"))
            .played()
            .input(&x)
            .check(|g, v| g.log_softmax(v[0], axis), |a| rows(&a[0], |x, sum| x - sum.ln()));
    }
}

#[test]
fn softmax_of_extremes() {
    let inf = f64::NEG_INFINITY;
    let x = Array { shape: vec![2, 4], data: vec![-inf.abs(), 3.0, inf, 2.0, 6e4, 6e4, inf, -6e4] };
    Case::new("softmax of extremes").played().input(&x).check(
        |g, v| g.softmax(v[0], 1),
        |_| {
            let (a, b) = (1.0 / (1.0 + (-1f64).exp()), 1.0 / (1.0 + 1f64.exp()));
            Array { shape: vec![2, 4], data: vec![0.0, a, 0.0, b, 0.5, 0.5, 0.0, 0.0] }
        },
    );
}

#[test]
fn reductions_over_any_axes() {
    let mut rng = Rng::new("reduce");
    for (shape, axes) in [
        (&[2, 9, 7, 12][..], &[1, 2][..]),
        (&[2, 9, 7, 3], &[1, 2]),
        (&[3, 5, 4], &[2]),
        (&[3, 5, 4], &[0, 2]),
        (&[3, 5, 4], &[0, 1, 2]),
        (&[2, 3, 2, 5, 4], &[1, 3]),
        (&[3, 500], &[1]),
        (&[131, 17], &[1]),
        (&[2, 1777], &[1]),
        (&[2, 19, 17, 36], &[1, 2]),
        (&[2, 19, 17, 7], &[1, 2]),
        (&[2, 16, 1], &[1]),
        (&[2, 5000], &[1]),
        (&[1, 73, 64, 8], &[1, 2]),
    ] {
        let x = rng.array_in(shape, 0.9, 1.1);
        for reduction in [
            Reduction::Sum,
            Reduction::Mean,
            Reduction::Max,
            Reduction::Min,
            Reduction::Product,
            Reduction::L2,
        ] {
            for keep in [false, true] {
                let kept: Vec<usize> =
                    (0..shape.len()).map(|d| if axes.contains(&d) { 1 } else { shape[d] }).collect();
                let result: Vec<usize> =
                    (0..shape.len()).filter(|d| keep || !axes.contains(d)).map(|d| kept[d]).collect();
                // In f16 a reduction over axes apart is rounded once for each run of axes.
                Case::new(format!("{reduction:?} {shape:?} {axes:?} {keep}"))
                    .played()
                    .input(&x)
                    .tolerance(1e-5, 4e-3)
                    .check(
                        |g, v| g.reduce(v[0], reduction, axes, keep),
                        |a| {
                            let mut groups = Array::from_fn(&kept, |i| {
                                let mut numbers = Vec::new();
                                Array::from_fn(shape, |j| {
                                    if (0..j.len()).all(|d| axes.contains(&d) || i[d] == j[d]) {
                                        numbers.push(a[0].at(j));
                                    }
                                    0.0
                                });
                                let sum: f64 = numbers.iter().sum();
                                match reduction {
                                    Reduction::Sum => sum,
                                    Reduction::Mean => sum / numbers.len() as f64,
                                    Reduction::Max => numbers.iter().copied().fold(f64::MIN, f64::max),
                                    Reduction::Min => numbers.iter().copied().fold(f64::MAX, f64::min),
                                    Reduction::Product => numbers.iter().product(),
                                    Reduction::L2 => numbers.iter().map(|v| v * v).sum::<f64>().sqrt(),
                                }
                            });
                            groups.shape = result.clone();
                            groups
                        },
                    );
            }
        }
    }
}

#[test]
fn arg_max_takes_the_first_of_equals() {
    let mut rng = Rng::new("arg max");
    for (shape, axis) in SHAPES {
        // Few different numbers, so that there are equals.
        let x = rng.indices(shape, 5);
        let mut result = shape.to_vec();
        result.remove(axis);
        for smallest in [false, true] {
            Case::new(format!("arg max {shape:?} {axis} {smallest}")).played().input(&x).check(
                |g, v| if smallest { g.arg_min(v[0], axis) } else { g.arg_max(v[0], axis) },
                |a| {
                    Array::from_fn(&result, |i| {
                        let mut at = i.to_vec();
                        at.insert(axis, 0);
                        let numbers = line(&a[0], &at, axis);
                        let best = numbers.iter().copied().reduce(if smallest { f64::min } else { f64::max });
                        numbers.iter().position(|v| Some(*v) == best).unwrap() as f64
                    })
                },
            );
        }
    }
}

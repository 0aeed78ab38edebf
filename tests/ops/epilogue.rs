//! What the passes fuse into a convolution must still compute the same.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::expr::Unary;

use crate::conv2d::conv2d;
use crate::harness::{Array, Case, Rng};

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

#[test]
fn embedding_activation_and_residual() {
    let mut rng = Rng::new("epilogue");
    // A multiple of four channels, and not; a texture's size, and not; with groups.
    for (n, h, c_in, c_out, k, groups) in [
        (2, 16, 16, 32, 3, 1),
        (3, 5, 3, 6, 3, 1),
        (2, 8, 32, 32, 1, 1),
        (2, 6, 8, 8, 3, 8),
        (2, 6, 4, 8, 3, 2),
    ] {
        let options = Conv2dOptions::padded(k / 2).groups(groups);
        let x = rng.array(&[n, h, h, c_in]);
        let w = rng.array(&[c_out, c_in / groups, k, k]);
        let (b, e) = (rng.array(&[c_out]), rng.array(&[n, 1, 1, c_out]));
        let r = rng.array(&[n, h, h, c_out]);
        Case::new(format!("conv + embedding, silu, residual: {n} {h} {c_in} {c_out} {k} {groups}"))
            .input(&x)
            .weight(&w)
            .weight(&b)
            .input(&e)
            .input(&r)
            .check(
                |g, v| {
                    let y = g.conv2d(v[0], v[1], Some(v[2]), options)?;
                    let y = g.add(y, v[3])?;
                    let y = g.silu(y)?;
                    g.add(v[4], y)
                },
                |a| {
                    let y = conv2d(&a[0], &a[1], Some(&a[2]), &options);
                    Array::from_fn(&y.shape, |i| silu(y.at(i) + a[3].at(&[i[0], 0, 0, i[3]])) + a[4].at(i))
                },
            );
    }
}

#[test]
fn linear_with_activation_and_residual() {
    let mut rng = Rng::new("linear epilogue");
    for (tokens, k, m) in [(64, 96, 96), (7, 5, 9)] {
        let (x, w, r) = (rng.array(&[2, tokens, k]), rng.array(&[m, k]), rng.array(&[2, tokens, m]));
        Case::new(format!("linear {tokens} {k} {m}")).input(&x).weight(&w).input(&r).check(
            |g, v| {
                let y = g.linear(v[0], v[1], None)?;
                let y = g.unary(Unary::Tanh, y)?;
                g.add(y, v[2])
            },
            |a| {
                Array::from_fn(&[2, tokens, m], |i| {
                    let y: f64 = (0..k).map(|j| a[0].at(&[i[0], i[1], j]) * a[1].at(&[i[2], j])).sum();
                    y.tanh() + a[2].at(i)
                })
            },
        );
    }
}

#[test]
fn gated_layers() {
    let mut rng = Rng::new("gated");
    for (tokens, k, m) in [(64, 96, 96), (7, 5, 9), (300, 64, 68)] {
        let (x, w) = (rng.array(&[2, tokens, k]), [rng.array(&[m, k]), rng.array(&[m, k])]);
        let b = [rng.array(&[m]), rng.array(&[m])];
        Case::new(format!("gated linear {tokens} {k} {m}"))
            .input(&x)
            .weight(&w[0])
            .weight(&b[0])
            .weight(&w[1])
            .weight(&b[1])
            .check(
                |g, v| {
                    let value = g.linear(v[0], v[1], Some(v[2]))?;
                    let gate = g.linear(v[0], v[3], Some(v[4]))?;
                    let gate = g.silu(gate)?;
                    g.mul(value, gate)
                },
                |a| {
                    Array::from_fn(&[2, tokens, m], |i| {
                        let of = |w: &Array, b: &Array| {
                            let x = |j| a[0].at(&[i[0], i[1], j]);
                            b.at(&[i[2]]) + (0..k).map(|j| x(j) * w.at(&[i[2], j])).sum::<f64>()
                        };
                        of(&a[1], &a[2]) * silu(of(&a[3], &a[4]))
                    })
                },
            );
    }
}

#[test]
fn batch_norm() {
    let mut rng = Rng::new("batch norm");
    for bias in [false, true] {
        let options = Conv2dOptions::padded(1);
        let (x, w) = (rng.array(&[2, 9, 9, 6]), rng.array(&[10, 6, 3, 3]));
        let vectors = [(-1.0, 1.0), (0.5, 2.0), (-1.0, 1.0), (-1.0, 1.0), (0.2, 3.0)];
        let vectors = vectors.map(|(low, high)| rng.array_in(&[10], low, high));
        let mut case = Case::new(format!("batch norm, bias {bias}")).input(&x).weight(&w);
        for vector in &vectors {
            case = case.weight(vector);
        }
        // In f16 the folded weight and bias are rounded once more.
        case.tolerance(1e-5, 3e-3).check(
            |g, v| {
                let y = g.conv2d(v[0], v[1], bias.then_some(v[2]), options)?;
                g.batch_norm(y, v[3], v[4], v[5], v[6], 1e-5)
            },
            |a| {
                let y = conv2d(&a[0], &a[1], bias.then_some(&a[2]), &options);
                Array::from_fn(&y.shape, |i| {
                    let [scale, shift, mean, variance] = [3, 4, 5, 6].map(|k| a[k].at(&i[3..]));
                    (y.at(i) - mean) / (variance + 1e-5).sqrt() * scale + shift
                })
            },
        );
    }
}

#[test]
fn enlarged_source() {
    let mut rng = Rng::new("upsample");
    for (n, h, c_in, c_out, k, factor) in [(2, 8, 16, 32, 3, 2), (1, 5, 3, 6, 3, 2), (1, 4, 8, 4, 1, 3)] {
        let options = Conv2dOptions::padded(k / 2);
        let x = rng.array(&[n, h, h, c_in]);
        let w = rng.array(&[c_out, c_in, k, k]);
        Case::new(format!("upsample and conv: {n} {h} {c_in} {c_out} {k} {factor}"))
            .input(&x)
            .weight(&w)
            .check(
                |g, v| {
                    let large = g.upsample_nearest(v[0], factor)?;
                    g.conv2d(large, v[1], None, options)
                },
                |a| {
                    let large = Array::from_fn(&[n, h * factor, h * factor, c_in], |i| {
                        a[0].at(&[i[0], i[1] / factor, i[2] / factor, i[3]])
                    });
                    conv2d(&large, &a[1], None, &options)
                },
            );
    }
}

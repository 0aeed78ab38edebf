use aquatint::ops::expr::Unary;
use aquatint::ops::reduce::Reduction;
use aquatint::{DType, DeviceClass, Graph, Network, Plan, Result, Target, Tensor, ValueId};

use crate::harness::{Array, Case, Rng, gpu};

/// Mean and variance of the elements of `x` that `select` takes.
fn moments(x: &Array, mut select: impl FnMut(&[usize]) -> bool) -> (f64, f64) {
    let mut chosen = Vec::new();
    Array::from_fn(&x.shape, |i| {
        if select(i) {
            chosen.push(x.at(i));
        }
        0.0
    });
    let mean = chosen.iter().sum::<f64>() / chosen.len() as f64;
    (mean, chosen.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / chosen.len() as f64)
}

fn group_norm(x: &Array, groups: usize, weight: Option<&Array>, bias: Option<&Array>, eps: f64) -> Array {
    let (n, c) = (x.shape[0], *x.shape.last().unwrap());
    let size = c / groups;
    let table: Vec<Vec<(f64, f64)>> = (0..n)
        .map(|s| (0..groups).map(|g| moments(x, |i| i[0] == s && i[i.len() - 1] / size == g)).collect())
        .collect();
    Array::from_fn(&x.shape, |i| {
        let channel = i[i.len() - 1];
        let (mean, variance) = table[i[0]][channel / size];
        let y = (x.at(i) - mean) / (variance + eps).sqrt();
        y * weight.map_or(1.0, |w| w.at(&[channel])) + bias.map_or(0.0, |b| b.at(&[channel]))
    })
}

#[test]
fn groups() {
    let mut rng = Rng::new("group norm");
    for (shape, groups) in [
        (&[2, 32, 32, 16][..], 8),
        (&[2, 7, 7, 40], 2),
        (&[2, 64, 65, 36], 4),
        (&[1, 46, 46, 6], 2),
        (&[2, 100, 70, 8], 2),
        (&[2, 91, 101, 8], 1),
        (&[3, 16, 16, 48], 8),
        (&[2, 8, 8, 96], 8),
        (&[1, 7, 5, 12], 3),
        (&[2, 5, 3, 6], 2),
        (&[2, 9, 9, 7], 7),
        (&[2, 9, 9, 1], 1),
        (&[1, 1, 1, 4], 1),
        (&[2, 33, 20], 5),
        (&[2, 16, 16, 48], 8),
        (&[1, 24, 24, 320], 32),
    ] {
        let c = *shape.last().unwrap();
        let (x, w, b) = (rng.array(shape), rng.array(&[c]), rng.array(&[c]));
        // A single pixel normalises to zero: what is left is rounding of its mean.
        let eps = 1e-5f32;
        let case =
            Case::new(format!("group norm {shape:?} / {groups}")).played().input(&x).weight(&w).weight(&b);
        case.check(
            |g, v| g.group_norm(v[0], groups, Some(v[1]), Some(v[2]), eps),
            |a| group_norm(&a[0], groups, Some(&a[1]), Some(&a[2]), f64::from(eps)),
        );
        let silu = |x: f64| x / (1.0 + (-x).exp());
        Case::new(format!("group norm {shape:?} / {groups}, silu")).played().input(&x).weight(&b).check(
            |g, v| {
                let y = g.group_norm(v[0], groups, None, Some(v[1]), eps)?;
                g.unary(Unary::Silu, y)
            },
            |a| group_norm(&a[0], groups, None, Some(&a[1]), f64::from(eps)).map(silu),
        );
    }
}

#[test]
fn a_mean_far_from_zero() {
    let mut rng = Rng::new("far");
    for shape in [[2, 16, 16, 16], [2, 9, 9, 6], [1, 70, 61, 16], [1, 40, 41, 6]] {
        let x = rng.array(&shape).map(|v| 1000.0 + v);
        // The inputs themselves have only a spacing of 6e-5; the mean is good to one part in 1e7, 1e-4 of the deviation.
        Case::new("mean 1000").played().input(&x).f32_only().tolerance(3e-4, 0.0).check(
            |g, v| g.group_norm(v[0], 2, None, None, 1e-5),
            |a| group_norm(&a[0], 2, None, None, 1e-5),
        );
    }
    // One outlier at the start of small numbers.
    let mut x = rng.array(&[1, 16, 16, 16]);
    x.data[..16].iter_mut().for_each(|v| *v = 1e4);
    Case::new("outlier")
        .played()
        .input(&x)
        .f32_only()
        .check(|g, v| g.group_norm(v[0], 4, None, None, 1e-5), |a| group_norm(&a[0], 4, None, None, 1e-5));
}

#[test]
fn instance() {
    let mut rng = Rng::new("instance norm");
    for shape in [[2, 17, 9, 8], [1, 5, 5, 3], [1, 50, 47, 3]] {
        let x = rng.array(&shape);
        Case::new(format!("instance norm {shape:?}")).played().input(&x).check(
            |g, v| g.instance_norm(v[0], None, None, 1e-5),
            |a| group_norm(&a[0], shape[3], None, None, 1e-5),
        );
    }
}

#[test]
fn rows() {
    let mut rng = Rng::new("layer norm");
    for shape in [
        &[5, 96][..],
        &[2, 3, 7],
        &[4, 64, 320],
        &[3, 1],
        &[131, 4],
        &[130, 2],
        &[7, 36],
        &[9, 260],
        &[1, 4100],
        &[3, 1023],
        &[1, 8196],
        &[2, 2311],
    ] {
        let c = *shape.last().unwrap();
        let (x, w, b) = (rng.array(shape), rng.array(&[c]), rng.array(&[c]));
        Case::new(format!("layer norm {shape:?}")).played().input(&x).weight(&w).weight(&b).check(
            |g, v| g.layer_norm(v[0], Some(v[1]), Some(v[2]), 1e-5),
            |a| {
                let mut y = a[0].clone();
                for row in y.data.chunks_mut(c) {
                    let mean = row.iter().sum::<f64>() / c as f64;
                    let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c as f64;
                    for (k, v) in row.iter_mut().enumerate() {
                        *v = (*v - mean) / (variance + 1e-5).sqrt() * a[1].data[k] + a[2].data[k];
                    }
                }
                y
            },
        );
        Case::new(format!("rms norm {shape:?}")).played().input(&x).weight(&w).check(
            |g, v| g.rms_norm(v[0], Some(v[1]), 1e-6),
            |a| {
                let mut y = a[0].clone();
                for row in y.data.chunks_mut(c) {
                    let square = row.iter().map(|v| v * v).sum::<f64>() / c as f64;
                    row.iter_mut().zip(&a[1].data).for_each(|(v, w)| *v *= w / (square + 1e-6).sqrt());
                }
                y
            },
        );
    }
}

/// Rows far from zero, all of one number, and with one outlier.
#[test]
fn rows_far_from_zero() {
    let mut rng = Rng::new("far rows");
    for c in [96, 37, 1280] {
        let mut x = rng.array(&[6, c]).map(|v| 1000.0 + v);
        x.data[c..2 * c].fill(-777.7);
        x.data[2 * c..3 * c].iter_mut().for_each(|v| *v -= 1000.0);
        x.data[2 * c] = 1e4;
        // Of numbers near 1000 the spacing is 6e-5, and so the mean is good to 1e-4 of the deviation.
        Case::new(format!("far rows of {c}")).played().input(&x).f32_only().tolerance(3e-4, 0.0).check(
            |g, v| g.layer_norm(v[0], None, None, 1e-5),
            |a| {
                let mut y = a[0].clone();
                for row in y.data.chunks_mut(c) {
                    let mean = row.iter().sum::<f64>() / c as f64;
                    let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c as f64;
                    row.iter_mut().for_each(|v| *v = (*v - mean) / (variance + 1e-5).sqrt());
                }
                y
            },
        );
    }
}

/// What a picture is does not depend on how many are computed with it, with several threads a row neither.
#[test]
fn a_sample_alone_has_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    let target = Target { class: DeviceClass::Discrete, ..gpu.target().clone() };
    let mut rng = Rng::new("alone");
    type Build = fn(&mut Graph, ValueId) -> Result<ValueId>;
    let operations: [(&str, Build); 6] = [
        ("group norm", |g, x| g.group_norm(x, 2, None, None, 1e-5)),
        ("instance norm", |g, x| g.instance_norm(x, None, None, 1e-5)),
        ("layer norm", |g, x| g.layer_norm(x, None, None, 1e-5)),
        ("softmax", |g, x| g.softmax(x, 3)),
        ("mean", |g, x| g.reduce(x, Reduction::Mean, &[1, 2], true)),
        ("sum of rows", |g, x| g.reduce(x, Reduction::Sum, &[3], true)),
    ];
    for [h, w, c] in [[9, 7, 24], [40, 41, 6], [70, 61, 16]] {
        let all: Vec<f32> = rng.array(&[3, h, w, c]).data.iter().map(|&v| v as f32).collect();
        for (name, build) in operations {
            let run = |samples: usize| {
                let mut g = Graph::new();
                let x = g.input("x", [samples, h, w, c], DType::F32);
                let y = build(&mut g, x).unwrap();
                g.output("y", y);
                let network = Network::from_plan(gpu, Plan::compile(&g, &target).unwrap()).unwrap();
                let x = Tensor::from_f32([samples, h, w, c], &all[..samples * h * w * c]);
                network.run(&[("x", &x)]).unwrap().remove(0).to_f32()
            };
            let (alone, together) = (run(1), run(3));
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&alone), bits(&together[..alone.len()]), "{name} of [_, {h}, {w}, {c}]");
        }
    }
}

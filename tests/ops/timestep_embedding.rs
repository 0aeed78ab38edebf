use aquatint::ops::TimestepEmbedding;

use crate::harness::{Array, Case, Rng};

fn check(rows: usize, stride: usize, embedding: &TimestepEmbedding, low: f64, high: f64) {
    let name = format!("{embedding:?} of [{rows}, {stride}] in {low} to {high}");
    let mut rng = Rng::new(&name);
    let t = rng.array_in(&[rows, stride], low, high);
    let frequencies = embedding.frequencies();
    let half = embedding.dim / 2;
    Case::new(name).input(&t).f32_only().check(
        |g, v| g.timestep_embedding(v[0], embedding.clone()),
        |a| {
            Array::from_fn(&[rows, embedding.dim], |i| {
                if i[1] >= 2 * half {
                    return 0.0;
                }
                // PyTorch too computes the angle in f32: at 1000 radians that alone is 3e-5.
                let angle = f64::from(a[0].at(&[i[0], 0]) as f32 * frequencies[i[1] % half]);
                match (i[1] < half) == embedding.cos_first {
                    true => angle.cos(),
                    false => angle.sin(),
                }
            })
        },
    );
}

#[test]
fn widths_and_orders() {
    for (dim, cos_first, shift) in
        [(16, true, 0.0), (320, true, 0.0), (128, false, 1.0), (7, false, 0.0), (512, true, 0.0)]
    {
        for (rows, stride) in [(1, 32), (3, 1), (2, 5)] {
            check(rows, stride, &TimestepEmbedding::new(dim, cos_first, shift), 0.0, 1000.0);
        }
    }
}

#[test]
fn scales_and_negative_times() {
    let scaled = TimestepEmbedding { scale: 2.5, max_period: 100.0, ..TimestepEmbedding::new(32, true, 0.0) };
    check(9, 1, &scaled, -1000.0, 1000.0);
    check(9, 1, &TimestepEmbedding::new(32, false, 0.0), -1e-3, 1e-3);
}

#[test]
fn frequencies_fall_from_one() {
    let f = TimestepEmbedding::new(16, true, 0.0).frequencies();
    assert_eq!((f.len(), f[0]), (8, 1.0));
    assert!((f[4] - 0.01).abs() < 1e-8 && f.windows(2).all(|w| w[1] < w[0]));
}

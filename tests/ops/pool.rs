use aquatint::ops::pool::{PoolKind, PoolOptions};
use proptest::prelude::*;

use crate::harness::{Array, Case, Rng};

/// Windows as lists of positions: in the input, `None` in its padding, absent beyond.
fn windows(size: usize, o: &PoolOptions, axis: usize) -> Vec<Vec<Option<usize>>> {
    let (before, after) = (o.padding[axis], o.padding[axis + 2]);
    let mut all = Vec::new();
    let mut start = 0;
    loop {
        let taps: Vec<usize> = (0..o.kernel[axis]).map(|k| start + k * o.dilation[axis]).collect();
        let whole = taps[taps.len() - 1] < size + before + after;
        // A partial window needs ceil mode, and that no whole step is left over before it.
        let partial = o.ceil && start < size + before && {
            let last =
                start as i64 - o.stride[axis] as i64 + (o.dilation[axis] * (o.kernel[axis] - 1)) as i64;
            last + 1 < (size + before + after) as i64
        };
        if !whole && !partial {
            return all;
        }
        let inside = |t: usize| t.checked_sub(before).filter(|&i| i < size);
        all.push(taps.into_iter().filter(|&t| t < size + before + after).map(inside).collect());
        start += o.stride[axis];
    }
}

fn pool(x: &Array, ys: &[Vec<Option<usize>>], xs: &[Vec<Option<usize>>], reduce: PoolKind) -> Array {
    Array::from_fn(&[x.shape[0], ys.len(), xs.len(), x.shape[3]], |i| {
        let mut values = Vec::new();
        let mut padding = 0;
        for v in &ys[i[1]] {
            for u in &xs[i[2]] {
                match (v, u) {
                    (Some(v), Some(u)) => values.push(x.at(&[i[0], *v, *u, i[3]])),
                    _ => padding += 1,
                }
            }
        }
        match reduce {
            PoolKind::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            PoolKind::Mean { include_pad } => {
                let count = values.len() + if include_pad { padding } else { 0 };
                values.iter().sum::<f64>() / count as f64
            }
        }
    })
}

const REDUCTIONS: [PoolKind; 3] =
    [PoolKind::Max, PoolKind::Mean { include_pad: true }, PoolKind::Mean { include_pad: false }];

fn check(shape: [usize; 4], o: PoolOptions) {
    for reduce in REDUCTIONS {
        let name = format!("pool {shape:?} {o:?} {reduce:?}");
        let x = Rng::new(&name).array(&shape);
        Case::new(name).input(&x).check(
            |g, v| match reduce {
                PoolKind::Max => g.max_pool(v[0], o),
                PoolKind::Mean { include_pad } => g.average_pool(v[0], o, include_pad),
            },
            |a| pool(&a[0], &windows(shape[1], &o, 0), &windows(shape[2], &o, 1), reduce),
        );
    }
}

#[test]
fn windows_of_real_networks() {
    check([2, 16, 16, 8], PoolOptions::square(2));
    check([1, 15, 15, 3], PoolOptions { stride: [2; 2], padding: [1; 4], ..PoolOptions::square(3) });
    check([1, 7, 6, 4], PoolOptions { ceil: true, ..PoolOptions::square(2) });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_windows(
        h in 5usize..12, w in 5usize..12, c in 1usize..9,
        ky in 1usize..4, kx in 1usize..4, sy in 1usize..4, sx in 1usize..4, dy in 1usize..3, dx in 1usize..3,
        pads in any::<[usize; 4]>(), ceil in any::<bool>(),
    ) {
        // At most half of the kernel, so that every window holds a pixel.
        let pad = |i: usize, k: usize| pads[i] % (k / 2 + 1);
        let padding = [pad(0, ky), pad(1, kx), pad(2, ky), pad(3, kx)];
        check([2, h, w, c], PoolOptions { kernel: [ky, kx], stride: [sy, sx], padding, dilation: [dy, dx], ceil });
    }
}

#[test]
fn adaptive_and_global() {
    for (shape, size) in [
        ([2, 7, 5, 8], [1, 1]),
        ([2, 7, 5, 3], [3, 2]),
        ([1, 4, 4, 4], [6, 5]),
        ([1, 1, 1, 1], [1, 1]),
        ([1, 12, 9, 16], [4, 9]),
    ] {
        for reduce in REDUCTIONS {
            let name = format!("adaptive {shape:?} {size:?} {reduce:?}");
            let x = Rng::new(&name).array(&shape);
            let cover = |n: usize, out: usize| -> Vec<Vec<Option<usize>>> {
                (0..out).map(|i| (i * n / out..((i + 1) * n).div_ceil(out)).map(Some).collect()).collect()
            };
            Case::new(name).input(&x).check(
                |g, v| {
                    if size == [1, 1] {
                        g.global_pool(v[0], reduce)
                    } else {
                        g.adaptive_pool(v[0], size, reduce)
                    }
                },
                |a| pool(&a[0], &cover(shape[1], size[0]), &cover(shape[2], size[1]), reduce),
            );
        }
    }
}

/// Large maps: tens of thousands of terms of one sign.
#[test]
fn global_over_large_maps() {
    for shape in [[1, 192, 256, 4], [2, 67, 61, 3], [1, 2000, 5, 8], [1, 3, 3000, 2]] {
        for reduce in REDUCTIONS {
            let name = format!("global {shape:?} {reduce:?}");
            let x = Rng::new(&name).array_in(&shape, 0.5, 1.0);
            let all = |n: usize| vec![(0..n).map(Some).collect::<Vec<_>>()];
            Case::new(name).input(&x).check(
                |g, v| g.global_pool(v[0], reduce),
                |a| pool(&a[0], &all(shape[1]), &all(shape[2]), reduce),
            );
        }
    }
}

#[test]
fn windows_that_do_not_fit_are_errors() {
    let mut graph = aquatint::Graph::new();
    let x = graph.input("x", [1, 4, 4, 1], aquatint::DType::F32);
    let padded = PoolOptions { padding: [2; 4], ..PoolOptions::square(2) };
    let still = PoolOptions { stride: [0; 2], ..PoolOptions::square(2) };
    for options in [PoolOptions::square(5), PoolOptions::square(0), padded, still] {
        assert!(graph.max_pool(x, options).is_err(), "{options:?}");
    }
    assert!(graph.adaptive_pool(x, [0, 1], PoolKind::Max).is_err());
}

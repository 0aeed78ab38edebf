use aquatint::ops::strided::Range;
use proptest::prelude::*;

use crate::harness::{Array, Case, Rng};

#[test]
fn slices() {
    let mut rng = Rng::new("slice");
    let range = |start, stop, step| Range { start, stop, step };
    let cases: [(&[usize], Vec<Range>); 7] = [
        (&[2, 6, 5, 8], vec![Range::all(), range(1, Some(5), 2), range(4, None, -1), Range::all()]),
        (&[2, 6, 5, 8], vec![range(1, None, 1), Range::all(), Range::all(), range(4, Some(8), 1)]),
        (&[3, 9], vec![Range::all(), range(8, Some(1), -3)]),
        (&[3, 9], vec![range(2, Some(0), -1), range(1, Some(6), 1)]),
        (&[1], vec![Range::all()]),
        (&[7], vec![range(6, None, isize::MIN)]),
        (&[4, 12], vec![range(0, None, 3), range(0, Some(4), 1)]),
    ];
    for (shape, ranges) in cases {
        let x = rng.array(shape);
        Case::new(format!("slice {shape:?} {ranges:?}")).input(&x).check(
            |g, v| g.slice(v[0], &ranges),
            |a| {
                // The indices that each axis keeps, by walking it.
                let kept: Vec<Vec<usize>> = ranges
                    .iter()
                    .zip(shape)
                    .map(|(r, &n)| {
                        let stop = r.stop.map_or(if r.step > 0 { n as i128 } else { -1 }, |s| s as i128);
                        let mut at = r.start as i128;
                        let mut kept = Vec::new();
                        while (r.step > 0 && at < stop) || (r.step < 0 && at > stop) {
                            kept.push(at as usize);
                            at += r.step as i128;
                        }
                        kept
                    })
                    .collect();
                let sizes: Vec<usize> = kept.iter().map(Vec::len).collect();
                Array::from_fn(&sizes, |i| {
                    a[0].at(&i.iter().zip(&kept).map(|(&i, k)| k[i]).collect::<Vec<_>>())
                })
            },
        );
    }
}

#[test]
fn slices_outside_are_errors() {
    let mut graph = aquatint::Graph::new();
    let x = graph.input("x", [4], aquatint::DType::F32);
    for (start, stop, step) in
        [(0, Some(5), 1), (4, None, 1), (2, Some(2), 1), (0, None, 0), (1, Some(3), -1), (9, None, -1)]
    {
        assert!(graph.slice(x, &[Range { start, stop, step }]).is_err(), "{start} {stop:?} {step}");
    }
    assert!(graph.transpose(x, &[1]).is_err());
    assert!(graph.broadcast_to(x, [3]).is_err());
    assert!(graph.pixel_shuffle(x, 2).is_err());
}

fn transpose(x: &Array, axes: &[usize]) -> Array {
    let shape: Vec<usize> = axes.iter().map(|&a| x.shape[a]).collect();
    Array::from_fn(&shape, |i| {
        let mut from = vec![0; i.len()];
        for (d, &a) in axes.iter().enumerate() {
            from[a] = i[d];
        }
        x.at(&from)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn transposes(
        (shape, axes) in (2usize..=6).prop_flat_map(|rank| (
            prop::collection::vec(prop::sample::select(vec![1usize, 2, 3, 4, 5, 8]), rank),
            Just((0..rank).collect::<Vec<_>>()).prop_shuffle(),
        ))
    ) {
        // The identity records nothing.
        prop_assume!(!axes.iter().copied().eq(0..axes.len()));
        let x = Rng::new("transpose").array(&shape);
        Case::new(format!("transpose {shape:?} {axes:?}"))
            .input(&x)
            .check(|g, v| g.transpose(v[0], &axes), |a| transpose(&a[0], &axes));
    }
}

#[test]
fn broadcasts() {
    let mut rng = Rng::new("broadcast");
    let cases: [(&[usize], &[usize]); 5] = [
        (&[1, 8], &[3, 2, 8]),
        (&[5, 1], &[5, 4]),
        (&[2, 1, 3, 1], &[2, 4, 3, 8]),
        (&[1], &[7]),
        (&[4, 1, 8], &[2, 4, 3, 8]),
    ];
    for (from, to) in cases {
        Case::new(format!("broadcast {from:?} {to:?}")).input(&rng.array(from)).check(
            |g, v| g.broadcast_to(v[0], to),
            |a| {
                Array::from_fn(to, |i| {
                    let own = &i[to.len() - from.len()..];
                    a[0].at(&own.iter().zip(from).map(|(&i, &n)| i.min(n - 1)).collect::<Vec<_>>())
                })
            },
        );
    }
}

#[test]
fn pixel_shuffles() {
    let mut rng = Rng::new("shuffle");
    for (n, h, w, c, r) in [(2, 3, 5, 4, 2), (1, 2, 2, 1, 3), (1, 4, 3, 3, 2), (2, 1, 1, 8, 4)] {
        let (low, high) = ([n, h, w, c * r * r], [n, h * r, w * r, c]);
        Case::new(format!("pixel_shuffle {low:?} {r}")).input(&rng.array(&low)).check(
            |g, v| g.pixel_shuffle(v[0], r),
            |a| {
                let channel = |i: &[usize]| (i[3] * r + i[1] % r) * r + i[2] % r;
                Array::from_fn(&high, |i| a[0].at(&[i[0], i[1] / r, i[2] / r, channel(i)]))
            },
        );
        Case::new(format!("pixel_unshuffle {high:?} {r}")).input(&rng.array(&high)).check(
            |g, v| g.pixel_unshuffle(v[0], r),
            |a| {
                Array::from_fn(&low, |i| {
                    let (k, dy, dx) = (i[3] / (r * r), i[3] / r % r, i[3] % r);
                    a[0].at(&[i[0], i[1] * r + dy, i[2] * r + dx, k])
                })
            },
        );
    }
}

use aquatint::ops::Matmul;
use proptest::prelude::*;

use crate::harness::{Array, Case, Rng};

fn check(batch_a: &[usize], batch_b: &[usize], [m, k, n]: [usize; 3], transpose_a: bool, transpose_b: bool) {
    let name = format!("matmul {batch_a:?}×{batch_b:?} {m}×{k}×{n} {transpose_a} {transpose_b}");
    let mut rng = Rng::new(&name);
    let a = rng.array(&[batch_a, &if transpose_a { [k, m] } else { [m, k] }].concat());
    let b = rng.array(&[batch_b, &if transpose_b { [n, k] } else { [k, n] }].concat());
    let rank = batch_a.len().max(batch_b.len());
    let dim = |s: &[usize], d: usize| (d + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    let batch: Vec<usize> = (0..rank).map(|d| dim(batch_a, d).max(dim(batch_b, d))).collect();
    let own = |s: &[usize], i: &[usize]| -> Vec<usize> {
        (rank - s.len()..rank).map(|d| if dim(s, d) == 1 { 0 } else { i[d] }).collect()
    };
    let shape = [&batch[..], &[m, n]].concat();
    Case::new(name).played().input(&a).input(&b).check(
        |g, v| g.matmul(v[0], v[1], Matmul { transpose_a, transpose_b }),
        |x| {
            Array::from_fn(&shape, |i| {
                let (row, column) = (i[rank], i[rank + 1]);
                let (mut at_a, mut at_b) = (own(batch_a, i), own(batch_b, i));
                at_a.extend([0, 0]);
                at_b.extend([0, 0]);
                let (end_a, end_b) = (at_a.len() - 2, at_b.len() - 2);
                (0..k)
                    .map(|l| {
                        at_a[end_a..].copy_from_slice(&if transpose_a { [l, row] } else { [row, l] });
                        at_b[end_b..].copy_from_slice(&if transpose_b { [column, l] } else { [l, column] });
                        x[0].at(&at_a) * x[1].at(&at_b)
                    })
                    .sum()
            })
        },
    );
}

#[test]
fn batches_broadcast() {
    check(&[], &[], [16, 32, 24], false, false);
    check(&[3], &[3], [5, 8, 12], false, false);
    check(&[2, 3], &[3], [4, 4, 4], false, true);
    check(&[2, 1], &[1, 3], [3, 5, 7], true, false);
    check(&[], &[4], [1, 9, 1], true, true);
    check(&[2, 2, 2], &[2, 1, 2], [6, 3, 5], false, false);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_size(m in 1usize..20, k in 1usize..20, n in 1usize..20, transpose_a: bool, transpose_b: bool) {
        check(&[2], &[2], [m, k, n], transpose_a, transpose_b);
    }
}

/// Enough numbers to be read as textures where there are any.
#[test]
fn large_matrices() {
    for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
        check(&[], &[], [100, 84, 76], transpose_a, transpose_b);
        check(&[2, 3], &[3], [68, 40, 36], transpose_a, transpose_b);
    }
    check(&[2, 1], &[1, 3], [131, 64, 132], false, false);
    check(&[3], &[], [17, 180, 8], false, true);
    check(&[], &[2], [2100, 4, 4], false, false);
    check(&[], &[], [16, 20, 500], true, false);
    // Not a multiple of four, where quads are read.
    check(&[], &[], [129, 66, 64], false, false);
    check(&[], &[], [129, 64, 66], true, true);
    check(&[], &[], [130, 64, 64], true, false);
}

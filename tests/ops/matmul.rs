use aquatint::ops::Matmul;
use proptest::prelude::*;

use crate::harness::{Array, Case, Rng};

/// By its definition; batch dimensions broadcast.
pub fn product(a: &Array, b: &Array, options: Matmul) -> Array {
    let Matmul { transpose_a, transpose_b } = options;
    let (batch_a, size_a) = a.shape.split_at(a.shape.len() - 2);
    let (batch_b, size_b) = b.shape.split_at(b.shape.len() - 2);
    let [m, k] = if transpose_a { [size_a[1], size_a[0]] } else { [size_a[0], size_a[1]] };
    let n = if transpose_b { size_b[0] } else { size_b[1] };
    let rank = batch_a.len().max(batch_b.len());
    let dim = |s: &[usize], d: usize| (d + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    let batch: Vec<usize> = (0..rank).map(|d| dim(batch_a, d).max(dim(batch_b, d))).collect();
    let own = |s: &[usize], i: &[usize]| -> Vec<usize> {
        (rank - s.len()..rank).map(|d| if dim(s, d) == 1 { 0 } else { i[d] }).collect()
    };
    Array::from_fn(&[&batch[..], &[m, n]].concat(), |i| {
        let (row, column) = (i[rank], i[rank + 1]);
        let (mut at_a, mut at_b) = (own(batch_a, i), own(batch_b, i));
        at_a.extend([0, 0]);
        at_b.extend([0, 0]);
        let (end_a, end_b) = (at_a.len() - 2, at_b.len() - 2);
        (0..k)
            .map(|l| {
                at_a[end_a..].copy_from_slice(&if transpose_a { [l, row] } else { [row, l] });
                at_b[end_b..].copy_from_slice(&if transpose_b { [column, l] } else { [l, column] });
                a.at(&at_a) * b.at(&at_b)
            })
            .sum()
    })
}

fn check(batch_a: &[usize], batch_b: &[usize], [m, k, n]: [usize; 3], transpose_a: bool, transpose_b: bool) {
    let name = format!("matmul {batch_a:?}×{batch_b:?} {m}×{k}×{n} {transpose_a} {transpose_b}");
    let mut rng = Rng::new(&name);
    let a = rng.array(&[batch_a, &if transpose_a { [k, m] } else { [m, k] }].concat());
    let b = rng.array(&[batch_b, &if transpose_b { [n, k] } else { [k, n] }].concat());
    let options = Matmul { transpose_a, transpose_b };
    Case::new(name)
        .played()
        .input(&a)
        .input(&b)
        .check(|g, v| g.matmul(v[0], v[1], options), |x| product(&x[0], &x[1], options));
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

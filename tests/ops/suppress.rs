//! Suppression with indices, held to plain Rust. Corners lie on a grid and thresholds are halves, so that no rounding decides.

use aquatint::ops::suppress::Suppress;
use aquatint::{DType, Graph, Network, Tensor};

use crate::harness::{Rng, examined, gpu};

fn overlap(a: &[f32], b: &[f32], centre: bool) -> f64 {
    let edges = |b: &[f32]| -> [f64; 4] {
        let b: Vec<f64> = b.iter().map(|&v| f64::from(v)).collect();
        match centre {
            true => [b[0] - b[2] / 2.0, b[1] - b[3] / 2.0, b[0] + b[2] / 2.0, b[1] + b[3] / 2.0],
            false => [b[0].min(b[2]), b[1].min(b[3]), b[0].max(b[2]), b[1].max(b[3])],
        }
    };
    let (a, b) = (edges(a), edges(b));
    let area = |e: [f64; 4]| (e[2] - e[0]).max(0.0) * (e[3] - e[1]).max(0.0);
    let shared = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    if shared == 0.0 { 0.0 } else { shared / (area(a) + area(b) - shared) }
}

#[test]
fn candidates_that_are_left() {
    let mut rng = Rng::new("suppress");
    for (n, classes, candidates, most) in
        [(1, 1, 1, 1), (1, 3, 10, 10), (2, 2, 70, 4), (3, 1, 65, 65), (1, 5, 300, 40), (2, 3, 7, 1)]
    {
        for centre in [false, true] {
            for limits in [Some(0.0f32), Some(0.5), Some(2.0), None] {
                let boxes: Vec<f32> = (0..n * candidates * 4).map(|_| rng.below(12) as f32).collect();
                // Few different scores, so that there are equals, and some below zero.
                let scores: Vec<f32> =
                    (0..n * classes * candidates).map(|_| (rng.below(20) as f32 - 5.0) / 10.0).collect();
                let threshold = [0.0f32, 0.25, 0.5][rng.below(3)];
                let least = limits.map_or(f64::NEG_INFINITY, f64::from);
                let mut rows = Vec::new();
                for list in 0..n * classes {
                    let of = &scores[list * candidates..][..candidates];
                    let place = |i: usize| &boxes[(list / classes * candidates + i) * 4..][..4];
                    let mut order: Vec<usize> =
                        (0..candidates).filter(|&i| f64::from(of[i]) > least).collect();
                    order.sort_by(|&a, &b| of[b].total_cmp(&of[a]));
                    let mut left: Vec<usize> = Vec::new();
                    for i in order {
                        let covered = |&j: &usize| overlap(place(i), place(j), centre) > f64::from(threshold);
                        if left.len() < most && !left.iter().any(covered) {
                            left.push(i);
                        }
                    }
                    rows.extend(left.into_iter().map(|i| [list / classes, list % classes, i]));
                }
                let mut expected = vec![[rows.len(), 0, 0]];
                expected.extend(&rows);
                expected.resize(1 + n * classes * most, [0; 3]);

                let mut graph = Graph::new();
                let b = graph.input("boxes", [n, candidates, 4], DType::F32);
                let s = graph.input("scores", [n, classes, candidates], DType::F32);
                let t = graph.input("overlap", [1], DType::F32);
                let l = limits.map(|_| graph.input("least", [1], DType::F32));
                let y = graph.suppress([b, s], t, l, Suppress { most, centre }).unwrap();
                graph.output("y", y);
                let Some(gpu) = gpu() else { return };
                let network = Network::new(gpu, &graph).unwrap();
                network.poison().unwrap();
                let b = Tensor::from_f32([n, candidates, 4], &boxes);
                let s = Tensor::from_f32([n, classes, candidates], &scores);
                let (t, l) =
                    (Tensor::from_f32([1], &[threshold]), limits.map(|l| Tensor::from_f32([1], &[l])));
                let mut given = vec![("boxes", &b), ("scores", &s), ("overlap", &t)];
                given.extend(l.iter().map(|l| ("least", l)));
                let found = network.run(&given).unwrap().remove(0).to_f32();
                examined(gpu, "suppress", &graph, &given);
                let found: Vec<[usize; 3]> =
                    found.chunks_exact(3).map(|r| [0, 1, 2].map(|k| r[k] as usize)).collect();
                assert_eq!(
                    found, expected,
                    "{n} {classes} {candidates} {most} {centre} {limits:?} {threshold}"
                );
            }
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let mut graph = Graph::new();
    let boxes = graph.input("boxes", [1, 8, 4], DType::F32);
    let scores = graph.input("scores", [1, 2, 9], DType::F32);
    let fitting = graph.input("fitting", [1, 2, 8], DType::F32);
    let one = graph.input("one", [1], DType::F32);
    let options = |most| Suppress { most, centre: false };
    let found = graph.suppress([boxes, scores], one, None, options(3));
    assert!(found.is_err_and(|e| e.to_string().contains("boxes are [1, 8, 4], scores [1, 2, 9]")));
    let found = graph.suppress([boxes, fitting], one, None, options(9));
    assert!(found.is_err_and(|e| e.to_string().contains("of 8 candidates 9 cannot be left")));
    let found = graph.suppress([boxes, fitting], boxes, None, options(3));
    assert!(found.is_err_and(|e| e.to_string().contains("limits must be one number")));
}

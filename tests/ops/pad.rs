use aquatint::ops::pad::PadMode;

use crate::harness::{Array, Case, Rng};

#[test]
fn every_mode_and_axis() {
    let mut rng = Rng::new("pad");
    let cases: [(&[usize], &[[usize; 2]]); 6] = [
        (&[2, 5, 4, 8], &[[0, 0], [1, 2], [3, 0], [0, 0]]),
        (&[2, 5, 4, 3], &[[1, 0], [4, 4], [0, 3], [2, 1]]),
        (&[2, 5, 4, 8], &[[0, 0], [0, 0], [0, 0], [4, 4]]),
        (&[7], &[[6, 6]]),
        (&[3, 1, 2, 2, 3, 4], &[[1, 2], [0, 0], [1, 1], [1, 0], [0, 2], [0, 0]]),
        (&[2, 2], &[[0, 1], [1, 0]]),
    ];
    for (shape, padding) in cases {
        for mode in [PadMode::Constant(0.0), PadMode::Constant(-2.5), PadMode::Reflect, PadMode::Edge] {
            Case::new(format!("pad {shape:?} {padding:?} {mode:?}")).input(&rng.array(shape)).check(
                |g, v| g.pad(v[0], padding, mode),
                |a| {
                    let sizes: Vec<usize> = shape.iter().zip(padding).map(|(n, p)| n + p[0] + p[1]).collect();
                    Array::from_fn(&sizes, |i| {
                        let mut from = Vec::new();
                        for (d, &n) in shape.iter().enumerate() {
                            let (x, n) = (i[d] as i64 - padding[d][0] as i64, n as i64);
                            let x = match mode {
                                PadMode::Constant(value) if x < 0 || x >= n => return f64::from(value),
                                PadMode::Constant(_) => x,
                                PadMode::Reflect if x < 0 => -x,
                                PadMode::Reflect if x >= n => n - 1 - (x - (n - 1)),
                                PadMode::Reflect => x,
                                PadMode::Edge => x.clamp(0, n - 1),
                            };
                            from.push(x as usize);
                        }
                        a[0].at(&from)
                    })
                },
            );
        }
    }
}

#[test]
fn reflection_past_the_other_edge_is_an_error() {
    let mut graph = aquatint::Graph::new();
    let x = graph.input("x", [4], aquatint::DType::F32);
    assert!(graph.pad(x, &[[4, 0]], PadMode::Reflect).is_err());
    assert!(graph.pad(x, &[[0, 0], [1, 1]], PadMode::Edge).is_err());
    assert!(graph.pad(x, &[[usize::MAX, 1]], PadMode::Edge).is_err());
}

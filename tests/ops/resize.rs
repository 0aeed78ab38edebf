use aquatint::ops::resize::{Coordinates, Interpolation};

use crate::harness::{Array, Case, Rng};

/// Input positions and weights that make output `i`, taps not yet clamped.
fn taps(i: usize, n: usize, out: usize, mode: Interpolation, at: Coordinates) -> Vec<(i64, f64)> {
    let (i_f, n_f, out_f) = (i as f64, n as f64, out as f64);
    let x = match at {
        Coordinates::HalfPixel => (i_f + 0.5) * n_f / out_f - 0.5,
        Coordinates::AlignCorners if out == 1 => 0.0,
        Coordinates::AlignCorners => i_f * (n_f - 1.0) / (out_f - 1.0),
        Coordinates::Asymmetric => i_f * n_f / out_f,
    };
    let f = x - x.floor();
    let cell = x.floor() as i64;
    match mode {
        Interpolation::Nearest => {
            // Half-pixel: the pixel that holds the centre; asymmetric: the floor; corners: the nearer one.
            let pixel = match at {
                Coordinates::Asymmetric => (i * n / out) as i64,
                _ => (x + 0.5 + 1e-9).floor() as i64,
            };
            vec![(pixel, 1.0)]
        }
        Interpolation::Bilinear => vec![(cell, 1.0 - f), (cell + 1, f)],
        Interpolation::Bicubic { a } => {
            let a = f64::from(a);
            let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
            let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
            vec![
                (cell - 1, far(1.0 + f)),
                (cell, near(f)),
                (cell + 1, near(1.0 - f)),
                (cell + 2, far(2.0 - f)),
            ]
        }
    }
}

fn resize(x: &Array, size: [usize; 2], mode: Interpolation, at: Coordinates) -> Array {
    let [n, h, w, c] = x.shape[..] else { panic!("four dimensions") };
    Array::from_fn(&[n, size[0], size[1], c], |i| {
        let mut sum = 0.0;
        for (v, wy) in taps(i[1], h, size[0], mode, at) {
            for (u, wx) in taps(i[2], w, size[1], mode, at) {
                let (v, u) = (v.clamp(0, h as i64 - 1) as usize, u.clamp(0, w as i64 - 1) as usize);
                sum += wy * wx * x.at(&[i[0], v, u, i[3]]);
            }
        }
        sum
    })
}

#[test]
fn every_mode_and_convention() {
    let mut rng = Rng::new("resize");
    let modes = [
        Interpolation::Nearest,
        Interpolation::Bilinear,
        Interpolation::Bicubic { a: -0.75 },
        Interpolation::Bicubic { a: -0.5 },
    ];
    let places = [Coordinates::HalfPixel, Coordinates::AlignCorners, Coordinates::Asymmetric];
    for (shape, size) in [
        ([2, 8, 8, 96], [16, 16]),
        ([2, 5, 7, 3], [11, 6]),
        ([1, 9, 13, 4], [3, 5]),
        ([1, 1, 1, 1], [4, 3]),
        ([3, 6, 4, 5], [1, 1]),
        ([1, 7, 6, 8], [7, 6]),
    ] {
        for mode in modes {
            for at in places {
                Case::new(format!("resize {shape:?} to {size:?}, {mode:?}, {at:?}"))
                    .input(&rng.array(&shape))
                    .check(|g, v| g.resize(v[0], size, mode, at), |a| resize(&a[0], size, mode, at));
            }
        }
    }
}

#[test]
fn upsampling_repeats_pixels() {
    let mut rng = Rng::new("upsample");
    for shape in [[2, 3, 5, 8], [1, 4, 2, 3]] {
        Case::new(format!("upsample {shape:?}")).input(&rng.array(&shape)).check(
            |g, v| g.upsample_nearest(v[0], 2),
            |a| {
                let [n, h, w, c] = shape;
                Array::from_fn(&[n, 2 * h, 2 * w, c], |i| a[0].at(&[i[0], i[1] / 2, i[2] / 2, i[3]]))
            },
        );
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let mut graph = aquatint::Graph::new();
    let x = graph.input("x", [1, 4, 4, 1], aquatint::DType::F32);
    for size in [[0, 4], [4, usize::MAX], [1 << 30, 4]] {
        let result = graph.resize(x, size, Interpolation::Bilinear, Coordinates::HalfPixel);
        assert!(result.is_err_and(|e| e.to_string().contains("2^31")), "{size:?}");
    }
}

#[test]
fn an_empty_map_is_an_error() {
    let mut graph = aquatint::Graph::new();
    let x = graph.input("x", [1, 0, 4, 1], aquatint::DType::F32);
    let result = graph.resize(x, [2, 2], Interpolation::Nearest, Coordinates::Asymmetric);
    assert!(result.is_err_and(|e| e.to_string().contains("empty")));
}

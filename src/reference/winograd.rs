//! Winograd's convolution F(4 × 4, 3 × 3), from the polynomials that it evaluates and interpolates.
//!
//! A row of results is y = Aᵀ((G g) ⊙ (Bᵀ d)): G evaluates the kernel at five points and at infinity, B is the transpose of
//! interpolation there, A of evaluation (Blahut 2010, "Fast Algorithms for Signal Processing", 5.4).

use super::Values;
use super::approx::{Approx, U, growth};

/// Points along a side.
pub(crate) const POINTS: usize = 6;

/// The finite points, as the kernels have them; the sixth is infinity.
const FINITE: [f64; 5] = [0.0, 0.75, -0.75, 1.5, -1.5];

/// Results along a side.
const RESULTS: usize = 4;

/// Roundings on the way to the points and back, a generous count.
const STEPS: usize = 40;

type Square = [[f64; POINTS]; POINTS];

/// Weight of a value at point `v` in result `i`.
fn a(i: usize, v: usize) -> f64 {
    match FINITE.get(v) {
        Some(point) => point.powi(i as i32),
        None => f64::from(i == RESULTS - 1),
    }
}

/// Weight of tap `i` in the value at point `v`.
fn g(v: usize, i: usize) -> f64 {
    match FINITE.get(v) {
        Some(point) => point.powi(i as i32) / others(v).map(|q| point - q).product::<f64>(),
        None => f64::from(i == 2),
    }
}

/// The finite points but this one.
fn others(v: usize) -> impl Iterator<Item = f64> {
    (0..FINITE.len()).filter(move |&q| q != v).map(|q| FINITE[q])
}

/// Weight of a source's pixel `i` in the value at point `v`: the coefficients of the polynomial with the other points for roots.
fn b() -> Square {
    std::array::from_fn(|v| {
        let mut coefficients = [0.0; POINTS];
        coefficients[0] = 1.0;
        for root in others(v) {
            for i in (0..POINTS).rev() {
                coefficients[i] = if i > 0 { coefficients[i - 1] } else { 0.0 } - root * coefficients[i];
            }
        }
        coefficients
    })
}

/// A kernel's value at a point `[v, u]`.
pub(crate) fn weight([v, u]: [usize; 2], tap: impl Fn([usize; 2]) -> f64) -> Approx {
    let (mut value, mut magnitude) = (0.0, 0.0);
    for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
        let term = g(v, i) * g(u, j) * tap([i, j]);
        value += term;
        magnitude += term.abs();
    }
    Approx { value, error: 12.0 * U * magnitude }
}

/// A tap of the kernel that has these values at the points.
pub(crate) fn tap(at: impl Fn([usize; 2]) -> f64, [ky, kx]: [usize; 2]) -> f64 {
    let inverse = |tap: usize, v: usize| match (tap, v) {
        (0, 0) => 1.0 / g(0, 0),
        (1, 1) => 0.5 / g(1, 1),
        (1, 2) => 0.5 / g(2, 1),
        (2, 5) => 1.0,
        _ => 0.0,
    };
    let mut sum = 0.0;
    for (v, u) in (0..POINTS).flat_map(|v| (0..POINTS).map(move |u| (v, u))) {
        let factor = inverse(ky, v) * inverse(kx, u);
        if factor != 0.0 {
            sum += factor * at([v, u]);
        }
    }
    sum
}

/// Where a kernel's value at a point lies in `ConvWeight::Winograd`.
pub(crate) fn place([c_in, tiles, quads]: [usize; 3], [co, ci]: [usize; 2], [v, u]: [usize; 2]) -> usize {
    let channels = 4 * quads;
    let row = ((v * POINTS + u) * tiles + co / channels) * (c_in / 4) + ci / 4;
    (row * 4 + ci % 4) * channels + co % channels
}

/// A weight at the points, and what a convolution with it gives.
pub(crate) struct AtPoints<'a> {
    b: Square,
    weight: &'a Values,
    size: [usize; 3],
}

impl<'a> AtPoints<'a> {
    /// `size`: input channels, tiles of output channels and quads in one.
    pub fn new(weight: &'a Values, size: [usize; 3]) -> Self {
        AtPoints { b: b(), weight, size }
    }

    /// Channel `co` of the result at `[y, x]`. `pixel(ci, i, j)`: the source at row i and column j of its square.
    pub fn result(
        &self,
        co: usize,
        [y, x]: [usize; 2],
        pixel: impl Fn(usize, usize, usize) -> f64,
    ) -> Approx {
        let (mut value, mut magnitude) = (0.0, 0.0);
        for ci in 0..self.size[0] {
            let square: Square = std::array::from_fn(|i| std::array::from_fn(|j| pixel(ci, i, j)));
            for v in 0..POINTS {
                let row = a(y % RESULTS, v);
                if row == 0.0 {
                    continue;
                }
                // The rows of the square at this point, then the columns.
                let mut line = [[0.0; 2]; POINTS];
                for (i, pixels) in square.iter().enumerate() {
                    for (at, pixel) in line.iter_mut().zip(pixels) {
                        let term = self.b[v][i] * pixel;
                        *at = [at[0] + term, at[1] + term.abs()];
                    }
                }
                for u in 0..POINTS {
                    let factor = row * a(x % RESULTS, u);
                    if factor == 0.0 {
                        continue;
                    }
                    let factor = factor * self.weight.at(place(self.size, [co, ci], [v, u]));
                    for (at, b) in line.iter().zip(self.b[u]) {
                        value += factor * b * at[0];
                        magnitude += (factor * b).abs() * at[1];
                    }
                }
            }
        }
        Approx { value, error: growth(self.size[0] + STEPS) * magnitude }
    }
}

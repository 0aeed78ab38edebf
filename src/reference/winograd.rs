//! Winograd's convolution F(m × m, 3 × 3), from the polynomials that it evaluates and interpolates.
//!
//! A row of results is y = Aᵀ((G g) ⊙ (Bᵀ d)): G evaluates the kernel at m + 1 points and at infinity, B is the transpose of
//! interpolation there, A of evaluation (Blahut 2010, "Fast Algorithms for Signal Processing", 5.4).

use super::approx::{Approx, U, growth};
use super::{Values, unravel};
use crate::ops::conv2d::Squares;

/// Points of the larger form along a side.
const MOST: usize = 6;

/// Roundings on the way to the points and back, a generous count.
const STEPS: usize = 40;

type Square = [[f64; MOST]; MOST];

/// Where it evaluates, as the kernels do: finite points, and then infinity.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    finite: &'static [f64],
    results: usize,
}

impl Form {
    pub fn new(squares: Squares) -> Self {
        let finite: &[f64] = match squares {
            Squares::Two => &[0.0, 1.0, -1.0],
            Squares::Four => &[0.0, 0.75, -0.75, 1.5, -1.5],
        };
        Form { finite, results: squares.results() }
    }

    /// Points along a side.
    fn points(&self) -> usize {
        self.finite.len() + 1
    }

    /// Weight of a value at point `v` in result `i`.
    fn a(&self, i: usize, v: usize) -> f64 {
        match self.finite.get(v) {
            Some(point) => point.powi(i as i32),
            None => f64::from(i == self.results - 1),
        }
    }

    /// Weight of tap `i` in the value at point `v`.
    fn g(&self, v: usize, i: usize) -> f64 {
        match self.finite.get(v) {
            Some(point) => point.powi(i as i32) / self.others(v).map(|q| point - q).product::<f64>(),
            None => f64::from(i == 2),
        }
    }

    /// The finite points but this one.
    fn others(&self, v: usize) -> impl Iterator<Item = f64> {
        self.finite.iter().enumerate().filter(move |(q, _)| *q != v).map(|(_, point)| *point)
    }

    /// Weight of a source's pixel `i` in the value at point `v`: the coefficients of the polynomial with the other points for
    /// roots.
    fn b(&self) -> Square {
        std::array::from_fn(|v| {
            let mut coefficients = [0.0; MOST];
            coefficients[0] = 1.0;
            for root in self.others(v) {
                for i in (0..MOST).rev() {
                    coefficients[i] = if i > 0 { coefficients[i - 1] } else { 0.0 } - root * coefficients[i];
                }
            }
            coefficients
        })
    }

    /// A kernel's value at a point `[v, u]`.
    pub fn weight(&self, [v, u]: [usize; 2], tap: impl Fn([usize; 2]) -> f64) -> Approx {
        let (mut value, mut magnitude) = (0.0, 0.0);
        for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
            let term = self.g(v, i) * self.g(u, j) * tap([i, j]);
            value += term;
            magnitude += term.abs();
        }
        Approx { value, error: 12.0 * U * magnitude }
    }

    /// A tap of the kernel that has these values at the points.
    pub fn tap(&self, at: impl Fn([usize; 2]) -> f64, [ky, kx]: [usize; 2]) -> f64 {
        let infinity = self.finite.len();
        let inverse = |tap: usize, v: usize| match (tap, v) {
            (0, 0) => 1.0 / self.g(0, 0),
            (1, 1) => 0.5 / self.g(1, 1),
            (1, 2) => 0.5 / self.g(2, 1),
            (2, v) if v == infinity => 1.0,
            _ => 0.0,
        };
        let mut sum = 0.0;
        for (v, u) in (0..self.points()).flat_map(|v| (0..self.points()).map(move |u| (v, u))) {
            let factor = inverse(ky, v) * inverse(kx, u);
            if factor != 0.0 {
                sum += factor * at([v, u]);
            }
        }
        sum
    }

    /// Where a kernel's value at a point lies in `ConvWeight::Winograd`. The size: input channels, tiles of output channels
    /// and quads in one.
    pub fn place(&self, [c_in, tiles, quads]: [usize; 3], [co, ci]: [usize; 2], [v, u]: [usize; 2]) -> usize {
        let channels = 4 * quads;
        let row = ((v * self.points() + u) * tiles + co / channels) * (c_in / 4) + ci / 4;
        (row * 4 + ci % 4) * channels + co % channels
    }

    /// The point, and output and input channel, of the number at a place there.
    pub fn unplace(&self, [c_in, tiles, quads]: [usize; 3], place: usize) -> (usize, usize, [usize; 2]) {
        let shape = [self.points(), self.points(), tiles, c_in / 4, 4, 4 * quads];
        let [v, u, tile, quad, lane, channel] = unravel(place, shape);
        (v, u, [tile * 4 * quads + channel, quad * 4 + lane])
    }
}

/// A weight at the points, and what a convolution with it gives.
pub(crate) struct AtPoints<'a> {
    form: Form,
    b: Square,
    weight: &'a Values,
    size: [usize; 3],
}

impl<'a> AtPoints<'a> {
    /// `size`: as for [`Form::place`].
    pub fn new(form: Form, weight: &'a Values, size: [usize; 3]) -> Self {
        AtPoints { form, b: form.b(), weight, size }
    }

    /// Channel `co` of the result at `[y, x]`. `pixel(ci, i, j)`: the source at row i and column j of its square.
    pub fn result(
        &self,
        co: usize,
        [y, x]: [usize; 2],
        pixel: impl Fn(usize, usize, usize) -> f64,
    ) -> Approx {
        let (form, points) = (&self.form, self.form.points());
        let (mut value, mut magnitude) = (0.0, 0.0);
        for ci in 0..self.size[0] {
            let mut square = Square::default();
            for (i, line) in square[..points].iter_mut().enumerate() {
                line[..points].iter_mut().enumerate().for_each(|(j, to)| *to = pixel(ci, i, j));
            }
            for v in 0..points {
                let row = form.a(y % form.results, v);
                if row == 0.0 {
                    continue;
                }
                // The rows of the square at this point, then the columns.
                let mut line = [[0.0; 2]; MOST];
                for (i, pixels) in square.iter().enumerate() {
                    for (at, pixel) in line.iter_mut().zip(pixels) {
                        let term = self.b[v][i] * pixel;
                        *at = [at[0] + term, at[1] + term.abs()];
                    }
                }
                for u in 0..points {
                    let factor = row * form.a(x % form.results, u);
                    if factor == 0.0 {
                        continue;
                    }
                    let factor = factor * self.weight.at(form.place(self.size, [co, ci], [v, u]));
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

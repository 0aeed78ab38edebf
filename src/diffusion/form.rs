//! Linear forms: what a sampler computes, as an expression over what a row can see.

use std::ops::{Add, Mul, Sub};

use super::table::{MAX_HISTORY, Row};

/// A linear combination of a row's latent x, its x0, the model's answer m, the history and fresh
/// noise. Samplers are written in these as in their papers, and a [`Row`] takes the coefficients.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Form {
    x: f64,
    x0: f64,
    m: f64,
    noise: f64,
    past: [f64; MAX_HISTORY],
}

const NONE: Form = Form { x: 0.0, x0: 0.0, m: 0.0, noise: 0.0, past: [0.0; MAX_HISTORY] };
pub(super) const X: Form = Form { x: 1.0, ..NONE };
pub(super) const X0: Form = Form { x0: 1.0, ..NONE };
pub(super) const M: Form = Form { m: 1.0, ..NONE };
pub(super) const NOISE: Form = Form { noise: 1.0, ..NONE };

/// What was kept `k` pushes before the last one.
pub(super) fn past(k: usize) -> Form {
    let mut form = NONE;
    form.past[k] = 1.0;
    form
}

impl Add for Form {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let mut past = self.past;
        past.iter_mut().zip(other.past).for_each(|(a, b)| *a += b);
        Self {
            x: self.x + other.x,
            x0: self.x0 + other.x0,
            m: self.m + other.m,
            noise: self.noise + other.noise,
            past,
        }
    }
}

impl Mul<Form> for f64 {
    type Output = Form;

    fn mul(self, form: Form) -> Form {
        Form {
            x: self * form.x,
            x0: self * form.x0,
            m: self * form.m,
            noise: self * form.noise,
            past: form.past.map(|c| self * c),
        }
    }
}

impl Sub for Form {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -1.0 * other
    }
}

impl Row {
    /// The row whose next latent is `next`.
    pub(super) fn next(self, next: Form) -> Self {
        let Form { x, x0, m, noise, past } = next;
        Self { next_x: x, next_x0: x0, next_m: m, next_h: past, noise, ..self }
    }

    /// The row that keeps `kept`, of x, x0 and m alone, for later ones.
    pub(super) fn keep(self, kept: Form) -> Self {
        debug_assert!(
            // What is no number is refused with the whole table.
            std::iter::once(&kept.noise).chain(&kept.past).all(|c| c.is_nan() || *c == 0.0),
            "{kept:?}"
        );
        Self { push: true, hist_x: kept.x, hist_x0: kept.x0, hist_m: kept.m, ..self }
    }
}

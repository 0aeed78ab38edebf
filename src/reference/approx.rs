//! A number with what f32 may make it off by: running error analysis (Higham 2002, "Accuracy and Stability of Numerical
//! Algorithms", 3.3), with the accuracy of functions that the WGSL specification asks of devices.

use crate::ops::expr::{Binary, Expr, Unary};

/// Unit roundoff of f32.
pub(crate) const U: f64 = 1.0 / (1 << 24) as f64;

/// The exact value, and how far from it a right answer may be before it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Approx {
    pub value: f64,
    /// Infinite where rounding decides which of several answers is given.
    pub error: f64,
}

/// What summing `n` rounded terms, whose magnitudes sum to one, may be off by: each sum is off by at most its last bit, and
/// rounding is as good as random (Higham and Mary 2019, "A new approach to probabilistic rounding error analysis": with 6 for
/// λ the chance of more is below 1e-7).
pub(crate) fn growth(n: usize) -> f64 {
    let n = n as f64;
    (6.0 * n.sqrt()).min(n) * U
}

/// A sum of products under way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    value: f64,
    magnitude: f64,
    terms: usize,
}

impl Sum {
    pub fn add(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
        self.terms += 1;
    }

    pub fn finish(self) -> Approx {
        Approx { value: self.value, error: growth(self.terms + 2) * self.magnitude }
    }

    /// For sums of numbers that may all be alike, whose rounding is not random.
    pub fn finish_alike(self) -> Approx {
        Approx { value: self.value, error: (self.terms + 2) as f64 * U * self.magnitude }
    }
}

impl Approx {
    pub fn exact(value: f64) -> Self {
        Approx { value, error: 0.0 }
    }

    /// Rounding decides: any answer will do.
    pub(crate) fn undecided(value: f64) -> Self {
        Approx { value, error: f64::INFINITY }
    }

    /// Rounded `times` in units of the last place.
    pub(crate) fn rounded(value: f64, times: f64) -> Self {
        Approx { value, error: times * 2.0 * U * value.abs() }
    }

    pub(crate) fn map(self, f: impl Fn(f64) -> f64, own: f64) -> Self {
        let value = f(self.value);
        let off = match self.error > 0.0 {
            true => {
                (f(self.value + self.error) - value).abs().max((f(self.value - self.error) - value).abs())
            }
            false => 0.0,
        };
        // Where a neighbour has no value, any answer will do.
        Approx { value, error: if off.is_nan() { f64::INFINITY } else { off + own } }
    }

    pub(crate) fn add(self, other: Approx) -> Self {
        let value = self.value + other.value;
        Approx { value, error: self.error + other.error + U * (self.value.abs() + other.value.abs()) }
    }

    pub(crate) fn times(self, other: Approx) -> Self {
        let (a, b) = (self.value.abs(), other.value.abs());
        let error = self.error * b + a * other.error + self.error * other.error + U * a * b;
        Approx { value: self.value * other.value, error: if error.is_nan() { 0.0 } else { error } }
    }

    /// Towards zero to an integer between `low` and `high`.
    pub(crate) fn truncated(self, low: f64, high: f64) -> Self {
        self.map(|x| x.trunc().clamp(low, high), 0.0)
    }
}

/// Error of `exp` at `x`, relative to its value.
pub(crate) fn exp_error(x: f64) -> f64 {
    2.0 * U * (3.0 + 2.0 * x.abs())
}

/// Error of the kernels' logarithm, by which they get round WGSL's between 1/2 and 2.
fn ln_error(x: f64) -> f64 {
    let near = (0.5..=2.0).contains(&x) && (x - 1.0).abs() >= 0.29;
    8.0 * U * x.ln().abs() + if near { 1.0 / (1 << 21) as f64 } else { 0.0 }
}

/// Of `x · sigmoid(x)` and the like with exp(x) below the normal numbers, or its inverse out of range: then all is zero.
fn lost(x: f64, v: f64) -> f64 {
    if x < -87.0 { v.abs() } else { 0.0 }
}

/// WGSL's sine and cosine: 2⁻¹¹ within ±π; beyond it is up to the device.
fn sine_error(x: f64) -> f64 {
    (1.0 + x.abs() / std::f64::consts::PI) / 2048.0
}

/// Error function, to about 1e-16: its series, and beyond 3 the continued fraction of its complement.
pub(crate) fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 3.0 {
        let (mut term, mut sum, mut k) = (a, a, 0.0);
        while f64::abs(term) > 1e-18 * sum {
            k += 1.0;
            term *= -a * a / k;
            sum += term / (2.0 * k + 1.0);
        }
        return sum.copysign(x) * 2.0 / std::f64::consts::PI.sqrt();
    }
    let fraction = (1..60).rev().fold(a, |f, k| a + f64::from(k) / 2.0 / f);
    (1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt()).copysign(x)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

/// The exact function.
fn exact(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x == 0.0 => 0.0,
        Unary::Sign => x.signum(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Square => x * x,
        Unary::Reciprocal => 1.0 / x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Asinh => x.asinh(),
        Unary::Acosh => x.acosh(),
        Unary::Atanh => x.atanh(),
        Unary::Tanh => x.tanh(),
        Unary::Erf => erf(x),
        Unary::Sigmoid => sigmoid(x),
        Unary::Softplus => softplus(x),
        Unary::Relu => x.max(0.0),
        Unary::Silu => x * sigmoid(x),
        Unary::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Unary::GeluTanh => gelu_tanh(x),
        Unary::QuickGelu => x * sigmoid(1.702 * x),
        Unary::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Unary::HardSigmoid => (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Unary::Mish => x * softplus(x).tanh(),
        Unary::LeakyRelu(alpha) => {
            if x > 0.0 {
                x
            } else {
                f64::from(alpha) * x
            }
        }
        Unary::Elu(alpha) => {
            if x > 0.0 {
                x
            } else {
                f64::from(alpha) * x.exp_m1()
            }
        }
        Unary::Clamp(low, high) => x.max(f64::from(low)).min(f64::from(high)),
    }
}

/// What the function itself may add to the error at `x`, where its value is `v`.
fn own_error(f: Unary, x: f64, v: f64) -> f64 {
    let last = 2.0 * U * v.abs();
    match f {
        Unary::Neg | Unary::Abs | Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round => 0.0,
        Unary::Relu | Unary::Clamp(..) => 0.0,
        Unary::Square | Unary::LeakyRelu(_) => last,
        Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal => 3.0 * last,
        Unary::Exp => exp_error(x) * v,
        Unary::Log => ln_error(x),
        Unary::Sin | Unary::Cos => sine_error(x),
        Unary::Tan => sine_error(x) * 2.0 * (1.0 + v * v),
        Unary::Asin | Unary::Acos | Unary::Atan => 32.0 * last + 4.0 * U,
        Unary::Sinh | Unary::Cosh => exp_error(x) * x.cosh() + 4.0 * last,
        Unary::Asinh => ln_error(1.0 + v.abs().exp_m1()) + 4.0 * U + 4.0 * last,
        Unary::Acosh => ln_error(v.exp()) + 8.0 * U + 8.0 * U / v.max(1e-3),
        Unary::Atanh => ln_error((1.0 + x) / (1.0 - x)) + 16.0 * U + 8.0 * U / (1.0 - x.abs()).max(1e-6),
        Unary::Tanh => tanh_error(x, v),
        Unary::Erf => erf_error(x, v),
        Unary::Sigmoid => v * (8.0 * U + (1.0 - v) * exp_error(x)),
        Unary::Silu => v.abs() * (8.0 * U + (1.0 - sigmoid(x)) * exp_error(x)) + lost(x, v),
        Unary::QuickGelu => {
            v.abs() * (8.0 * U + (1.0 - sigmoid(1.702 * x)) * (exp_error(1.702 * x) + 4.0 * U * x.abs()))
                + lost(1.702 * x, v)
        }
        Unary::Softplus => {
            let u = (-x.abs()).exp();
            v * 8.0 * U
                + u * exp_error(x)
                + u * u * u / 3.0 * f64::from(u8::from(u < 1.1e-3))
                + ln_error(1.0 + u)
        }
        Unary::Gelu => {
            let e = x / std::f64::consts::SQRT_2;
            0.5 * x.abs() * (erf_error(e, erf(e)) + 2.0 * U) + 2.0 * last
        }
        Unary::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let t = inner.tanh();
            let slope = (1.0 - t * t) * 8.0 * U * inner.abs();
            0.5 * x.abs() * (tanh_error(inner, t) + slope + 2.0 * U) + 2.0 * last
        }
        Unary::HardSigmoid => 8.0 * U,
        Unary::HardSwish => 8.0 * U * x.abs(),
        Unary::Mish => v.abs() * (16.0 * U + 2.0 * exp_error(x)) + lost(x, v),
        Unary::Elu(alpha) => match x > 0.0 {
            true => 0.0,
            false => f64::from(alpha).abs() * (exp_error(x) * x.exp() + 2.0 * U) + last,
        },
    }
}

fn tanh_error(x: f64, v: f64) -> f64 {
    let x = x.abs().min(10.0);
    // Its quotient of exponentials, which the standard lets it be, and the series near 0.
    8.0 * U * v.abs()
        + if x < 0.19 { 1e-7 * v.abs() } else { 4.0 * (1.0 - v * v) * exp_error(x) + 2.0 * U }
        + if x >= 10.0 { 5e-9 } else { 0.0 }
}

fn erf_error(x: f64, v: f64) -> f64 {
    2e-7 + 8.0 * U + (1.0 - v.abs()) * exp_error(x * x) * 2.0
}

pub(crate) fn unary(f: Unary, x: Approx) -> Approx {
    let value = exact(f, x.value);
    let made = x.map(|x| exact(f, x), own_error(f, x.value, value));
    match value.abs() {
        // Out of range: infinite, or whatever the device makes of it.
        size if size > f64::from(f32::MAX) => Approx::undecided(value),
        // Numbers below the normal ones may be taken for zero.
        size if size > 0.0 && size < f64::from(f32::MIN_POSITIVE) => {
            Approx { value, error: made.error + f64::from(f32::MIN_POSITIVE) }
        }
        _ => made,
    }
}

fn binary(f: Binary, a: Approx, b: Approx) -> Approx {
    let (x, y) = (a.value, b.value);
    match f {
        Binary::Add => a.add(b),
        Binary::Sub => a.add(Approx { value: -y, ..b }),
        Binary::Mul => a.times(b),
        Binary::Div => {
            let (value, room) = (x / y, y.abs() - b.error);
            let error = (a.error + value.abs() * b.error) / room + 6.0 * U * value.abs();
            Approx { value, error: if room > 0.0 { error } else { f64::INFINITY } }
        }
        Binary::Min | Binary::Max => {
            let value = if f == Binary::Min { x.min(y) } else { x.max(y) };
            Approx { value, error: a.error.max(b.error) }
        }
        Binary::Pow => power(a, b),
    }
}

/// WGSL defines `pow` as `exp2(y · log2(x))`, with the errors of both.
fn power(a: Approx, b: Approx) -> Approx {
    let (x, y) = (a.value, b.value);
    let value = x.powf(y);
    let log = x.abs().log2();
    let log_error =
        6.0 * U * log.abs() + if (0.5..=2.0).contains(&x.abs()) { 1.0 / (1 << 21) as f64 } else { 0.0 };
    let own = exp_error(y * log) + y.abs() * (log_error + 2.0 * U * log.abs());
    let from = y.abs() * a.error / x.abs() + x.abs().ln().abs() * b.error;
    let error = value.abs() * (own + from);
    Approx { value, error: if error.is_nan() { f64::INFINITY } else { error } }
}

/// An expression of the inputs.
pub(crate) fn expression(expr: &Expr, input: &dyn Fn(usize) -> Approx) -> Approx {
    match expr {
        Expr::Input(i) => input(*i),
        Expr::Const(c) => Approx::exact(f64::from(*c)),
        Expr::Unary(f, x) => unary(*f, expression(x, input)),
        Expr::Binary(f, a, b) => binary(*f, expression(a, input), expression(b, input)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Abramowitz and Stegun, table 7.1.
    #[test]
    fn the_error_function_is_that_of_the_table() {
        for (x, y) in
            [(0.1, 0.112_462_916_0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)]
        {
            assert!((erf(x) - y).abs() < 1e-10 && (erf(-x) + y).abs() < 1e-10, "{x}");
        }
        assert!((erf(2.999_999_9) - erf(3.000_000_1)).abs() < 1e-10);
    }

    #[test]
    fn errors_grow_with_what_is_summed() {
        let mut sum = Sum::default();
        (0..10_000).for_each(|i| sum.add(if i % 2 == 0 { 1.0 } else { -1.0 }));
        let found = sum.finish();
        assert_eq!(found.value, 0.0);
        assert!(found.error > 1e4 * U && found.error < 1e7 * U);
        // Half a unit on each side of a jump is either of both.
        let near = Approx { value: 0.5, error: 1e-7 };
        assert_eq!(unary(Unary::Round, near).error, 1.0);
        assert_eq!(unary(Unary::Round, Approx::exact(0.5)), Approx::exact(0.0));
    }
}

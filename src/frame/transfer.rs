//! What the numbers of a picture mean.

/// How numbers stand for amounts of light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// They are proportional. Of data that is no light, too: normals, motion, depth.
    Linear,
    /// As in most files and on most screens (IEC 61966-2-1); beyond 0 and 1 the curve goes on, odd as in scRGB.
    Srgb,
    /// log₂(1 + x): 0 for black, 1 for 1, 16 for 65 535, which is past the largest 16-bit float. For networks that see frames
    /// of high dynamic range; what is below 0 counts as 0.
    Log,
}

impl Transfer {
    /// The number that stands for an amount of light.
    pub fn encode(self, linear: f64) -> f64 {
        let a = linear.abs();
        match self {
            Transfer::Linear => linear,
            Transfer::Srgb if a <= 0.0031308 => 12.92 * linear,
            Transfer::Srgb => linear.signum() * (1.055 * a.powf(1.0 / 2.4) - 0.055),
            Transfer::Log => linear.max(0.0).ln_1p() / std::f64::consts::LN_2,
        }
    }

    /// The amount of light that a number stands for.
    pub fn decode(self, number: f64) -> f64 {
        let a = number.abs();
        match self {
            Transfer::Linear => number,
            Transfer::Srgb if a <= 0.04045 => number / 12.92,
            Transfer::Srgb => number.signum() * ((a + 0.055) / 1.055).powf(2.4),
            Transfer::Log => (number.max(0.0) * std::f64::consts::LN_2).exp_m1(),
        }
    }

    /// WGSL of `x`, a vector of numbers, as light.
    fn decoded(self, x: &str) -> String {
        match self {
            Transfer::Linear => x.to_owned(),
            Transfer::Srgb => format!("linear_of_srgb({x})"),
            Transfer::Log => format!("linear_of_log({x})"),
        }
    }

    /// WGSL of `x`, a vector of light, as numbers.
    fn encoded(self, x: &str) -> String {
        match self {
            Transfer::Linear => x.to_owned(),
            Transfer::Srgb => format!("srgb_of({x})"),
            Transfer::Log => format!("log_of({x})"),
        }
    }

    /// The function `name` of WGSL from numbers of one kind to numbers of another, with `exposed` (`* exposure()` or
    /// `/ exposure()`) between; numbers of the same kind stay as they are.
    pub(super) fn function(name: &str, from: Transfer, to: Transfer, exposed: &str) -> String {
        let value = match from == to && exposed.is_empty() {
            true => "x".to_owned(),
            false => to.encoded(&format!("{}{exposed}", from.decoded("x"))),
        };
        format!("fn {name}(x: vec3<f32>) -> vec3<f32> {{ return {value}; }}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for transfer in [Transfer::Linear, Transfer::Srgb, Transfer::Log] {
            for x in [0.0, 1e-6, 1e-3, 0.0031308, 0.02, 0.18, 0.5, 1.0, 7.5, 65504.0] {
                let back = transfer.decode(transfer.encode(x));
                assert!((back - x).abs() <= 1e-6 * x, "{transfer:?}: {x} came back as {back}");
            }
            assert_eq!(transfer.encode(0.0), 0.0);
            assert!((transfer.encode(1.0) - 1.0).abs() < 1e-12);
        }
        assert!((Transfer::Srgb.encode(0.5) - 0.735357).abs() < 1e-6);
        assert_eq!(Transfer::Log.encode(65535.0), 16.0);
        assert!(
            Transfer::Srgb.encode(-0.5) == -Transfer::Srgb.encode(0.5) && Transfer::Log.encode(-0.5) == 0.0
        );
    }

    #[test]
    fn nothing_is_computed_where_nothing_changes() {
        let function = |from, to, exposed| Transfer::function("f", from, to, exposed);
        let same = "fn f(x: vec3<f32>) -> vec3<f32> { return x; }";
        assert_eq!(function(Transfer::Srgb, Transfer::Srgb, ""), same);
        let text = function(Transfer::Srgb, Transfer::Log, " * exposure()");
        assert!(text.contains("return log_of(linear_of_srgb(x) * exposure());"), "{text}");
    }
}

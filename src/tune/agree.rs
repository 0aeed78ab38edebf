//! Whether two ways to compute an operation come to the same.

use crate::tensor::{DType, Tensor};

/// How far an answer is from another, and how far it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Off {
    pub difference: f64,
    pub allowed: f64,
}

/// Unit roundoff of f32.
const UNIT: f64 = 1.0 / (1u64 << 24) as f64;
/// Rounding errors of a sum of K terms grow as √K units of the largest result; so many times that is left to other orders
/// of the terms and to products that are formed in other ways. What reads a wrong element is off by thousands.
const ROOM: f64 = 64.0;

/// Whether the second answer is the first but for rounding: no element may be further off than 64 √K u of the largest
/// number in the first (u the unit roundoff of f32, K the products of a result), and in f16 a unit in the last place.
pub fn agree(expected: &Tensor, found: &Tensor, products: usize) -> Result<(), Off> {
    let (a, b) = (expected.to_f32(), found.to_f32());
    let largest = a.iter().filter(|x| x.is_finite()).fold(0f64, |most, x| most.max(f64::from(x.abs())));
    let sums = ROOM * (products as f64).sqrt() * UNIT * largest;
    let last_place = if expected.desc.dtype == DType::F32 { 0.0 } else { 1.0 / 1024.0 };
    let mut worst: Option<Off> = None;
    for (&x, &y) in a.iter().zip(&b) {
        if x == y || (x.is_nan() && y.is_nan()) {
            continue;
        }
        let allowed = sums + last_place * f64::from(x.abs());
        let difference = f64::from(x - y).abs();
        // What is no number is infinitely far from what is one.
        let difference = if difference.is_nan() { f64::INFINITY } else { difference };
        let further = worst.is_none_or(|off| difference - allowed > off.difference - off.allowed);
        if difference > allowed && further {
            worst = Some(Off { difference, allowed });
        }
    }
    match worst {
        None if a.len() == b.len() => Ok(()),
        None => Err(Off { difference: f64::INFINITY, allowed: sums }),
        Some(off) => Err(off),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_f32([values.len()], values)
    }

    #[test]
    fn rounding_is_let_pass_and_nothing_else() {
        let expected = tensor(&[1.0, -8.0, 0.0]);
        let off = |values: &[f32]| agree(&expected, &tensor(values), 576);
        // 64 · 24 · 2⁻²⁴ · 8 is 7.3e-4.
        assert_eq!(off(&[1.0005, -8.0, -0.0005]), Ok(()));
        let wrong = off(&[1.0, -8.0, 0.001]).unwrap_err();
        assert!((wrong.difference - 0.001).abs() < 1e-9 && (7e-4..8e-4).contains(&wrong.allowed));
        assert_eq!(off(&[f32::NAN, -8.0, 0.0]).unwrap_err().difference, f64::INFINITY);
        assert_eq!(off(&[f32::INFINITY, -8.0, 0.0]).unwrap_err().difference, f64::INFINITY);
        assert!(off(&[1.0, -8.0]).is_err());
        let nothing = tensor(&[f32::NAN, f32::INFINITY]);
        assert_eq!(agree(&nothing, &nothing, 1), Ok(()));
        let half = |x: f32| tensor(&[x]).to_dtype(DType::F16);
        assert_eq!(agree(&half(1.0), &half(1.0009766), 1), Ok(()), "a unit in the last place");
        assert!(agree(&half(1.0), &half(1.0029297), 1).is_err());
    }
}

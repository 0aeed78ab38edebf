//! Answers held against references.

use ring::digest;

use super::record::Check;
use crate::tensor::{DType, Tensor};

/// What an answer must be near to.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Name of the output.
    pub output: String,
    /// Places in it, row-major, and the numbers there.
    pub at: Vec<usize>,
    pub values: Vec<f64>,
    /// The largest number of the whole reference, which errors are measured by.
    pub largest: f64,
}

/// What [`Check::max_rel`] may be: rounding of some fifty layers, far from what a wrong index gives.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-4,
        _ => 2e-2,
    }
}

/// Compares outputs of so many equal pictures, by their names, with what is expected of the one.
pub fn compare(
    (against, sha256): (&str, &str),
    expected: &[Expected],
    outputs: &[(String, Tensor)],
    batch: usize,
    dtype: DType,
) -> Check {
    let mut check = Check {
        against: against.to_owned(),
        reference: (!sha256.is_empty()).then(|| sha256.to_owned()),
        compared: 0,
        elements: 0,
        max_abs: 0.0,
        max_rel: 0.0,
        rms: 0.0,
        psnr: None,
        tolerance: tolerance(dtype),
        nans: 0,
        infinities: 0,
        replays: 1,
        distinct: 1,
    };
    let mut squares = [0.0, 0.0];
    for (name, output) in outputs {
        let found = output.to_f32();
        check.elements += found.len() as u64;
        check.nans += found.iter().filter(|v| v.is_nan()).count() as u64;
        check.infinities += found.iter().filter(|v| v.is_infinite()).count() as u64;
        let one = found.len() / batch.max(1);
        for expected in expected.iter().filter(|e| e.output == *name) {
            let places = expected.at.iter().zip(&expected.values);
            for (place, &wanted) in
                (0..batch).flat_map(|n| places.clone().map(move |(at, v)| (n * one + at, v)))
            {
                let difference = (f64::from(found[place]) - wanted).abs();
                check.compared += 1;
                check.max_abs = larger(check.max_abs, difference);
                check.max_rel = larger(check.max_rel, difference / expected.largest.max(f64::MIN_POSITIVE));
                squares = [squares[0] + difference.powi(2), squares[1] + wanted.powi(2)];
            }
        }
    }
    check.rms = (squares[0] / squares[1].max(f64::MIN_POSITIVE)).sqrt();
    check
}

/// The larger of two, and what is no number if there is one.
fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

/// What is wrong with an answer, if something is.
pub fn fault(check: &Check) -> Option<String> {
    let Check { nans, infinities, max_rel, tolerance, compared, distinct, replays, psnr, .. } = check;
    if nans + infinities > 0 {
        return Some(format!("gave {nans} NaNs and {infinities} infinities"));
    }
    if let Some(psnr) = psnr.filter(|psnr| *psnr < *tolerance) {
        return Some(format!("the picture is {psnr:.1} dB from the reference, {tolerance} wanted"));
    }
    if psnr.is_none() && *max_rel > *tolerance {
        return Some(format!(
            "is {max_rel:.2e} of the range off, more than {tolerance:.0e} ({compared} numbers compared with {})",
            check.against
        ));
    }
    (*distinct > 1).then(|| format!("gave {distinct} different answers in {replays} runs"))
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Vec<Expected> {
        vec![Expected { output: "y".to_owned(), at: vec![0, 3], values: vec![1.0, -4.0], largest: 4.0 }]
    }

    fn check(values: &[f32], batch: usize) -> Check {
        let y = Tensor::from_f32([values.len()], values);
        compare(("a test", ""), &expected(), &[("y".to_owned(), y)], batch, DType::F32)
    }

    #[test]
    fn right_answers_pass() {
        let found = check(&[1.0, 7.0, 8.0, -4.0001], 1);
        assert_eq!(fault(&found), None);
        assert!((found.max_abs - 1e-4).abs() < 1e-6 && found.compared == 2 && found.elements == 4);
        assert_eq!(fault(&check(&[1.0, 0.0, 0.0, -4.0, 1.0, 9.0, 9.0, -4.0], 2)), None);
    }

    #[test]
    fn each_fault_is_named() {
        let fault = |values: &[f32], batch| fault(&check(values, batch)).expect("a fault");
        assert!(fault(&[1.1, 7.0, 8.0, -4.0], 1).contains("of the range off"));
        // In the second picture only.
        assert!(fault(&[1.0, 0.0, 0.0, -4.0, 1.0, 0.0, 0.0, 4.0], 2).contains("of the range off"));
        assert!(fault(&[1.0, f32::NAN, 8.0, -4.0], 1).contains("1 NaNs"));
        assert!(fault(&[f32::NAN, 0.0, 8.0, -4.0], 1).contains("1 NaNs"));
        assert!(fault(&[1.0, f32::INFINITY, 8.0, -4.0], 1).contains("1 infinities"));
        let mut unsteady = check(&[1.0, 7.0, 8.0, -4.0], 1);
        (unsteady.replays, unsteady.distinct) = (5, 3);
        assert!(super::fault(&unsteady).expect("a fault").contains("3 different answers in 5 runs"));
    }
}

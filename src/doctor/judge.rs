//! Whether what a device computed is right.

use serde::Serialize;

use crate::reference::{Approx, Values};
use crate::tensor::{DType, Shape, TensorDesc};

/// How a result compares with the reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Judgement {
    /// Elements of the result, and how many of them were evaluated.
    pub elements: u64,
    pub compared: u64,
    /// Of these, those that rounding or numbers out of range let be anything.
    pub undecided: u64,
    /// Of these, those that are further off than arithmetic in f32 can be.
    pub wrong: u64,
    /// Of all elements.
    pub nans: u64,
    pub infinities: u64,
    pub max_abs: f64,
    /// Largest difference over the largest number of the reference.
    pub max_rel: f64,
    /// In units in the last place of the exact result in the type in which it is stored.
    pub max_ulp: f64,
    pub mean_ulp: f64,
    /// Largest difference over what it may be.
    pub max_excess: f64,
    /// The wrong element with the lowest index among those that were compared.
    pub first_wrong: Option<Wrong>,
}

/// One wrong element.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wrong {
    pub index: usize,
    pub coordinates: Vec<usize>,
    pub expected: f64,
    pub found: f64,
    /// What the difference may be.
    pub allowed: f64,
}

impl Judgement {
    pub fn is_right(&self) -> bool {
        self.wrong == 0
    }
}

/// Bits of precision, smallest normal and largest number of a type.
fn float(dtype: DType) -> Option<(i32, f64, f64)> {
    match dtype {
        DType::F32 => Some((24, f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX))),
        DType::F16 => Some((11, 6.103_515_625e-5, 65504.0)),
        DType::BF16 => Some((8, f64::from(f32::MIN_POSITIVE), 3.389_531_39e38)),
        DType::U32 | DType::I32 => None,
    }
}

/// Distance of neighbouring numbers at `x`.
pub(crate) fn last_place(x: f64, dtype: DType) -> f64 {
    let Some((bits, least, _)) = float(dtype) else { return 1.0 };
    2f64.powi(x.abs().max(least).log2().floor() as i32 + 1 - bits)
}

/// What the stored element may differ from the exact value by; none where it may be anything.
pub(crate) fn allowed(exact: Approx, dtype: DType) -> Option<f64> {
    if !exact.value.is_finite() || !exact.error.is_finite() {
        return None;
    }
    let Some((_, least, most)) = float(dtype) else { return Some(exact.error) };
    // Out of the range of f32 on the way, or of the type at its end.
    if exact.value.abs() + exact.error >= most * 0.999 {
        return None;
    }
    // WGSL rounds to either neighbour, and may take what is below the normal numbers for zero.
    let below = if exact.value.abs() < least { least } else { 0.0 };
    Some(exact.error + last_place(exact.value, dtype) + below)
}

/// Compares the elements with these indices.
pub(crate) fn judge(found: &Values, places: &[usize], expected: &[Approx]) -> Judgement {
    let dtype = found.desc.dtype;
    let mut j =
        Judgement { elements: found.elements() as u64, compared: places.len() as u64, ..Default::default() };
    if dtype.is_float() {
        for i in 0..found.elements() {
            let x = found.at(i);
            j.nans += u64::from(x.is_nan());
            j.infinities += u64::from(x.is_infinite());
        }
    }
    let (mut ulps, mut largest) = (0.0, 0f64);
    for (&index, &exact) in places.iter().zip(expected) {
        let Some(allowed) = allowed(exact, dtype) else {
            j.undecided += 1;
            continue;
        };
        let x = found.at(index);
        let off = if x == exact.value { 0.0 } else { (x - exact.value).abs() };
        largest = largest.max(exact.value.abs());
        if off <= allowed {
            j.max_abs = j.max_abs.max(off);
            j.max_ulp = j.max_ulp.max(off / last_place(exact.value, dtype));
            j.max_excess = j.max_excess.max(if off > 0.0 { off / allowed } else { 0.0 });
            ulps += off / last_place(exact.value, dtype);
            continue;
        }
        j.wrong += 1;
        if off.is_finite() {
            j.max_abs = j.max_abs.max(off);
            j.max_ulp = j.max_ulp.max(off / last_place(exact.value, dtype));
            j.max_excess = j.max_excess.max(off / allowed.max(f64::MIN_POSITIVE));
            ulps += off / last_place(exact.value, dtype);
        }
        if j.first_wrong.as_ref().is_none_or(|first| index < first.index) {
            let coordinates = coordinates(index, &found.desc.shape);
            j.first_wrong = Some(Wrong { index, coordinates, expected: exact.value, found: x, allowed });
        }
    }
    j.mean_ulp = ulps / (j.compared - j.undecided).max(1) as f64;
    j.max_rel = if largest > 0.0 { j.max_abs / largest } else { j.max_abs };
    j
}

fn coordinates(mut index: usize, shape: &Shape) -> Vec<usize> {
    let mut coordinates = vec![0; shape.len()];
    for d in (0..shape.len()).rev() {
        coordinates[d] = index % shape[d];
        index /= shape[d];
    }
    coordinates
}

/// Which elements to evaluate: all, where that is little work, else some thousand drawn by lot, and the two ends.
pub(crate) fn places(output: &TensorDesc, work: u64, budget: u64, seed: u64) -> Vec<usize> {
    let elements = output.shape.elements();
    let most = (budget / work.max(1)).clamp(64, 1 << 24) as usize;
    if elements <= most {
        return (0..elements).collect();
    }
    let mut state = seed;
    let mut places: Vec<usize> =
        (0..most.max(2) - 2).map(|_| (random(&mut state) % elements as u64) as usize).collect();
    places.extend([0, elements - 1]);
    places.sort_unstable();
    places.dedup();
    places
}

/// SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators").
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn what_is_off_by_more_than_rounding_is_wrong() {
        let found = Values::of(&Tensor::from_f32([2, 2], &[1.0, 1.0 + f32::EPSILON, f32::NAN, 1.001]));
        let judged = judge(&found, &[0, 1, 2, 3], &[Approx::exact(1.0); 4]);
        assert_eq!((judged.wrong, judged.nans, judged.compared), (2, 1, 4));
        let first = judged.first_wrong.unwrap();
        assert_eq!((first.index, first.coordinates), (2, vec![1, 0]));
        assert!(first.found.is_nan() && judged.max_abs > 9e-4 && judged.max_abs < 1.1e-3);
        let judged = judge(&found, &[2], &[Approx { value: 1.0, error: f64::INFINITY }]);
        assert_eq!((judged.wrong, judged.undecided), (0, 1));
        let whole = Values::of(&Tensor::from_i32([1], &[7]));
        assert_eq!(judge(&whole, &[0], &[Approx::exact(8.0)]).wrong, 1);
    }

    #[test]
    fn a_sample_is_the_same_every_time() {
        let desc = TensorDesc::new([1000, 1000], DType::F32);
        let all = places(&TensorDesc::new([10, 10], DType::F32), 1, 1000, 7);
        assert_eq!(all.len(), 100);
        let some = places(&desc, 1_000_000, 1_000_000_000, 7);
        assert!(some.len() > 900 && some.len() <= 1000 && some.contains(&0) && some.contains(&999_999));
        assert_eq!(some, places(&desc, 1_000_000, 1_000_000_000, 7));
        assert_ne!(some, places(&desc, 1_000_000, 1_000_000_000, 8));
    }
}

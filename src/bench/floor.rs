//! What a row takes where nothing disturbs it: the fastest sample of its visits.
//!
//! What disturbs a machine only ever makes slower, so where it moves the medians, the fastest samples still agree: repeated
//! minima are the steadiest that shared machines give (Chen and Revels 2016, "Robust benchmarking in noisy environments"). One
//! fast sample may be an accident; a floor is one that another visit has come near.

use super::record::{Times, Visit};
use super::verdict::Verdict;

/// Visits of which a floor can be told.
const LEAST: usize = 3;

/// The fastest samples of the two fastest visits, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    pub first: f64,
    pub second: f64,
    /// Median of the slowest visit over that of the fastest.
    pub spread: f64,
}

impl Floor {
    /// None for a row that was visited fewer than three times.
    pub fn of(times: &Times) -> Option<Floor> {
        let sorted = |time: fn(&Visit) -> f64| {
            let mut times: Vec<f64> = times.visits.iter().map(time).collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let (fastest, medians) = (sorted(|visit| visit.fastest), sorted(|visit| visit.median));
        match (&fastest[..], &medians[..]) {
            (&[first, second, ..], &[low, .., high]) if fastest.len() >= LEAST && first > 0.0 => {
                Some(Floor { first, second, spread: high / low })
            }
            _ => None,
        }
    }

    /// Whether visits differ by more than twice this much, a logarithm.
    pub fn is_disturbed(&self, limit: f64) -> bool {
        self.spread.ln() > 2.0 * limit
    }

    /// Whether another visit came within this much, a logarithm, of the fastest.
    fn is_confirmed(&self, limit: f64) -> bool {
        (self.second / self.first).ln() <= limit
    }
}

/// Ratio of the floors, second over first, its interval, and what it says: the same within `limit`, a logarithm, and
/// different beyond twice that.
///
/// # Errors
/// Why it says nothing.
pub fn judge(a: &Floor, b: &Floor, limit: f64) -> Result<(Verdict, f64, [f64; 2]), String> {
    if !(a.is_confirmed(limit) && b.is_confirmed(limit)) {
        return Err("something disturbed all visits but one".to_owned());
    }
    let ratio = b.first / a.first;
    let verdict = match ratio.ln() {
        shift if shift.abs() <= limit => Verdict::Same,
        shift if shift > 2.0 * limit => Verdict::Slower,
        shift if shift < -2.0 * limit => Verdict::Faster,
        _ => {
            let percent = 100.0 * (ratio - 1.0);
            return Err(format!("something disturbed it, and its fastest samples differ by {percent:+.1} %"));
        }
    };
    Ok((verdict, ratio, [b.first / a.second, b.second / a.first]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(a: [f64; 2], b: [f64; 2]) -> Option<Verdict> {
        let floor = |[first, second]: [f64; 2]| Floor { first, second, spread: 1.5 };
        judge(&floor(a), &floor(b), 0.05).ok().map(|(verdict, ..)| verdict)
    }

    #[test]
    fn floors_that_another_visit_confirms_tell() {
        assert_eq!(told([1.0, 1.01], [1.03, 1.04]), Some(Verdict::Same));
        assert_eq!(told([1.0, 1.01], [1.2, 1.21]), Some(Verdict::Slower));
        assert_eq!(told([1.0, 1.01], [0.8, 0.81]), Some(Verdict::Faster));
        // Between the same and another.
        assert_eq!(told([1.0, 1.01], [1.08, 1.09]), None);
        // An accident, or all other visits were disturbed.
        assert_eq!(told([1.0, 1.3], [1.0, 1.01]), None);
        assert_eq!(told([1.0, 1.01], [1.3, 1.6]), None);
    }
}

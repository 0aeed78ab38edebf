//! Faster, slower, the same, or not to be told: two rows by the distributions of their samples.
//!
//! The ratio of the medians gets a 95 % interval, and a difference counts if this interval lies beyond what is worth
//! knowing. What two processes differ by without any cause, neither run can show; the [resolution] of two whole runs
//! is estimated from how the ratios of their rows scatter.

use serde::Serialize;

use super::floor::{self, Floor};
use super::record::{Status, Times};
use super::statistics::{LEAST_FOR_CI, Sorted};

/// What became of a row's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Faster,
    Slower,
    Same,
    /// The samples do not say. Never a guess.
    Ambiguous,
}

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    Medians,
    /// The fastest samples of the rows' visits, where the medians do not say.
    Fastest,
}

/// A verdict and what it rests on. Ratios are times of the second run over those of the first: above 1 is slower.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    pub verdict: Verdict,
    pub basis: Basis,
    pub ratio: f64,
    /// 95 % interval of the ratio, as far as samples within one process tell.
    pub interval: [f64; 2],
    /// The ratio if the canary's own change is taken out of it, where that is large.
    pub corrected: Option<f64>,
    /// Why it is ambiguous, if it is.
    pub reason: Option<String>,
}

/// What a row is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// The smallest difference that counts, as a part: see [`resolution`].
    pub resolution: f64,
    /// How much slower the canary ran round this row in the second run, as a ratio; 1 where there is no canary.
    pub clock: f64,
    /// The same of the canary's fastest run of all, which nothing disturbed.
    pub fastest_clock: f64,
}

/// Times of two rows, each with its status.
///
/// Both are compared by the device's clock if both were measured by it, otherwise by the wall clock. Where something disturbed
/// either, so that its visits differ, the fastest samples of the visits decide; see [`floor`].
pub fn judge(a: (&Times, Status), b: (&Times, Status), rules: Rules) -> Judgement {
    let judged = by_medians(a, b, rules);
    let limit = rules.resolution.ln_1p();
    let floors = Floor::of(a.0).zip(Floor::of(b.0));
    // A device whose canary was never as fast was slower altogether, in all visits.
    let apart = a.0.clock != b.0.clock || rules.fastest_clock.ln().abs() > limit;
    let disturbed = |floors: &(Floor, Floor)| floors.0.is_disturbed(limit) || floors.1.is_disturbed(limit);
    let Some((a, b)) = floors.filter(|floors| !apart && disturbed(floors)) else { return judged };
    match floor::judge(&a, &b, limit) {
        Ok((verdict, ratio, interval)) => {
            Judgement { verdict, basis: Basis::Fastest, ratio, interval, reason: None, ..judged }
        }
        Err(reason) => Judgement { verdict: Verdict::Ambiguous, reason: Some(reason), ..judged },
    }
}

fn by_medians(a: (&Times, Status), b: (&Times, Status), rules: Rules) -> Judgement {
    let same_clock = a.0.clock == b.0.clock;
    let samples = |times: &'_ Times| match same_clock {
        true => times.samples.clone(),
        false => times.wall_samples.clone(),
    };
    let (of_a, of_b) = (samples(a.0), samples(b.0));
    let (Some(first), Some(second)) = (Location::of(&of_a), Location::of(&of_b)) else {
        let (a, b) = if same_clock { (&a.0.main, &b.0.main) } else { (&a.0.wall, &b.0.wall) };
        let ratio = b.median / a.median;
        let reason = "one sample, or none, says nothing of its error".to_owned();
        let interval = [b.min / a.max, b.max / a.min];
        let (verdict, basis) = (Verdict::Ambiguous, Basis::Medians);
        return Judgement { verdict, basis, ratio, interval, corrected: None, reason: Some(reason) };
    };
    // The error of a difference from the errors of both, each on its own side (Zou and Donner, Statistics in Medicine 27,
    // 2008). In logarithms, where a ratio is a difference.
    let shift = second.median - first.median;
    let low = shift - second.below.hypot(first.above);
    let high = shift + second.above.hypot(first.below);
    let limit = rules.resolution.ln_1p();
    let clock = rules.clock.ln();

    let (mut verdict, mut reason) = by_interval(shift, low, high, limit);
    if matches!(verdict, Verdict::Faster | Verdict::Slower) {
        let doubt = if [a.1, b.1].contains(&Status::Unstable) {
            (!apart(&first.sorted, &second.sorted, shift, limit))
                .then_some("the samples of an unstable row overlap with the others")
        } else {
            (!quartiles_agree(&first.sorted, &second.sorted, shift, limit))
                .then_some("the median moved and the quartiles did not, as between two peaks")
        };
        if let Some(doubt) = doubt {
            (verdict, reason) = (Verdict::Ambiguous, Some(doubt.to_owned()));
        }
    }
    // A clock that is slower by little does not make what is the same different; it can make a small difference.
    let reach = if verdict == Verdict::Same { 2.0 * limit } else { limit };
    let corrected = (clock.abs() > reach).then_some(shift - clock);
    if let Some(moved) = corrected {
        let (other, _) = by_interval(moved, low - clock, high - clock, limit);
        if other != verdict && verdict != Verdict::Ambiguous {
            verdict = Verdict::Ambiguous;
            let [raw, without] = [shift, moved].map(percent);
            reason = Some(format!("{raw}, but the canary ran {} too: {without} without it", percent(clock)));
        }
    }
    Judgement {
        verdict,
        basis: Basis::Medians,
        ratio: shift.exp(),
        interval: [low.exp(), high.exp()],
        corrected: corrected.map(f64::exp),
        reason,
    }
}

fn by_interval(shift: f64, low: f64, high: f64, limit: f64) -> (Verdict, Option<String>) {
    if low > limit {
        return (Verdict::Slower, None);
    }
    if high < -limit {
        return (Verdict::Faster, None);
    }
    if shift.abs() <= limit && low >= -2.0 * limit && high <= 2.0 * limit {
        return (Verdict::Same, None);
    }
    (Verdict::Ambiguous, Some(format!("somewhere between {} and {}", percent(low), percent(high))))
}

/// A logarithm of a ratio of times for people: `4.0 % slower`.
fn percent(log: f64) -> String {
    match log {
        _ if log < 0.0 => format!("{:.1} % faster", -100.0 * log.exp_m1()),
        _ => format!("{:.1} % slower", 100.0 * log.exp_m1()),
    }
}

/// Whether the middle half of the samples moved as the median did. Between two peaks the median can jump when their
/// shares change a little; one of the quartiles then stays.
fn quartiles_agree(a: &Sorted, b: &Sorted, shift: f64, limit: f64) -> bool {
    // Quartiles of fewer are as uncertain as what they should confirm.
    const LEAST: usize = 12;
    if a.len().min(b.len()) < LEAST {
        return true;
    }
    [0.25, 0.75].iter().all(|&p| (b.quantile(p) - a.quantile(p)) * shift.signum() > limit / 2.0)
}

/// Whether nine tenths of the one lie beyond nine tenths of the other.
fn apart(a: &Sorted, b: &Sorted, shift: f64, limit: f64) -> bool {
    match shift > 0.0 {
        true => b.quantile(0.1) > a.quantile(0.9) + limit,
        false => b.quantile(0.9) < a.quantile(0.1) - limit,
    }
}

/// The logarithm of a median, and how far the true one may be below and above it.
struct Location {
    sorted: Sorted,
    median: f64,
    below: f64,
    above: f64,
}

impl Location {
    /// None for fewer than two samples, or if one is not positive.
    fn of(samples: &[f64]) -> Option<Location> {
        if samples.len() < 2 || samples.iter().any(|&s| s <= 0.0) {
            return None;
        }
        let logs: Vec<f64> = samples.iter().map(|s| s.ln()).collect();
        let sorted = Sorted::new(&logs)?;
        let median = sorted.median();
        let (below, above) = if samples.len() < LEAST_FOR_CI {
            let error = student(samples.len() - 1) * deviation(&logs) / (samples.len() as f64).sqrt();
            (error, error)
        } else {
            let [low, high] = sorted.median_ci();
            let slow = slow_error(&logs);
            ((median - low).max(slow), (high - median).max(slow))
        };
        Some(Location { sorted, median, below, above })
    }
}

/// Order statistics take samples for independent; where they drift, neighbours are alike and the interval is too narrow. The
/// medians of ten consecutive blocks show it.
fn slow_error(samples: &[f64]) -> f64 {
    const BLOCKS: usize = 10;
    const LEAST_IN_BLOCK: usize = 4;
    if samples.len() < BLOCKS * LEAST_IN_BLOCK {
        return 0.0;
    }
    let bound = |i: usize| i * samples.len() / BLOCKS;
    let medians: Vec<f64> = (0..BLOCKS)
        .filter_map(|i| Sorted::new(&samples[bound(i)..bound(i + 1)]))
        .map(|s| s.median())
        .collect();
    student(BLOCKS - 1) * deviation(&medians) / (BLOCKS as f64).sqrt()
}

fn deviation(samples: &[f64]) -> f64 {
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    (samples.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (samples.len() - 1) as f64).sqrt()
}

/// Two-sided 95 % quantile of Student's distribution.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
    TABLE[freedom.clamp(1, TABLE.len()) - 1]
}

/// The smallest difference that two runs can show, as a part: the threshold, or what their rows scatter by if that is more, at
/// most twice the threshold.
///
/// `shifts` are the logarithms of the ratios of all rows. Most rows are the same in most comparisons, so that the scatter of
/// their ratios is what rows differ by without a cause: where memory came to lie, which cores ran. Rows far from the others
/// have changed and are left out. Beyond twice the threshold it is not taken for noise any more.
pub fn resolution(shifts: &[f64], threshold: f64) -> f64 {
    /// Rows of which a scatter can be told.
    const LEAST: usize = 12;
    /// Deviations within which 98.8 % of a normal distribution lie.
    const DEVIATIONS: f64 = 2.5;
    let deviation = if shifts.len() < LEAST { 0.0 } else { scatter(shifts) };
    (DEVIATIONS * deviation).exp_m1().clamp(threshold, 2.0 * threshold)
}

/// Standard deviation of those that lie together: by the median absolute deviation, again and again without what is further
/// out than 2.2 times that.
fn scatter(shifts: &[f64]) -> f64 {
    const FAR: f64 = 2.2;
    const ROUNDS: usize = 5;
    /// From the median absolute deviation to the standard deviation of a normal distribution.
    const TO_DEVIATION: f64 = 1.4826;
    let mut kept = shifts.to_vec();
    let mut deviation = 0.0;
    for _ in 0..ROUNDS {
        let Some(centre) = Sorted::new(&kept).map(|s| s.median()) else { break };
        let distances: Vec<f64> = kept.iter().map(|s| (s - centre).abs()).collect();
        deviation = TO_DEVIATION * Sorted::new(&distances).map_or(0.0, |s| s.median());
        kept = shifts.iter().copied().filter(|s| (s - centre).abs() <= FAR * deviation).collect();
    }
    deviation
}

//! When to stop taking samples: once the median is known well enough, or patience or room is at an end.

use super::record::Stopped;
use super::statistics::Sorted;

/// What a row may take. Times are in seconds since its first run began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StopOptions {
    /// Runs that end before this are not counted: clocks rise and caches fill meanwhile. A time and not a number, since
    /// that is what they take. The first run that ends later is not counted either, unless this is zero.
    pub warm_up: f64,
    /// Samples before the median is looked at.
    pub least: usize,
    /// Half the width of the median's 95 % interval, as a part of the median, that is narrow enough.
    pub precision: f64,
    /// When to stop in any case. At least one sample is taken.
    pub limit: f64,
    /// Samples that are kept.
    pub most: usize,
}

impl Default for StopOptions {
    fn default() -> Self {
        StopOptions { warm_up: 0.2, least: 20, precision: 0.01, limit: 5.0, most: 2000 }
    }
}

/// Takes samples one by one and says when there are enough. Knows no clock and no device.
///
/// ```
/// use aquatint::bench::stop::{Stop, StopOptions};
///
/// let mut stop = Stop::new(StopOptions { warm_up: 0.0, ..StopOptions::default() });
/// let mut elapsed = 0.0;
/// let why = loop {
///     let seconds = 0.010; // Of one run.
///     elapsed += seconds;
///     if let Some(why) = stop.push(seconds, elapsed) {
///         break why;
///     }
/// };
/// assert_eq!((why, stop.samples().len()), (aquatint::bench::record::Stopped::Confident, 20));
/// ```
#[derive(Clone, Debug)]
pub struct Stop {
    options: StopOptions,
    warm: bool,
    samples: Vec<f64>,
    sorted: Sorted,
}

impl Stop {
    pub fn new(options: StopOptions) -> Stop {
        Stop { options, warm: options.warm_up <= 0.0, samples: Vec::new(), sorted: Sorted::default() }
    }

    /// Whether the next sample counts.
    pub fn is_warm(&self) -> bool {
        self.warm
    }

    /// Those that count, in the order in which they came.
    pub fn samples(&self) -> &[f64] {
        &self.samples
    }

    /// Takes what one run lasted, and how long it is since the first began; says why to stop, if so. Samples that are no
    /// finite positive number are none: a timer that fails ends by the limit.
    pub fn push(&mut self, seconds: f64, elapsed: f64) -> Option<Stopped> {
        let options = self.options;
        if !self.warm {
            self.warm = elapsed >= options.warm_up;
            return None;
        }
        if seconds.is_finite() && seconds > 0.0 {
            self.samples.push(seconds);
            self.sorted.insert(seconds);
        }
        // Six samples are the fewest of which a 95 % interval is to be had.
        if self.samples.len() >= options.least.max(super::statistics::LEAST_FOR_CI) {
            let [low, high] = self.sorted.median_ci();
            if high - low <= 2.0 * options.precision * self.sorted.median() {
                return Some(Stopped::Confident);
            }
        }
        if self.samples.len() >= options.most.max(1) {
            return Some(Stopped::Full);
        }
        (elapsed >= options.limit).then_some(Stopped::TimeUp)
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    /// Runs of what `seconds` gives, until told to stop.
    fn run(options: StopOptions, mut seconds: impl FnMut(usize) -> f64) -> (Stopped, Stop, f64) {
        let mut stop = Stop::new(options);
        let mut elapsed = 0.0;
        for i in 0..1_000_000 {
            let sample = seconds(i);
            elapsed += sample;
            if let Some(why) = stop.push(sample, elapsed) {
                return (why, stop, elapsed);
            }
        }
        panic!("never stopped");
    }

    #[test]
    fn steady_runs_stop_at_the_least_number() {
        let (why, stop, _) = run(StopOptions::default(), |_| 0.01);
        assert_eq!((why, stop.samples().len()), (Stopped::Confident, 20));
    }

    #[test]
    fn what_runs_while_warming_up_does_not_count() {
        let options = StopOptions { warm_up: 0.5, ..StopOptions::default() };
        // The first fifty take half a second: ten times as long as they should.
        let (_, stop, _) = run(options, |i| if i < 50 { 0.010 } else { 0.001 });
        assert!(stop.samples().iter().all(|&s| s == 0.001), "{:?}", stop.samples());
        // One that is longer than the warm-up is the warm-up, and one more is measured though the time is up.
        let (why, stop, elapsed) = run(options, |_| 60.0);
        assert_eq!((why, stop.samples(), elapsed), (Stopped::TimeUp, &[60.0][..], 120.0));
        let (why, stop, elapsed) = run(StopOptions { warm_up: 0.0, ..options }, |_| 60.0);
        assert_eq!((why, stop.samples(), elapsed), (Stopped::TimeUp, &[60.0][..], 60.0));
    }

    #[test]
    fn scattered_runs_go_on_until_time_or_room_is_up() {
        let mut random = Random::new(1);
        let (why, _, elapsed) = run(StopOptions::default(), |_| 0.05 * (0.5 * random.normal()).exp());
        assert_eq!(why, Stopped::TimeUp);
        assert!((5.0..6.0).contains(&elapsed), "{elapsed}");
        let (why, stop, _) = run(StopOptions::default(), |_| 1e-4 * (0.9 * random.normal()).exp());
        assert_eq!((why, stop.samples().len()), (Stopped::Full, 2000));
        let (why, stop, _) = run(StopOptions { most: 0, ..StopOptions::default() }, |_| 1.0);
        assert_eq!((why, stop.samples().len()), (Stopped::Full, 1));
    }

    #[test]
    fn a_timer_that_fails_ends_by_the_limit() {
        let mut stop = Stop::new(StopOptions { warm_up: 0.0, ..StopOptions::default() });
        for (i, bad) in [0.0, f64::NAN, -1.0, f64::INFINITY].into_iter().enumerate() {
            assert_eq!(stop.push(bad, i as f64), None);
        }
        assert_eq!(stop.push(0.0, 5.0), Some(Stopped::TimeUp));
        assert!(stop.samples().is_empty());
    }

    /// To look after each sample whether the interval is narrow enough is to stop when it happens to be too narrow. How
    /// often the interval then still covers the median is what the documentation says.
    #[test]
    fn stopping_early_costs_little_coverage() {
        let mut random = Random::new(9);
        for spread in [0.02, 0.05, 0.1] {
            let mut covered = 0;
            let mut taken = 0;
            for _ in 0..1000 {
                let options = StopOptions { warm_up: 0.0, limit: 1e9, ..StopOptions::default() };
                let (why, stop, _) = run(options, |_| (spread * random.normal()).exp());
                assert!(matches!(why, Stopped::Confident | Stopped::Full));
                let [low, high] = stop.sorted.median_ci();
                covered += usize::from(low <= 1.0 && 1.0 <= high);
                taken += stop.samples().len();
            }
            println!("spread {spread}: covered in {covered} of 1000, {} samples each", taken / 1000);
            assert!(covered >= 900, "spread {spread}: covered in {covered} of 1000");
        }
    }
}

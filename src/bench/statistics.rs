//! What samples of a time say: order statistics, which no outlier moves, and how sure they are.

use super::record::Summary;

/// Least number of samples for which order statistics give a 95 % interval of the median: of five, the whole range
/// covers it in 93.75 % of all cases.
pub const LEAST_FOR_CI: usize = 6;

/// Two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

impl Summary {
    /// Of samples in any order; none if there are none, or if one is not a finite number.
    pub fn of(samples: &[f64]) -> Option<Summary> {
        Sorted::new(samples).map(|sorted| sorted.summary())
    }

    /// Half the width of the median's confidence interval, as a part of the median.
    pub fn precision(&self) -> f64 {
        (self.ci[1] - self.ci[0]) / 2.0 / self.median
    }
}

/// Samples in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// None for no samples, or if one is not a finite number.
    pub fn new(samples: &[f64]) -> Option<Sorted> {
        if samples.is_empty() || !samples.iter().all(|s| s.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Sorted(sorted))
    }

    /// Puts a sample into its place.
    pub fn insert(&mut self, sample: f64) {
        let at = self.0.partition_point(|&s| s < sample);
        self.0.insert(at, sample);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value below which a part `p` of the samples lies: linear between the samples, of which the first is at 0 and
    /// the last at 1. Definition 7 of Hyndman and Fan (The American Statistician 50, 1996), NumPy's default.
    pub fn quantile(&self, p: f64) -> f64 {
        let position = p.clamp(0.0, 1.0) * (self.0.len() - 1) as f64;
        let below = position.floor() as usize;
        let above = position.ceil() as usize;
        self.0[below] + (self.0[above] - self.0[below]) * (position - below as f64)
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// 95 % confidence interval of the median: two of the samples, whatever their distribution. Of fewer than
    /// [`LEAST_FOR_CI`] it is the whole range, which covers the median less often.
    pub fn median_ci(&self) -> [f64; 2] {
        let low = rank_of_ci(self.0.len());
        [self.0[low], self.0[self.0.len() - 1 - low]]
    }

    fn summary(&self) -> Summary {
        let samples = &self.0;
        let n = samples.len();
        let mean = samples.iter().sum::<f64>() / n as f64;
        let squares: f64 = samples.iter().map(|s| (s - mean).powi(2)).sum();
        let median = self.median();
        let mut distances: Vec<f64> = samples.iter().map(|s| (s - median).abs()).collect();
        distances.sort_by(f64::total_cmp);
        Summary {
            n: n.try_into().unwrap_or(u32::MAX),
            min: samples[0],
            max: samples[n - 1],
            mean,
            deviation: if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 },
            median,
            mad: Sorted(distances).median(),
            p90: self.quantile(0.90),
            p95: self.quantile(0.95),
            p99: self.quantile(0.99),
            ci: self.median_ci(),
        }
    }
}

/// How many samples to leave out at either end, so that the range of the others covers the median in 95 % of all cases.
/// The number of samples below the median is binomial with p = ½ (Conover, Practical Nonparametric Statistics, 3.2).
fn rank_of_ci(n: usize) -> usize {
    // Past this, 2⁻ⁿ is no f64, and the normal distribution gives the same ranks.
    const EXACT: usize = 1000;
    if n > EXACT {
        return ((n as f64 - Z * (n as f64).sqrt()) / 2.0).floor() as usize;
    }
    let mut probability = 0.5f64.powi(n as i32);
    let mut tail = 0.0;
    let mut rank = 0;
    loop {
        tail += probability;
        if tail > 0.025 || rank >= n / 2 {
            return rank.saturating_sub(1);
        }
        probability *= (n - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
}

/// Median of the last third over that of the first, less one; 0 for fewer than three samples.
pub fn drift(samples: &[f64]) -> f64 {
    let third = samples.len() / 3;
    match (Sorted::new(&samples[..third]), Sorted::new(&samples[samples.len() - third..])) {
        (Some(first), Some(last)) => last.median() / first.median() - 1.0,
        _ => 0.0,
    }
}

/// Samples far from the others, by Tukey's fences: further than 1.5 times the interquartile range from the quartiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outliers {
    pub low: usize,
    pub high: usize,
    /// Of both, those further than three times that range.
    pub severe: usize,
}

impl Outliers {
    pub fn of(samples: &[f64]) -> Outliers {
        let Some(sorted) = Sorted::new(samples) else { return Outliers::default() };
        let [q1, q3] = [0.25, 0.75].map(|p| sorted.quantile(p));
        let beyond = |times: f64| {
            let reach = times * (q3 - q1);
            let low = samples.iter().filter(|&&s| s < q1 - reach).count();
            (low, samples.iter().filter(|&&s| s > q3 + reach).count())
        };
        let ((low, high), severe) = (beyond(1.5), beyond(3.0));
        Outliers { low, high, severe: severe.0 + severe.1 }
    }
}

/// Why these samples are not to be relied on, if so: what a row is called `unstable` for.
pub fn doubt(samples: &[f64]) -> Option<String> {
    /// What a half-width of the median's interval may be.
    const LOOSE: f64 = 0.05;
    /// How far the last third may be from the first.
    const FAR: f64 = 0.05;
    let sorted = Sorted::new(samples)?;
    let [low, high] = sorted.median_ci();
    let precision = (high - low) / 2.0 / sorted.median();
    if sorted.len() >= LEAST_FOR_CI && precision > LOOSE {
        return Some(format!("the median is only known to ±{:.1} %", 100.0 * precision));
    }
    let drift = drift(samples);
    // Thirds of a few samples are anywhere. What they may differ by, if nothing drifts, follows from the interval of
    // the whole: that of a third is √3 times as wide, of a difference of two √2 more.
    let expected = precision * 6f64.sqrt();
    if sorted.len() >= 3 * LEAST_FOR_CI && drift.abs() > FAR.max(expected) {
        let way = if drift > 0.0 { "slower" } else { "faster" };
        return Some(format!("the last third ran {:.1} % {way} than the first", 100.0 * drift.abs()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    fn near(found: f64, wanted: f64, tolerance: f64) {
        assert!((found - wanted).abs() <= tolerance, "found {found}, wanted {wanted} ± {tolerance}");
    }

    #[test]
    fn small_samples_by_hand() {
        let s = Summary::of(&[3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!((s.n, s.min, s.max, s.mean, s.median), (4, 1.0, 10.0, 4.0, 2.5));
        assert_eq!(s.mad, 1.0);
        near(s.deviation, (50.0f64 / 3.0).sqrt(), 1e-12);
        // NumPy: percentile([1, 2, 3, 10], [90, 95, 99]).
        near(s.p90, 7.9, 1e-12);
        near(s.p95, 8.95, 1e-12);
        near(s.p99, 9.79, 1e-12);
        assert_eq!(s.ci, [1.0, 10.0]);
        let one = Summary::of(&[5.0]).unwrap();
        assert_eq!((one.median, one.deviation, one.mad, one.ci), (5.0, 0.0, 0.0, [5.0; 2]));
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Conover's table of the binomial distribution, p = ½: 1-based ranks of the lower end.
        for (n, rank) in
            [(5, 1), (6, 1), (8, 1), (9, 2), (12, 3), (15, 4), (20, 6), (25, 8), (50, 18), (100, 40)]
        {
            assert_eq!(rank_of_ci(n) + 1, rank, "{n} samples");
        }
        // Both ways of counting agree where they meet.
        assert!(rank_of_ci(1000).abs_diff(rank_of_ci(1001)) <= 1);
    }

    /// Quantiles of large samples are those of the distribution, within five standard errors.
    #[test]
    fn distributions_with_known_quantiles() {
        const N: usize = 40_000;
        type Draw = fn(&mut Random) -> f64;
        let z = [1.281_552, 1.644_854, 2.326_348];
        let cases: [(&str, Draw, f64, f64, [f64; 3]); 3] = [
            ("normal", |r| 10.0 + r.normal(), 10.0, 0.674_490, z.map(|z| 10.0 + z)),
            ("uniform", |r| r.uniform(), 0.5, 0.25, [0.90, 0.95, 0.99]),
            // The MAD of a lognormal solves Φ(ln(1+m)) − Φ(ln(1−m)) = ½.
            ("lognormal", |r| r.normal().exp(), 1.0, 0.599_03, z.map(f64::exp)),
        ];
        for (name, draw, median, mad, high) in cases {
            let mut random = Random::new(7);
            let samples: Vec<f64> = (0..N).map(|_| draw(&mut random)).collect();
            let s = Summary::of(&samples).unwrap();
            println!("{name}: {s:?}");
            near(s.median, median, 0.04);
            near(s.mad, mad, 0.03);
            near(s.p90, high[0], 0.02 * high[0].max(2.0));
            near(s.p95, high[1], 0.02 * high[1].max(2.0));
            near(s.p99, high[2], 0.05 * high[2].max(2.0));
            assert!(s.ci[0] <= s.median && s.median <= s.ci[1] && s.precision() < 0.02);
            near(drift(&samples), 0.0, 0.06);
        }
    }

    #[test]
    fn two_peaks_have_a_wide_interval_and_one_median() {
        let mut random = Random::new(3);
        let samples: Vec<f64> =
            (0..200).map(|i| if i % 2 == 0 { 1.0 } else { 1.2 } * (0.005 * random.normal()).exp()).collect();
        let s = Summary::of(&samples).unwrap();
        assert!(s.ci[0] < 1.02 && s.ci[1] > 1.18, "{s:?}");
        assert!(doubt(&samples).is_some());
    }

    #[test]
    fn drift_and_outliers_are_seen() {
        let mut random = Random::new(5);
        let steady: Vec<f64> = (0..300).map(|_| (0.01 * random.normal()).exp()).collect();
        let drifting: Vec<f64> =
            steady.iter().enumerate().map(|(i, s)| s * (1.0 + 0.15 * i as f64 / 299.0)).collect();
        // Thirds are centred at 1/6 and 5/6 of the way. A median of 100 such samples errs by 0.2 %, a ratio of two by 0.3 %.
        near(drift(&drifting), (1.0 + 0.15 * 5.0 / 6.0) / (1.0 + 0.15 / 6.0) - 1.0, 0.01);
        near(drift(&steady), 0.0, 0.01);
        assert_eq!(doubt(&steady), None);
        assert!(doubt(&drifting).unwrap().contains("slower"), "{:?}", doubt(&drifting));
        let mut spoilt = steady.clone();
        spoilt[10] = 3.0;
        spoilt[200] = 0.2;
        let (clean, found) = (Outliers::of(&steady), Outliers::of(&spoilt));
        assert_eq!((found.low, found.high), (clean.low + 1, clean.high + 1));
        assert_eq!(found.severe, clean.severe + 2);
        // Neither the median nor its interval care.
        let (a, b) = (Summary::of(&steady).unwrap(), Summary::of(&spoilt).unwrap());
        near(a.median, b.median, 0.001);
        near(a.ci[1], b.ci[1], 0.001);
    }

    /// Over a thousand draws each, the interval covers the median at least as often as it says, and not much more often
    /// than the steps of the binomial distribution force it to.
    #[test]
    fn the_interval_covers_the_median_as_often_as_it_says() {
        const DRAWS: usize = 1000;
        let mut random = Random::new(11);
        for n in [6, 10, 25, 100, 400, 1500] {
            for (name, heavy) in [("normal", false), ("lognormal", true)] {
                let mut covered = 0;
                for _ in 0..DRAWS {
                    let samples: Vec<f64> =
                        (0..n)
                            .map(|_| {
                                if heavy {
                                    (0.5 * random.normal()).exp()
                                } else {
                                    1.0 + 0.02 * random.normal()
                                }
                            })
                            .collect();
                    let ci = Sorted::new(&samples).unwrap().median_ci();
                    covered += usize::from(ci[0] <= 1.0 && 1.0 <= ci[1]);
                }
                let part = covered as f64 / DRAWS as f64;
                println!("{name}, {n} samples: {part}");
                // Three standard errors of a part of 1,000 round 95 % are 2.1 %.
                assert!(part >= 0.929, "{name}, {n} samples: covered in {part}");
                assert!(part <= 0.995, "{name}, {n} samples: covered in {part}");
            }
        }
    }
}

//! One short kernel, the same all along, timed between the rows: a device that has slowed down shows it here, whatever
//! its vendor tells of clocks and temperatures.

use std::time::Instant;

use crate::bench::record::Canary;
use crate::engine::lone::{self, Lone};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::shader::{Kernel, Param};

/// Seconds that the kernel takes, about, while all is well.
const LENGTH: f64 = 0.01;
/// Part of its speed by which a device has to slow down, for it to be more than noise.
const NOTICEABLE: f64 = 0.1;
/// Samples of which the median is looked at: one that something else disturbed proves nothing.
const WINDOW: usize = 3;

/// The kernel, ready to run.
pub struct Bird {
    gpu: Gpu,
    kernel: Lone,
    rounds: u32,
    start: Instant,
}

impl std::fmt::Debug for Bird {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bird({:?})", self.gpu)
    }
}

impl Bird {
    /// Finds out how much work takes about 10 ms. Times of samples count from here.
    pub fn new(gpu: &Gpu) -> Result<Bird> {
        const GROUPS: u64 = 256;
        let start = Instant::now();
        let params = |rounds: u32| {
            [("rounds", Param::U32(rounds)), ("factor", Param::F32(0.5)), ("addend", Param::F32(0.75))]
        };
        let dst = lone::buffer(gpu, "canary", GROUPS * 64 * 4)?;
        let kernel = Kernel::new("roof_arithmetic");
        let kernel = Lone::new(gpu, &kernel, &[("dst", &dst)], &params(1), GROUPS)?;
        kernel.time(gpu, 1)?;
        let mut rounds = 8;
        loop {
            kernel.set(gpu, &params(rounds))?;
            let seconds = kernel.time(gpu, 1)?.min(kernel.time(gpu, 1)?);
            if seconds >= LENGTH / 2.0 || rounds >= 1 << 26 {
                rounds = (f64::from(rounds) * (LENGTH / seconds).clamp(0.1, 2.0)).max(1.0) as u32;
                kernel.set(gpu, &params(rounds))?;
                return Ok(Bird { gpu: gpu.clone(), kernel, rounds, start });
            }
            rounds *= 2;
        }
    }

    /// Runs it once; `after` is the row before, if there was one.
    pub fn sing(&self, after: Option<&str>) -> Result<Canary> {
        let at = self.start.elapsed().as_secs_f64();
        // Whoever idles is slow at first: the first of two only wakes the device.
        let seconds = self.kernel.time(&self.gpu, 1)?.min(self.kernel.time(&self.gpu, 1)?);
        Ok(Canary { at, seconds, after: after.map(str::to_owned), rounds: self.rounds })
    }
}

/// A device that slowed down.
#[derive(Clone, Debug, PartialEq)]
pub struct Throttled {
    /// Sample with which it began.
    pub first: usize,
    /// When that was, seconds since the start.
    pub at: f64,
    /// The row that ran before.
    pub after: Option<String>,
    /// Speed that was left at the worst, 1 for all of it.
    pub left: f64,
    /// Whether it was as fast as before at the end.
    pub recovered: bool,
}

impl std::fmt::Display for Throttled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (percent, at) = (100.0 * (1.0 - self.left), self.at);
        write!(f, "the device slowed down by up to {percent:.0} % from {at:.0} s on")?;
        if let Some(row) = &self.after {
            write!(f, ", after {row}")?;
        }
        if self.recovered {
            write!(f, "; at the end it was as fast as before")?;
        }
        Ok(())
    }
}

/// Whether the device slowed down, by samples in their order. The median of each three in a row is held against
/// the best such median before it, so that neither a device that warms up nor one slow sample counts.
pub fn throttled(samples: &[Canary]) -> Option<Throttled> {
    let medians: Vec<f64> = samples
        .windows(WINDOW)
        .map(|window| {
            let mut times: Vec<f64> = window.iter().map(|s| s.seconds).collect();
            times.sort_by(f64::total_cmp);
            times[WINDOW / 2]
        })
        .collect();
    let mut best = f64::INFINITY;
    let (mut begin, mut left, mut last) = (None, 1.0f64, 1.0);
    for (i, &median) in medians.iter().enumerate() {
        best = best.min(median);
        last = best / median;
        if last < 1.0 - NOTICEABLE {
            begin.get_or_insert((i, best));
        }
        left = left.min(last);
    }
    let (window, best) = begin?;
    // Of the window that showed it, the first that was slow.
    let slow = |sample: &Canary| best / sample.seconds < 1.0 - NOTICEABLE;
    let first = window + samples[window..window + WINDOW].iter().position(slow)?;
    let sample = &samples[first];
    let recovered = last >= 1.0 - NOTICEABLE / 2.0;
    Some(Throttled { first, at: sample.at, after: sample.after.clone(), left, recovered })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(milliseconds: &[f64]) -> Vec<Canary> {
        let sample = |(i, ms): (usize, &f64)| Canary {
            at: i as f64 * 10.0,
            seconds: ms * 1e-3,
            after: (i > 0).then(|| format!("row {i}")),
            rounds: 8,
        };
        milliseconds.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn a_steady_device_is_not_accused() {
        for steady in [
            &[][..],
            &[10.0],
            &[10.0, 30.0],
            &[10.0, 10.2, 9.9, 10.1, 10.4, 9.8],
            // Something else ran twice, but not twice in a row.
            &[10.0, 10.0, 25.0, 10.0, 10.0, 18.0, 10.0, 10.0],
            // A device that wakes up slowly.
            &[20.0, 16.0, 12.0, 10.0, 10.0, 10.0],
        ] {
            assert_eq!(throttled(&series(steady)), None, "{steady:?}");
        }
    }

    #[test]
    fn a_device_that_slows_down_is_found_where_it_does() {
        let found = throttled(&series(&[10.0, 10.0, 10.1, 9.9, 14.0, 15.0, 20.0, 20.0])).unwrap();
        assert_eq!((found.first, found.at, found.after.as_deref()), (4, 40.0, Some("row 4")));
        assert!((found.left - 0.5).abs() < 0.01 && !found.recovered, "{found:?}");
        assert!(found.to_string().contains("50 % from 40 s on, after row 4"), "{found}");
    }

    #[test]
    fn a_device_that_recovers_is_said_to() {
        let found = throttled(&series(&[10.0, 10.0, 10.0, 13.0, 13.0, 13.0, 10.0, 10.0, 10.0])).unwrap();
        assert_eq!(found.first, 3);
        assert!(found.recovered && (found.left - 10.0 / 13.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_slow_creep_is_found_once_it_matters() {
        let creep: Vec<f64> = (0..20).map(|i| 10.0 * 1.02f64.powi(i)).collect();
        let found = throttled(&series(&creep)).unwrap();
        assert!((5..9).contains(&found.first), "{found:?}");
    }
}

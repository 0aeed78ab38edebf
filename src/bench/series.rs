//! The samples of a row, taken in several visits.

use std::time::Instant;

use super::case::Subject;
use super::record::{ClockSource, Stopped, Summary, Times, Visit};
use super::statistics::{Sorted, drift};
use super::stop::{Stop, StopOptions};
use super::visits;
use crate::engine::RunTime;
use crate::error::{Error, Result};

/// A sample lasts at least so long, by running a network several times: clocks are no better than that.
const SAMPLE: f64 = 0.004;
/// Most runs of a sample.
const MOST_RUNS: f64 = 512.0;
/// Seconds by which a device that was busy with other rows is warm again, and caches are full.
const WARM_AGAIN: f64 = 0.05;

/// What one visit found.
struct Taken {
    at: f64,
    stopped: Stopped,
    main: Vec<f64>,
    wall: Vec<f64>,
    encode: Vec<f64>,
    /// What the canary took before and after.
    canary: Option<[f64; 2]>,
}

/// What was sampled of a row so far.
pub(super) struct Series {
    by_device: bool,
    runs: u32,
    /// One run, when it was first timed.
    once: RunTime,
    taken: Vec<Taken>,
}

impl Series {
    /// Finds out how many runs make a sample.
    pub fn new(subject: &mut dyn Subject, clock: ClockSource) -> Result<Series> {
        let once = subject.time(1)?;
        let runs = (SAMPLE / once.wall.max(1e-7)).ceil().clamp(1.0, MOST_RUNS) as u32;
        let by_device = clock == ClockSource::Timestamps && once.device.is_some();
        Ok(Series { by_device, runs, once, taken: Vec::new() })
    }

    /// Seconds of one run.
    pub fn once(&self) -> f64 {
        self.once.wall
    }

    /// Takes samples until they are enough. `at` is when that begins, since the start of all rows.
    pub fn visit(&mut self, subject: &mut dyn Subject, options: StopOptions, at: f64) -> Result<()> {
        let first = self.taken.is_empty();
        if first && self.once.wall > options.limit.max(options.warm_up) {
            self.count_once(at);
            return Ok(());
        }
        let warm_up = if first { options.warm_up } else { options.warm_up.min(WARM_AGAIN) };
        // It was run before: what takes so long has nothing to gain from one more that does not count.
        let warm_up = if self.once.wall >= warm_up { 0.0 } else { warm_up };
        let mut stop = Stop::new(StopOptions { warm_up, ..options });
        let (mut wall, mut encode) = (Vec::new(), Vec::new());
        let per_run = f64::from(self.runs);
        let begin = Instant::now();
        let stopped = loop {
            let time = subject.time(self.runs)?;
            let device = time.device.filter(|&seconds| seconds > 0.0);
            // A clock that stands still is none.
            if self.by_device && device.is_none() && stop.samples().is_empty() && self.taken.is_empty() {
                self.by_device = false;
            }
            let main = if self.by_device { device.unwrap_or(f64::NAN) } else { time.wall } / per_run;
            let kept = stop.samples().len();
            let stopped = stop.push(main, begin.elapsed().as_secs_f64());
            if stop.samples().len() > kept {
                wall.push(time.wall / per_run);
                encode.push(time.encode / per_run);
            }
            if let Some(stopped) = stopped {
                break stopped;
            }
        };
        let main = stop.samples().to_vec();
        self.taken.push(Taken { at, stopped, main, wall, encode, canary: None });
        Ok(())
    }

    /// The run that was timed first is the only sample of what takes longer than a row may: its check ran it before.
    fn count_once(&mut self, at: f64) {
        let RunTime { wall, encode, device } = self.once;
        let main = if self.by_device { device.unwrap_or(wall) } else { wall };
        let stopped = Stopped::TimeUp;
        self.taken.push(Taken {
            at,
            stopped,
            main: vec![main],
            wall: vec![wall],
            encode: vec![encode],
            canary: None,
        });
    }

    /// What the canary took round the last visit.
    pub fn sung(&mut self, canary: [f64; 2]) {
        if let Some(taken) = self.taken.last_mut() {
            taken.canary = Some(canary);
        }
    }

    /// The times of the visits that count; see [`visits::count`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no sample.
    pub fn times(&self) -> Result<Times> {
        let mut visits: Vec<Visit> = self
            .taken
            .iter()
            .filter(|taken| !taken.main.is_empty())
            .map(|taken| Visit {
                at: taken.at,
                samples: taken.main.len() as u32,
                median: Sorted::new(&taken.main).map_or(f64::NAN, |sorted| sorted.median()),
                fastest: taken.main.iter().copied().fold(f64::INFINITY, f64::min),
                canary: taken.canary.map(|[before, after]| before.max(after)),
                counts: true,
                set_aside: Vec::new(),
            })
            .collect();
        visits::count(&mut visits);
        let (mut main, mut wall, mut encode, mut stopped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let taken = self.taken.iter().filter(|taken| !taken.main.is_empty());
        for (taken, visit) in taken.zip(&mut visits) {
            if !visit.counts {
                visit.set_aside.clone_from(&taken.main);
                continue;
            }
            main.extend_from_slice(&taken.main);
            wall.extend_from_slice(&taken.wall);
            encode.extend_from_slice(&taken.encode);
            stopped.push(taken.stopped);
        }
        let summary = |samples: &[f64]| {
            Summary::of(samples).ok_or_else(|| Error::Invalid {
                what: "times of a run".to_owned(),
                expected: "positive numbers".to_owned(),
                found: format!("{} samples", samples.len()),
            })
        };
        Ok(Times {
            clock: if self.by_device { ClockSource::Timestamps } else { ClockSource::Wall },
            runs_per_sample: self.runs,
            main: summary(&main)?,
            wall: summary(&wall)?,
            encode: summary(&encode)?,
            stopped: worst(&stopped),
            drift: if main.len() >= 6 { drift(&main) } else { 0.0 },
            samples: main,
            wall_samples: wall,
            encode_samples: encode,
            visits,
        })
    }
}

/// A row is as well known as the visit that is known worst.
fn worst(stopped: &[Stopped]) -> Stopped {
    let has = |why| stopped.contains(&why);
    match () {
        () if has(Stopped::TimeUp) => Stopped::TimeUp,
        () if has(Stopped::Full) => Stopped::Full,
        () => Stopped::Confident,
    }
}

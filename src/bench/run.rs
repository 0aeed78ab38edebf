//! The run of a list of cases: each is checked first and timed only if it is right.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::canary::Bird;
use super::case::{Case, Estimate, Subject};
use super::record::{Canary, ClockSource, KernelTime, LimitKind, Rates, Roof, Row, Status, Summary, Times};
use super::roof;
use super::statistics::{doubt, drift};
use super::stop::{Stop, StopOptions};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::units;

/// How cases are measured.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// When a row has enough samples.
    pub stop: StopOptions,
    /// Seconds for all rows; those that do not fit are skipped.
    pub time_limit: Option<f64>,
    /// Seconds of rest before each row.
    pub cooldown: f64,
    /// What times are taken with.
    pub clock: ClockSource,
}

/// What goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// Row so much of so many begins.
    Begins {
        at: usize,
        of: usize,
        id: &'a str,
        title: &'a str,
    },
    Done(&'a Row),
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub rows: Vec<Row>,
    pub canary: Vec<Canary>,
    /// Why not all rows were measured, if so.
    pub cut_short: Option<String>,
    /// Whether the device went away or did not answer.
    pub lost: bool,
}

/// A sample lasts at least so long, by running a network several times: clocks are no better than that.
const SAMPLE: f64 = 0.004;
/// Most runs of a sample.
const MOST_RUNS: f64 = 512.0;
/// Part of the arithmetic limit that a large network is expected to reach.
const EXPECTED_SHARE: f64 = 0.3;
/// Bytes of weights a second that are made and brought to the device.
const LOAD_RATE: f64 = 200e6;

/// Measures all cases in their order; `stop` ends the run before the next one.
///
/// # Errors
/// Those of the device before the first row; later ones stand in the rows.
pub fn run(
    gpu: &Gpu,
    cases: &[Box<dyn Case>],
    roof: &Roof,
    options: &RunOptions,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Measured> {
    let start = Instant::now();
    let bird = Bird::new(gpu)?;
    let mut measured = Measured { canary: vec![bird.sing(None)?], ..Measured::default() };
    for (at, case) in cases.iter().enumerate() {
        let label = case.label();
        let mut row = blank(case.as_ref());
        watch(Event::Begins { at, of: cases.len(), id: &row.id, title: &label.title });
        if stop.load(Ordering::Relaxed) {
            measured.cut_short.get_or_insert("stopped by the user".to_owned());
        }
        if let Some(why) = &measured.cut_short {
            (row.status, row.reason) = (Status::Skipped, Some(why.clone()));
        } else {
            if options.cooldown > 0.0 {
                std::thread::sleep(Duration::from_secs_f64(options.cooldown));
            }
            let left = options.time_limit.map(|limit| limit - start.elapsed().as_secs_f64());
            let share = left.map(|left| (4.0 * left / (cases.len() - at) as f64).max(0.3));
            if let Err(error) = measure(gpu, case.as_ref(), roof, options, (left, share), &mut row) {
                (row.status, row.reason) = (status_of(&error), Some(error.to_string()));
                if matches!(error, Error::DeviceLost { .. }) {
                    measured.lost = true;
                    measured.cut_short = Some(format!("the device was lost in {}", row.id));
                }
            }
            if row.status != Status::Skipped && !measured.lost {
                match bird.sing(Some(&row.id)) {
                    Ok(sample) => measured.canary.push(sample),
                    Err(error) => {
                        measured.lost = true;
                        measured.cut_short = Some(format!("the device failed after {}: {error}", row.id));
                    }
                }
            }
        }
        watch(Event::Done(&row));
        measured.rows.push(row);
    }
    Ok(measured)
}

fn blank(case: &dyn Case) -> Row {
    let label = case.label();
    Row {
        id: label.id(),
        group: label.group,
        title: label.title.clone(),
        precision: label.dtype.to_string(),
        batch: label.batch,
        status: Status::Ok,
        reason: None,
        check: None,
        flops: None,
        bytes: None,
        memory: None,
        start: None,
        times: None,
        rates: None,
        parts: Vec::new(),
        kernels: Vec::new(),
    }
}

/// What this device cannot do is not an error of its.
fn status_of(error: &Error) -> Status {
    match error {
        Error::Limit { .. } | Error::Feature { .. } | Error::Graph { .. } | Error::Budget { .. } => {
            Status::Unsupported
        }
        _ => Status::Error,
    }
}

/// Seconds that loading and one run will take, more or less.
fn predicted(estimate: &Estimate, roof: &Roof) -> [f64; 2] {
    let per = |amount: u64, kind| roof.value(kind).map_or(0.0, |rate| amount as f64 / rate);
    let launches = estimate.launches as f64 * roof.value(LimitKind::LaunchLatency).unwrap_or(0.0);
    let arithmetic = per(estimate.flops, LimitKind::F32Arithmetic) / EXPECTED_SHARE;
    let run = arithmetic.max(per(estimate.bytes, LimitKind::ReadBandwidth)) + launches;
    [estimate.weights as f64 / LOAD_RATE, run]
}

/// Fills a row; `left` are the seconds until the time limit, `share` those of them that sampling may take.
fn measure(
    gpu: &Gpu,
    case: &dyn Case,
    roof: &Roof,
    options: &RunOptions,
    (left, share): (Option<f64>, Option<f64>),
    row: &mut Row,
) -> Result<()> {
    let estimate = case.estimate(gpu.target())?;
    (row.flops, row.bytes) =
        ((estimate.flops > 0).then_some(estimate.flops), (estimate.bytes > 0).then_some(estimate.bytes));
    let [load, run] = predicted(&estimate, roof);
    let needed = load + f64::from(estimate.least_runs) * run;
    if let Some(left) = left.filter(|&left| needed > left.max(0.0)) {
        row.status = Status::Skipped;
        let rest = if left > 0.0 { units::seconds(left) } else { "nothing".to_owned() };
        row.reason = Some(format!(
            "would take about {}, {rest} is left of the time limit (--time-limit)",
            units::seconds(needed)
        ));
        return Ok(());
    }
    let available = super::host::available_memory();
    // A software adapter's memory is the host's.
    let host = estimate.weights + if is_software(gpu) { estimate.peak } else { 0 };
    if available.is_some_and(|available| host > available) {
        row.status = Status::Skipped;
        row.reason = Some(format!(
            "takes {} of the host's memory, {} are free",
            units::bytes(host),
            units::bytes(available.unwrap_or(0))
        ));
        return Ok(());
    }
    let mut subject = case.prepare(gpu)?;
    (row.start, row.memory) = (subject.start(), subject.memory());
    let (check, fault) = subject.check()?;
    row.check = Some(check);
    if let Some(fault) = fault {
        (row.status, row.reason) = (Status::Wrong, Some(fault));
        return Ok(());
    }
    let stop = StopOptions {
        limit: share.map_or(options.stop.limit, |s| s.min(options.stop.limit)),
        ..options.stop
    };
    let times = sample(subject.as_mut(), options.clock, stop)?;
    if let Some(doubt) = doubt(&times.samples) {
        (row.status, row.reason) = (Status::Unstable, Some(doubt));
    }
    row.rates = Some(roof::rates(roof, row.flops, row.bytes, &row.precision, times.main.median));
    row.times = Some(times);
    row.parts = subject.parts();
    row.kernels = subject.kernels()?;
    let precision = row.precision.clone();
    for KernelTime { seconds, flops, bytes, bound, share, .. } in &mut row.kernels {
        let rates = roof::rates(roof, *flops, *bytes, &precision, *seconds);
        let Rates { bound: found, share: reached, .. } = rates;
        (*bound, *share) = (found, reached);
    }
    Ok(())
}

fn is_software(gpu: &Gpu) -> bool {
    gpu.target().class == crate::target::DeviceClass::Cpu
}

/// Takes samples until they are enough.
fn sample(subject: &mut dyn Subject, clock: ClockSource, options: StopOptions) -> Result<Times> {
    let once = subject.time(1)?;
    let runs = (SAMPLE / once.wall.max(1e-7)).ceil().clamp(1.0, MOST_RUNS) as u32;
    let per_run = f64::from(runs);
    let mut stop = Stop::new(options);
    let (mut walls, mut encodes) = (Vec::new(), Vec::new());
    let mut by_device = clock == ClockSource::Timestamps && once.device.is_some();
    let begin = Instant::now();
    let stopped = loop {
        let time = subject.time(runs)?;
        let device = time.device.filter(|&seconds| seconds > 0.0);
        // A clock that stands still is none.
        if by_device && device.is_none() && stop.samples().is_empty() {
            by_device = false;
        }
        let main = if by_device { device.unwrap_or(f64::NAN) } else { time.wall } / per_run;
        let kept = stop.samples().len();
        let stopped = stop.push(main, begin.elapsed().as_secs_f64());
        if stop.samples().len() > kept {
            walls.push(time.wall / per_run);
            encodes.push(time.encode / per_run);
        }
        if let Some(stopped) = stopped {
            break stopped;
        }
    };
    let summary = |samples: &[f64]| {
        Summary::of(samples).ok_or_else(|| Error::Invalid {
            what: "times of a run".to_owned(),
            expected: "positive numbers".to_owned(),
            found: format!("{} samples", samples.len()),
        })
    };
    let samples = stop.samples().to_vec();
    Ok(Times {
        clock: if by_device { ClockSource::Timestamps } else { ClockSource::Wall },
        runs_per_sample: runs,
        main: summary(&samples)?,
        wall: summary(&walls)?,
        encode: summary(&encodes)?,
        stopped,
        drift: if samples.len() >= 6 { drift(&samples) } else { 0.0 },
        samples,
        wall_samples: walls,
        encode_samples: encodes,
    })
}

//! The run of a list of cases: each is checked first and timed only if it is right.
//!
//! Rows are sampled in turns, each in several visits, so that what slows a machine down for a while meets a part of every
//! row and not the whole of one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::canary::Bird;
use super::case::{Case, Estimate, Subject};
use super::record::{Canary, ClockSource, KernelTime, LimitKind, Rates, Roof, Row, Status};
use super::roof;
use super::series::Series;
use super::statistics::doubt;
use super::stop::StopOptions;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::units;

/// How cases are measured.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// When a row has enough samples; its limit is that of all visits.
    pub stop: StopOptions,
    /// How often a row is sampled, in turns with the others.
    pub visits: u32,
    /// Seconds for all rows; those that do not fit are skipped.
    pub time_limit: Option<f64>,
    /// Seconds of rest before each visit of a row.
    pub cooldown: f64,
    /// What times are taken with.
    pub clock: ClockSource,
}

/// What goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// Row so much of so many begins.
    Begins { at: usize, of: usize, id: &'a str, title: &'a str },
    /// It is checked, and sampled for the first time.
    Done(&'a Row),
    /// So many rows are sampled again: for the so manieth time of so many.
    Again { rows: usize, visit: u32, of: u32 },
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

/// Part of the arithmetic limit that a large network is expected to reach.
const EXPECTED_SHARE: f64 = 0.3;
/// Bytes of weights a second that are made and brought to the device.
const LOAD_RATE: f64 = 200e6;
/// Bytes on the device that rows may hold while others run, to be sampled again: of a device with memory of its own, which may
/// be small, and of one that shares the host's.
const KEPT: [u64; 2] = [1 << 30, 3 << 30];
/// How many times its even share of the time that is left a row may take: most take less.
const GENEROUS: f64 = 4.0;
/// Seconds that a row gets in any case, once it is begun.
const LEAST: f64 = 0.3;

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
    let measured = Measured { canary: vec![bird.sing(None)?], ..Measured::default() };
    let mut run = Run { gpu, roof, options, start, bird, measured, kept: 0 };
    let mut open = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let label = case.label();
        let row = blank(case.as_ref());
        watch(Event::Begins { at, of: cases.len(), id: &row.id, title: &label.title });
        run.measured.rows.push(row);
        if run.goes_on(at, stop) {
            open.extend(run.begin(case.as_ref(), at, cases.len() - at));
        }
        watch(Event::Done(&run.measured.rows[at]));
    }
    for visit in 2..=options.visits {
        if open.is_empty() || run.measured.cut_short.is_some() {
            break;
        }
        watch(Event::Again { rows: open.len(), visit, of: options.visits });
        let mut to_come = open.len() * (options.visits - visit + 1) as usize;
        open.retain_mut(|row| {
            let right = run.goes_on(row.at, stop) && run.again(row, to_come);
            to_come -= 1;
            right
        });
    }
    Ok(run.measured)
}

/// A row that may be sampled again.
struct Open {
    /// Which.
    at: usize,
    subject: Box<dyn Subject>,
    series: Series,
    again: bool,
}

struct Run<'a> {
    gpu: &'a Gpu,
    roof: &'a Roof,
    options: &'a RunOptions,
    start: Instant,
    bird: Bird,
    measured: Measured,
    /// Bytes on the device that open rows hold.
    kept: u64,
}

impl Run<'_> {
    /// Whether there is still something to do for a row; if not, one that was never measured says why.
    fn goes_on(&mut self, at: usize, stop: &AtomicBool) -> bool {
        if stop.load(Ordering::Relaxed) {
            self.measured.cut_short.get_or_insert("stopped by the user".to_owned());
        }
        let row = &mut self.measured.rows[at];
        match &self.measured.cut_short {
            Some(why) if row.times.is_none() => {
                (row.status, row.reason) = (Status::Skipped, Some(why.clone()));
                false
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Seconds until the time limit.
    fn left(&self) -> Option<f64> {
        self.options.time_limit.map(|limit| limit - self.start.elapsed().as_secs_f64())
    }

    /// Checks a row and samples it for the first time; `to_come` rows, with this one, are still to be done. What is left
    /// open may be sampled again.
    fn begin(&mut self, case: &dyn Case, at: usize, to_come: usize) -> Option<Open> {
        if self.options.cooldown > 0.0 {
            std::thread::sleep(Duration::from_secs_f64(self.options.cooldown));
        }
        let found = self.measure(case, at, to_come);
        match self.settle(at, found).flatten() {
            Some(mut open) => {
                self.sung(&mut open);
                open.again.then_some(open)
            }
            None => {
                if self.measured.rows[at].status != Status::Skipped {
                    self.canary(at);
                }
                None
            }
        }
    }

    /// Checks a row and takes its first samples.
    fn measure(&mut self, case: &dyn Case, at: usize, to_come: usize) -> Result<Option<Open>> {
        let estimate = case.estimate(self.gpu.target())?;
        let left = self.left();
        let row = &mut self.measured.rows[at];
        (row.flops, row.bytes) =
            ((estimate.flops > 0).then_some(estimate.flops), (estimate.bytes > 0).then_some(estimate.bytes));
        if let Some(reason) = does_not_fit(self.gpu, &estimate, self.roof, left) {
            (row.status, row.reason) = (Status::Skipped, Some(reason));
            return Ok(None);
        }
        let mut subject = case.prepare(self.gpu)?;
        (row.start, row.memory) = (subject.start(), subject.memory());
        let (check, fault) = subject.check()?;
        row.check = Some(check);
        if let Some(fault) = fault {
            (row.status, row.reason) = (Status::Wrong, Some(fault));
            return Ok(None);
        }
        let mut series = Series::new(subject.as_mut(), self.options.clock)?;
        let stop = self.stop(left.map(|left| left / to_come as f64));
        series.visit(subject.as_mut(), stop, self.start.elapsed().as_secs_f64())?;
        let row = &mut self.measured.rows[at];
        row.parts = subject.parts();
        row.kernels = subject.kernels()?;
        for KernelTime { seconds, flops, bytes, bound, share, .. } in &mut row.kernels {
            let rates = roof::rates(self.roof, *flops, *bytes, &row.precision, *seconds);
            let Rates { bound: found, share: reached, .. } = rates;
            (*bound, *share) = (found, reached);
        }
        let held = row.memory.map_or(estimate.peak, |memory| memory.held);
        let [own, shared] = KEPT;
        let room = match (is_software(self.gpu), super::host::available_memory()) {
            (true, Some(available)) => shared.min(self.kept + available / 3),
            _ => own,
        };
        let again = self.options.visits > 1 && self.kept + held <= room;
        self.kept += if again { held } else { 0 };
        Ok(Some(Open { at, subject, series, again }))
    }

    /// When a visit has enough samples, given what would be left for it if all took as long.
    fn stop(&self, share: Option<f64>) -> StopOptions {
        let StopOptions { limit, least, .. } = self.options.stop;
        let visits = self.options.visits.max(1);
        let limit = limit / f64::from(visits);
        StopOptions {
            limit: share.map_or(limit, |share| limit.min((GENEROUS * share).max(LEAST))),
            least: least.div_ceil(visits as usize),
            ..self.options.stop
        }
    }

    /// Samples a row once more, if there is time; `to_come` visits, with this one, are still to be made. False if that failed:
    /// such a row is not visited again, lest it come out as if nothing had been.
    fn again(&mut self, open: &mut Open, to_come: usize) -> bool {
        let share = self.left().map(|left| left / to_come as f64);
        if share.is_some_and(|share| open.series.once() > GENEROUS * share) {
            return true;
        }
        if self.options.cooldown > 0.0 {
            std::thread::sleep(Duration::from_secs_f64(self.options.cooldown));
        }
        let (stop, now) = (self.stop(share), self.start.elapsed().as_secs_f64());
        let visited = open.series.visit(open.subject.as_mut(), stop, now);
        let visited = self.settle(open.at, visited);
        if visited.is_some() {
            self.sung(open);
        }
        visited.is_some()
    }

    /// What came of a row; errors stand in it.
    fn settle<T>(&mut self, at: usize, found: Result<T>) -> Option<T> {
        let error = match found {
            Ok(found) => return Some(found),
            Err(error) => error,
        };
        let row = &mut self.measured.rows[at];
        (row.status, row.reason) = (status_of(&error), Some(error.to_string()));
        (row.times, row.rates) = (None, None);
        if matches!(error, Error::DeviceLost { .. }) {
            self.measured.lost = true;
            self.measured.cut_short = Some(format!("the device was lost in {}", row.id));
        }
        None
    }

    /// Lets the canary sing after a visit, and writes what the row's times are by now.
    fn sung(&mut self, open: &mut Open) {
        if let Some(canary) = self.canary(open.at) {
            open.series.sung(canary);
        }
        if let Some(times) = self.settle(open.at, open.series.times()) {
            let row = &mut self.measured.rows[open.at];
            (row.status, row.reason) = match doubt(&times.samples) {
                Some(doubt) => (Status::Unstable, Some(doubt)),
                None => (Status::Ok, None),
            };
            row.rates = Some(roof::rates(self.roof, row.flops, row.bytes, &row.precision, times.main.median));
            row.times = Some(times);
        }
    }

    /// The canary, after a row: what it took before and takes now.
    fn canary(&mut self, at: usize) -> Option<[f64; 2]> {
        if self.measured.lost {
            return None;
        }
        let id = &self.measured.rows[at].id;
        match self.bird.sing(Some(id)) {
            Ok(sample) => {
                let before = self.measured.canary.last().map_or(sample.seconds, |last| last.seconds);
                let now = sample.seconds;
                self.measured.canary.push(sample);
                Some([before, now])
            }
            Err(error) => {
                self.measured.lost = true;
                self.measured.cut_short = Some(format!("the device failed after {id}: {error}"));
                None
            }
        }
    }
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

/// Why a row is not even tried, if so: `left` are the seconds until the time limit.
fn does_not_fit(gpu: &Gpu, estimate: &Estimate, roof: &Roof, left: Option<f64>) -> Option<String> {
    let [load, run] = predicted(estimate, roof);
    let needed = load + f64::from(estimate.least_runs) * run;
    if let Some(left) = left.filter(|&left| needed > left.max(0.0)) {
        let rest = if left > 0.0 { units::seconds(left) } else { "nothing".to_owned() };
        return Some(format!(
            "would take about {}, {rest} is left of the time limit (--time-limit)",
            units::seconds(needed)
        ));
    }
    let available = super::host::available_memory()?;
    // A software adapter's memory is the host's.
    let host = estimate.weights + if is_software(gpu) { estimate.peak } else { 0 };
    let [host_text, free] = [host, available].map(units::bytes);
    (host > available).then(|| format!("takes {host_text} of the host's memory, {free} are free"))
}

fn is_software(gpu: &Gpu) -> bool {
    gpu.target().class == crate::target::DeviceClass::Cpu
}

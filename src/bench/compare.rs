//! Two runs, row by row: what is faster, slower, broken or gone, and what else differs between them.

use serde::Serialize;

use super::exit::ExitReason;
use super::floor::Floor;
use super::patterns::Patterns;
use super::record::{LimitKind, Results, Row, Status, Times};
use super::statistics::Sorted;
use super::verdict::{Basis, Judgement, Rules, Verdict, judge, resolution};

/// How to compare.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// The smallest difference of times that is of interest, as a part.
    pub threshold: f64,
    /// Rows that are known to fail, give wrong answers or have become slower: they do not count.
    pub expected: Patterns,
    /// Rows that do this now and then: neither do these.
    pub flaky: Patterns,
}

impl Default for CompareOptions {
    fn default() -> Self {
        CompareOptions { threshold: 0.03, expected: Patterns::default(), flaky: Patterns::default() }
    }
}

/// What became of the baseline's rows.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What else than the rows differs; the important first.
    pub differences: Vec<Difference>,
    /// Lines of lists that match nothing, and the like.
    pub notes: Vec<String>,
    pub threshold: f64,
    /// What the rows' own scatter made of the threshold: see [`resolution`].
    pub resolution: f64,
    /// Median of the canary in the second run over that of the first; above 1, the device was slower.
    pub clock: Option<f64>,
    /// The baseline's, then those that only the second run has.
    pub rows: Vec<Compared>,
}

/// Something that differs between two runs and may be why times do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub what: &'static str,
    pub baseline: String,
    pub other: String,
    /// Whether times are then of different things: another device, other settings, another clock.
    pub grave: bool,
}

/// A row of either or both.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    pub id: String,
    pub title: String,
    pub outcome: Outcome,
    pub baseline: Side,
    pub other: Side,
    /// Of rows that both runs have timed.
    pub judgement: Option<Judgement>,
    /// Why it is not `ok` in the second run.
    pub reason: Option<String>,
    pub expected: bool,
    pub flaky: bool,
}

/// What one run has of a row.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Side {
    pub status: Option<Status>,
    /// Median, or the fastest sample where the judgement is based on these.
    pub seconds: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The second run's answer is wrong, whatever the first one's was.
    Wrong,
    /// It was measured, and now fails or is not supported any more.
    Broken,
    /// It was measured, and the second run has no such row, or did not try it.
    Missing,
    Slower,
    Ambiguous,
    Same,
    Faster,
    /// It was not measured, and now is.
    Mended,
    /// Only the second run has it.
    New,
    /// Neither run measured it.
    Untimed,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Wrong => "WRONG",
            Outcome::Broken => "BROKEN",
            Outcome::Missing => "MISSING",
            Outcome::Slower => "SLOWER",
            Outcome::Ambiguous => "AMBIGUOUS",
            Outcome::Same => "SAME",
            Outcome::Faster => "FASTER",
            Outcome::Mended => "MENDED",
            Outcome::New => "NEW",
            Outcome::Untimed => "–",
        }
    }

    pub const ALL: [Outcome; 10] = [
        Outcome::Wrong,
        Outcome::Broken,
        Outcome::Missing,
        Outcome::Slower,
        Outcome::Ambiguous,
        Outcome::Same,
        Outcome::Faster,
        Outcome::Mended,
        Outcome::New,
        Outcome::Untimed,
    ];
}

/// Compares `other` with `baseline`. Rows belong together by their identifiers, whatever device, driver or program measured them.
pub fn compare(baseline: &Results, other: &Results, options: &CompareOptions) -> Comparison {
    let find = |results: &'_ Results, id: &str| results.rows.iter().position(|row| row.id == id);
    let shifts: Vec<f64> = baseline
        .rows
        .iter()
        .filter_map(|row| {
            let partner = &other.rows[find(other, &row.id)?];
            Some((partner.times.as_ref()?.main.median / row.times.as_ref()?.main.median).ln())
        })
        .filter(|shift| shift.is_finite())
        .collect();
    let resolution = resolution(&shifts, options.threshold);
    // How much slower the canary ran in the second run, by one of its times in each.
    let slower = |time: &dyn Fn(&Results) -> Option<f64>| {
        let of = |run: &Results| Some(time(run)? / work(run)?);
        of(other).zip(of(baseline)).map(|(b, a)| b / a).filter(|ratio| ratio.is_finite() && *ratio > 0.0)
    };
    let fastest = |run: &Results| run.canary.iter().map(|canary| canary.seconds).min_by(f64::total_cmp);
    let fastest_clock = slower(&fastest).unwrap_or(1.0);
    let mut rows: Vec<Compared> = Vec::new();
    for row in &baseline.rows {
        let partner = find(other, &row.id).map(|at| &other.rows[at]);
        let clock = slower(&|run| local_canary(run, &row.id)).unwrap_or(1.0);
        let rules = Rules { resolution, clock, fastest_clock };
        rows.push(Compared::new(Some(row), partner, rules, options));
    }
    for row in other.rows.iter().filter(|row| find(baseline, &row.id).is_none()) {
        rows.push(Compared::new(None, Some(row), Rules { resolution, clock: 1.0, fastest_clock }, options));
    }
    let mut notes = Vec::new();
    let ids = || rows.iter().map(|row| row.id.as_str());
    notes.extend(options.expected.unused(ids()));
    notes.extend(options.flaky.unused(ids()));
    for row in rows.iter().filter(|row| row.expected && !row.flaky && !row.outcome.is_bad()) {
        notes.push(format!("{} is expected to fail and does not: {}", row.id, row.outcome.name()));
    }
    for (whose, results) in [("the baseline", baseline), ("the second run", other)] {
        if let Some(reason) = &results.cut_short {
            notes.push(format!("{whose} was cut short: {reason}"));
        }
        if results.machine.adapter.software {
            notes.push(format!("{whose} ran on the CPU ({}), not on a GPU", results.machine.adapter.name));
        }
    }
    let clock = slower(&|run| median(run.canary.iter().map(|canary| canary.seconds)));
    Comparison {
        differences: differences(baseline, other),
        notes,
        threshold: options.threshold,
        resolution,
        clock,
        rows,
    }
}

impl Outcome {
    fn is_bad(self) -> bool {
        matches!(self, Outcome::Wrong | Outcome::Broken | Outcome::Missing | Outcome::Slower)
    }
}

impl Compared {
    fn new(a: Option<&Row>, b: Option<&Row>, rules: Rules, options: &CompareOptions) -> Compared {
        let row = b.or(a).expect("one of the runs has the row");
        let times = |row: Option<&'_ Row>| row.and_then(|r| r.times.clone().map(|t| (t, r.status)));
        let judgement = times(a).zip(times(b)).map(|(a, b)| judge((&a.0, a.1), (&b.0, b.1), rules));
        let fastest = judgement.as_ref().is_some_and(|judgement| judgement.basis == Basis::Fastest);
        let seconds = |times: &Times| match Floor::of(times).filter(|_| fastest) {
            Some(floor) => floor.first,
            None => times.main.median,
        };
        let side = |row: Option<&Row>| Side {
            status: row.map(|r| r.status),
            seconds: row.and_then(|r| r.times.as_ref()).map(seconds),
        };
        let timed = |row: Option<&Row>| row.is_some_and(|r| r.times.is_some());
        let outcome = match (b.map(|r| r.status), &judgement) {
            (Some(Status::Wrong), _) => Outcome::Wrong,
            (_, Some(judgement)) => match judgement.verdict {
                Verdict::Faster => Outcome::Faster,
                Verdict::Slower => Outcome::Slower,
                Verdict::Same => Outcome::Same,
                Verdict::Ambiguous => Outcome::Ambiguous,
            },
            (None | Some(Status::Skipped), _) if timed(a) => Outcome::Missing,
            (Some(_), _) if timed(a) => Outcome::Broken,
            (Some(_), _) if a.is_none() => Outcome::New,
            (Some(_), _) if timed(b) => Outcome::Mended,
            _ => Outcome::Untimed,
        };
        Compared {
            id: row.id.clone(),
            title: row.title.clone(),
            outcome,
            baseline: side(a),
            other: side(b),
            judgement,
            reason: b.and_then(|r| r.reason.clone()),
            expected: options.expected.matches(&row.id),
            flaky: options.flaky.matches(&row.id),
        }
    }
}

impl Comparison {
    /// How often each outcome came about, in their order.
    pub fn counts(&self) -> Vec<(Outcome, usize)> {
        let count = |outcome| self.rows.iter().filter(|row| row.outcome == outcome).count();
        Outcome::ALL.into_iter().map(|o| (o, count(o))).filter(|(_, n)| *n > 0).collect()
    }

    /// Rows that make this comparison fail.
    ///
    /// Those that are missing do only if the same was asked for: a run with a filter lacks rows on purpose.
    pub fn failures(&self) -> impl Iterator<Item = &Compared> {
        let same_settings = !self.differences.iter().any(|d| d.what == "settings");
        self.rows.iter().filter(move |row| {
            let counts = row.outcome.is_bad() && (row.outcome != Outcome::Missing || same_settings);
            counts && !row.expected && !row.flaky
        })
    }

    pub fn exit(&self) -> ExitReason {
        let worst = self.failures().map(|row| match row.outcome {
            Outcome::Wrong => ExitReason::Wrong,
            _ => ExitReason::Regression,
        });
        worst.max().unwrap_or_default()
    }
}

/// What the canary took round the visits of a row that count; of a row that was sampled once, the median of two before
/// and two after it.
fn local_canary(results: &Results, id: &str) -> Option<f64> {
    let row = results.rows.iter().find(|row| row.id == id)?;
    let visits = row.times.as_ref().map_or(&[][..], |times| &times.visits);
    let mut near: Vec<f64> = Vec::new();
    if visits.len() > 1 {
        near.extend(visits.iter().filter(|visit| visit.counts).filter_map(|visit| visit.canary));
    }
    if near.is_empty() {
        let canary = &results.canary;
        let after = canary.iter().position(|c| c.after.as_deref() == Some(id))?;
        near.extend(canary[after.saturating_sub(2)..(after + 2).min(canary.len())].iter().map(|c| c.seconds));
    }
    median(near.into_iter())
}

fn median(seconds: impl Iterator<Item = f64>) -> Option<f64> {
    Some(Sorted::new(&seconds.collect::<Vec<_>>())?.median()).filter(|&s| s > 0.0)
}

/// What the canary had to do in a run, which sets how long that should last; runs of before it was kept are taken for alike.
fn work(run: &Results) -> Option<f64> {
    Some(f64::from(run.canary.first()?.rounds.max(1)))
}

fn differences(a: &Results, b: &Results) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut hold = |what, grave, a: String, b: String| {
        if a != b {
            found.push(Difference { what, baseline: a, other: b, grave });
        }
    };
    let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".to_owned());
    let adapter = |r: &Results| format!("{} ({})", r.machine.adapter.name, r.machine.adapter.kind);
    hold("device", true, adapter(a), adapter(b));
    hold("interface", true, a.machine.adapter.backend.clone(), b.machine.adapter.backend.clone());
    // On a software adapter this is the device; elsewhere it feeds one.
    let cpu = |r: &Results| format!("{}, {} cores", r.machine.cpu, r.machine.cores);
    let software = a.machine.adapter.software || b.machine.adapter.software;
    hold("CPU", software, cpu(a), cpu(b));
    if a.settings.hash != b.settings.hash {
        let (first, second) = (settings(a), settings(b));
        let (first, second) = match first == second {
            true => (a.settings.hash.clone(), b.settings.hash.clone()),
            false => (first, second),
        };
        hold("settings", true, first, second);
    }
    hold("build", true, a.program.profile.clone(), b.program.profile.clone());
    hold("clock", true, format!("{:?}", a.clock.source), format!("{:?}", b.clock.source));
    hold("driver", false, a.machine.adapter.driver.clone(), b.machine.adapter.driver.clone());
    hold("program", false, a.program.version.clone(), b.program.version.clone());
    hold("commit", false, optional(&a.program.git), optional(&b.program.git));
    hold("wgpu", false, a.program.wgpu.clone(), b.program.wgpu.clone());
    hold("rustc", false, a.program.rustc.clone(), b.program.rustc.clone());
    hold("system", false, a.machine.os.clone(), b.machine.os.clone());
    hold("kernel", false, optional(&a.machine.kernel), optional(&b.machine.kernel));
    for (kind, what) in [
        (LimitKind::F32Arithmetic, "measured f32 arithmetic"),
        (LimitKind::F16Arithmetic, "measured f16 arithmetic"),
        (LimitKind::CopyBandwidth, "measured copy bandwidth"),
    ] {
        // What a roof may move by between two runs.
        const STEADY: f64 = 0.1;
        if let (Some(x), Some(y)) = (a.roof.value(kind), b.roof.value(kind))
            && (y / x).ln().abs() > STEADY
        {
            let unit = if kind == LimitKind::CopyBandwidth { "B/s" } else { "FLOP/s" };
            hold(what, false, crate::units::si(x, unit), crate::units::si(y, unit));
        }
    }
    found.sort_by_key(|d| !d.grave);
    found
}

fn settings(results: &Results) -> String {
    let s = &results.settings;
    let mut text =
        format!("suite {}, {}, batches {:?}, seed {}", s.suite, s.precisions.join(" "), s.batches, s.seed);
    for (name, value) in [("filter", &s.filter), ("model", &s.model), ("as if", &s.as_if)] {
        if let Some(value) = value {
            text.push_str(&format!(", {name} {value}"));
        }
    }
    if let Some(limit) = s.time_limit {
        text.push_str(&format!(", at most {limit} s"));
    }
    text
}

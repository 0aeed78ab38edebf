//! A row in words and numbers: what tables of every form show.

use crate::bench::record::{
    Check, Clock, ClockSource, Group, LimitKind, Results, Roof, Row, Status, Stopped,
};
use crate::units;

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Wrong => "wrong",
            Status::Unsupported => "unsupported",
            Status::Skipped => "skipped",
            Status::Unstable => "unstable",
            Status::Error => "error",
        }
    }

    pub const ALL: [Status; 6] =
        [Status::Ok, Status::Unstable, Status::Wrong, Status::Error, Status::Unsupported, Status::Skipped];
}

impl Group {
    pub fn name(self) -> &'static str {
        match self {
            Group::Kernel => "kernel",
            Group::Network => "network",
            Group::Diffusion => "diffusion",
        }
    }

    pub const ALL: [Group; 3] = [Group::Kernel, Group::Network, Group::Diffusion];
}

impl ClockSource {
    pub fn name(self) -> &'static str {
        match self {
            ClockSource::Timestamps => "timestamps",
            ClockSource::Wall => "wall",
        }
    }
}

impl Stopped {
    pub fn name(self) -> &'static str {
        match self {
            Stopped::Confident => "confident",
            Stopped::TimeUp => "time up",
            Stopped::Full => "full",
        }
    }
}

impl LimitKind {
    pub fn name(self) -> &'static str {
        match self {
            LimitKind::F32Arithmetic => "f32 arithmetic",
            LimitKind::F16Arithmetic => "f16 arithmetic",
            LimitKind::IntegerArithmetic => "integer arithmetic",
            LimitKind::MatrixArithmetic => "matrix arithmetic",
            LimitKind::CopyBandwidth => "copy bandwidth",
            LimitKind::ReadBandwidth => "read bandwidth",
            LimitKind::CacheBandwidth => "cache bandwidth",
            LimitKind::SharedBandwidth => "workgroup memory",
            LimitKind::LaunchLatency => "launch",
            LimitKind::SubmitLatency => "submission",
        }
    }

    /// A value of this kind: `19.4 TFLOP/s`.
    pub fn value(self, value: f64) -> String {
        match self {
            LimitKind::F32Arithmetic | LimitKind::F16Arithmetic | LimitKind::MatrixArithmetic => {
                units::si(value, "FLOP/s")
            }
            LimitKind::IntegerArithmetic => units::si(value, "OP/s"),
            LimitKind::CopyBandwidth
            | LimitKind::ReadBandwidth
            | LimitKind::CacheBandwidth
            | LimitKind::SharedBandwidth => units::si(value, "B/s"),
            LimitKind::LaunchLatency | LimitKind::SubmitLatency => units::seconds(value),
        }
    }
}

pub const NONE: &str = "–";

/// Median of a row's time.
pub fn time(row: &Row) -> String {
    row.times.as_ref().map_or_else(|| NONE.to_owned(), |t| units::seconds(t.main.median))
}

/// Half the width of its interval.
pub fn precision(row: &Row) -> String {
    row.times.as_ref().map_or_else(String::new, |t| format!("±{:.1} %", 100.0 * t.main.precision()))
}

pub fn flops(row: &Row) -> String {
    rate(row.rates.and_then(|r| r.flops), "FLOP/s")
}

pub fn bandwidth(row: &Row) -> String {
    rate(row.rates.and_then(|r| r.bytes), "B/s")
}

fn rate(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| units::si(value, unit))
}

/// The share of the limit that binds: `71 % of f32 arithmetic`.
pub fn share(row: &Row) -> String {
    let found = row.rates.and_then(|r| r.share.zip(r.bound));
    found.map_or_else(
        || NONE.to_owned(),
        |(share, bound)| format!("{:.0} % of {}", 100.0 * share, bound.name()),
    )
}

/// How far the answer was off.
pub fn error(check: &Check) -> String {
    if check.nans + check.infinities > 0 {
        return format!("{} NaN, {} infinite", check.nans, check.infinities);
    }
    let mut text = format!("{:.1e}", check.max_rel);
    if let Some(psnr) = check.psnr {
        text.push_str(&format!(", {psnr:.0} dB"));
    }
    if check.distinct > 1 {
        text.push_str(&format!(", {} answers in {}", check.distinct, check.replays));
    }
    text
}

/// What a reader must know before any number.
pub fn warnings(results: &Results) -> Vec<String> {
    let mut all = Vec::new();
    let adapter = &results.machine.adapter;
    if adapter.software {
        all.push(format!(
            "software adapter: {} computes on the CPU, and these times say nothing about a GPU",
            adapter.name
        ));
    }
    if results.program.profile != "release" {
        all.push(format!(
            "{} build: times on the CPU's side are longer than they would be",
            results.program.profile
        ));
    }
    if let Some(reason) = &results.cut_short {
        all.push(format!("cut short: {reason}"));
    }
    if let Clock { source: ClockSource::Wall, reason: Some(reason), .. } = &results.clock {
        all.push(format!("times are by the wall clock: {reason}"));
    }
    if let Some(as_if) = &results.settings.as_if {
        all.push(format!("the device was used as if it were {as_if}"));
    }
    if let Some(lost) = canary_loss(results).filter(|lost| *lost > 0.05) {
        all.push(format!(
            "the canary ran up to {:.0} % slower than at its best: the device slowed down",
            100.0 * lost
        ));
    }
    all
}

/// How much longer the canary took at its slowest than at its fastest, each as a median of three neighbours.
pub fn canary_loss(results: &Results) -> Option<f64> {
    let middle = |window: &[crate::bench::record::Canary]| {
        let mut three: Vec<f64> = window.iter().map(|c| c.seconds).collect();
        three.sort_by(f64::total_cmp);
        three[1]
    };
    let smooth: Vec<f64> = results.canary.windows(3).map(middle).collect();
    let fastest = smooth.iter().copied().min_by(f64::total_cmp)?;
    let slowest = smooth.iter().copied().max_by(f64::total_cmp)?;
    Some(slowest / fastest - 1.0)
}

/// How many rows there are of each status.
pub fn counts(results: &Results) -> Vec<(Status, usize)> {
    let count = |status| results.rows.iter().filter(|row| row.status == status).count();
    Status::ALL.into_iter().map(|status| (status, count(status))).filter(|(_, n)| *n > 0).collect()
}

pub fn counted(results: &Results) -> String {
    counts(results).iter().map(|(status, n)| format!("{n} {}", status.name())).collect::<Vec<_>>().join(", ")
}

/// All that is known of the machine and the program, by name.
pub fn facts(results: &Results) -> Vec<(&'static str, String)> {
    let (machine, program, clock) = (&results.machine, &results.program, &results.clock);
    let adapter = &machine.adapter;
    let mut all = vec![
        ("device", format!("{} ({})", adapter.name, adapter.kind)),
        ("driver", format!("{}, {}", adapter.driver, adapter.backend)),
        ("CPU", format!("{}, {} threads", machine.cpu, machine.cores)),
        ("memory", units::bytes(machine.memory_bytes)),
    ];
    let kernel = machine.kernel.as_ref().map_or_else(String::new, |kernel| format!(", {kernel}"));
    all.push(("system", format!("{}{kernel}", machine.os)));
    let commit = program.git.as_ref().map_or_else(String::new, |git| format!(" ({git})"));
    all.push(("aquatint", format!("{}{commit}, {} build", program.version, program.profile)));
    all.push(("with", format!("wgpu {}, {}", program.wgpu, program.rustc)));
    let agreement =
        clock.agreement.map_or_else(String::new, |a| format!(", {:.0} % of the wall clock", 100.0 * a));
    all.push(("clock", format!("{}{agreement}", clock.source.name())));
    all.push(("suite", format!("{}, {}", results.settings.suite, results.settings.precisions.join(" and "))));
    all.push(("began", format!("{}, took {}", results.started, units::seconds(results.seconds))));
    all
}

/// The device's limits, measured or why not.
pub fn limits(roof: &Roof) -> Vec<(&'static str, Result<String, String>)> {
    let told = |l: &crate::bench::record::Limit| match l.value {
        Some(value) => Ok(l.kind.value(value)),
        None => Err(l.reason.clone().unwrap_or_else(|| "not measured".to_owned())),
    };
    roof.limits.iter().map(|limit| (limit.kind.name(), told(limit))).collect()
}

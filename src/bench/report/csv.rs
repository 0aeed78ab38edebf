//! CSV: a line a row, numbers in the units of the [record](crate::bench::record), empty where nothing was measured.

use serde::Serialize;

use crate::bench::record::{Results, Row};

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    group: &'a str,
    title: &'a str,
    precision: &'a str,
    batch: u32,
    status: &'a str,
    reason: Option<&'a str>,
    median_s: Option<f64>,
    ci_low_s: Option<f64>,
    ci_high_s: Option<f64>,
    mad_s: Option<f64>,
    mean_s: Option<f64>,
    deviation_s: Option<f64>,
    min_s: Option<f64>,
    p90_s: Option<f64>,
    p95_s: Option<f64>,
    p99_s: Option<f64>,
    max_s: Option<f64>,
    samples: Option<u32>,
    runs_per_sample: Option<u32>,
    drift: Option<f64>,
    stopped: Option<&'a str>,
    clock: Option<&'a str>,
    wall_median_s: Option<f64>,
    encode_median_s: Option<f64>,
    flop: Option<u64>,
    bytes: Option<u64>,
    flop_per_s: Option<f64>,
    bytes_per_s: Option<f64>,
    bound: Option<&'a str>,
    share: Option<f64>,
    max_abs_error: Option<f64>,
    max_rel_error: Option<f64>,
    rms_error: Option<f64>,
    psnr_db: Option<f64>,
    tolerance: Option<f64>,
    not_finite: Option<u64>,
    distinct_answers: Option<u32>,
    weights_bytes: Option<u64>,
    activations_bytes: Option<u64>,
    held_bytes: Option<u64>,
    peak_bytes: Option<u64>,
    plan_s: Option<f64>,
    compile_s: Option<f64>,
    load_s: Option<f64>,
    first_run_s: Option<f64>,
    device: &'a str,
    software: bool,
    backend: &'a str,
    driver: &'a str,
    version: &'a str,
    git: Option<&'a str>,
    started: &'a str,
}

pub fn render(results: &Results) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in &results.rows {
        writer.serialize(line(results, row)).expect("memory takes every line");
    }
    let bytes = writer.into_inner().expect("memory takes every line");
    String::from_utf8(bytes).expect("made of strings and numbers")
}

fn line<'a>(results: &'a Results, row: &'a Row) -> Line<'a> {
    let (times, rates, check) = (row.times.as_ref(), row.rates.as_ref(), row.check.as_ref());
    let main = times.map(|t| &t.main);
    let adapter = &results.machine.adapter;
    Line {
        id: &row.id,
        group: row.group.name(),
        title: &row.title,
        precision: &row.precision,
        batch: row.batch,
        status: row.status.name(),
        reason: row.reason.as_deref(),
        median_s: main.map(|s| s.median),
        ci_low_s: main.map(|s| s.ci[0]),
        ci_high_s: main.map(|s| s.ci[1]),
        mad_s: main.map(|s| s.mad),
        mean_s: main.map(|s| s.mean),
        deviation_s: main.map(|s| s.deviation),
        min_s: main.map(|s| s.min),
        p90_s: main.map(|s| s.p90),
        p95_s: main.map(|s| s.p95),
        p99_s: main.map(|s| s.p99),
        max_s: main.map(|s| s.max),
        samples: main.map(|s| s.n),
        runs_per_sample: times.map(|t| t.runs_per_sample),
        drift: times.map(|t| t.drift),
        stopped: times.map(|t| t.stopped.name()),
        clock: times.map(|t| t.clock.name()),
        wall_median_s: times.map(|t| t.wall.median),
        encode_median_s: times.map(|t| t.encode.median),
        flop: row.flops,
        bytes: row.bytes,
        flop_per_s: rates.and_then(|r| r.flops),
        bytes_per_s: rates.and_then(|r| r.bytes),
        bound: rates.and_then(|r| r.bound).map(|b| b.name()),
        share: rates.and_then(|r| r.share),
        max_abs_error: check.map(|c| c.max_abs),
        max_rel_error: check.map(|c| c.max_rel),
        rms_error: check.map(|c| c.rms),
        psnr_db: check.and_then(|c| c.psnr),
        tolerance: check.map(|c| c.tolerance),
        not_finite: check.map(|c| c.nans + c.infinities),
        distinct_answers: check.map(|c| c.distinct),
        weights_bytes: row.memory.map(|m| m.weights),
        activations_bytes: row.memory.map(|m| m.activations),
        held_bytes: row.memory.map(|m| m.held),
        peak_bytes: row.memory.map(|m| m.peak),
        plan_s: row.start.map(|s| s.plan),
        compile_s: row.start.map(|s| s.compile),
        load_s: row.start.map(|s| s.load),
        first_run_s: row.start.map(|s| s.first_run),
        device: &adapter.name,
        software: adapter.software,
        backend: &adapter.backend,
        driver: &adapter.driver,
        version: &results.program.version,
        git: results.program.git.as_deref(),
        started: &results.started,
    }
}

//! `aquatint tune`: which kernels are fastest on this device, kept for all runs that follow.

use std::io::{self, Write};

use anyhow::Result;
use aquatint::tune::{self, Report, Row, TuneOptions, Verdict};
use aquatint::{AdapterOptions, Error, Gpu, Tuning, units};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use super::{interrupt, network};

/// Measure which kernels are fastest for a network on this device, and use them from then on
///
/// Every distinct convolution is computed in several ways, by itself and with random numbers. A way that gives another answer
/// than the default is named and never used. What is found is kept in the cache (docs/tuning.md) for this device and driver;
/// Ctrl-C keeps what was found so far.
#[derive(clap::Args)]
pub struct Tune {
    /// Network: whatever `inspect` opens
    #[arg(value_name = "MODEL", required_unless_present = "forget")]
    model: Option<String>,
    /// Shape of an input of an ONNX model, as input=1,3,224,224; for those that the file leaves open
    #[arg(long, value_name = "INPUT=DIMS", value_parser = network::parse_shape, requires = "model")]
    shape: Vec<(String, Vec<usize>)>,
    /// Take models of the hub from its cache alone
    #[arg(long)]
    offline: bool,
    /// Seconds after which no operation is begun; those with the most work come first
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0)]
    time_limit: f64,
    /// Measure again what is known
    #[arg(long)]
    again: bool,
    /// Forget what is known of this device, first
    #[arg(long)]
    forget: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Of pictures for a network that takes any.
const SIDE: usize = 224;

pub fn run(args: &Tune, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let cache = &options.cache;
    if !cache.is_on() {
        return Err(Error::Invalid {
            what: "cache".to_owned(),
            expected: "a folder, to keep what is measured".to_owned(),
            found: format!("none: {} is set, or there is no home", aquatint::cache::OFF_VARIABLE),
        }
        .into());
    }
    // What is known is looked up by the tuner; the defaults are to be those of the model of costs.
    let gpu = Gpu::with_options(&AdapterOptions { tuned: false, ..options.clone() })?;
    let identity = gpu.identity();
    if args.forget {
        let known = Tuning::forget(cache, &identity);
        writeln!(io::stderr(), "{}", if known { "forgotten" } else { "nothing was known" })?;
    }
    let Some(model) = &args.model else { return Ok(()) };
    let (name, graph) = network::named(model, &args.shape, args.offline, SIDE, gpu.target())?;
    interrupt::listen()?;
    let mut tuning = Tuning::kept(cache, &identity);
    let options = TuneOptions { time_limit: args.time_limit, again: args.again };
    let mut kept = true;
    let report = tune::tune(&gpu, &graph, &mut tuning, &options, &mut |row, tuning| {
        // After each: whatever ends the program leaves what was found before.
        kept &= tuning.keep(cache, &identity);
        let _ = writeln!(io::stderr(), "{}", line(row));
        !interrupt::asked()
    })?;
    if !kept {
        let folder = cache.folder().unwrap_or_else(|| "".as_ref()).display();
        let _ = writeln!(
            io::stderr(),
            "warning: nothing could be written in {folder}, so all is forgotten again"
        );
    }
    match args.json {
        true => writeln!(out, "{:#}", as_json(&name, &gpu, &report))?,
        false => print(&name, &report, out)?,
    }
    match interrupt::asked() {
        true => Err(Error::Interrupted.into()),
        false => Ok(()),
    }
}

fn line(row: &Row) -> String {
    let found = match row.chosen == row.default {
        true => format!("{} stays", row.default),
        false => format!("{} -> {}, {:.2} of the time", row.default, row.chosen, row.ratio()),
    };
    format!("{}: {found}", row.name)
}

/// Time of all these operations of the network in a run, by default and as chosen.
fn sums(report: &Report) -> [f64; 2] {
    let sum = |seconds: fn(&Row) -> f64| report.rows.iter().map(|row| row.count as f64 * seconds(row)).sum();
    [sum(|row| row.default_seconds), sum(|row| row.chosen_seconds)]
}

fn as_json(name: &str, gpu: &Gpu, report: &Report) -> serde_json::Value {
    let [default, chosen] = sums(report);
    json!({
        "network": name,
        "device": gpu.identity(),
        "default_seconds": default,
        "chosen_seconds": chosen,
        "report": report,
    })
}

fn print(name: &str, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["operation", "times", "default", "seconds", "chosen", "ratio"]);
    for row in report.rows.iter().filter(|row| row.chosen != row.default) {
        table.add_row([
            row.operation.clone(),
            row.count.to_string(),
            row.default.clone(),
            units::seconds(row.default_seconds),
            row.chosen.clone(),
            format!("{:.2}", row.ratio()),
        ]);
    }
    for column in [1, 3, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{name}")?;
    let changed = report.rows.iter().filter(|row| row.chosen != row.default).count();
    if changed > 0 {
        writeln!(out, "{table}")?;
    }
    let Report { rows, known, left } = report;
    writeln!(
        out,
        "{} operations measured, {changed} of them faster in another way; {known} were known, {left} are left",
        rows.len()
    )?;
    if !rows.is_empty() {
        let [default, chosen] = sums(report);
        let (default, chosen) = (units::seconds(default), units::seconds(chosen));
        writeln!(out, "all of these in one run: {default} by default, {chosen} as chosen")?;
    }
    for row in rows {
        for tried in &row.tried {
            if let Verdict::Wrong { difference, allowed } = &tried.verdict {
                writeln!(
                    out,
                    "WRONG: {} of {} (\"{}\") is {difference:.3e} off the default's answer, rounding allows {allowed:.3e}",
                    tried.way, row.operation, row.name
                )?;
            }
        }
    }
    Ok(())
}

//! `aquatint bench` itself: measures this device.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use aquatint::bench::case::{Case, Label};
use aquatint::bench::clock;
use aquatint::bench::exit::ExitReason;
use aquatint::bench::given;
use aquatint::bench::machine;
use aquatint::bench::record::{
    Clock, FORMAT, Group, Machine, Pass, Program, Results, Roof, Row, Settings, Status,
};
use aquatint::bench::report::{json, table};
use aquatint::bench::roof;
use aquatint::bench::run::{self, Event, Measured, RunOptions};
use aquatint::bench::stop::StopOptions;
use aquatint::bench::workloads::{Suite, cases};
use aquatint::{AdapterOptions, DType, Error, Gpu, Tuning, doctor, units};

use super::super::{interrupt, make_folder_of, network};
use super::files::Files;

#[derive(clap::Args)]
pub struct Run {
    /// How much is measured: quick, standard, full or kernels
    #[arg(long, value_name = "SUITE", default_value = "standard")]
    suite: Suite,
    /// Rows whose id this pattern matches, as 'network/*' or '*attention*'
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    filter: Option<glob::Pattern>,
    /// A network of one's own instead of a suite: whatever `inspect` opens
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["suite", "batch"])]
    model: Option<String>,
    /// Shape of an input of an ONNX model, as input=1,3,224,224; for those that the file leaves open
    #[arg(long, value_name = "INPUT=DIMS", value_parser = network::parse_shape, requires = "model")]
    shape: Vec<(String, Vec<usize>)>,
    /// Take models of the hub from its cache alone
    #[arg(long)]
    offline: bool,
    /// How weights and activations are stored [default: f32, and f16 on GPUs that have it]
    #[arg(long, value_name = "f32,f16", value_delimiter = ',', value_parser = precision)]
    precision: Vec<DType>,
    /// Pictures at a time [default: 1; of the full suite 1,4,16]
    #[arg(long, value_name = "1,4,16", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: Vec<u32>,
    /// Seconds for all rows; those that do not fit are skipped, 0 for no limit [default: quick and kernels 90, standard 120]
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<f64>,
    /// Seconds of sampling that a row may take [default: quick and kernels 1, standard 2, full 5]
    #[arg(long, value_name = "SECONDS")]
    row_limit: Option<f64>,
    /// How often each row is sampled, in turns with the others
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    visits: u32,
    /// How well the median must be known before sampling ends, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    confidence: f64,
    /// Seconds of rest before each visit of a row
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    cooldown: f64,
    /// Repeat the suite for so many minutes, to see what the device does when it is warm
    #[arg(long, value_name = "MINUTES")]
    soak: Option<f64>,
    /// Seconds after which a device that does not answer counts as lost
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    timeout: f64,
    /// Also measure how exact each operation is; takes about a minute
    #[arg(long)]
    errors: bool,
    /// List the rows instead of measuring them
    #[arg(long)]
    list: bool,
    /// Write the results, for `bench compare` and `bench report`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    files: Files,
}

/// Of pictures for a network that takes any.
const SIDE: usize = 224;

fn pattern(text: &str) -> Result<glob::Pattern, String> {
    glob::Pattern::new(text).map_err(|error| error.to_string())
}

fn precision(text: &str) -> Result<DType, String> {
    match text {
        "f32" => Ok(DType::F32),
        "f16" => Ok(DType::F16),
        _ => Err("expected f32 or f16".to_owned()),
    }
}

fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// The device with all that there is to measure; networks use of it what the options say.
fn opened(options: &AdapterOptions) -> Result<Gpu> {
    let gpu = Gpu::with_options(&AdapterOptions { experimental: true, ..options.clone() })?;
    if options.experimental || gpu.target().matrices.is_none() {
        return Ok(gpu);
    }
    let gpu = gpu.without_matrices();
    Ok(match options.tuned {
        true => gpu.tuned(Tuning::kept(&options.cache, &gpu.identity())),
        false => gpu,
    })
}

pub fn run(args: &Run, device: &AdapterOptions, out: &mut dyn Write) -> Result<ExitReason> {
    let start = Instant::now();
    let started = machine::now();
    let row_limit = args.row_limit.unwrap_or_else(|| args.suite.row_limit());
    for seconds in [row_limit, args.cooldown, args.timeout, args.soak.unwrap_or(1.0), args.confidence] {
        if !(seconds.is_finite() && seconds >= 0.0) {
            return Err(Error::Invalid {
                what: "seconds, minutes and percent".to_owned(),
                expected: "numbers of 0 or more".to_owned(),
                found: seconds.to_string(),
            }
            .into());
        }
    }
    // Whether they can be written is known before, not after, all of it was measured.
    args.json.as_ref().map_or(Ok(()), |path| make_folder_of(path))?;
    args.files.prepare()?;

    let gpu = opened(device)?;
    gpu.set_patience(Duration::from_secs_f64(args.timeout));
    let software = gpu.info().device_type == wgpu::DeviceType::Cpu;
    let dtypes = match args.precision.is_empty() {
        false => args.precision.clone(),
        true if software || !gpu.target().f16 => vec![DType::F32],
        true => vec![DType::F32, DType::F16],
    };
    let batches = if args.batch.is_empty() { args.suite.batches().to_vec() } else { args.batch.clone() };
    let cases = chosen(args, &gpu, &dtypes, &batches)?;
    if args.list {
        for case in &cases {
            writeln!(out, "{}\t{}", case.label().id(), case.label().title)?;
        }
        return Ok(ExitReason::Fine);
    }
    let time_limit = args.time_limit.or(args.suite.time_limit().filter(|_| args.model.is_none()));
    let settings = Settings {
        suite: if args.model.is_some() { "model".to_owned() } else { args.suite.to_string() },
        filter: args.filter.as_ref().map(ToString::to_string),
        model: args.model.clone(),
        precisions: dtypes.iter().map(ToString::to_string).collect(),
        batches,
        time_limit: time_limit.filter(|&seconds| seconds > 0.0),
        cooldown: args.cooldown,
        visits: args.visits,
        seed: 0,
        as_if: device.as_if.clone(),
        hash: String::new(),
    }
    .hashed();

    interrupt::listen()?;
    say(&format!("measuring {} ({})", gpu.info().name, gpu.info().driver_info));
    if software {
        say("this is a SOFTWARE ADAPTER: it computes on the CPU, and its times say nothing about a GPU");
    }
    let roof = roof::measure(&gpu, &mut |_| {})?;
    let clock = clock::measure(&gpu)?;
    let options = RunOptions {
        stop: StopOptions { limit: row_limit, precision: args.confidence / 100.0, ..StopOptions::default() },
        visits: args.visits,
        time_limit: settings.time_limit,
        cooldown: args.cooldown,
        clock: clock.source,
    };
    let (mut measured, passes) = measure(args, &gpu, &cases, &roof, &options)?;
    let errors = match (args.errors || args.suite == Suite::Full) && measured.cut_short.is_none() {
        true => {
            say("measuring how exact operations are");
            dtypes.iter().map(|&dtype| doctor::errors(&gpu, dtype)).collect::<Result<Vec<_>, _>>()?.concat()
        }
        false => Vec::new(),
    };
    let results = assembled(started, settings, (&gpu, clock, roof), &mut measured, passes, errors, start);
    write!(out, "{}", table::render(&results))?;
    if let Some(path) = &args.json {
        json::write(path, &results)?;
    }
    args.files.write(&results)?;
    if interrupt::asked() {
        return Err(Error::Interrupted.into());
    }
    Ok(reason(&results.rows, measured.lost))
}

/// What is to be measured.
fn chosen(args: &Run, gpu: &Gpu, dtypes: &[DType], batches: &[u32]) -> Result<Vec<Box<dyn Case>>> {
    let mut all = match &args.model {
        None => cases(args.suite, dtypes, batches),
        Some(model) => {
            let (title, graph) = network::named(model, &args.shape, args.offline, SIDE, gpu.target())?;
            let stem = std::path::Path::new(model).file_stem().map(|s| s.to_string_lossy().into_owned());
            let name = stem.unwrap_or_else(|| model.clone()).replace(char::is_whitespace, "-");
            let label = Label { group: Group::Network, name, title, dtype: DType::F32, batch: 1 };
            vec![Box::new(given::case(label, graph)) as Box<dyn Case>]
        }
    };
    if let Some(filter) = &args.filter {
        let ids: Vec<String> = all.iter().map(|case| case.label().id()).collect();
        all.retain(|case| filter.matches(&case.label().id()));
        if all.is_empty() {
            let expected = ids.join(" ");
            return Err(Error::Unknown { what: "row", found: filter.to_string(), expected }.into());
        }
    }
    Ok(all)
}

/// All rows once, and again until the soak is over.
fn measure(
    args: &Run,
    gpu: &Gpu,
    cases: &[Box<dyn Case>],
    roof: &Roof,
    options: &RunOptions,
) -> Result<(Measured, Vec<Pass>)> {
    let start = Instant::now();
    let mut watch = |event: Event| match event {
        Event::Begins { at, of, id, .. } => say(&format!("[{:>3}/{of}] {id}", at + 1)),
        Event::Done(row) => say(&told(row)),
        Event::Again { rows, visit, of } => say(&format!("[{visit}/{of}] {rows} rows again")),
    };
    let mut first = run::run(gpu, cases, roof, options, interrupt::flag(), &mut watch)?;
    let mut passes = vec![pass(0.0, &first)];
    let soak = args.soak.map_or(0.0, |minutes| 60.0 * minutes);
    while start.elapsed().as_secs_f64() < soak && first.cut_short.is_none() {
        let at = start.elapsed().as_secs_f64();
        let left = RunOptions { time_limit: Some(soak - at), ..options.clone() };
        say(&format!("{} of the soak are left", units::seconds(soak - at)));
        let mut again = run::run(gpu, cases, roof, &left, interrupt::flag(), &mut watch)?;
        passes.push(pass(at, &again));
        again.canary.iter_mut().for_each(|sample| sample.at += at);
        first.canary.append(&mut again.canary);
        // What was right once must be right always.
        for (row, found) in first.rows.iter_mut().zip(again.rows) {
            if matches!(found.status, Status::Wrong | Status::Error) && row.status != found.status {
                *row = Row {
                    reason: found.reason.map(|r| format!("after {}: {r}", units::seconds(at))),
                    ..found
                };
            }
        }
        (first.lost, first.cut_short) = (again.lost, again.cut_short);
    }
    Ok((first, if args.soak.is_some() { passes } else { Vec::new() }))
}

fn pass(at: f64, measured: &Measured) -> Pass {
    let median = |row: &Row| Some((row.id.clone(), row.times.as_ref()?.main.median));
    Pass { at, medians: measured.rows.iter().filter_map(median).collect() }
}

/// A row in a line.
fn told(row: &Row) -> String {
    let time = row.times.as_ref().map(|times| units::seconds(times.main.median)).unwrap_or_default();
    let share = row.rates.and_then(|rates| rates.share);
    let share = share.map(|share| format!(", {:.0} % of its limit", 100.0 * share)).unwrap_or_default();
    match (&row.reason, row.status) {
        (_, Status::Ok) | (None, _) => format!("          {time}{share}"),
        (Some(reason), Status::Unstable) => format!("          {time}{share}; UNSTABLE: {reason}"),
        (Some(reason), status) => format!("          {}: {reason}", format!("{status:?}").to_uppercase()),
    }
}

fn assembled(
    started: String,
    settings: Settings,
    (gpu, clock, roof): (&Gpu, Clock, Roof),
    measured: &mut Measured,
    passes: Vec<Pass>,
    errors: Vec<aquatint::bench::record::OperationError>,
    start: Instant,
) -> Results {
    Results {
        format: FORMAT,
        program: Program::this(),
        started,
        seconds: start.elapsed().as_secs_f64(),
        cut_short: measured.cut_short.clone(),
        settings,
        machine: Machine::of(gpu),
        clock,
        roof,
        rows: std::mem::take(&mut measured.rows),
        canary: std::mem::take(&mut measured.canary),
        passes,
        errors,
    }
}

fn reason(rows: &[Row], lost: bool) -> ExitReason {
    let has = |status: Status| rows.iter().any(|row| row.status == status);
    match () {
        () if lost => ExitReason::Device,
        () if has(Status::Wrong) => ExitReason::Wrong,
        () if has(Status::Error) => ExitReason::Regression,
        () => ExitReason::Fine,
    }
}

//! `aquatint profile`: where the time of a network's run goes.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use aquatint::bench::record::{LimitKind, Rates, Roof};
use aquatint::bench::{roof, timeline};
use aquatint::formats::npy;
use aquatint::{AdapterOptions, DType, Gpu, Network, Tensor, profile, units};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{make_folder_of, network};

#[derive(clap::Args)]
pub struct Profile {
    #[command(flatten)]
    model: network::Model,
    /// Runs, of which the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// What to add up
    #[arg(long, value_enum, default_value_t = By::Layer)]
    by: By,
    /// Rows to show, the slowest
    #[arg(long, default_value_t = 30, value_name = "N")]
    top: usize,
    /// Write all launches as a trace for Perfetto or chrome://tracing
    #[arg(long, value_name = "JSON")]
    trace: Option<PathBuf>,
    /// Write a flame chart
    #[arg(long, value_name = "SVG")]
    flame: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    /// Operations of the network, by their paths
    Layer,
    /// Kernels
    Kernel,
    /// Kernels with their tile sizes and types
    Variant,
    /// Every launch by itself, in order of time
    Launch,
}

/// What is added up to a line.
#[derive(Serialize)]
struct Sum {
    name: String,
    launches: u64,
    seconds: f64,
    /// Of all launches' time, 1 for all.
    part: f64,
    flops: u64,
    bytes: u64,
    rates: Rates,
}

impl By {
    fn key(self, i: usize, row: &profile::Row) -> String {
        match self {
            By::Layer => row.label.clone(),
            By::Kernel => row.kernel.to_owned(),
            By::Variant => format!("{} {}", row.kernel, row.variant).trim_end().to_owned(),
            By::Launch => format!("{i} {} ({})", row.label, row.kernel),
        }
    }

    /// Slowest first.
    fn sums(self, profile: &profile::Profile, roof: &Roof) -> Vec<Sum> {
        let mut places = std::collections::HashMap::new();
        let mut sums: Vec<(Sum, &'static str)> = Vec::new();
        for (i, row) in profile.rows.iter().enumerate() {
            let key = self.key(i, row);
            let place = *places.entry(key.clone()).or_insert(sums.len());
            if place == sums.len() {
                let none = Rates { flops: None, bytes: None, bound: None, share: None };
                let (launches, seconds, part, flops, bytes) = (0, 0.0, 0.0, 0, 0);
                let sum = Sum { name: key, launches, seconds, part, flops, bytes, rates: none };
                sums.push((sum, arithmetic(row)));
            }
            let sum = &mut sums[place].0;
            sum.launches += 1;
            sum.seconds += row.seconds;
            sum.flops += row.flops;
            sum.bytes += row.bytes;
        }
        let whole = profile.seconds();
        for (sum, arithmetic) in &mut sums {
            sum.part = sum.seconds / whole;
            // Of a launch, as each has the launch's own cost.
            let n = sum.launches;
            sum.rates = roof::rates(roof, sum.flops / n, sum.bytes / n, arithmetic, sum.seconds / n as f64);
        }
        let mut sums: Vec<Sum> = sums.into_iter().map(|(sum, _)| sum).collect();
        sums.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        sums
    }
}

/// What a kernel computes in, for the limit of its arithmetic.
fn arithmetic(row: &profile::Row) -> &'static str {
    match row.kernel {
        kernel if kernel.ends_with("_integer") => "i32",
        _ if row.variant.contains("f16") => "f16",
        _ => "f32",
    }
}

/// Draws every input from the numbers of its elements: floats from 0 to 1, whole numbers 0 and 1.
fn fill_inputs(network: &Network) -> aquatint::Result<()> {
    for port in &network.plan().inputs {
        let bits = |i: usize| (i as u32 + 7).wrapping_mul(2_654_435_761) >> 8;
        let count = port.desc.shape.elements();
        let shape = port.desc.shape.clone();
        let tensor = match port.desc.dtype {
            DType::F32 | DType::F16 | DType::BF16 => {
                let values: Vec<f32> = (0..count).map(|i| bits(i) as f32 / (1 << 24) as f32).collect();
                Tensor::from_f32(shape, &values).to_dtype(port.desc.dtype)
            }
            _ => {
                let whole: Vec<u32> = (0..count).map(|i| bits(i) & 1).collect();
                Tensor { desc: port.desc.clone(), ..Tensor::from_u32(shape, &whole) }
            }
        };
        network.write(&port.name, &tensor)?;
    }
    Ok(())
}

pub fn run(args: &Profile, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    for path in [&args.trace, &args.flame].into_iter().flatten() {
        make_folder_of(path)?;
    }
    let gpu = Gpu::with_options(options)?;
    let (name, graph, _) = network::open(&args.model, gpu.target())?;
    let say = |what: &str| drop(writeln!(io::stderr(), "{what}"));
    say("loading");
    let network = Network::new(&gpu, &graph)?;
    fill_inputs(&network)?;
    network.run(&[])?;
    say("running");
    let profile = network.profile(args.runs.into())?;
    say("measuring the device's limits");
    let roof = roof::measure(&gpu, &mut |_| {})?;

    let device = &gpu.target().name;
    if let Some(path) = &args.trace {
        npy::save_text(path, &timeline::trace(&name, device, &profile).to_string())?;
    }
    if let Some(path) = &args.flame {
        npy::save_text(path, &timeline::flame(&name, device, &profile))?;
    }
    let sums = args.by.sums(&profile, &roof);
    if args.json {
        let json = serde_json::json!({
            "name": name, "device": device, "runs": args.runs, "launches": profile.rows.len(),
            "seconds": profile.seconds(), "wall": profile.wall, "wall_without_timestamps": profile.plain_wall,
            "overhead": profile.overhead(), "roof": roof, "rows": sums,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&json)?)?;
        return Ok(());
    }
    writeln!(out, "{name}\n{device}")?;
    writeln!(
        out,
        "{} in {} launches; a run takes {} by the wall clock, {} with timestamps ({:+.1} %)",
        units::seconds(profile.seconds()),
        profile.rows.len(),
        units::seconds(profile.plain_wall),
        units::seconds(profile.wall),
        100.0 * profile.overhead(),
    )?;
    writeln!(out, "{}", table(&sums, args.top))?;
    if let Some(left) = sums.get(args.top..).filter(|left| !left.is_empty()) {
        let part: f64 = left.iter().map(|sum| sum.part).sum();
        writeln!(out, "and {} more, {:.1} % of the time", left.len(), 100.0 * part)?;
    }
    Ok(())
}

fn table(sums: &[Sum], top: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "launches", "time", "%", "FLOP/s", "B/s", "bound by", "% of it"]);
    for sum in &sums[..top.min(sums.len())] {
        let rate = |rate: Option<f64>| rate.map_or_else(String::new, |rate| units::si(rate, ""));
        table.add_row([
            sum.name.clone(),
            sum.launches.to_string(),
            units::seconds(sum.seconds),
            format!("{:.1}", 100.0 * sum.part),
            rate(sum.rates.flops),
            rate(sum.rates.bytes),
            sum.rates.bound.map_or("", limit).to_owned(),
            sum.rates.share.map_or_else(String::new, |share| format!("{:.0}", 100.0 * share)),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn limit(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::F32Arithmetic => "f32",
        LimitKind::F16Arithmetic => "f16",
        LimitKind::IntegerArithmetic => "i32",
        LimitKind::MatrixArithmetic => "matrices",
        LimitKind::CopyBandwidth | LimitKind::ReadBandwidth => "memory",
        LimitKind::CacheBandwidth => "cache",
        LimitKind::SharedBandwidth => "workgroup memory",
        LimitKind::LaunchLatency | LimitKind::SubmitLatency => "launching",
    }
}

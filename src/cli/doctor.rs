//! `aquatint doctor`: whether this device computes what it should.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use aquatint::doctor::{self, Examination, Finding, Options, Verdict};
use aquatint::models::bundled;
use aquatint::{AdapterOptions, DType, Error, Gpu, Graph, Network, NotFinite, Tensor};
use serde_json::json;

use super::{interrupt, network, progress};

/// All answers were right.
const RIGHT: u8 = 0;
/// Some were wrong.
const WRONG: u8 = 2;
const NO_ADAPTER: u8 = 3;
const DEVICE_LOST: u8 = 4;
/// The arguments, or what they name, made no sense.
pub const USAGE: u8 = 5;

/// Hold every operation to a reference on the CPU and name the first that is wrong
///
/// Without a model: every kind of kernel at a few sizes, and the bundled networks. Exit codes: 0 all right, 2 wrong answers,
/// 3 no adapter, 4 the device was lost, 5 wrong usage.
#[derive(clap::Args)]
pub struct Doctor {
    /// Network to go through: whatever `inspect` opens
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Shape of an input of an ONNX model, as input=1,3,224,224; for those that the file leaves open
    #[arg(long, value_name = "INPUT=DIMS", value_parser = network::parse_shape, requires = "model")]
    shape: Vec<(String, Vec<usize>)>,
    /// Take models of the hub from its cache alone
    #[arg(long)]
    offline: bool,
    /// Write the first wrong operation as files that can be replayed and sent to others
    #[arg(long, value_name = "FOLDER")]
    capture: Option<PathBuf>,
    /// Run a captured case on this device
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["model", "capture", "shape"])]
    replay: Option<PathBuf>,
    /// Run networks launch by launch instead, and name the first operation whose result is NaN or infinite
    #[arg(long, conflicts_with_all = ["capture", "replay"])]
    watch: bool,
    /// What the random inputs are multiplied by when networks are watched
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "watch")]
    scale: f32,
    /// Of the random inputs and samples
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A network to be examined.
struct Subject {
    name: String,
    graph: Graph,
    inputs: Vec<(String, Tensor)>,
}

/// Pictures are small: the kernels are the same as for large ones.
const SIDE: usize = 64;

fn subjects(args: &Doctor, gpu: &Gpu) -> Result<Vec<Subject>> {
    if let Some(model) = &args.model {
        let (name, graph) = network::named(model, &args.shape, args.offline, SIDE, gpu.target())?;
        return Ok(vec![Subject { name, graph, inputs: Vec::new() }]);
    }
    let mut all = Vec::new();
    for dtype in [DType::F32, DType::F16].into_iter().filter(|d| *d == DType::F32 || gpu.target().f16) {
        let cases = doctor::cases(dtype)?.into_iter();
        all.extend(cases.map(|c| Subject { name: c.name, graph: c.graph, inputs: c.inputs }));
    }
    for (name, ..) in bundled::BUNDLED {
        let (name, graph) = network::vision(name, 1, [None; 2], SIDE)?;
        all.push(Subject { name, graph, inputs: Vec::new() });
    }
    for name in network::BUNDLED {
        let (name, graph) = network::named(name, &[], true, SIDE, gpu.target())?;
        all.push(Subject { name, graph, inputs: Vec::new() });
    }
    Ok(all)
}

/// What a run found, for `--json`.
fn as_json(gpu: &Gpu, all: &[Examination], seconds: f64) -> serde_json::Value {
    let info = gpu.info();
    json!({
        "device": {
            "name": info.name,
            "backend": info.backend.to_string(),
            "driver": format!("{} {}", info.driver, info.driver_info).trim(),
        },
        "seconds": seconds,
        "right": all.iter().all(|e| e.wrong().next().is_none()),
        "networks": all.iter().map(|e| json!({
            "name": e.name,
            "operations": e.operations.len(),
            "planned": e.planned,
            "elements": e.operations.iter().map(|o| o.judgement.compared).sum::<u64>(),
            "wrong": e.wrong().collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

/// What is wrong with an operation, for people.
fn describe(found: &Finding, out: &mut dyn Write) -> io::Result<()> {
    let j = &found.judgement;
    let inputs: Vec<String> = found.inputs.iter().map(ToString::to_string).collect();
    let detail = if found.detail.is_empty() { String::new() } else { format!(" ({})", found.detail) };
    writeln!(out, "  {} \"{}\"{detail}", found.operation, found.label)?;
    writeln!(out, "    {} -> {}", inputs.join(", "), found.output)?;
    for launch in &found.launches {
        writeln!(
            out,
            "    kernel {} [{}], workgroups {:?} of {:?}",
            launch.kernel, launch.variant, launch.groups, launch.workgroup_size
        )?;
    }
    writeln!(
        out,
        "    {} of {} compared elements are wrong; at most {:.3e} off, {:.3e} of the largest, {:.3e} ULP; {} NaN, {} infinite",
        j.wrong, j.compared, j.max_abs, j.max_rel, j.max_ulp, j.nans, j.infinities
    )?;
    if let Some(w) = &j.first_wrong {
        writeln!(
            out,
            "    first at {:?}: expected {}, found {}, allowed ±{:.3e}",
            w.coordinates, w.expected, w.found, w.allowed
        )?;
    }
    for variant in &found.variants {
        let kernels: Vec<String> =
            variant.launches.iter().map(|l| format!("{} [{}]", l.kernel, l.variant)).collect();
        let verdict = match &variant.verdict {
            Verdict::Right { .. } => "right".to_owned(),
            Verdict::Wrong { .. } => "WRONG".to_owned(),
            Verdict::Failed { reason } => format!("not possible: {reason}"),
        };
        writeln!(out, "    {}: {verdict}  {}", variant.name, kernels.join(", "))?;
    }
    Ok(())
}

fn replay(args: &Doctor, folder: &Path, gpu: &Gpu, out: &mut dyn Write) -> Result<u8> {
    let found = doctor::replay(gpu, folder)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
    } else {
        writeln!(out, "{} \"{}\", captured on {}", found.operation, found.label, found.captured_on)?;
        writeln!(out, "on {}: {} of {} elements are wrong", found.device, found.wrong, found.compared)?;
        if let Some((index, expected, x)) = found.first_wrong {
            writeln!(out, "first at {index}: expected {expected}, found {x}")?;
        }
        writeln!(out, "{} elements are as they were captured", found.as_captured)?;
    }
    Ok(if found.is_right() { RIGHT } else { WRONG })
}

/// Whether all numbers of the networks' runs are finite, and else what made the first that are not.
fn watch(args: &Doctor, gpu: &Gpu, out: &mut dyn Write) -> Result<u8> {
    let mut rows = Vec::new();
    for subject in subjects(args, gpu)? {
        let network = Network::new(gpu, &subject.graph)?;
        let inputs = match subject.inputs.is_empty() {
            true => doctor::random_inputs(&subject.graph, args.seed),
            false => subject.inputs,
        };
        for (name, tensor) in inputs {
            let scaled = match tensor.desc.dtype {
                DType::F32 | DType::F16 => {
                    let values: Vec<f32> = tensor.to_f32().iter().map(|x| x * args.scale).collect();
                    Tensor::from_f32(tensor.desc.shape.clone(), &values).to_dtype(tensor.desc.dtype)
                }
                _ => tensor,
            };
            network.write(&name, &scaled)?;
        }
        let found = network.run_watched()?;
        if interrupt::asked() {
            return Err(Error::Interrupted.into());
        }
        let launches = network.plan().run.len();
        if !args.json {
            match &found {
                None => writeln!(out, "{}: what {launches} launches gave is finite", subject.name)?,
                Some(found) => writeln!(out, "{}: {found}", subject.name)?,
            }
        }
        rows.push((subject.name, launches, found));
    }
    if args.json {
        let all: Vec<_> = rows
            .iter()
            .map(|(name, launches, found)| {
                let first = found.as_ref().map(|first| {
                    let NotFinite { label, op, nans, infinities } = first;
                    json!({ "operation": op, "label": label, "nans": nans, "infinities": infinities })
                });
                json!({ "name": name, "launches": launches, "first_not_finite": first })
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&json!({ "networks": all }))?)?;
    }
    Ok(if rows.iter().all(|(.., found)| found.is_none()) { RIGHT } else { WRONG })
}

fn examine(args: &Doctor, gpu: &Gpu, out: &mut dyn Write) -> Result<u8> {
    let start = std::time::Instant::now();
    let options = Options { seed: args.seed, ..Options::default() };
    let subjects = subjects(args, gpu)?;
    let bar = progress::operations(0);
    let mut all: Vec<Examination> = Vec::new();
    for subject in subjects {
        let inputs = match subject.inputs.is_empty() {
            true => doctor::random_inputs(&subject.graph, args.seed),
            false => subject.inputs,
        };
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let done = bar.position();
        bar.set_message(subject.name.clone());
        let examination =
            doctor::examine(gpu, &subject.name, &subject.graph, &inputs, &options, &mut |_, planned| {
                bar.set_length(done + planned as u64);
                bar.inc(1);
                !interrupt::asked()
            })?;
        if interrupt::asked() {
            return Err(Error::Interrupted.into());
        }
        all.push(examination);
    }
    bar.finish_and_clear();
    if let (Some(folder), Some(capture)) = (&args.capture, all.iter().find_map(|e| e.capture.as_ref())) {
        capture.write(folder)?;
        writeln!(io::stderr(), "wrote the first wrong operation to {}", folder.display())?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let right = all.iter().all(|e| e.wrong().next().is_none());
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&as_json(gpu, &all, seconds))?)?,
        false => print(gpu, &all, seconds, out)?,
    }
    Ok(if right { RIGHT } else { WRONG })
}

fn print(gpu: &Gpu, all: &[Examination], seconds: f64, out: &mut dyn Write) -> io::Result<()> {
    let info = gpu.info();
    writeln!(out, "{} ({}, {} {})\n", info.name, info.backend, info.driver, info.driver_info)?;
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "network",
        "operations",
        "elements",
        "worst",
        "",
    ]);
    for e in all {
        let elements: u64 = e.operations.iter().map(|o| o.judgement.compared).sum();
        let worst = e.operations.iter().map(|o| o.judgement.max_excess).fold(0.0, f64::max);
        let wrong = e.wrong().count();
        let verdict = if wrong == 0 { "right".to_owned() } else { format!("{wrong} WRONG") };
        let share = if worst > 10.0 { format!("{worst:.1e} ×") } else { format!("{:.0} %", 100.0 * worst) };
        table.add_row([e.name.clone(), e.operations.len().to_string(), elements.to_string(), share, verdict]);
    }
    writeln!(out, "{table}\n\"worst\": the largest difference, of what arithmetic in f32 may make.\n")?;
    let operations: usize = all.iter().map(|e| e.operations.len()).sum();
    let Some(first) = all.iter().find(|e| e.wrong().next().is_some()) else {
        return writeln!(out, "All {operations} operations are right ({seconds:.1} s).");
    };
    for e in all.iter().filter(|e| e.wrong().next().is_some()) {
        writeln!(out, "{}:", e.name)?;
        for found in e.wrong() {
            describe(found, out)?;
        }
    }
    let wrong = first.wrong().next().expect("one is wrong");
    writeln!(out, "\nThe first wrong operation is {} \"{}\" of {}.", wrong.operation, wrong.label, first.name)
}

/// Exit code of what went wrong.
fn code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(match error.downcast_ref() {
        Some(Error::Interrupted) => 130,
        Some(Error::NoAdapter { .. }) => NO_ADAPTER,
        Some(Error::DeviceLost { .. }) => DEVICE_LOST,
        Some(Error::Gpu { .. } | Error::OutOfMemory { .. } | Error::Limit { .. } | Error::Shader { .. }) => 1,
        _ => USAGE,
    })
}

pub fn run(args: &Doctor, options: &AdapterOptions, out: &mut dyn Write) -> ExitCode {
    let result = Gpu::with_options(options).map_err(Into::into).and_then(|gpu| {
        interrupt::listen()?;
        let code = match &args.replay {
            Some(folder) => replay(args, folder, &gpu, out)?,
            None if args.watch => watch(args, &gpu, out)?,
            None => examine(args, &gpu, out)?,
        };
        out.flush()?;
        Ok(code)
    });
    match result {
        Ok(found) => ExitCode::from(found),
        Err(error) if super::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", super::message(&error));
            code(&error)
        }
    }
}

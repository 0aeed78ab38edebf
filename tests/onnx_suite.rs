//! ONNX's conformance suite, as scripts/onnx_suite.sh writes it, case by case on the adapter. A case passes, or
//! is refused when it is loaded; a wrong answer, a panic or a driver's complaint fails the test.
//!
//! `AQUATINT_ONNX_LEDGER=write` writes what was found to docs/onnx.md; otherwise the counts must not be
//! below those that stand there. `AQUATINT_ONNX_CASE` runs only the cases whose names contain it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aquatint::formats::onnx::{Elem, OnnxModel};
use aquatint::{AdapterOptions, DType, Error, Gpu, Network, Tensor};
use safetensors::{Dtype, SafeTensors};

#[derive(serde::Deserialize)]
struct Index {
    onnx: String,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    kind: String,
    op: String,
    expanded: bool,
    tier: u8,
    core: bool,
    readable: bool,
    #[serde(default)]
    inputs: Vec<String>,
    /// Inputs on which shapes depend, taken for known.
    #[serde(default)]
    fixed: Vec<String>,
    #[serde(default)]
    outputs: Vec<String>,
}

enum Outcome {
    Pass,
    Refused(String),
    Wrong(String),
}

/// The suite's own tolerances.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-7;

fn folder() -> PathBuf {
    match std::env::var_os("AQUATINT_ONNX_SUITE") {
        Some(folder) => folder.into(),
        None => [env!("CARGO_MANIFEST_DIR"), "target", "onnx-suite"].iter().collect(),
    }
}

/// A tensor of a case's file as numbers.
struct Numbers {
    shape: Vec<usize>,
    values: Vec<f64>,
}

fn numbers(file: &SafeTensors, name: &str) -> Option<Numbers> {
    let view = file.tensor(name).ok()?;
    let b = view.data();
    fn each<const N: usize>(b: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        b.chunks_exact(N).map(|c| f(c.try_into().unwrap())).collect()
    }
    let values = match view.dtype() {
        Dtype::F32 => each(b, |c| f64::from(f32::from_le_bytes(c))),
        Dtype::F64 => each(b, f64::from_le_bytes),
        Dtype::F16 => each(b, |c| half::f16::from_le_bytes(c).to_f64()),
        Dtype::BF16 => each(b, |c| half::bf16::from_le_bytes(c).to_f64()),
        Dtype::BOOL | Dtype::U8 => each(b, |[v]| f64::from(v)),
        Dtype::I8 => each(b, |[v]| f64::from(v as i8)),
        Dtype::I16 => each(b, |c| f64::from(i16::from_le_bytes(c))),
        Dtype::U16 => each(b, |c| f64::from(u16::from_le_bytes(c))),
        Dtype::I32 => each(b, |c| f64::from(i32::from_le_bytes(c))),
        Dtype::U32 => each(b, |c| f64::from(u32::from_le_bytes(c))),
        Dtype::I64 => each(b, |c| i64::from_le_bytes(c) as f64),
        Dtype::U64 => each(b, |c| u64::from_le_bytes(c) as f64),
        other => panic!("{name}: type {other:?}"),
    };
    Some(Numbers { shape: view.shape().to_vec(), values })
}

fn tensor(numbers: &Numbers, dtype: DType) -> Tensor {
    let shape = numbers.shape.clone();
    let values = &numbers.values;
    match dtype {
        DType::U32 => Tensor::from_u32(shape, &values.iter().map(|&v| v as u32).collect::<Vec<_>>()),
        DType::I32 => Tensor::from_i32(shape, &values.iter().map(|&v| v as i32).collect::<Vec<_>>()),
        _ => Tensor::from_f32(shape, &values.iter().map(|&v| v as f32).collect::<Vec<_>>()),
    }
}

/// The values of an output as they came from the device.
fn read(tensor: &Tensor) -> Vec<f64> {
    let words = |f: fn([u8; 4]) -> f64| {
        tensor.bytes.chunks_exact(4).map(|c| f(c.try_into().unwrap())).collect::<Vec<_>>()
    };
    match tensor.desc.dtype {
        DType::I32 => words(|c| f64::from(i32::from_le_bytes(c))),
        DType::U32 => words(|c| f64::from(u32::from_le_bytes(c))),
        _ => tensor.to_f32().into_iter().map(f64::from).collect(),
    }
}

fn compare(elem: Elem, found: &[f64], expected: &[f64]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{} values, expected {}", found.len(), expected.len()));
    }
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let same = match elem.is_float() {
            true => f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= ABSOLUTE + RELATIVE * e.abs(),
            false => f == e,
        };
        if !same {
            return Err(format!("element {i} is {f}, expected {e}"));
        }
    }
    Ok(())
}

fn run(gpu: &Gpu, case: &Case) -> Outcome {
    let path = folder().join(format!("{}.onnx", case.name));
    let bytes = std::fs::read(path.with_extension("safetensors")).expect("the suite is whole");
    let file = SafeTensors::deserialize(&bytes).expect("the script writes sound files");
    let refused = |e: Error| match e {
        Error::Unsupported { nodes, .. } => Outcome::Refused(nodes.join("; ")),
        Error::Format { message, .. } => Outcome::Refused(message),
        other => Outcome::Wrong(format!("refused in an unexpected way: {other}")),
    };
    let mut model = match OnnxModel::open(&path) {
        Ok(model) => model,
        Err(e) => return refused(e),
    };
    let mut shapes = Vec::new();
    let mut given = Vec::new();
    for (i, name) in case.inputs.iter().enumerate() {
        let Some(values) = numbers(&file, &format!("input_{i}")) else { continue };
        match case.fixed.contains(name) {
            true => model.fix(name, &values.shape, &values.values).expect("an input of the model"),
            false => {
                shapes.push((name.as_str(), values.shape.clone()));
                given.push((name.as_str(), values));
            }
        }
    }
    let (graph, outputs) = match model.graph_and_outputs(&shapes) {
        Ok(built) => built,
        Err(e) => return refused(e),
    };
    let mut found = Vec::new();
    if !graph.outputs().is_empty() {
        let network = match Network::new(gpu, &graph) {
            Ok(network) => network,
            Err(e) => return Outcome::Wrong(format!("does not load: {e}")),
        };
        network.poison().unwrap();
        let tensors: Vec<(&str, Tensor)> = given
            .iter()
            .filter_map(|(name, numbers)| Some((*name, tensor(numbers, network.desc(name).ok()?.dtype))))
            .collect();
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(n, t)| (*n, t)).collect();
        match network.run(&inputs) {
            Ok(tensors) => found = tensors,
            Err(e) => return Outcome::Wrong(format!("does not run: {e}")),
        }
    }
    let count = |name: &str| {
        let at = graph.outputs().iter().position(|(n, _)| n == name).expect("an output of the graph");
        &found[at]
    };
    let mut computed = found.iter();
    for (i, (name, output)) in case.outputs.iter().zip(&outputs).enumerate() {
        let mut shape = output.shape.clone();
        let values = match (&output.constant, &output.count) {
            (Some(values), _) => values.clone(),
            (None, None) => read(computed.next().expect("an output that is computed")),
            (None, Some(c)) => {
                let cut = c.cut(computed.next().expect("an output that is computed"), count(&c.output));
                shape = cut.desc.shape.to_vec();
                read(&cut)
            }
        };
        let Some(expected) = numbers(&file, &format!("output_{i}")) else { continue };
        if shape != expected.shape {
            return Outcome::Wrong(format!("{name} is {shape:?}, expected {:?}", expected.shape));
        }
        if let Err(message) = compare(output.elem, &values, &expected.values) {
            return Outcome::Wrong(format!("{name}: {message}"));
        }
    }
    Outcome::Pass
}

/// How many cases there are, and how many pass.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    cases: usize,
    pass: usize,
}

impl Count {
    fn add(&mut self, pass: bool) {
        self.cases += 1;
        self.pass += usize::from(pass);
    }
}

#[test]
fn every_case_passes_or_is_refused() {
    let folder = folder();
    let Ok(index) = std::fs::read(folder.join("index.json")) else {
        assert!(std::env::var_os("REQUIRE_ONNX_SUITE").is_none(), "{} holds no suite", folder.display());
        eprintln!("SKIPPED: {} holds no suite; scripts/onnx_suite.sh makes it", folder.display());
        return;
    };
    let index: Index = serde_json::from_slice(&index).unwrap();
    let gpu = match Gpu::with_options(&AdapterOptions::default()) {
        Ok(gpu) => gpu,
        Err(error) => {
            assert!(std::env::var_os("REQUIRE_GPU").is_none(), "{error}");
            eprintln!("SKIPPED: {error}");
            return;
        }
    };
    let only = std::env::var("AQUATINT_ONNX_CASE").ok();
    let cases: Vec<&Case> =
        index.cases.iter().filter(|c| only.as_ref().is_none_or(|o| c.name.contains(o.as_str()))).collect();
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<BTreeMap<usize, Outcome>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((i, case)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|i| cases.get(i).map(|case| (i, case)))
                {
                    let outcome = match case.readable {
                        true => std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&gpu, case)))
                            .unwrap_or_else(|_| Outcome::Wrong("panicked".to_owned())),
                        false => Outcome::Refused("types that the engine does not read".to_owned()),
                    };
                    outcomes.lock().unwrap().insert(i, outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let verbose = std::env::var_os("AQUATINT_ONNX_VERBOSE").is_some() || only.is_some();
    let mut wrong = Vec::new();
    for (i, outcome) in &outcomes {
        let case = cases[*i];
        match outcome {
            Outcome::Wrong(message) => wrong.push(format!("{}: {message}", case.name)),
            Outcome::Refused(reason) if verbose => {
                let kind = if case.core { "core" } else { "other" };
                println!("refused: tier {} {kind} {}: {reason}", case.tier, case.name);
            }
            _ => {}
        }
    }
    let ledger = ledger(&index, &cases, &outcomes);
    println!("{}", summary(&ledger));
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
    if only.is_none() {
        settle(&ledger);
    }
}

/// Rows of a table and their counts: all cases, those of core types, expanded ones of core types.
struct Ledger {
    onnx: String,
    groups: BTreeMap<String, Count>,
    operators: BTreeMap<(u8, String), [Count; 3]>,
    reasons: BTreeMap<(u8, String), BTreeMap<String, usize>>,
}

fn ledger(index: &Index, cases: &[&Case], outcomes: &BTreeMap<usize, Outcome>) -> Ledger {
    let mut ledger = Ledger {
        onnx: index.onnx.clone(),
        groups: BTreeMap::new(),
        operators: BTreeMap::new(),
        reasons: BTreeMap::new(),
    };
    for (i, outcome) in outcomes {
        let case = cases[*i];
        let pass = matches!(outcome, Outcome::Pass);
        let mut group = |name: String| ledger.groups.entry(name).or_default().add(pass);
        if case.kind != "node" {
            group(format!("{} models", case.kind));
            continue;
        }
        let what = if case.expanded { "expanded" } else { "single node" };
        group(format!("tier {}, {what}, all types", case.tier));
        if case.core {
            group(format!("tier {}, {what}, core types", case.tier));
        }
        let key = (case.tier, case.op.clone());
        let counts = ledger.operators.entry(key.clone()).or_default();
        match (case.expanded, case.core) {
            (false, core) => {
                counts[0].add(pass);
                if core {
                    counts[1].add(pass);
                }
            }
            (true, true) => counts[2].add(pass),
            (true, false) => {}
        }
        if let (Outcome::Refused(reason), true) = (outcome, case.core && !case.expanded) {
            let reason = reason.split_once(": ").map_or(reason.as_str(), |(_, r)| r).to_owned();
            *ledger.reasons.entry(key).or_default().entry(reason).or_default() += 1;
        }
    }
    ledger
}

fn summary(ledger: &Ledger) -> String {
    let mut text = String::from("| cases | of | pass |\n|---|--:|--:|\n");
    for (name, count) in &ledger.groups {
        writeln!(text, "| {name} | {} | {} |", count.cases, count.pass).unwrap();
    }
    text
}

fn page(ledger: &Ledger) -> String {
    let mut text = format!(
        "# ONNX: what is imported\n\n\
         Made by `tests/onnx_suite.rs` from the conformance suite of `onnx` {}; do not edit. Every case runs on the \
         adapter and is compared at the suite's own tolerances (1e-3 relative, 1e-7 absolute). A case that does not \
         pass is refused when it is loaded, with its reason; there are no wrong answers.\n\n\
         The suite gives every tensor at run time. Sizes, axes and counts on which the shape of a result depends \
         (`SHAPE_LIKE` in `scripts/onnx_suite.py`) are given as constants, as exporters write them; data and weights \
         never are. Where only a run tells how long a result is, the graph has room for the longest, and its length beside \
         it. *Core types* are float, int64, int32 and bool. Tier 1 is what networks for pictures need first.\n\n{}\n",
        ledger.onnx,
        summary(ledger)
    );
    for tier in 1..=3 {
        write!(
            text,
            "## Tier {tier}\n\n| operator | all types | core types | expanded, core types | refused of core types |\n|---|--:|--:|--:|---|\n"
        )
        .unwrap();
        for (key, counts) in ledger.operators.iter().filter(|(key, _)| key.0 == tier) {
            let cell = |c: &Count| match c.cases {
                0 => String::new(),
                _ => format!("{} / {}", c.pass, c.cases),
            };
            let reasons = ledger.reasons.get(key).map_or(String::new(), |reasons| {
                let list: Vec<String> =
                    reasons.iter().map(|(r, n)| format!("{n}: {}", r.replace('|', "\\|"))).collect();
                list.join("; ")
            });
            let [all, core, expanded] = counts.each_ref().map(cell);
            writeln!(text, "| {} | {all} | {core} | {expanded} | {reasons} |", key.1).unwrap();
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Writes the page, or holds the counts to those that stand in it.
fn settle(ledger: &Ledger) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "docs", "onnx.md"].iter().collect();
    if std::env::var_os("AQUATINT_ONNX_LEDGER").is_some() {
        std::fs::write(path, page(ledger)).unwrap();
        return;
    }
    let Ok(committed) = std::fs::read_to_string(&path) else { return };
    for (name, count) in &ledger.groups {
        let start = format!("| {name} | {} | ", count.cases);
        let row = committed.lines().find_map(|l| l.strip_prefix(&start));
        let Some(row) = row else { continue };
        let before: usize = row.trim_end_matches([' ', '|']).parse().unwrap();
        assert!(count.pass >= before, "{name}: {} pass, docs/onnx.md says {before}", count.pass);
    }
}

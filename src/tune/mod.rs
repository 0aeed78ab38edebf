//! Chooses kernels by measurement: every distinct convolution of a network in each way that is worth it, by itself on the
//! device. A way whose answer is another than the default's is never chosen.
//!
//! ```no_run
//! use aquatint::{Gpu, Graph, Network, Tuning, cache::Cache, tune};
//!
//! # fn main() -> aquatint::Result<()> {
//! # let graph = Graph::new();
//! let (gpu, cache) = (Gpu::headless()?, Cache::from_env());
//! // What earlier processes measured on this device; empty the first time.
//! let mut tuning = Tuning::kept(&cache, &gpu.identity());
//! let report = tune::tune(&gpu, &graph, &mut tuning, &tune::TuneOptions::default(), &mut |_, _| true)?;
//! tuning.keep(&cache, &gpu.identity());
//! println!("{} operations measured", report.rows.len());
//! // Networks that are made for this one use it.
//! let network = Network::new(&gpu.tuned(tuning), &graph)?;
//! # Ok(())
//! # }
//! ```

mod agree;
mod operations;
mod race;

use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::ops::conv2d::Method;
use crate::passes;
use crate::tuning::Tuning;

use agree::agree;
use operations::Operation;
use race::Race;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// Seconds after which no operation is begun; those with the most work come first.
    pub time_limit: f64,
    /// Measure what the tuning has already, too.
    pub again: bool,
}

impl Default for TuneOptions {
    fn default() -> Self {
        TuneOptions { time_limit: 300.0, again: false }
    }
}

/// What was found for a network.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Operations that were measured, those with the most work first.
    pub rows: Vec<Row>,
    /// How many others the tuning had already, and how many there was no time for.
    pub known: usize,
    pub left: usize,
}

/// What was found for an operation.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Path of the first of them in the network, and how many the network has.
    pub name: String,
    pub count: usize,
    /// What it is called in a [`Tuning`]: shapes, storage, options.
    pub operation: String,
    /// What the model of costs takes, and what was the fastest by more than chance.
    pub default: String,
    pub chosen: String,
    /// Seconds of one run in these ways.
    pub default_seconds: f64,
    pub chosen_seconds: f64,
    pub tried: Vec<Tried>,
}

impl Row {
    /// Time of the chosen way over that of the default.
    pub fn ratio(&self) -> f64 {
        self.chosen_seconds / self.default_seconds
    }
}

/// A way to compute an operation, tried.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    pub way: String,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// The same answer as the default's but for rounding, and how long it took when it was first looked at.
    Right { seconds: f64 },
    /// Another answer: how far off at most, and what rounding may make it.
    Wrong { difference: f64, allowed: f64 },
    /// The device refused it.
    Failed { reason: String },
}

/// Measures the convolutions of a network, as it is before the passes, on a device, and adds what it finds to `tuning`.
/// `each` is told every operation when it is done, with all that is known by then, and returns whether to go on.
///
/// # Errors
/// [`Error::DeviceLost`], and what the engine refuses of a default.
pub fn tune(
    gpu: &Gpu,
    graph: &Graph,
    tuning: &mut Tuning,
    options: &TuneOptions,
    each: &mut dyn FnMut(&Row, &Tuning) -> bool,
) -> Result<Report> {
    let start = Instant::now();
    let graph = passes::before_methods(graph, gpu.target())?;
    let mut report = Report::default();
    let mut operations = operations::distinct(&graph);
    let all = operations.len();
    operations.retain(|operation| options.again || tuning.get(&operation.key).is_none());
    report.known = all - operations.len();
    report.left = operations.len();
    for operation in &operations {
        if !report.rows.is_empty() && start.elapsed().as_secs_f64() > options.time_limit {
            break;
        }
        let row = measure(gpu, operation)?;
        tuning.set(row.operation.clone(), row.chosen.clone());
        report.left -= 1;
        let go_on = each(&row, tuning);
        report.rows.push(row);
        if !go_on {
            break;
        }
    }
    Ok(report)
}

/// Slower ways than this, of the default's time, are not looked at twice.
const PROMISING: f64 = 1.05;
/// So many others run against the default.
const MOST_RIVALS: usize = 2;

fn measure(gpu: &Gpu, operation: &Operation) -> Result<Row> {
    let alone = operation.alone()?;
    let methods = operation.candidates(gpu.target());
    let (default, others) = methods.split_first().expect("the default is one");
    Race::compile(gpu, &alone, &methods);
    let mut first = Race::load(gpu, &alone, *default)?;
    let expected = first.answer()?;
    let default_seconds = first.look()?;
    let mut tried =
        vec![Tried { way: default.to_string(), verdict: Verdict::Right { seconds: default_seconds } }];
    let mut rivals: Vec<(f64, Method)> = Vec::new();
    for method in others {
        // Loaded one at a time: some hold hundreds of megabytes.
        let judged = Race::load(gpu, &alone, *method).and_then(|mut one| {
            Ok(match agree(&expected, &one.answer()?, operation.conv.products) {
                Ok(()) => Verdict::Right { seconds: one.look()? },
                Err(off) => Verdict::Wrong { difference: off.difference, allowed: off.allowed },
            })
        });
        let verdict = match judged {
            Ok(verdict) => verdict,
            Err(lost @ Error::DeviceLost { .. }) => return Err(lost),
            Err(error) => Verdict::Failed { reason: error.to_string() },
        };
        if let Verdict::Right { seconds } = verdict
            && seconds < PROMISING * default_seconds
        {
            rivals.push((seconds, *method));
        }
        tried.push(Tried { way: method.to_string(), verdict });
    }
    rivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut racers = vec![first];
    for (_, method) in rivals.iter().take(MOST_RIVALS) {
        racers.push(Race::load(gpu, &alone, *method)?);
    }
    let won = race::run(&mut racers)?;
    Ok(Row {
        name: operation.name.clone(),
        count: operation.count,
        operation: operation.key.clone(),
        default: default.to_string(),
        chosen: racers[won.place].method.to_string(),
        default_seconds: won.default_seconds,
        chosen_seconds: won.seconds,
        tried,
    })
}

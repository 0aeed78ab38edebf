//! What a run of the benchmark found: the versioned form in which results are kept and compared.
//!
//! Times are in seconds, sizes in bytes, work in floating-point operations (a multiply-add is two). What was not
//! measured is `null`, never zero.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of [`Results`]. A number more for every change after which older readers would misread a file.
pub const FORMAT: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    /// [`FORMAT`] of the program that wrote this.
    pub format: u32,
    pub program: Program,
    /// When the run began, RFC 3339 in UTC.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// Why it ended before all rows were measured, if it did.
    pub cut_short: Option<String>,
    pub settings: Settings,
    pub machine: Machine,
    pub clock: Clock,
    pub roof: Roof,
    /// In the order of the suite, whatever became of them.
    pub rows: Vec<Row>,
    /// One short kernel, timed between the rows: what it loses, the device has slowed down by.
    pub canary: Vec<Canary>,
    /// Of runs that repeat the suite: what each row took in every pass.
    #[serde(default)]
    pub passes: Vec<Pass>,
    /// How exact each operation is on this device.
    pub errors: Vec<OperationError>,
}

/// The program that measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Program {
    pub version: String,
    /// Of its source, where it was built in a repository; ends in `-dirty` if files were changed.
    pub git: Option<String>,
    /// `release` or `debug`.
    pub profile: String,
    pub wgpu: String,
    pub rustc: String,
    /// As it was called, of absolute paths the last part.
    pub command: Vec<String>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    pub suite: String,
    pub filter: Option<String>,
    /// The user's own network, if one was named.
    pub model: Option<String>,
    pub precisions: Vec<String>,
    pub batches: Vec<u32>,
    pub time_limit: Option<f64>,
    pub cooldown: f64,
    /// How often a row is sampled, in turns with the others.
    #[serde(default = "once")]
    pub visits: u32,
    pub seed: u64,
    /// Abilities taken away from the device, as `--as-if` has them.
    pub as_if: Option<String>,
    /// SHA-256 of the settings above: runs with the same can be compared.
    pub hash: String,
}

/// As it was before there was a choice.
fn once() -> u32 {
    1
}

/// Where it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    pub adapter: Adapter,
    pub cpu: String,
    /// Logical cores that the program may use.
    pub cores: u32,
    pub memory_bytes: u64,
    pub os: String,
    pub kernel: Option<String>,
}

/// The device as wgpu describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Adapter {
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: String,
    /// A software adapter runs on the CPU: its times say nothing about a GPU.
    pub software: bool,
    pub backend: String,
    pub driver: String,
    /// Numbers of vendor and device, as PCI has them.
    pub vendor: u32,
    pub device: u32,
    pub pci_bus: String,
    /// Features of the device that was opened, by wgpu's names.
    pub features: Vec<String>,
    /// Limits of the device that was opened, by wgpu's names.
    pub limits: BTreeMap<String, u64>,
}

/// What the times were taken with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// `timestamps` or `wall`.
    pub source: ClockSource,
    /// Why timestamps are not used, if they are not.
    pub reason: Option<String>,
    /// Nanoseconds of one tick.
    pub period: Option<f64>,
    /// Time by timestamps over time by the wall clock of one long submission; 1 when both agree.
    pub agreement: Option<f64>,
    /// What timestamps round every dispatch add to a run, as a part of it.
    pub overhead: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClockSource {
    Timestamps,
    Wall,
}

/// The device's own limits, measured by kernels that do nothing else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Roof {
    pub limits: Vec<Limit>,
}

impl Roof {
    /// The measured value of a limit.
    pub fn value(&self, kind: LimitKind) -> Option<f64> {
        self.limits.iter().find(|limit| limit.kind == kind)?.value
    }
}

/// One of the device's limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    pub kind: LimitKind,
    /// In operations a second, bytes a second, or seconds, by its kind; none if it was not measured.
    pub value: Option<f64>,
    /// Why not, if it was not.
    pub reason: Option<String>,
    /// The slowest repetition over the fastest, whose value is kept, less one.
    pub spread: Option<f64>,
    /// How it was measured: the form of the kernel that came nearest.
    pub form: Option<String>,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitKind {
    /// Multiply-adds of f32, two operations each, per second.
    F32Arithmetic,
    F16Arithmetic,
    /// Multiply-adds of i32.
    IntegerArithmetic,
    /// Cooperative-matrix products: f16 in, f32 out.
    MatrixArithmetic,
    /// Bytes read and written by a copy between buffers that no cache holds.
    CopyBandwidth,
    ReadBandwidth,
    /// Reads of a buffer that is small enough for a cache to hold.
    CacheBandwidth,
    /// Reads of workgroup memory.
    SharedBandwidth,
    /// Seconds of one dispatch that does nothing and waits for the one before it, within a submission.
    LaunchLatency,
    /// Seconds from submitting next to nothing to knowing that it is done.
    SubmitLatency,
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// What is measured, as `network/resnet50/f32/1`; the same on every device. Rows are compared by it.
    pub id: String,
    pub group: Group,
    /// For people.
    pub title: String,
    pub precision: String,
    pub batch: u32,
    pub status: Status,
    /// Why it is not `ok`.
    pub reason: Option<String>,
    pub check: Option<Check>,
    /// Work of a run; none for what has no arithmetic worth counting.
    pub flops: Option<u64>,
    /// Bytes of all tensors that a run's kernels read or write, each counted once a kernel.
    pub bytes: Option<u64>,
    pub memory: Option<Memory>,
    pub start: Option<Start>,
    pub times: Option<Times>,
    pub rates: Option<Rates>,
    /// Where the time of a run goes, by part of the pipeline: text encoder, network, decoder.
    pub parts: Vec<PartTime>,
    /// Where the time of a run goes, by kernel.
    pub kernels: Vec<KernelTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    Kernel,
    Network,
    Diffusion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Right, and timed.
    Ok,
    /// Computed, and not what the reference says. It has no times.
    Wrong,
    /// This device cannot do it.
    Unsupported,
    /// Not tried.
    Skipped,
    /// Right, but its times drift or scatter too much to be relied on.
    Unstable,
    /// It failed.
    Error,
}

/// How an answer was held against a reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What the reference is, and where it comes from.
    pub against: String,
    /// SHA-256 of the reference, where it is stored.
    pub reference: Option<String>,
    /// Elements that were compared, of how many.
    pub compared: u64,
    pub elements: u64,
    /// Largest difference.
    pub max_abs: f64,
    /// Largest difference over the largest number of the reference.
    pub max_rel: f64,
    /// Root mean square of the difference over that of the reference.
    pub rms: f64,
    /// Decibels, for pictures.
    pub psnr: Option<f64>,
    /// What `max_rel` may be; for pictures, what `psnr` must be.
    pub tolerance: f64,
    pub nans: u64,
    pub infinities: u64,
    /// How often the same was computed, and how many different answers came out.
    pub replays: u32,
    pub distinct: u32,
}

/// Bytes on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    pub weights: u64,
    pub activations: u64,
    /// While it runs.
    pub held: u64,
    /// While it loads.
    pub peak: u64,
}

/// What it takes until the first answer is there, each part by itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// From the weights to a plan with its kernels' text.
    pub plan: f64,
    /// Pipelines out of that text; the driver may have them from an earlier start.
    pub compile: f64,
    /// Weights to the device, and what is computed of them alone.
    pub load: f64,
    /// The first run.
    pub first_run: f64,
}

/// The samples of a steady state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// What [`Times::main`] is: the device's own time where there are timestamps.
    pub clock: ClockSource,
    /// Runs in one sample.
    pub runs_per_sample: u32,
    /// Of one run, by the clock above. What is compared.
    pub main: Summary,
    /// Of one run, from before its submission to after its end.
    pub wall: Summary,
    /// CPU time of recording and submitting one run.
    pub encode: Summary,
    /// Why sampling ended.
    pub stopped: Stopped,
    /// Median of the last third over that of the first, less one.
    pub drift: f64,
    /// Of `main`, in the order in which they were taken.
    pub samples: Vec<f64>,
    pub wall_samples: Vec<f64>,
    pub encode_samples: Vec<f64>,
    /// The times at which it was sampled, in turns with the other rows.
    #[serde(default)]
    pub visits: Vec<Visit>,
}

/// Samples of a row that were taken one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Visit {
    /// When it began, since the start.
    pub at: f64,
    pub samples: u32,
    /// Of its samples.
    pub median: f64,
    pub fastest: f64,
    /// The longer of what the canary took before and after it; none if the device failed then.
    pub canary: Option<f64>,
    /// Whether its samples are among those of [`Times`]: something slowed it down otherwise.
    pub counts: bool,
    /// Its samples, if not.
    pub set_aside: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stopped {
    /// The confidence interval of the median is narrow enough.
    Confident,
    /// The time for one row was up.
    TimeUp,
    /// The number of samples that is kept was reached.
    Full,
}

/// What samples say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    pub n: u32,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub deviation: f64,
    pub median: f64,
    /// Median absolute deviation from the median, not scaled.
    pub mad: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    /// 95 % confidence interval of the median, from order statistics.
    pub ci: [f64; 2],
}

/// How near a run comes to the device's limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Operations a second.
    pub flops: Option<f64>,
    /// Bytes a second.
    pub bytes: Option<f64>,
    /// The limit that binds: the one that would take longest at its measured value.
    pub bound: Option<LimitKind>,
    /// Part of that limit which is reached, 1 for all.
    pub share: Option<f64>,
}

/// Time of one part of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartTime {
    pub name: String,
    pub seconds: f64,
    /// How often it ran.
    pub calls: u32,
}

/// Time of all launches of a kernel in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KernelTime {
    pub kernel: String,
    pub launches: u32,
    pub seconds: f64,
    pub flops: u64,
    pub bytes: u64,
    /// As in [`Rates`].
    pub bound: Option<LimitKind>,
    pub share: Option<f64>,
}

/// One run of the canary kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Canary {
    /// Since the start.
    pub at: f64,
    pub seconds: f64,
    /// The row that ran before it.
    pub after: Option<String>,
    /// How much it had to do, the same all along a run; runs differ, as each makes it last about as long.
    #[serde(default)]
    pub rounds: u32,
}

/// One pass of a suite that is repeated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pass {
    /// When it began, since the start.
    pub at: f64,
    /// Median times by the rows' ids.
    pub medians: BTreeMap<String, f64>,
}

/// How exact an operation is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationError {
    pub operation: String,
    pub precision: String,
    pub elements: u64,
    /// In units in the last place of the exact result, of the precision in which it is stored.
    pub max_ulp: f64,
    pub mean_ulp: f64,
    /// Over the largest number of the exact result.
    pub max_rel: f64,
}

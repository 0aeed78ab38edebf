//! The one error type of the crate.

use std::path::PathBuf;

use crate::engine::NotFinite;

/// Everything that can go wrong, said so that the reader knows what was
/// expected, what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation was given inputs that it cannot work on.
    #[error("{op} \"{node}\": {message}")]
    Graph { op: &'static str, node: String, message: String },
    /// A name (label, sampler, adapter, input …) that is not in the list.
    #[error("unknown {what} \"{found}\"; expected one of: {expected}")]
    Unknown { what: &'static str, found: String, expected: String },
    /// A value outside what is allowed.
    #[error("{what}: expected {expected}, found {found}")]
    Invalid { what: String, expected: String, found: String },
    /// A file that could not be opened, read or written.
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A file that was read, but does not hold what it should.
    #[error("{path}: {message}", path = path.display())]
    Format { path: PathBuf, message: String },
    /// A model that this crate cannot run, with everything in it that it cannot.
    #[error("{path}: not supported: {list}", path = path.display(), list = nodes.join("; "))]
    Unsupported { path: PathBuf, nodes: Vec<String> },
    /// A weight that the network needs and the file lacks.
    #[error("{file}: tensor \"{name}\" is missing (the network wants shape {expected})")]
    MissingTensor { file: String, name: String, expected: String },
    /// A weight whose shape or type is not what the network needs.
    #[error("{file}: tensor \"{name}\" has {found}, expected {expected}")]
    WrongTensor { file: String, name: String, expected: String, found: String },
    /// A model on a hub that could not be had.
    #[error("{model}: {problem}")]
    Hub { model: String, problem: HubError },
    /// Several weights that are missing or not as the network needs them, each with what was expected and found.
    #[error("{file}: {count} tensors are not as the network wants them: {list}", count = wrong.len(), list = listed(wrong))]
    Tensors { file: String, wrong: Vec<String> },
    /// No GPU, not even a software one.
    #[error(
        "no GPU adapter found ({detail}); install a Vulkan driver (Debian and Ubuntu: \
         `apt-get install mesa-vulkan-drivers`, Fedora: `dnf install mesa-vulkan-drivers`, \
         Arch: `pacman -S vulkan-swrast`; Windows and macOS: update the graphics driver or system)"
    )]
    NoAdapter { detail: String },
    /// The device cannot do something that the network needs.
    #[error("the device \"{device}\" is too small: {what} needs {needed}, the limit is {available}")]
    Limit { device: String, what: String, needed: u64, available: u64 },
    /// More device memory than the caller allows, whatever is done in turn.
    #[error(
        "at least {} of device memory are needed, {} are allowed ({parts}); {advice}",
        crate::units::bytes(*needed), crate::units::bytes(*budget)
    )]
    Budget { budget: u64, needed: u64, parts: String, advice: String },
    /// More than [`Limits`](crate::Limits) allow of something.
    #[error(
        "{what}: {}: {}, and {} are allowed; --limits {}={found} raises that",
        bound.counts(), bound.show(*found), bound.show(*most), bound.name()
    )]
    Bound { what: String, bound: crate::limits::Bound, found: u64, most: u64 },
    /// A network that cannot be run in tiles, for a picture that is too large to be run at once: what in it cannot.
    #[error(
        "{op} \"{node}\" {why}, so that no tiles can be cut; {}", of_whole(*needed, *budget)
    )]
    Whole { op: &'static str, node: String, why: String, needed: Option<u64>, budget: u64 },
    /// The device lacks an optional feature.
    #[error("the device \"{device}\" has no {feature}; {advice}")]
    Feature { device: String, feature: &'static str, advice: &'static str },
    /// The device lacks what a plan needs; all of it.
    #[error(
        "the device \"{device}\" lacks {list}; ask for it when the device is made, or plan for this device",
        list = lacking.iter().map(Lack::to_string).collect::<Vec<_>>().join(", ")
    )]
    Lacking { device: String, lacking: Vec<Lack> },
    /// Memory that a run under way still needs.
    #[error("{what} is used by a run that is not done; finish, cancel or drop that run first")]
    Busy { what: String },
    /// Work that cannot be recorded into a compute pass.
    #[error("{what} needs copies between launches, which a compute pass cannot hold; {advice}")]
    Pass { what: String, advice: &'static str },
    /// An allocation failed.
    #[error("out of GPU memory while making {what} ({bytes} bytes); try a smaller picture or batch, or f16")]
    OutOfMemory { what: String, bytes: u64 },
    /// The driver took the device away: it crashed, was reset or unplugged.
    #[error(
        "the GPU was lost: {reason}; make a new device and load the network again (a driver update may help)"
    )]
    DeviceLost { reason: String },
    /// wgpu refused something that this crate should not have asked for.
    #[error("GPU error in {what}: {message}")]
    Gpu { what: String, message: String },
    /// A kernel that does not compile: a bug in this crate.
    #[error("kernel {kernel}: {message}")]
    Shader { kernel: String, message: String },
    /// Numbers that ran out of range, or came from such.
    #[error("{part} gave what is no number{found}; {advice}", found = first_fault(first.as_deref()), advice = part.advice())]
    NotFinite { part: Part, first: Option<Box<NotFinite>> },
    /// The user asked to stop.
    #[error("stopped by the user")]
    Interrupted,
}

/// The first few dozen of a list.
fn listed(all: &[String]) -> String {
    const MOST: usize = 40;
    let mut text = all.iter().take(MOST).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > MOST {
        text = format!("{text}; and {} more", all.len() - MOST);
    }
    text
}

fn of_whole(needed: Option<u64>, budget: u64) -> String {
    let allowed = crate::units::bytes(budget);
    match needed {
        Some(needed) => {
            format!("the whole picture takes {}, {allowed} are allowed", crate::units::bytes(needed))
        }
        None => "the whole picture is too large for the device".to_owned(),
    }
}

/// Something that a device lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A feature, by its name in WebGPU or wgpu.
    Feature(&'static str),
    /// A limit by its name in wgpu. For alignments lower is better.
    Limit { name: &'static str, needed: u64, available: u64 },
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lack::Feature(name) => write!(f, "the feature {name}"),
            Lack::Limit { name, needed, available } => {
                write!(f, "{name} of {needed} (it has {available})")
            }
        }
    }
}

/// The parts of a run that makes pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The network that takes noise away, step after step.
    Denoiser,
    /// What makes pictures of latents.
    Decoder,
}

impl Part {
    fn advice(self) -> &'static str {
        "compute it in f32, with less guidance, or look at the model's file"
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Denoiser => "the denoising network",
            Part::Decoder => "the decoder of pictures",
        })
    }
}

fn first_fault(first: Option<&NotFinite>) -> String {
    first.map_or_else(String::new, |first| format!(" (first {first})"))
}

/// Why a model could not be had from a hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Not of the form that names on the hub have.
    #[error(
        "is no name on the hub; expected organisation/name, organisation/name@revision or a file in it, .safetensors or .onnx"
    )]
    Name,
    /// Nothing of this name.
    #[error(
        "there is no such path here and no such repository at {endpoint}, or it is private and HF_TOKEN not that of \
         an account that may read it"
    )]
    NoRepository { endpoint: String },
    /// The repository is there, this branch, tag or commit is not.
    #[error("the repository has no revision \"{revision}\"")]
    NoRevision { revision: String },
    /// The repository lacks a file that the model needs or that was asked for.
    #[error("the repository has no {file}; it has {has}")]
    NoFile { file: String, has: String },
    /// The hub did not say who may read this, or not to this reader.
    #[error(
        "{endpoint} refused ({status}{said}): if the name is right, the repository is private or has terms to accept \
         on its page; then set HF_TOKEN to a token of an account that may read it"
    )]
    Denied { endpoint: String, status: u16, said: String },
    /// No answer at all.
    #[error("{endpoint} cannot be reached: {reason}; check the network and HF_ENDPOINT")]
    Unreachable { endpoint: String, reason: String },
    /// An answer that was not expected.
    #[error("{endpoint} answered {found}")]
    Answer { endpoint: String, found: String },
    /// Only the cache may be used, and it lacks a file.
    #[error("{file} is not in the cache {cache}; {advice}", cache = cache.display())]
    NotCached { file: String, cache: PathBuf, advice: &'static str },
    /// The connection ended early. What came is kept and continued the next time.
    #[error("{file} broke off after {received} of {size} bytes: {reason}; try again, it goes on from there")]
    BrokeOff { file: String, received: u64, size: u64, reason: String },
    /// What came is not what the hub said it would send. It was deleted.
    #[error("{file} arrived damaged: expected {expected}, found {found}; try again")]
    Damaged { file: String, expected: String, found: String },
    /// No room left for a file.
    #[error("no room for {file}: {needed} bytes more are needed in {cache}", cache = cache.display())]
    DiskFull { file: String, needed: u64, cache: PathBuf },
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! One file a subcommand. Results go to stdout, everything else to stderr.
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C; `bench` and `doctor` have their own.

#[cfg(feature = "bench")]
mod bench;
mod classify;
mod compare;
mod detect;
mod devices;
#[cfg(feature = "bench")]
mod doctor;
mod embed;
mod generate;
mod inspect;
mod interrupt;
mod model;
mod network;
mod paint;
mod painting;
mod parameters;
mod pictures;
mod preview;
#[cfg(feature = "bench")]
mod profile;
mod progress;
mod recipe;
mod redraw;
mod segment;
mod terminal;
#[cfg(feature = "bench")]
mod tune;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;
use aquatint::cache::Cache;
use aquatint::{AdapterOptions, Limits};
use clap::{Args, CommandFactory, Parser, Subcommand};

/// Draw and read pictures with neural networks, entirely on the GPU.
#[derive(Parser)]
#[command(name = "aquatint", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    bounds: BoundArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
#[command(next_help_heading = "Device")]
struct DeviceArgs {
    /// Adapter to use: its number in `aquatint devices`, or a part of its name
    #[arg(long, global = true, env = aquatint::gpu::ADAPTER_VARIABLE, value_name = "INDEX|NAME")]
    adapter: Option<String>,
    /// Graphics interface to use
    #[arg(long, global = true, env = aquatint::gpu::BACKEND_VARIABLE, value_name = "vulkan|metal|dx12",
          value_parser = backend)]
    backend: Option<String>,
    /// Play a weaker device, as `webgpu` or `max-binding=128MiB,no-f16,shared=16KiB`; also max-buffer, max-texture,
    /// storage-buffers, invocations, workgroups, no-subgroups, no-timestamps, no-matrices, class=discrete|integrated|cpu
    #[arg(long, global = true, env = aquatint::gpu::AS_IF_VARIABLE, value_name = "ABILITIES", value_parser = as_if)]
    as_if: Option<String>,
    /// Use cooperative matrices too, where the device has them: wgpu calls them experimental, and drivers may misbehave
    #[arg(long, global = true)]
    experimental: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Files of strangers")]
struct BoundArgs {
    /// What models and pictures may ask for at most, as `flops=20T,file=8GiB`; also text, tensors, nodes, outputs, device, pixels
    #[arg(long, global = true, env = "AQUATINT_LIMITS", value_name = "BOUND=N,…", value_parser = Limits::from_str)]
    limits: Option<Limits>,
}

/// Checked here, and read again for each adapter.
fn as_if(text: &str) -> Result<String, String> {
    text.parse::<aquatint::as_if::AsIf>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Accepts the empty string too, as an environment variable may be set to nothing.
fn backend(text: &str) -> Result<String, String> {
    match text.to_ascii_lowercase().as_str() {
        name @ ("" | "vulkan" | "metal" | "dx12") => Ok(name.to_owned()),
        _ => Err("expected vulkan, metal or dx12".to_owned()),
    }
}

impl DeviceArgs {
    fn options(self) -> AdapterOptions {
        let given = |text: Option<String>| text.filter(|t| !t.is_empty());
        AdapterOptions {
            adapter: given(self.adapter),
            backend: given(self.backend),
            as_if: given(self.as_if),
            experimental: self.experimental,
            cache: Cache::from_env(),
            tuned: true,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Draw pictures out of noise
    Generate(Box<generate::Generate>),
    /// Name what is in pictures
    Classify(classify::Classify),
    /// Find things in pictures and draw boxes round them
    Detect(detect::Detect),
    /// Show which pixels of pictures belong to what
    Segment(segment::Segment),
    /// Turn pictures into vectors, or compare two
    Embed(embed::Embed),
    /// Enlarge pictures
    Upscale(redraw::Redraw),
    /// Take the noise out of pictures
    Denoise(redraw::Redraw),
    /// Draw pictures in another style
    Stylize(redraw::Redraw),
    /// Set the two families of network side by side on this device
    Compare(compare::Compare),
    /// Show a network, its plan and the memory that it needs; works without a GPU
    Inspect(inspect::Inspect),
    /// Show where the time of a network's run goes, launch by launch
    #[cfg(feature = "bench")]
    Profile(profile::Profile),
    #[cfg(feature = "bench")]
    Tune(tune::Tune),
    /// List the adapters with their drivers, limits and features
    Devices(devices::Devices),
    /// Measure this device, and compare what was measured
    #[cfg(feature = "bench")]
    Bench(Box<bench::Bench>),
    #[cfg(feature = "bench")]
    Doctor(doctor::Doctor),
}

/// Parses the arguments, runs the command and says what went wrong.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| wrong_usage(&error));
    let device = cli.device.options();
    cli.bounds.limits.unwrap_or_default().install();
    let mut out = io::stdout().lock();
    // What benchmarks end with says more.
    #[cfg_attr(not(feature = "bench"), expect(unused_mut))]
    let (mut done, mut failed) = (0, 1);
    let result = match cli.command {
        Command::Generate(args) => generate::run(&args, &device, &mut out),
        Command::Classify(args) => classify::run(&args, &device, &mut out),
        Command::Detect(args) => detect::run(&args, &device, &mut out),
        Command::Segment(args) => segment::run(&args, &device, &mut out),
        Command::Embed(args) => embed::run(&args, &device, &mut out),
        Command::Upscale(args) => redraw::run(&args, "upscale-x2", "upscaled", &device, &mut out),
        Command::Denoise(args) => redraw::run(&args, "denoise", "denoised", &device, &mut out),
        Command::Stylize(args) => redraw::run(&args, "style-engraving", "stylized", &device, &mut out),
        Command::Compare(args) => compare::run(&args, &device, &mut out),
        Command::Inspect(args) => inspect::run(&args, &device, &mut out),
        #[cfg(feature = "bench")]
        Command::Profile(args) => profile::run(&args, &device, &mut out),
        #[cfg(feature = "bench")]
        Command::Tune(args) => tune::run(&args, &device, &mut out),
        Command::Devices(args) => devices::run(&args, &device, &mut out),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::run(&args, &device, &mut out)
            .map(|reason| done = reason.code())
            .inspect_err(|error| failed = bench::code_of(error)),
        #[cfg(feature = "bench")]
        Command::Doctor(args) => return doctor::run(&args, &device, &mut out),
    };
    match result.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::from(done),
        // Whoever read the output has had enough of it, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(done),
        Err(error) => {
            // Not `eprintln!`, which panics when stderr is closed.
            let _ = writeln!(io::stderr(), "error: {}", message(&error));
            match error.downcast_ref() {
                Some(aquatint::Error::Interrupted) => ExitCode::from(130),
                _ => ExitCode::from(failed),
            }
        }
    }
}

/// Prints help, or what is wrong with the arguments, and ends.
fn wrong_usage(error: &clap::Error) -> ! {
    let known = Cli::command();
    let mut words = std::env::args_os().skip(1);
    let command = words.find(|word| known.find_subcommand(word).is_some());
    let _ = error.print();
    std::process::exit(match command {
        #[cfg(feature = "bench")]
        Some(command) if (command == "bench" || command == "doctor") && error.exit_code() != 0 => {
            aquatint::bench::exit::ExitReason::Usage.code().into()
        }
        _ => error.exit_code(),
    })
}

/// Makes the folder that `path` will lie in. Done before long work, so that it is not done in vain.
fn make_folder_of(path: &Path) -> anyhow::Result<()> {
    match path.parent() {
        Some(folder) => std::fs::create_dir_all(folder).with_context(|| folder.display().to_string()),
        None => Ok(()),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(broken)
}

/// The error with its causes, without those that the message before them quotes.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

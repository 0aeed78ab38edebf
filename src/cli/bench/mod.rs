//! `aquatint bench`: measures, compares what was measured, and draws it.
//! Exit codes: 0 fine, 1 slower or broken, 2 wrong answers, 3 no adapter, 4 the device failed, 5 wrong usage.

mod compare;
mod files;
mod ledger;
mod report;
mod run;

use std::io::Write;

use anyhow::Result;
use aquatint::AdapterOptions;
use aquatint::bench::exit::ExitReason;
use clap::Subcommand;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    #[command(flatten)]
    run: run::Run,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Say what is faster, slower, broken or wrong in other results than in a baseline's; works without a GPU
    Compare(compare::Compare),
    /// Show results, or write them in another form; works without a GPU
    Report(report::Report),
    /// Write what all kept results say, by device, as docs/performance.md; works without a GPU
    Ledger(ledger::Ledger),
}

pub fn run(args: &Bench, options: &AdapterOptions, out: &mut dyn Write) -> Result<ExitReason> {
    match &args.command {
        Some(Command::Compare(args)) => compare::run(args, out),
        Some(Command::Report(args)) => report::run(args, out),
        Some(Command::Ledger(args)) => ledger::run(args, out),
        None => run::run(&args.run, options, out),
    }
}

/// The exit code of an error that ended a benchmark.
pub fn code_of(error: &anyhow::Error) -> u8 {
    error.downcast_ref().map_or(ExitReason::Usage, ExitReason::of).code()
}

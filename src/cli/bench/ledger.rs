//! `aquatint bench ledger`: what all kept results say, by device.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use aquatint::bench::exit::ExitReason;
use aquatint::bench::report::{json, ledger};

use super::super::make_folder_of;

#[derive(clap::Args)]
pub struct Ledger {
    /// Files of `aquatint bench --json` and of benches/peers/run.sh, and folders of such
    #[arg(value_name = "RESULTS.json|FOLDER", required = true)]
    paths: Vec<PathBuf>,
    /// Write it to a file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: &Ledger, out: &mut dyn Write) -> Result<ExitReason> {
    let text = ledger::render(&ledger::read(&args.paths)?);
    match &args.output {
        None => write!(out, "{text}")?,
        Some(path) => {
            make_folder_of(path)?;
            json::write_text(path, &text)?;
        }
    }
    Ok(ExitReason::Fine)
}

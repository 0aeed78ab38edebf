//! `aquatint bench report`: results in another form.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use aquatint::bench::exit::ExitReason;
use aquatint::bench::report::{json, table};

use super::files::Files;

#[derive(clap::Args)]
pub struct Report {
    #[arg(value_name = "RESULTS.json")]
    results: PathBuf,
    #[command(flatten)]
    files: Files,
}

pub fn run(args: &Report, out: &mut dyn Write) -> Result<ExitReason> {
    let results = json::read(&args.results)?;
    if args.files.is_empty() {
        write!(out, "{}", table::render(&results))?;
        return Ok(ExitReason::Fine);
    }
    args.files.prepare()?;
    args.files.write(&results)?;
    Ok(ExitReason::Fine)
}

//! `aquatint bench report`: results in another form.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use aquatint::bench::exit::ExitReason;
use aquatint::bench::record::Results;
use aquatint::bench::report::{csv, html, json, junit, markdown, table, trace};

use super::super::make_folder_of;

#[derive(clap::Args)]
pub struct Report {
    #[arg(value_name = "RESULTS.json")]
    results: PathBuf,
    /// Write a page with tables and plots, in one file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a line a row
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a trace for Perfetto or Chrome
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

pub fn run(args: &Report, out: &mut dyn Write) -> Result<ExitReason> {
    let results = json::read(&args.results)?;
    type Form<'a> = (&'a Option<PathBuf>, fn(&Results) -> String);
    let forms: [Form; 5] = [
        (&args.html, html::render),
        (&args.csv, csv::render),
        (&args.markdown, markdown::render),
        (&args.junit, junit::render),
        (&args.trace, trace::render),
    ];
    let mut written = false;
    for (path, render) in forms {
        if let Some(path) = path {
            make_folder_of(path)?;
            json::write_text(path, &render(&results))?;
            written = true;
        }
    }
    if !written {
        write!(out, "{}", table::render(&results))?;
    }
    Ok(ExitReason::Fine)
}

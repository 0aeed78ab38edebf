//! `aquatint bench compare`: a baseline and later results, row by row.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use aquatint::bench::compare::{CompareOptions, Comparison, compare};
use aquatint::bench::exit::ExitReason;
use aquatint::bench::patterns::Patterns;
use aquatint::bench::report::{comparison, json};
use serde::Serialize;

#[derive(clap::Args)]
pub struct Compare {
    /// Results to compare with
    #[arg(value_name = "BASELINE.json")]
    baseline: PathBuf,
    /// Results to compare, each with the baseline
    #[arg(value_name = "RESULTS.json", required = true)]
    others: Vec<PathBuf>,
    /// Smallest difference of interest, in percent
    #[arg(long, default_value_t = 3.0, value_name = "PERCENT", value_parser = percent)]
    threshold: f64,
    /// Rows that are known to be wrong, broken or slower: one name or glob a line, `#` begins a comment
    #[arg(long, value_name = "FILE")]
    expect_fail: Option<PathBuf>,
    /// Rows that sometimes are
    #[arg(long, value_name = "FILE")]
    flaky: Option<PathBuf>,
    /// List rows that are the same, too
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// A comparison and what was compared.
#[derive(Serialize)]
struct Named<'a> {
    baseline: &'a str,
    other: &'a str,
    exit_code: u8,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value < 100.0 => Ok(value),
        _ => Err("expected a number between 0 and 100".to_owned()),
    }
}

pub fn run(args: &Compare, out: &mut dyn Write) -> Result<ExitReason> {
    let list = |path: &Option<PathBuf>| path.as_ref().map_or_else(|| Ok(Patterns::default()), Patterns::read);
    let options = CompareOptions {
        threshold: args.threshold / 100.0,
        expected: list(&args.expect_fail)?,
        flaky: list(&args.flaky)?,
    };
    let baseline = json::read(&args.baseline)?;
    let others = args.others.iter().map(|path| Ok((path, json::read(path)?))).collect::<Result<Vec<_>>>()?;
    let comparisons: Vec<(String, Comparison)> = others
        .iter()
        .map(|(path, other)| (path.display().to_string(), compare(&baseline, other, &options)))
        .collect();
    let baseline = args.baseline.display().to_string();
    if args.json {
        let named: Vec<Named> = comparisons
            .iter()
            .map(|(other, comparison)| Named {
                baseline: &baseline,
                other,
                exit_code: comparison.exit().code(),
                comparison,
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&named)?)?;
    } else {
        for (i, (other, comparison)) in comparisons.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            match args.markdown {
                true => write!(out, "{}", comparison::markdown(comparison))?,
                false => write!(out, "{baseline} → {other}\n{}", comparison::table(comparison, args.all))?,
            }
        }
    }
    Ok(comparisons.iter().map(|(_, comparison)| comparison.exit()).max().unwrap_or_default())
}

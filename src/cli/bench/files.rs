//! The forms in which results are written.

use std::path::PathBuf;

use anyhow::Result;
use aquatint::bench::record::Results;
use aquatint::bench::report::{csv, html, json, junit, markdown, trace};

use super::super::make_folder_of;

#[derive(clap::Args)]
pub struct Files {
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
    /// Write a trace for Perfetto or Chrome: what each row did, and the kernels of one of its runs
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

type Render = fn(&Results) -> String;

impl Files {
    fn wanted(&self) -> impl Iterator<Item = (&PathBuf, Render)> {
        let all: [(&Option<PathBuf>, Render); 5] = [
            (&self.html, html::render),
            (&self.csv, csv::render),
            (&self.markdown, markdown::render),
            (&self.junit, junit::render),
            (&self.trace, trace::render),
        ];
        all.into_iter().filter_map(|(path, render)| Some((path.as_ref()?, render)))
    }

    /// Whether none is wanted.
    pub fn is_empty(&self) -> bool {
        self.wanted().next().is_none()
    }

    /// Makes the folders that they will lie in; done before long work.
    pub fn prepare(&self) -> Result<()> {
        self.wanted().try_for_each(|(path, _)| make_folder_of(path))
    }

    pub fn write(&self, results: &Results) -> Result<()> {
        self.wanted().try_for_each(|(path, render)| Ok(json::write_text(path, &render(results))?))
    }
}

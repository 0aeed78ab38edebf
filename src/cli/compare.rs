//! `aquatint compare`: the two families of network side by side on this device.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use aquatint::formats::picture;
use aquatint::tasks::compare::{Comparison, compare};
use aquatint::{AdapterOptions, Gpu};
use comfy_table::{ContentArrangement, Table, presets};

use super::{interrupt, make_folder_of, progress};

#[derive(clap::Args)]
pub struct Compare {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Pictures to draw and read for the quality figure; 720 for a reliable one
    #[arg(long, default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    samples: u32,
    /// Write the table as a picture, with samples of both
    #[arg(long, short, value_name = "PICTURE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Compare, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    interrupt::listen()?;
    if let Some(path) = &args.out {
        make_folder_of(path)?;
    }
    let gpu = Gpu::with_options(options)?;
    let bar = progress::pictures(args.samples.into());
    let measured = compare(&gpu, args.samples as usize, &mut |done| {
        bar.set_position(done as u64);
        !interrupt::asked()
    });
    bar.finish_and_clear();
    let comparison = measured?;
    if let Some(path) = &args.out {
        picture::save_png(path, &comparison.picture(), &[("Software", "aquatint")])?;
    }
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&comparison)?)?,
        false => {
            writeln!(out, "{}, {}, {}", comparison.device, comparison.backend, comparison.driver)?;
            writeln!(out, "{}", table(&comparison))?;
        }
    }
    Ok(())
}

fn table(comparison: &Comparison) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", &comparison.classifier.model, &comparison.generator.model]);
    table.add_rows(comparison.rows());
    table
}

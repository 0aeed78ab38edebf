//! `aquatint inspect`: what a network is and what it will do, without doing any of it.

use std::io::{self, Write};

use anyhow::Result;
use aquatint::plan::NetworkMemory;
use aquatint::report::{self, Report};
use aquatint::tasks::{Memory, Turns};
use aquatint::{AdapterOptions, Error, Plan, Target, gpu, units};

use super::network;

#[derive(clap::Args)]
pub struct Inspect {
    #[command(flatten)]
    model: network::Model,
    /// Print the graph in Graphviz's language
    #[arg(long, conflicts_with = "json")]
    dot: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lines for people on what a painter holds and when.
fn memory_lines(memory: &Memory) -> String {
    let mut lines = String::from("\nmemory, part by part\n");
    let mut line = |part: &str, m: &NetworkMemory| {
        lines += &format!(
            "  {part:<18} {:>10} held, {:>10} at most\n",
            units::bytes(m.held),
            units::bytes(m.peak)
        );
    };
    for (i, encoder) in memory.text_encoders.iter().enumerate() {
        line(&format!("text encoder {}", i + 1), encoder);
    }
    line("denoising step", &memory.step);
    if let Some(encoder) = &memory.encoder {
        line("picture encoder", encoder);
    }
    line("picture decoder", &memory.decoder);
    if let Some(preview) = &memory.preview {
        line("preview decoder", preview);
    }
    let turns = match memory.turns {
        Turns::Together => "all parts of a run together",
        Turns::DecoderInTurn => "the decoder in turn with the rest",
        Turns::OneAtATime => "one part at a time",
    };
    lines += &format!(
        "  {turns}; decoded in {} band(s)\n  peak of a whole run {:>9}\n",
        memory.decoder_bands.max(1),
        units::bytes(memory.peak)
    );
    lines
}

/// The chosen adapter, or where there is none at all a typical one.
fn target(options: &AdapterOptions) -> Result<Target, Error> {
    let adapters = gpu::adapters(options)?;
    match gpu::choose_index(&adapters, options) {
        Ok(index) => {
            let mut target = options.target(&adapters[index])?;
            if let Some(as_if) = &options.as_if {
                target.name = format!("{} as if {as_if}", target.name);
            }
            Ok(target)
        }
        Err(Error::NoAdapter { .. }) => {
            let _ = writeln!(io::stderr(), "no GPU adapter: planned for a typical desktop GPU");
            Ok(Target::typical())
        }
        Err(error) => Err(error),
    }
}

pub fn run(args: &Inspect, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let target = target(options)?;
    let (name, graph, memory) = network::open(&args.model, &target)?;
    if args.dot {
        write!(out, "{}", report::dot(&name, &graph))?;
        return Ok(());
    }
    let plan = Plan::compile(&graph, &target)?;
    let report = Report::new(&name, &graph, &plan);
    match args.json {
        true => {
            let mut json = serde_json::to_value(&report)?;
            if let Some(memory) = &memory {
                json["memory"] = serde_json::to_value(memory)?;
            }
            writeln!(out, "{}", serde_json::to_string_pretty(&json)?)?;
        }
        false => write!(out, "{report}{}", memory.as_ref().map_or_else(String::new, memory_lines))?,
    }
    Ok(())
}

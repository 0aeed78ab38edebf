//! `aquatint inspect`: what a network is and what it will do, without doing any of it.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use aquatint::report::{self, Report};
use aquatint::tasks::{ClassifierModel, DiffusionModel};
use aquatint::{AdapterOptions, Error, Graph, Plan, Target, gpu};

/// Names of the bundled models.
const BUNDLED: [&str; 2] = ["letters-unet", "letters-classifier"];

#[derive(clap::Args)]
pub struct Inspect {
    /// letters-unet, letters-classifier, or a folder of diffusers with a UNet2DModel
    #[arg(value_name = "MODEL")]
    model: String,
    /// Pictures at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Print the graph in Graphviz's language
    #[arg(long, conflicts_with = "json")]
    dot: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Name and graph: of a diffusion model one step, guidance and sampler included.
fn graph(args: &Inspect) -> Result<(String, Graph), Error> {
    let batch = args.batch.into();
    let step = |model: DiffusionModel| {
        let graph = model.step_graph(batch, &model.options())?;
        Ok((format!("{}: one step, {batch} at a time", model.name()), graph))
    };
    match args.model.as_str() {
        "letters-unet" => step(DiffusionModel::letters()?),
        "letters-classifier" => {
            let model = ClassifierModel::letters()?;
            let graph = model.graph(batch, model.size())?;
            Ok((format!("{}: {batch} at a time", model.name()), graph))
        }
        folder if Path::new(folder).is_dir() => step(DiffusionModel::open(folder)?),
        other => Err(Error::Unknown {
            what: "model",
            found: other.to_owned(),
            expected: format!("{}, or a folder with a UNet2DModel", BUNDLED.join(", ")),
        }),
    }
}

/// The chosen adapter, or where there is none at all a typical one.
fn target(options: &AdapterOptions) -> Result<Target, Error> {
    let adapters = gpu::adapters(options)?;
    match gpu::choose_index(&adapters, options) {
        Ok(index) => {
            let adapter = &adapters[index];
            Ok(gpu::target(&adapter.get_info(), adapter.features(), &adapter.limits()))
        }
        Err(Error::NoAdapter { .. }) => {
            let _ = writeln!(io::stderr(), "no GPU adapter: planned for a typical desktop GPU");
            Ok(Target::typical())
        }
        Err(error) => Err(error),
    }
}

pub fn run(args: &Inspect, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let (name, graph) = graph(args)?;
    if args.dot {
        write!(out, "{}", report::dot(&name, &graph))?;
        return Ok(());
    }
    let plan = Plan::compile(&graph, &target(options)?)?;
    let report = Report::new(&name, &graph, &plan);
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        false => write!(out, "{report}")?,
    }
    Ok(())
}

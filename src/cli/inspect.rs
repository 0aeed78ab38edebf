//! `aquatint inspect`: what a network is and what it will do, without doing any of it.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use aquatint::formats::onnx::{Dim, OnnxModel};
use aquatint::models::letters;
use aquatint::report::{self, Report};
use aquatint::tasks::{self, DiffusionModel};
use aquatint::{AdapterOptions, Error, Graph, Plan, Source, Target, gpu};

/// Names of the bundled models.
const BUNDLED: [&str; 2] = ["letters-unet", "letters-classifier"];

#[derive(clap::Args)]
pub struct Inspect {
    /// letters-unet, letters-classifier, a folder of diffusers with a UNet2DModel, or an ONNX file
    #[arg(value_name = "MODEL")]
    model: String,
    /// Shape of an input of an ONNX model, as input=1,3,224,224; for those that the file leaves open
    #[arg(long, value_name = "INPUT=DIMS", value_parser = parse_shape)]
    shape: Vec<(String, Vec<usize>)>,
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

/// `input=1,3,224,224`.
fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.split_once('=').ok_or("expected INPUT=DIMS, as input=1,3,224,224")?;
    let dims = dims
        .split(',')
        .map(|d| d.trim().parse().map_err(|_| format!("\"{d}\" is not a size")))
        .collect::<Result<_, _>>()?;
    Ok((name.to_owned(), dims))
}

/// An ONNX model for the shapes that are given; a dimension that is left open and not given is one picture, else 224.
fn onnx_graph(args: &Inspect) -> Result<(String, Graph), Error> {
    let model = OnnxModel::open(&args.model)?;
    let mut shapes: Vec<(&str, Vec<usize>)> =
        args.shape.iter().map(|(n, s)| (n.as_str(), s.clone())).collect();
    for port in model.inputs() {
        let (Some(dims), false) = (&port.shape, shapes.iter().any(|(n, _)| *n == port.name)) else {
            continue;
        };
        if dims.len() == 4 {
            let fill = |(d, dim): (usize, &Dim)| match dim {
                Dim::Fixed(n) => *n,
                Dim::Open(_) => [args.batch.into(), 3, 224, 224][d],
            };
            shapes.push((&port.name, dims.iter().enumerate().map(fill).collect()));
        }
    }
    let graph = model.graph(&shapes)?;
    let list: Vec<String> = graph
        .values()
        .filter(|(_, v)| matches!(v.source, Source::Input))
        .map(|(_, v)| format!("{} {}", v.name, v.desc))
        .collect();
    Ok((format!("{}: {}", args.model, list.join(", ")), graph))
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
            let model = letters::letters_classifier()?;
            let graph = tasks::classifier_graph(&model, batch, model.preprocess.size.unwrap_or([224, 224]))?;
            Ok((format!("{}: {batch} at a time", model.name), graph))
        }
        folder if Path::new(folder).is_dir() => step(DiffusionModel::open(folder)?),
        file if file.ends_with(".onnx") => onnx_graph(args),
        other => Err(Error::Unknown {
            what: "model",
            found: other.to_owned(),
            expected: format!("{}, a folder with a UNet2DModel, or an ONNX file", BUNDLED.join(", ")),
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

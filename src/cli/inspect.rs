//! `aquatint inspect`: what a network is and what it will do, without doing any of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use aquatint::formats::onnx::{Dim, OnnxModel};
use aquatint::models::autoencoder_tiny::AutoencoderTinyConfig;
use aquatint::models::controlnet::ControlNetConfig;
use aquatint::models::latent_diffusion::{Given, Part};
use aquatint::models::letters;
use aquatint::plan::NetworkMemory;
use aquatint::report::{self, Report};
use aquatint::tasks::{
    self, Beside, Control, DiffusionModel, Memory, PaintOptions, Painter, Pipeline, StartFrom, Turns,
};
use aquatint::{AdapterOptions, DType, Error, Graph, Plan, Source, Target, gpu, units};

use super::model;

/// Names of the bundled models.
pub(super) const BUNDLED: [&str; 2] = ["letters-unet", "letters-classifier"];

#[derive(clap::Args)]
pub struct Inspect {
    /// letters-unet, letters-classifier, latent diffusion as a folder of diffusers or a .safetensors checkpoint, a folder with a
    /// UNet2DModel, an ONNX file, or a name on the Hugging Face hub
    #[arg(value_name = "MODEL")]
    model: String,
    /// Shape of an input of an ONNX model, as input=1,3,224,224; for those that the file leaves open
    #[arg(long, value_name = "INPUT=DIMS", value_parser = parse_shape)]
    shape: Vec<(String, Vec<usize>)>,
    /// Pictures at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Width of pictures from text, in pixels [default: the model's]
    #[arg(long)]
    width: Option<usize>,
    /// Height of pictures from text, in pixels [default: the model's]
    #[arg(long)]
    height: Option<usize>,
    /// Storage of weights and activations for pictures from text
    #[arg(long, value_parser = ["f32", "f16"], default_value = "f32")]
    precision: String,
    /// Blocks of small integers that the UNet's weights are kept in [default: none]
    #[arg(long, value_name = "q8_0|q4_0")]
    weights: Option<String>,
    /// Device memory that pictures from text may take, as 6GB or 900MiB [default: all]
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    memory_budget: Option<u64>,
    /// A ControlNet for pictures from text; may be given several times
    #[arg(long, value_name = "FOLDER|FILE")]
    control: Vec<PathBuf>,
    /// A tiny autoencoder that shows pictures from text while they are made (TAESD)
    #[arg(long, value_name = "FOLDER|FILE")]
    preview_model: Option<PathBuf>,
    /// Take models of the hub from its cache alone
    #[arg(long)]
    offline: bool,
    /// Print the graph in Graphviz's language
    #[arg(long, conflicts_with = "json")]
    dot: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `input=1,3,224,224`.
pub(super) fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
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

/// Latent diffusion: one step, and what all its parts will take of the device's memory.
fn latent(args: &Inspect, pipeline: &Pipeline, target: &Target) -> Result<(String, Graph, Memory), Error> {
    let batch = args.batch.into();
    let own = PaintOptions::of(&pipeline.model);
    let multiple = pipeline.model.vae.config.factor();
    let side = |given: Option<usize>, own: usize| given.map_or(own, |s| s.next_multiple_of(multiple));
    let options = PaintOptions {
        width: side(args.width, own.width),
        height: side(args.height, own.height),
        dtype: if args.precision == "f16" { DType::F16 } else { DType::F32 },
        weights: args.weights.as_deref().map(str::parse).transpose()?,
        memory_budget: args.memory_budget,
        ..own
    };
    let tokens = pipeline.text.tokens();
    let control = |path: &PathBuf| Ok(Control::of(Part::<ControlNetConfig>::open(path)?));
    let controls = args.control.iter().map(control).collect::<Result<Vec<_>, Error>>()?;
    let tiny = args.preview_model.as_ref().map(Part::<AutoencoderTinyConfig>::open).transpose()?;
    let graph = Painter::step_graph(target, &pipeline.model, batch, tokens, &options, &controls)?;
    let model = &pipeline.model;
    // Text-to-picture; an inpainting model has the same networks and is told a picture besides.
    let kind = match model.given()? {
        Given::Masked => StartFrom::Masked,
        _ => StartFrom::Noise,
    };
    let beside = Beside { encoders: Some(&pipeline.text), controls: &controls, preview: tiny.as_ref() };
    let memory = Painter::predict(target, model, batch, tokens, kind, &options, &beside)?;
    let PaintOptions { width, height, guidance, dtype, .. } = options;
    let name = format!(
        "{}: one step of {width}×{height}, guidance {guidance}, {dtype}, {batch} at a time",
        model.name
    );
    Ok((name, graph, memory))
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

/// Name and graph: of a diffusion model one step, guidance and sampler included.
fn graph(args: &Inspect, path: &Path) -> Result<(String, Graph), Error> {
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
        _ if path.is_dir() => step(DiffusionModel::open(path)?),
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

/// Name and graph of a model, and of latent diffusion the memory that a run takes.
fn opened(args: &Inspect, target: &Target) -> Result<(String, Graph, Option<Memory>)> {
    let path = model::locate(Path::new(&args.model), args.offline)?;
    if Pipeline::is_at(&path) {
        let pipeline = Pipeline::open(&path, None)?;
        let (name, graph, memory) = latent(args, &pipeline, target)?;
        return Ok((name, graph, Some(memory)));
    }
    let (name, graph) = graph(args, &path)?;
    Ok((name, graph, None))
}

/// Name and graph of a model as this command shows it unless told otherwise.
#[cfg(feature = "bench")]
pub(super) fn open(
    model: &str,
    shape: &[(String, Vec<usize>)],
    offline: bool,
    target: &Target,
) -> Result<(String, Graph)> {
    let args = Inspect {
        model: model.to_owned(),
        shape: shape.to_vec(),
        batch: 1,
        width: None,
        height: None,
        precision: "f32".to_owned(),
        weights: None,
        memory_budget: None,
        control: Vec::new(),
        preview_model: None,
        offline,
        dot: false,
        json: false,
    };
    let (name, graph, _) = opened(&args, target)?;
    Ok((name, graph))
}

pub fn run(args: &Inspect, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let target = target(options)?;
    let (name, graph, memory) = opened(args, &target)?;
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

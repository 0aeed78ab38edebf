//! The network that a model of the command line is: of a diffusion model one step.

use std::path::{Path, PathBuf};

use anyhow::Result;
use aquatint::formats::onnx::{Dim, OnnxModel};
use aquatint::models;
use aquatint::models::autoencoder_tiny::AutoencoderTinyConfig;
#[cfg(feature = "bench")]
use aquatint::models::bundled;
use aquatint::models::controlnet::ControlNetConfig;
use aquatint::models::latent_diffusion::{Given, Part};
use aquatint::models::letters;
use aquatint::tasks::{
    self, Beside, Control, DiffusionModel, Memory, PaintOptions, Painter, Pipeline, StartFrom,
};
use aquatint::{DType, Error, Graph, Source, Target, units};

use super::model;

/// Names of the bundled models.
pub const BUNDLED: [&str; 2] = ["letters-unet", "letters-classifier"];

#[derive(clap::Args, Clone, Default)]
pub struct Model {
    /// letters-unet, letters-classifier, latent diffusion as a folder of diffusers or a .safetensors checkpoint, a folder with a
    /// UNet2DModel, a .safetensors file or folder of torchvision's or timm's, an ONNX file, or a name on the Hugging Face hub
    #[arg(value_name = "MODEL")]
    model: String,
    /// Shape of an input of an ONNX model, as input=1,3,224,224; for those that the file leaves open
    #[arg(long, value_name = "INPUT=DIMS", value_parser = parse_shape)]
    shape: Vec<(String, Vec<usize>)>,
    /// Pictures at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Width of pictures from text, or of those that are read, in pixels [default: the model's]
    #[arg(long)]
    width: Option<usize>,
    /// Height of pictures from text, or of those that are read, in pixels [default: the model's]
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
}

/// Sides of pictures for a network that takes any.
const SIDE: usize = 224;

/// Name and graph of a model, and what a painter will take of the memory if it is latent diffusion. Networks that read
/// pictures are without what prepares these.
pub fn open(args: &Model, target: &Target) -> Result<(String, Graph, Option<Memory>)> {
    open_at(args, SIDE, target)
}

/// The same, with pictures of `side` where neither the user nor the model says.
fn open_at(args: &Model, side: usize, target: &Target) -> Result<(String, Graph, Option<Memory>)> {
    let path = model::locate(Path::new(&args.model), args.offline)?;
    let plain = path.join("config.json").exists() && path.join("model.safetensors").exists();
    if plain || path.is_file() && path.extension().is_some_and(|ending| ending == "safetensors") {
        match vision(&path.to_string_lossy(), args.batch.into(), [args.height, args.width], side) {
            Ok((name, graph)) => return Ok((name, graph, None)),
            // A checkpoint of latent diffusion, perhaps.
            Err(_) if !plain => {}
            Err(error) => return Err(error.into()),
        }
    }
    if Pipeline::is_at(&path) {
        let pipeline = Pipeline::open(&path, None)?;
        let (name, graph, memory) = latent(args, &pipeline, target)?;
        return Ok((name, graph, Some(memory)));
    }
    let (name, graph) = graph(args, &path)?;
    Ok((name, graph, None))
}

/// Name and graph of a model for one picture, told by its name or path alone: whatever [`open`] opens, and bundled networks
/// that read pictures, without what prepares these; they are of `side` where the model does not say.
#[cfg(feature = "bench")]
pub fn named(
    model: &str,
    shape: &[(String, Vec<usize>)],
    offline: bool,
    side: usize,
    target: &Target,
) -> Result<(String, Graph)> {
    if bundled::bundled(model).is_some() {
        return Ok(vision(model, 1, [None; 2], side)?);
    }
    let args = Model {
        model: model.to_owned(),
        shape: shape.to_vec(),
        batch: 1,
        precision: "f32".to_owned(),
        offline,
        ..Model::default()
    };
    let (name, graph, _) = open_at(&args, side, target)?;
    Ok((name, graph))
}

/// A network that reads pictures, so many at a time: of this height and width, else the model's own, else of `side`.
pub fn vision(
    name: &str,
    batch: usize,
    [height, width]: [Option<usize>; 2],
    side: usize,
) -> Result<(String, Graph), Error> {
    let model = models::open(name)?;
    let p = &model.preprocess;
    let own = p.size.unwrap_or([side.next_multiple_of(p.multiple.max(1)); 2]);
    let [height, width] = [height.unwrap_or(own[0]), width.unwrap_or(own[1])];
    let mut graph = Graph::new();
    let shape = [model.batch.unwrap_or(batch), height, width, p.mean.len()];
    let x = graph.input("x", shape, DType::F32);
    for (name, id) in model.build(&mut graph, x)? {
        graph.output(&name, id);
    }
    Ok((format!("{} at {height}×{width}", model.name), graph))
}

/// `input=1,3,224,224`.
pub fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.split_once('=').ok_or("expected INPUT=DIMS, as input=1,3,224,224")?;
    let dims = dims
        .split(',')
        .map(|d| d.trim().parse().map_err(|_| format!("\"{d}\" is not a size")))
        .collect::<Result<_, _>>()?;
    Ok((name.to_owned(), dims))
}

/// An ONNX model for the shapes that are given; a dimension that is left open and not given is one picture, else 224.
fn onnx_graph(args: &Model) -> Result<(String, Graph), Error> {
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
fn latent(args: &Model, pipeline: &Pipeline, target: &Target) -> Result<(String, Graph, Memory), Error> {
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

/// Name and graph: of a diffusion model one step, guidance and sampler included.
fn graph(args: &Model, path: &Path) -> Result<(String, Graph), Error> {
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

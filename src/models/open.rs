//! Opens whatever reads pictures: a bundled network by its name, an ONNX file, a folder of timm's,
//! or a safetensors file of torchvision's or timm's, whose architecture is told by its tensors' names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::vision::{Candidates, Classes, Filter, Fit, Preprocess, VisionModel};
use super::{
    boxes, bundled, convnext, densenet, efficientnet, iresnet, mobilenet, resnet, rrdb, ssdlite, style,
    timm_mobile, unet, vgg, yolo,
};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::tensor::DType;
use crate::weights::Weights;

/// How a file's network is built.
#[derive(Clone, Copy)]
enum Network {
    /// Its tensors say all of it.
    Plain(fn(&mut Graph, Source, ValueId) -> Result<ValueId>),
    /// What they leave open, the architecture's name in `config.json` says.
    TimmMobile,
}

/// An architecture: what it is called, a tensor or two that no other has, what it gives, and its network.
struct Architecture {
    name: &'static str,
    marks: &'static [&'static str],
    gives: Gives,
    network: Network,
}

/// What a network's output is.
#[derive(Clone, Copy)]
enum Gives {
    /// Scores, one for each number of this layer's bias.
    Logits(&'static str),
    /// Scores of pixels, one for each number of this convolution's bias.
    Map(&'static str),
    Picture,
    Embedding,
    /// Candidates `[n, candidates, 4 + classes]`: left, top, right, bottom in pixels, scores.
    Boxes(DetectorKind),
}

/// What detectors differ in.
#[derive(Clone, Copy)]
struct DetectorKind {
    classes: fn(Source) -> Result<usize>,
    candidates: Candidates,
    /// How pictures are prepared: their side, how they are fitted into it, mean and standard deviation of all colours.
    side: usize,
    fit: Fit,
    colours: [f32; 2],
}

const YOLO: Gives = Gives::Boxes(DetectorKind {
    classes: yolo::classes,
    candidates: Candidates { classes: Classes::Best, background: false },
    side: yolo::SIDE,
    fit: Fit::Letterbox { fill: yolo::GREY },
    colours: [0.0, 1.0],
});

const ARCHITECTURES: &[Architecture] = &[
    // It has all that a ResNet is known by, and more.
    Architecture {
        name: "IResNet",
        marks: &["conv1.weight", "layer1.0.prelu.weight", "features.running_mean", "fc.weight"],
        gives: Gives::Embedding,
        network: Network::Plain(iresnet::iresnet),
    },
    Architecture {
        name: "ResNet",
        marks: &["conv1.weight", "layer1.0.conv1.weight", "bn1.running_mean", "fc.weight"],
        gives: Gives::Logits("fc"),
        network: Network::Plain(resnet::resnet),
    },
    Architecture {
        name: "ResNet",
        marks: &["conv1.0.weight", "layer1.0.conv1.weight", "bn1.running_mean", "fc.weight"],
        gives: Gives::Logits("fc"),
        network: Network::Plain(resnet::resnet),
    },
    Architecture {
        name: "DenseNet",
        marks: &["features.denseblock1.denselayer1.conv1.weight", "classifier.weight"],
        gives: Gives::Logits("classifier"),
        network: Network::Plain(densenet::densenet),
    },
    Architecture {
        name: "MobileNetV2",
        marks: &["features.1.conv.0.0.weight", "classifier.1.weight"],
        gives: Gives::Logits("classifier.1"),
        network: Network::Plain(mobilenet::mobilenet_v2),
    },
    Architecture {
        name: "MobileNetV3",
        marks: &["features.1.block.0.0.weight", "classifier.3.weight"],
        gives: Gives::Logits("classifier.3"),
        network: Network::Plain(mobilenet::mobilenet_v3),
    },
    Architecture {
        name: "EfficientNet",
        marks: &["features.1.0.block.0.0.weight", "classifier.1.weight"],
        gives: Gives::Logits("classifier.1"),
        network: Network::Plain(|g, w, x| efficientnet::efficientnet(g, w, x, efficientnet::eps(w))),
    },
    Architecture {
        name: "ConvNeXt",
        marks: &["features.1.0.block.0.weight", "classifier.2.weight"],
        gives: Gives::Logits("classifier.2"),
        network: Network::Plain(convnext::convnext),
    },
    Architecture {
        name: "ConvNeXt",
        marks: &["stages.0.blocks.0.conv_dw.weight", "head.fc.weight"],
        gives: Gives::Logits("head.fc"),
        network: Network::Plain(convnext::convnext),
    },
    Architecture {
        name: "VGG",
        marks: &["features.0.weight", "classifier.6.weight"],
        gives: Gives::Logits("classifier.6"),
        network: Network::Plain(vgg::vgg),
    },
    Architecture {
        name: "VGG",
        marks: &["features.0.weight", "pre_logits.fc1.weight", "head.fc.weight"],
        gives: Gives::Logits("head.fc"),
        network: Network::Plain(vgg::vgg),
    },
    Architecture {
        name: "timm's EfficientNet or MobileNet",
        marks: &["conv_stem.weight", "blocks.0.0.bn1.weight", "classifier.weight"],
        gives: Gives::Logits("classifier"),
        network: Network::TimmMobile,
    },
    Architecture {
        name: "U-Net",
        marks: &["inc.double_conv.0.weight", "down1.maxpool_conv.1.double_conv.0.weight", "outc.conv.weight"],
        gives: Gives::Map("outc.conv"),
        network: Network::Plain(unet::unet),
    },
    Architecture {
        name: "RRDBNet",
        marks: &["conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"],
        gives: Gives::Picture,
        network: Network::Plain(rrdb::rrdb),
    },
    Architecture {
        name: "RRDBNet",
        marks: &["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "model.10.weight"],
        gives: Gives::Picture,
        network: Network::Plain(rrdb::rrdb),
    },
    Architecture {
        name: "SSDLite",
        marks: &["backbone.features.0.0.0.weight", "head.classification_head.module_list.0.1.weight"],
        gives: Gives::Boxes(DetectorKind {
            classes: ssdlite::classes,
            candidates: Candidates { classes: Classes::Each(ssdlite::OF_A_CLASS), background: true },
            side: ssdlite::SIDE,
            fit: Fit::Stretch,
            colours: [0.5, 0.5],
        }),
        network: Network::Plain(ssdlite::ssdlite),
    },
    Architecture {
        name: "YOLOv8",
        marks: &["model.0.conv.weight", "model.22.cv3.0.0.conv.weight"],
        gives: YOLO,
        network: Network::Plain(yolo::yolo),
    },
    Architecture {
        name: "YOLOv8",
        marks: &["0.conv.weight", "22.cv3.0.0.conv.weight"],
        gives: YOLO,
        network: Network::Plain(yolo::yolo),
    },
    Architecture {
        name: "YOLOv8",
        marks: &["model.model.0.conv.weight", "model.model.22.cv3.0.0.conv.weight"],
        gives: YOLO,
        network: Network::Plain(yolo::yolo),
    },
    Architecture {
        name: "TransformerNet",
        marks: &["conv1.conv2d.weight", "in1.weight", "deconv3.conv2d.weight"],
        gives: Gives::Picture,
        network: Network::Plain(style::picture),
    },
];

/// What timm's folders hold.
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// First convolutions, which read colours.
const STEMS: [&str; 8] = [
    "conv1.weight",
    "conv1.0.weight",
    "conv_stem.weight",
    "features.0.0.weight",
    "features.0.weight",
    "features.conv0.weight",
    "stem.0.weight",
    "inc.double_conv.0.weight",
];

/// The network of this name, or in this file or folder.
///
/// # Errors
/// [`Error::Unknown`] for what is neither, [`Error::Format`] for files that hold no architecture
/// that is known, [`Error::Invalid`] for lists of labels of the wrong length, and all of
/// [`Weights::open`] and of ONNX files.
pub fn open(path_or_name: &str) -> Result<VisionModel> {
    open_with(path_or_name, None)
}

/// The same with these names of its classes, instead of those that the file has.
///
/// # Errors
/// Those of [`open`].
pub fn open_with(path_or_name: &str, labels: Option<Vec<String>>) -> Result<VisionModel> {
    let named = |mut model: VisionModel| {
        model.labels = labels.clone().unwrap_or(std::mem::take(&mut model.labels));
        model
    };
    if let Some(model) = bundled::bundled(path_or_name) {
        return model.map(named);
    }
    let path = Path::new(path_or_name);
    if path.is_dir() {
        return open_folder(path, labels);
    }
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("onnx") => crate::formats::onnx::vision_model(path, None).map(named),
        // A folder of timm's, entered.
        Some("safetensors") if path.ends_with(WEIGHTS) && path.with_file_name(CONFIG).exists() => {
            open_folder(path.parent().unwrap_or(Path::new("")), labels)
        }
        Some("safetensors") => open_weights(path, &Config::default(), labels),
        _ => Err(Error::Unknown {
            what: "model",
            found: path_or_name.to_owned(),
            expected: format!(
                "{}, a file .onnx or .safetensors, or a folder with config.json and model.safetensors",
                bundled::BUNDLED.map(|(name, ..)| name).join(", ")
            ),
        }),
    }
}

/// Names of classes out of a file: a JSON list, or a line each.
///
/// # Errors
/// [`Error::Io`], and [`Error::Format`] for JSON that is no list of names, and for no names at all.
pub fn read_labels(path: &Path) -> Result<Vec<String>> {
    let text = files::text(path)?;
    let bad = |message: String| Error::Format { path: path.to_owned(), message };
    let labels = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text).map_err(|e| bad(format!("is no list of names: {e}")))?,
        false => text.trim_end().lines().map(|line| line.trim().to_owned()).collect::<Vec<String>>(),
    };
    if labels.is_empty() { Err(bad("has no names".to_owned())) } else { Ok(labels) }
}

/// What timm writes beside a model's weights; all of it may be missing.
#[derive(Default, Deserialize)]
struct Config {
    architecture: Option<String>,
    num_classes: Option<usize>,
    #[serde(default)]
    label_names: Vec<String>,
    #[serde(default)]
    label_descriptions: HashMap<String, String>,
    /// As transformers writes them.
    #[serde(default)]
    id2label: HashMap<String, String>,
    #[serde(default)]
    pretrained_cfg: Pretrained,
    /// What was changed when the model was made.
    #[serde(default)]
    model_args: HashMap<String, serde_json::Value>,
    /// How timm sums up the last feature map.
    global_pool: Option<String>,
}

impl Config {
    fn parse(path: &Path, text: &str) -> Result<Config> {
        serde_json::from_str(text).map_err(|e| Error::Format {
            path: path.to_owned(),
            message: format!("is no configuration of timm: {e}"),
        })
    }

    /// What the file says of a network that computes something else from the same tensors.
    fn otherwise(&self) -> Option<String> {
        let called = self.architecture.as_deref().unwrap_or_default();
        if ["blur", "resnetaa", "resnextaa"].iter().any(|part| called.contains(part)) {
            return Some(format!(
                "\"architecture\" is {called}, which smooths where it takes every other pixel"
            ));
        }
        if called.starts_with("test_convnext") {
            return Some(format!(
                "\"architecture\" is {called}, whose activations are others than ConvNeXt's"
            ));
        }
        if let Some(pool) = self.global_pool.as_ref().filter(|pool| *pool != "avg") {
            return Some(format!("\"global_pool\" is {pool}, not avg"));
        }
        if let Some([channels, ..]) = self.pretrained_cfg.input_size.filter(|size| size[0] != 3) {
            return Some(format!("\"input_size\" has {channels} channels, not 3"));
        }
        let harmless = |(name, value): &(&String, &serde_json::Value)| match name.as_str() {
            "num_classes" | "img_size" => true,
            "in_chans" => **value == 3,
            "global_pool" => **value == "avg",
            name => name.starts_with("drop") || name.ends_with("drop_rate"),
        };
        let (name, value) = self.model_args.iter().find(|arg| !harmless(arg))?;
        Some(format!("\"model_args\" has {name} = {value}"))
    }

    /// The classes' names, timm's or transformers'; none if those of transformers leave gaps.
    fn labels(&self) -> Vec<String> {
        let names = [&self.label_names, &self.pretrained_cfg.label_names];
        let described = |name: &String| self.label_descriptions.get(name).unwrap_or(name).clone();
        match names.into_iter().find(|names| !names.is_empty()) {
            Some(names) => names.iter().map(described).collect(),
            None => {
                let name = |i: usize| self.id2label.get(&i.to_string()).cloned();
                (0..self.id2label.len()).map(name).collect::<Option<_>>().unwrap_or_default()
            }
        }
    }
}

#[derive(Default, Deserialize)]
struct Pretrained {
    /// Channels, height, width.
    input_size: Option<[usize; 3]>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    interpolation: Option<String>,
    crop_pct: Option<f32>,
    crop_mode: Option<String>,
    #[serde(default)]
    label_names: Vec<String>,
}

fn open_folder(folder: &Path, labels: Option<Vec<String>>) -> Result<VisionModel> {
    let path = folder.join(CONFIG);
    let text = files::text(&path)?;
    let config = Config::parse(&path, &text)?;
    open_weights(&folder.join(WEIGHTS), &config, labels)
}

fn open_weights(path: &Path, config: &Config, labels: Option<Vec<String>>) -> Result<VisionModel> {
    of_weights(path, Weights::open(path)?, config, labels)
}

/// The network of weights that are in memory already, with the text of a `config.json` of timm's where there is one.
///
/// # Errors
/// As for files, see [`open`].
pub fn from_weights(weights: Weights, config: Option<&str>) -> Result<VisionModel> {
    let path = PathBuf::from(weights.file());
    let config = config.map_or(Ok(Config::default()), |text| Config::parse(&path, text))?;
    of_weights(&path, weights, &config, None)
}

fn of_weights(
    path: &Path,
    weights: Weights,
    config: &Config,
    labels: Option<Vec<String>>,
) -> Result<VisionModel> {
    let architecture = ARCHITECTURES
        .iter()
        .find(|a| a.marks.iter().all(|name| weights.contains(name)))
        .ok_or_else(|| unknown(path.to_owned(), &weights, config))?;
    let refused = |message: String| Error::Format { path: path.to_owned(), message };
    if let Some(why) = config.otherwise() {
        return Err(refused(format!(
            "is a variant of {} that is not known: its {CONFIG}'s {why}",
            architecture.name
        )));
    }
    let mut stems = STEMS.iter().filter_map(|name| Some((name, weights.shape(name)?)));
    if let Some((name, shape)) = stems.find(|(_, shape)| shape.len() == 4 && shape[1] != 3) {
        return Err(refused(format!(
            "reads pictures of {} channels ({name} is {shape}), not of 3",
            shape[1]
        )));
    }
    let source = Source { weights: &weights, dtype: DType::F32 };
    let mut labels = labels.unwrap_or_else(|| config.labels());
    let classes = match architecture.gives {
        Gives::Logits(last) | Gives::Map(last) => Some(scores(source, last)?),
        Gives::Boxes(kind) => Some((kind.classes)(source)?),
        Gives::Picture | Gives::Embedding => None,
    };
    if let Gives::Boxes(kind) = architecture.gives
        && kind.candidates.background
        && Some(labels.len() + 1) == classes
        && !labels.is_empty()
    {
        labels.insert(0, "background".to_owned());
    }
    for (what, found) in [("labels", labels.len()), ("num_classes", config.num_classes.unwrap_or(0))] {
        if let Some(classes) = classes
            && found != 0
            && found != classes
        {
            return Err(Error::Invalid {
                what: format!("{what} of {}", path.display()),
                expected: format!("{classes}, as the weights have"),
                found: found.to_string(),
            });
        }
    }
    let preprocess = preprocess(architecture, &config.pretrained_cfg);
    // Built once at a small size, so that what the file lacks is said when it is opened.
    let network = network(architecture.network, config).map_err(refused)?;
    let mut trial = Graph::new();
    let [height, width] = preprocess.size.unwrap_or([64, 64]);
    let x = trial.input("x", [1, height, width, 3], DType::F32);
    network(&mut trial, source, x)?;
    all_read(path, architecture.name, &weights, &trial)?;

    let name = config.architecture.clone().unwrap_or_else(|| architecture.name.to_owned());
    let gives = architecture.gives;
    let mut model = VisionModel::new(&name, preprocess, labels, move |g, x| {
        let y = network(g, Source { weights: &weights, dtype: g.desc(x).dtype }, x)?;
        let name = match gives {
            Gives::Logits(_) => "logits",
            Gives::Map(_) => "map",
            Gives::Picture => "picture",
            Gives::Embedding => "embedding",
            Gives::Boxes(_) => return boxes::outputs(g, y),
        };
        Ok(vec![(name.to_owned(), y)])
    });
    if let Gives::Boxes(kind) = gives {
        model.candidates = kind.candidates;
    }
    Ok(model)
}

type Build = dyn Fn(&mut Graph, Source, ValueId) -> Result<ValueId> + Send + Sync;

/// The network, or what is missing to tell which it is.
fn network(network: Network, config: &Config) -> std::result::Result<Box<Build>, String> {
    match network {
        Network::Plain(build) => Ok(Box::new(build)),
        Network::TimmMobile => {
            let expected = "efficientnet_b0 to b8, efficientnet_lite0 to lite4, efficientnetv2_s and others, \
                mobilenetv2_100, mobilenetv3_large_100, mobilenetv3_small_100 and other widths, with or without tf_";
            let Some(called) = &config.architecture else {
                return Err(format!(
                    "has timm's names for EfficientNet and MobileNet, which leave open how it pads and what its \
                     activations are; {CONFIG} beside {WEIGHTS} must have \"architecture\", one of {expected}"
                ));
            };
            let variant = timm_mobile::variant(called).ok_or_else(|| {
                format!("is of the architecture {called}, which is not known; expected {expected}")
            })?;
            Ok(Box::new(move |g, w, x| timm_mobile::timm_mobile(g, w, x, &variant)))
        }
    }
}

/// How many scores the layer gives.
fn scores(w: Source, layer: &str) -> Result<usize> {
    let name = format!("{layer}.weight");
    match w.weights.shape(&name) {
        Some(shape) => Ok(shape.first().copied().unwrap_or(1)),
        None => Err(Error::MissingTensor {
            file: w.weights.file().to_owned(),
            name,
            expected: "of 2 or 4 dimensions".to_owned(),
        }),
    }
}

/// Refuses a file with tensors that the network left alone: it is a variant that shares the names
/// of the architecture and computes something else (squeeze and excitation, response norms …).
fn all_read(path: &Path, architecture: &str, weights: &Weights, network: &Graph) -> Result<()> {
    let read: std::collections::HashSet<&str> = network.values().map(|(_, v)| v.name.as_str()).collect();
    let mut names = weights.names();
    // How often a batch norm was trained, which nothing computes with.
    names.retain(|name| !read.contains(name) && !name.ends_with(".num_batches_tracked"));
    if names.is_empty() {
        return Ok(());
    }
    let some = names[..names.len().min(8)].join(", ");
    Err(Error::Format {
        path: path.to_owned(),
        message: format!(
            "is a variant of {architecture} that is not known: it also has {} tensors, {some}",
            names.len()
        ),
    })
}

fn unknown(path: PathBuf, weights: &Weights, config: &Config) -> Error {
    let names = weights.names();
    let some: Vec<&str> = names.iter().copied().take(4).collect();
    let mut known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
    known.dedup();
    let called = config.architecture.as_ref().map_or(String::new(), |a| format!(" called {a}"));
    Error::Format {
        path,
        message: format!(
            "holds no architecture that is known{called}: {} tensors, the first {}; expected the names of \
             torchvision or timm for one of {}",
            names.len(),
            some.join(", "),
            known.join(", ")
        ),
    }
}

/// How the architecture's library prepares pictures, unless the file says so itself.
fn preprocess(architecture: &Architecture, p: &Pretrained) -> Preprocess {
    let colours = |mean: [f32; 3], std: [f32; 3]| {
        (p.mean.clone().unwrap_or_else(|| mean.to_vec()), p.std.clone().unwrap_or_else(|| std.to_vec()))
    };
    let given = p.input_size.map(|[_, height, width]| [height, width]);
    let as_they_come = |multiple| (None, multiple, Fit::Stretch, colours([0.0; 3], [1.0; 3]));
    let (size, multiple, fit, (mean, std)) = match architecture.gives {
        Gives::Logits(_) => {
            let fit = match p.crop_mode.as_deref() {
                Some("squash") => Fit::Stretch,
                Some("border") => Fit::Letterbox { fill: 0.5 },
                _ => Fit::Crop { portion: p.crop_pct.unwrap_or(0.875) },
            };
            let imagenet = colours([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
            (Some(given.unwrap_or([224, 224])), 1, fit, imagenet)
        }
        Gives::Embedding => (Some(given.unwrap_or([112, 112])), 1, Fit::Stretch, colours([0.5; 3], [0.5; 3])),
        Gives::Map(_) => as_they_come(16),
        Gives::Boxes(kind) => {
            let [mean, std] = kind.colours;
            (Some(given.unwrap_or([kind.side; 2])), 1, kind.fit, colours([mean; 3], [std; 3]))
        }
        // TransformerNet reads numbers up to 255.
        Gives::Picture if architecture.name == "TransformerNet" => {
            (None, 4, Fit::Stretch, colours([0.0; 3], [1.0 / 255.0; 3]))
        }
        Gives::Picture => as_they_come(2),
    };
    let filter = match p.interpolation.as_deref() {
        Some("bicubic") => Filter::Bicubic,
        // As torchvision and OpenCV do.
        None if matches!(architecture.gives, Gives::Boxes(_)) => Filter::TwoTaps,
        _ => Filter::Bilinear,
    };
    Preprocess { size, multiple, fit, filter, mean, std, light_on_dark: false }
}

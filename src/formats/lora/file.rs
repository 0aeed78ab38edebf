//! A file of adapters, and how it is put on a model.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use super::key::{Key, PEFT, Part};
use super::layer::{Layer, Reading};
use super::modules::{Module, Modules};
use super::peft::PeftConfig;
use crate::error::{Error, Result};
use crate::files;
use crate::formats::safetensors;
use crate::weights::Weights;

/// Adapters of a model's layers: LoRA of linear layers and convolutions, LoHa, LoKr, whole differences.
#[derive(Clone, Debug)]
pub struct Lora {
    file: String,
    layers: Vec<Layer>,
    /// Names that are none of an adapter's.
    others: Vec<String>,
    configs: HashMap<Part, PeftConfig>,
}

/// How much of an adapter is added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    pub unet: f32,
    /// Of its layers in encoders of text.
    pub text: f32,
}

impl From<f32> for Strength {
    fn from(strength: f32) -> Self {
        Strength { unet: strength, text: strength }
    }
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Layers of the model that are changed.
    pub layers: usize,
    /// Tensors of the file that belong to nothing in the model, sorted.
    pub unmatched: Vec<String>,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} layers changed", self.layers)?;
        match self.unmatched.len() {
            0 => Ok(()),
            n => write!(f, "; {n} tensors belong to nothing in the model: {}", some(&self.unmatched)),
        }
    }
}

/// The first few names.
fn some(names: &[String]) -> String {
    const MOST: usize = 5;
    let more = if names.len() > MOST { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(MOST)].join(", "))
}

impl Lora {
    /// Maps a safetensors file. Alpha may also be in its metadata or, for files of PEFT alone, in `adapter_config.json`
    /// beside it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for kinds of adapters that this crate does not have, as DoRA; [`Error::Format`] for a file
    /// without any; those of [`Weights::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let weights = Weights::open(path)?;
        let mut layers: BTreeMap<(Part, String), Layer> = BTreeMap::new();
        let (mut others, mut unsupported) = (Vec::new(), Vec::new());
        for name in weights.names() {
            let Some(key) = Key::parse(name) else {
                others.push(name.to_owned());
                continue;
            };
            if key.role == "dora" {
                unsupported.push(format!("DoRA ({name})"));
                continue;
            }
            let shape = weights.shape(name).map(|shape| shape.to_vec()).unwrap_or_default();
            let tensor = weights.tensor(name, &shape)?;
            let empty = Layer { part: key.part, path: key.path.clone(), tensors: BTreeMap::new() };
            let layer = layers.entry((key.part, key.path.replace('.', "_"))).or_insert(empty);
            if let Some((other, _)) = layer.tensors.insert(key.role, (name.to_owned(), tensor)) {
                let message = format!("says the same of a layer twice: {other}, {name}");
                return Err(Error::Format { path: path.to_owned(), message });
            }
        }
        if !unsupported.is_empty() {
            let more = unsupported.len() - 1;
            unsupported.truncate(1);
            if more > 0 {
                unsupported.push(format!("{more} tensors more of its kind"));
            }
            return Err(Error::Unsupported { path: path.to_owned(), nodes: unsupported });
        }
        if layers.is_empty() {
            let message =
                format!("holds no adapter that this crate knows: its tensors are {}", some(&others));
            return Err(Error::Format { path: path.to_owned(), message });
        }
        let layers = layers.into_values().collect();
        let configs = configs(path, weights.names().iter().any(|name| name.starts_with(PEFT)))?;
        Ok(Lora { file: weights.file().to_owned(), layers, others, configs })
    }

    /// Where the adapters come from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Adds the adapters to the weights of a UNet, or a transformer, and of encoders of text in their order, T5 third,
    /// beside those that are there already; those of strength 0 are left out. Networks made of these weights from then on
    /// have them, and those that are made already once they are told ([`Network::reload`](crate::Network::reload),
    /// [`Painter::set_adapters`](crate::tasks::Painter::set_adapters)). [`Weights::without_adapters`] is the way back.
    ///
    /// # Errors
    /// [`Error::Format`] if no tensor belongs to the model, [`Error::WrongTensor`] and [`Error::MissingTensor`] for
    /// those that do not fit, [`Error::Unsupported`] for what else the file has for a layer, [`Error::Invalid`] for a
    /// strength that is no number. Then nothing is changed.
    pub fn apply(
        &self,
        unet: &mut Weights,
        encoders: &mut [&mut Weights],
        strength: impl Into<Strength>,
    ) -> Result<Applied> {
        let strength = strength.into();
        for value in [strength.unet, strength.text] {
            if !value.is_finite() {
                return Err(Error::Invalid {
                    what: format!("strength of {}", self.file),
                    expected: "a finite number".to_owned(),
                    found: value.to_string(),
                });
            }
        }
        let modules: Vec<Modules> = std::iter::once(Modules::of_unet(unet))
            .chain(encoders.iter().map(|weights| Modules::of_text(weights)))
            .collect();
        let strange: Vec<String> = self.others.iter().filter(|n| belongs(&modules, n)).cloned().collect();
        if !strange.is_empty() {
            return Err(Error::Unsupported { path: self.file.clone().into(), nodes: vec![some(&strange)] });
        }
        // Diffusers' names first: files that have a layer under both mean it once.
        let mut found: BTreeMap<(usize, &str), &Layer> = BTreeMap::new();
        let mut unmatched = self.others.clone();
        for of_checkpoint in [false, true] {
            for layer in &self.layers {
                match find(&modules, layer.part, &layer.path) {
                    Some((_, module)) if module.of_checkpoint != of_checkpoint => continue,
                    Some((network, module)) if !found.contains_key(&(network, &module.path)) => {
                        found.insert((network, &module.path), layer);
                    }
                    None if of_checkpoint => continue,
                    _ => unmatched.extend(layer.tensors.values().map(|(name, _)| name.clone())),
                }
            }
        }
        unmatched.sort();
        if found.is_empty() {
            let message = format!("no adapter belongs to a layer of this model: {}", some(&unmatched));
            return Err(Error::Format { path: self.file.clone().into(), message });
        }
        let mut deltas: Vec<Vec<_>> = modules.iter().map(|_| Vec::new()).collect();
        for (&(network, module), &layer) in &found {
            let (weights, strength) = match network.checked_sub(1) {
                None => (&*unet, strength.unet),
                Some(encoder) => (&*encoders[encoder], strength.text),
            };
            let config = self.configs.get(&layer.part).or_else(|| self.configs.get(&Part::Any));
            let reading = Reading { layer, file: &self.file, config };
            let all = reading.deltas(module, weights, f64::from(strength))?;
            deltas[network].extend(all.into_iter().filter(|_| strength != 0.0));
        }
        let networks = std::iter::once(unet).chain(encoders.iter_mut().map(|weights| &mut **weights));
        for (weights, deltas) in networks.zip(deltas) {
            *weights = weights.with_adapters(deltas);
        }
        Ok(Applied { layers: found.len(), unmatched })
    }
}

/// The network and its module that a layer of a file is for.
fn find<'a>(modules: &'a [Modules], part: Part, path: &str) -> Option<(usize, &'a Module)> {
    let at = |network: usize| Some((network, modules.get(network)?.find(path)?));
    match (part, modules.len()) {
        (Part::Unet, _) => at(0),
        (Part::Text(encoder), _) => at(1 + encoder),
        (Part::Any, 2) => at(0).or_else(|| at(1)),
        // Of two encoders of one kind it may be either's; T5's layers are called otherwise.
        (Part::Any, 4) => at(0).or_else(|| at(3)),
        (Part::Any, _) => at(0),
    }
}

/// Whether a name that is none of an adapter's begins as a module's does.
fn belongs(modules: &[Modules], name: &str) -> bool {
    Key::beginnings(name).iter().any(|(part, path)| find(modules, *part, path).is_some())
}

/// PEFT's settings for each part, out of the file's metadata or, for a file of PEFT alone, beside it.
fn configs(path: &Path, of_peft: bool) -> Result<HashMap<Part, PeftConfig>> {
    let mut configs = HashMap::new();
    let mut add = |file: &Path, text: &str, parts: &[(&str, Part)]| {
        let settings: Map<String, Value> = serde_json::from_str(text).map_err(|e| Error::Format {
            path: file.to_owned(),
            message: format!("settings of PEFT: {e}"),
        })?;
        for (prefix, part) in parts {
            let config = PeftConfig::of(&settings, prefix)
                .map_err(|what| Error::Unsupported { path: file.to_owned(), nodes: vec![what] })?;
            configs.extend(config.map(|config| (*part, config)));
        }
        Ok::<(), Error>(())
    };
    if let Some(text) = safetensors::metadata(path)?.get("lora_adapter_metadata") {
        let parts = [
            ("unet.", Part::Unet),
            ("transformer.", Part::Unet),
            ("text_encoder.", Part::Text(0)),
            ("text_encoder_2.", Part::Text(1)),
            ("text_encoder_3.", Part::Text(2)),
        ];
        add(path, text, &parts)?;
    }
    let beside = path.with_file_name("adapter_config.json");
    if of_peft && beside.is_file() {
        add(&beside, &files::text(&beside)?, &[("", Part::Any)])?;
    }
    Ok(configs)
}

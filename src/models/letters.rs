//! The two bundled models: one draws capital letters and digits, one reads them.
//! How they were trained is in `training/`.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::models::vision::{Filter, Fit, Preprocess, VisionModel};
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::pool::PoolKind;
use crate::weights::Weights;

/// `A`–`Z`, then `0`–`9`; one class more of the UNet stands for "no label".
pub fn labels() -> Vec<String> {
    ('A'..='Z').chain('0'..='9').map(String::from).collect()
}

/// The files of a model in a folder of diffusers' layout.
pub struct UNetFiles {
    pub config: &'static str,
    pub scheduler: &'static str,
    weights: &'static [u8],
}

/// 1.5 million parameters; pictures of 32 × 32, grey, ink +1 on −1.
pub const UNET: UNetFiles = UNetFiles {
    config: include_str!("../../models/letters-unet/config.json"),
    scheduler: include_str!("../../models/letters-unet/scheduler_config.json"),
    weights: include_bytes!("../../models/letters-unet/diffusion_pytorch_model.safetensors"),
};

impl UNetFiles {
    pub fn weights(&self) -> Result<Weights> {
        Weights::from_static("letters-unet", self.weights)
    }
}

const CLASSIFIER_CONFIG: &str = include_str!("../../models/letters-classifier/config.json");
const CLASSIFIER_WEIGHTS: &[u8] = include_bytes!("../../models/letters-classifier/model.safetensors");

/// What a folder of a letters classifier says of it.
#[derive(Clone, Debug, Deserialize)]
pub struct ClassifierConfig {
    pub image_size: [usize; 2],
    pub widths: [usize; 3],
    pub batch_norm_eps: f32,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    pub labels: Vec<String>,
}

/// The bundled classifier, 264 thousand parameters.
pub fn classifier_files() -> Result<(ClassifierConfig, Weights)> {
    let config = serde_json::from_str(CLASSIFIER_CONFIG).map_err(|e| Error::Format {
        path: "letters-classifier/config.json".into(),
        message: e.to_string(),
    })?;
    Ok((config, Weights::from_static("letters-classifier", CLASSIFIER_WEIGHTS)?))
}

/// The bundled classifier with what it needs to read pictures.
///
/// # Errors
/// [`Error::Format`] if the bundled files are not what they should be.
pub fn letters_classifier() -> Result<VisionModel> {
    let (config, weights) = classifier_files()?;
    let preprocess = Preprocess {
        size: Some(config.image_size),
        multiple: 1,
        fit: Fit::Stretch,
        filter: Filter::Bilinear,
        mean: config.mean.clone(),
        std: config.std.clone(),
        light_on_dark: true,
    };
    Ok(VisionModel::new("letters-classifier", preprocess, config.labels.clone(), move |g, x| {
        let w = Source { weights: &weights, dtype: g.desc(x).dtype };
        Ok(vec![("logits".into(), classifier(g, &config, w, x)?)])
    }))
}

/// The network: `x` `[n, h, w, 1]`, ink bright; the result is a score for each label, `[n, labels]`.
pub fn classifier(g: &mut Graph, config: &ClassifierConfig, w: Source, x: ValueId) -> Result<ValueId> {
    let [a, b, c] = config.widths;
    let eps = config.batch_norm_eps;

    let x = conv_norm(g, w, "stem", x, a, 1, eps)?;
    let x = g.relu(x)?;
    let x = conv_norm(g, w, "down1", x, b, 2, eps)?;
    let x = g.relu(x)?;
    let x = block(g, w, "block1", x, eps)?;
    let x = conv_norm(g, w, "down2", x, c, 2, eps)?;
    let x = g.relu(x)?;
    let x = block(g, w, "block2", x, eps)?;

    let x = g.global_pool(x, PoolKind::Mean { include_pad: false })?;
    let n = g.shape(x)[0];
    let x = g.reshape(x, [n, c])?;
    w.linear(g, "fc", x, config.labels.len())
}

/// `relu(x + cb(relu(cb(x))))`
fn block(g: &mut Graph, w: Source, name: &str, x: ValueId, eps: f32) -> Result<ValueId> {
    let c = g.shape(x).last();
    let h = conv_norm(g, w, &format!("{name}.a"), x, c, 1, eps)?;
    let h = g.relu(h)?;
    let h = conv_norm(g, w, &format!("{name}.b"), h, c, 1, eps)?;
    let sum = g.add(h, x)?;
    g.relu(sum)
}

/// 3×3 convolution without bias, then batch norm.
fn conv_norm(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    c_out: usize,
    stride: usize,
    eps: f32,
) -> Result<ValueId> {
    let c_in = g.shape(x).last();
    let weight = w.get(g, &format!("{name}.conv.weight"), &[c_out, c_in, 3, 3])?;
    let mut vector = |part: &str| w.get(g, &format!("{name}.bn.{part}"), &[c_out]);
    let [gamma, beta] = [vector("weight")?, vector("bias")?];
    let [mean, variance] = [vector("running_mean")?, vector("running_var")?];
    g.scoped(name, |g| {
        let h = g.conv2d(x, weight, None, Conv2dOptions::padded(1).stride(stride))?;
        g.batch_norm(h, gamma, beta, mean, variance, eps)
    })
}

//! The bundled segmentation network, 128 thousand parameters: which pixels are of capital letters and digits. How it
//! was trained is in `training/`.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::models::bundled;
use crate::models::vision::VisionModel;
use crate::nn::Source;
use crate::ops::conv_transpose2d::ConvTranspose2dOptions;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::pool::PoolOptions;
use crate::weights::Weights;

const WEIGHTS: &[u8] = include_bytes!("../../models/letters-segmenter/model.safetensors");
const WIDTHS: [usize; 5] = [8, 16, 24, 32, 48];
const CLASSES: [&str; 2] = ["background", "character"];

/// Capitals and digits of 12 to 96 pixels in pictures of any size.
///
/// # Errors
/// [`crate::Error::Format`] if the bundled file is not what it should be.
pub fn letters_segmenter() -> Result<VisionModel> {
    let weights = Weights::from_static("letters-segmenter", WEIGHTS)?;
    let labels = CLASSES.map(String::from).to_vec();
    Ok(VisionModel::new("letters-segmenter", bundled::as_they_come(16), labels, move |g, x| {
        let w = Source { weights: &weights, dtype: g.desc(x).dtype };
        Ok(vec![("map".into(), network(g, w, x)?)])
    }))
}

/// U-Net (Ronneberger et al. 2015), names as in milesial/Pytorch-UNet: `x` `[n, h, w, 3]`, sides multiples of 16 →
/// scores `[n, h, w, 2]`.
pub fn network(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let mut skips = vec![double_conv(g, w, "inc", x, WIDTHS[0])?];
    for (i, &width) in WIDTHS.iter().enumerate().skip(1) {
        let h = g.max_pool(skips[i - 1], PoolOptions::square(2))?;
        skips.push(double_conv(g, w, &format!("down{i}.maxpool_conv.1"), h, width)?);
    }
    let mut h = skips[WIDTHS.len() - 1];
    for (i, level) in (0..WIDTHS.len() - 1).rev().enumerate() {
        let name = format!("up{}", i + 1);
        let large = up(g, w, &format!("{name}.up"), h, WIDTHS[level])?;
        let both = g.concat(&[skips[level], large], 3)?;
        h = double_conv(g, w, &format!("{name}.conv"), both, WIDTHS[level])?;
    }
    w.conv(g, "outc.conv", h, CLASSES.len(), 1, Conv2dOptions::default())
}

/// Twice a 3×3 convolution, batch norm and ReLU.
fn double_conv(g: &mut Graph, w: Source, name: &str, x: ValueId, c_out: usize) -> Result<ValueId> {
    let mut h = x;
    for [conv, norm] in [[0, 1], [3, 4]] {
        let c_in = g.shape(h).last();
        let weight = w.get(g, &format!("{name}.double_conv.{conv}.weight"), &[c_out, c_in, 3, 3])?;
        let mut vector = |part: &str| w.get(g, &format!("{name}.double_conv.{norm}.{part}"), &[c_out]);
        let [gamma, beta] = [vector("weight")?, vector("bias")?];
        let [mean, variance] = [vector("running_mean")?, vector("running_var")?];
        h = g.scoped(&format!("{name}.double_conv.{conv}"), |g| {
            let h = g.conv2d(h, weight, None, Conv2dOptions::padded(1))?;
            let h = g.batch_norm(h, gamma, beta, mean, variance, 1e-5)?;
            g.relu(h)
        })?;
    }
    Ok(h)
}

/// A transposed convolution of 2×2, stride two.
fn up(g: &mut Graph, w: Source, name: &str, x: ValueId, c_out: usize) -> Result<ValueId> {
    let c_in = g.shape(x).last();
    let weight = w.get(g, &format!("{name}.weight"), &[c_in, c_out, 2, 2])?;
    let bias = w.get(g, &format!("{name}.bias"), &[c_out])?;
    let options = ConvTranspose2dOptions { stride: [2; 2], ..Default::default() };
    g.scoped(name, |g| g.conv_transpose2d(x, weight, Some(bias), options))
}

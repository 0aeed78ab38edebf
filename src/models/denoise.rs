//! The bundled denoiser, 154 thousand parameters: Gaussian noise of any strength up to σ = 55 of 255, which it is
//! not told. How it was trained is in `training/`.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::models::bundled;
use crate::models::vision::VisionModel;
use crate::nn::Source;
use crate::ops::conv_transpose2d::ConvTranspose2dOptions;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::Binary;
use crate::weights::Weights;

const WEIGHTS: &[u8] = include_bytes!("../../models/denoise/model.safetensors");
const WIDTHS: [usize; 3] = [32, 40, 40];

/// Pictures of any size, with less noise.
///
/// # Errors
/// [`crate::Error::Format`] if the bundled file is not what it should be.
pub fn denoise() -> Result<VisionModel> {
    let weights = Weights::from_static("denoise", WEIGHTS)?;
    Ok(VisionModel::new("denoise", bundled::as_they_come(8), vec![], move |g, x| {
        let w = Source { weights: &weights, dtype: g.desc(x).dtype };
        Ok(vec![("picture".into(), network(g, w, x)?)])
    }))
}

/// A narrow DRUNet (Zhang et al. 2021) on every second pixel, which predicts the noise: `x` `[n, h, w, 3]`, sides
/// multiples of 8 → `[n, h, w, 3]`.
pub fn network(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let [a, b, c] = WIDTHS;
    let h = g.pixel_unshuffle(x, 2)?;
    let h = w.conv(g, "head", h, a, 3, Conv2dOptions::padded(1))?;
    let h1 = residual(g, w, "enc1", h)?;
    let h = w.conv(g, "down1", h1, b, 2, Conv2dOptions::default().stride(2))?;
    let h2 = residual(g, w, "enc2", h)?;
    let h = w.conv(g, "down2", h2, c, 2, Conv2dOptions::default().stride(2))?;
    let h = residual(g, w, "mid", h)?;
    let h = up(g, w, "up2", h, b)?;
    let h = g.add(h, h2)?;
    let h = residual(g, w, "dec2", h)?;
    let h = up(g, w, "up1", h, a)?;
    let h = g.add(h, h1)?;
    let h = residual(g, w, "dec1", h)?;
    let h = w.conv(g, "tail", h, 12, 3, Conv2dOptions::padded(1))?;
    let noise = g.pixel_shuffle(h, 2)?;
    g.binary(Binary::Sub, x, noise)
}

/// `x + b(relu(a(x)))`
fn residual(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let width = g.shape(x).last();
    let h = w.conv(g, &format!("{name}.a"), x, width, 3, Conv2dOptions::padded(1))?;
    let h = g.relu(h)?;
    let h = w.conv(g, &format!("{name}.b"), h, width, 3, Conv2dOptions::padded(1))?;
    g.add(h, x)
}

/// A transposed convolution of 2×2, stride two.
fn up(g: &mut Graph, w: Source, name: &str, x: ValueId, c_out: usize) -> Result<ValueId> {
    let c_in = g.shape(x).last();
    let weight = w.get(g, &format!("{name}.weight"), &[c_in, c_out, 2, 2])?;
    let bias = w.get(g, &format!("{name}.bias"), &[c_out])?;
    let options = ConvTranspose2dOptions { stride: [2; 2], ..Default::default() };
    g.scoped(name, |g| g.conv_transpose2d(x, weight, Some(bias), options))
}

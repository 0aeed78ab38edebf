//! The bundled ×2 super-resolution network, 94 thousand parameters. How it was trained is in `training/`.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::models::bundled;
use crate::models::vision::VisionModel;
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::resize::{Coordinates, Interpolation, Resize};
use crate::weights::Weights;

const WEIGHTS: &[u8] = include_bytes!("../../models/upscale-x2/model.safetensors");
const WIDTH: usize = 40;
const BLOCKS: usize = 3;

/// Pictures of any size, at twice their height and width.
///
/// # Errors
/// [`crate::Error::Format`] if the bundled file is not what it should be.
pub fn upscale_x2() -> Result<VisionModel> {
    let weights = Weights::from_static("upscale-x2", WEIGHTS)?;
    Ok(VisionModel::new("upscale-x2", bundled::as_they_come(1), vec![], move |g, x| {
        let w = Source { weights: &weights, dtype: g.desc(x).dtype };
        Ok(vec![("picture".into(), network(g, w, x)?)])
    }))
}

/// Residual blocks at the low resolution, then a sub-pixel convolution (Shi et al. 2016), whose result is added to
/// the bilinear enlargement: `x` `[n, h, w, 3]` → `[n, 2h, 2w, 3]`.
pub fn network(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let [h_size, w_size] = [g.shape(x)[1], g.shape(x)[2]];
    let h = w.conv(g, "head", x, WIDTH, 5, Conv2dOptions::padded(2))?;
    let mut h = g.relu(h)?;
    for i in 0..BLOCKS {
        let r = w.conv(g, &format!("blocks.{i}.a"), h, WIDTH, 3, Conv2dOptions::padded(1))?;
        let r = g.relu(r)?;
        let r = w.conv(g, &format!("blocks.{i}.b"), r, WIDTH, 3, Conv2dOptions::padded(1))?;
        h = g.add(r, h)?;
    }
    let h = w.conv(g, "tail", h, 12, 3, Conv2dOptions::padded(1))?;
    let detail = g.pixel_shuffle(h, 2)?;
    let resize = Resize {
        size: [2 * h_size, 2 * w_size],
        interpolation: Interpolation::Bilinear,
        coordinates: Coordinates::HalfPixel,
    };
    let large = g.push(resize, &[x])?;
    g.add(large, detail)
}

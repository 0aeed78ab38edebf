//! The bundled style network, 122 thousand parameters: a photograph as an engraving. How it was trained is in `training/`.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::models::bundled;
use crate::models::vision::VisionModel;
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::Expr;
use crate::ops::pad::PadMode;
use crate::weights::Weights;

const WEIGHTS: &[u8] = include_bytes!("../../models/style-engraving/model.safetensors");

/// Pictures of any size of at least 16 pixels a side.
///
/// # Errors
/// [`crate::Error::Format`] if the bundled file is not what it should be.
pub fn style_engraving() -> Result<VisionModel> {
    let weights = Weights::from_static("style-engraving", WEIGHTS)?;
    let mut preprocess = bundled::as_they_come(4);
    preprocess.std = vec![1.0 / 255.0; 3];
    Ok(VisionModel::new("style-engraving", preprocess, vec![], move |g, x| {
        let w = Source { weights: &weights, dtype: g.desc(x).dtype };
        Ok(vec![("picture".into(), picture(g, w, x)?)])
    }))
}

/// What the network makes of `x`, from 0 to 1.
pub fn picture(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let y = network(g, w, x)?;
    let picture = g.affine(y, 1.0 / 255.0, 0.0)?;
    g.elementwise(Expr::clamp(Expr::input(0), 0.0, 1.0), &[picture])
}

/// The feed-forward style network (Johnson et al. 2016) with instance norm, names as in PyTorch's
/// `fast_neural_style` example: `x` `[n, h, w, 3]` from 0 to 255, sides multiples of 4 → the same.
pub fn network(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let width = |name: &str| -> Result<usize> { Ok(w.stored::<4>(&format!("{name}.conv2d"))?[0]) };
    let [a, b, c] = [width("conv1")?, width("conv2")?, width("conv3")?];
    let h = conv(g, w, "conv1", x, a, 9, 1)?;
    let h = norm(g, w, "in1", h)?;
    let h = g.relu(h)?;
    let h = conv(g, w, "conv2", h, b, 3, 2)?;
    let h = norm(g, w, "in2", h)?;
    let h = g.relu(h)?;
    let h = conv(g, w, "conv3", h, c, 3, 2)?;
    let h = norm(g, w, "in3", h)?;
    let mut h = g.relu(h)?;
    for i in 1..=5 {
        h = residual(g, w, &format!("res{i}"), h)?;
    }
    for (i, width) in [(1, b), (2, a)] {
        let large = g.upsample_nearest(h, 2)?;
        let y = conv(g, w, &format!("deconv{i}"), large, width, 3, 1)?;
        let y = norm(g, w, &format!("in{}", i + 3), y)?;
        h = g.relu(y)?;
    }
    conv(g, w, "deconv3", h, 3, 9, 1)
}

/// `x + in2(conv2(relu(in1(conv1(x)))))`
fn residual(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let width = g.shape(x).last();
    let h = conv(g, w, &format!("{name}.conv1"), x, width, 3, 1)?;
    let h = norm(g, w, &format!("{name}.in1"), h)?;
    let h = g.relu(h)?;
    let h = conv(g, w, &format!("{name}.conv2"), h, width, 3, 1)?;
    let h = norm(g, w, &format!("{name}.in2"), h)?;
    g.add(h, x)
}

/// A convolution over the picture mirrored at its border.
fn conv(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    c_out: usize,
    kernel: usize,
    stride: usize,
) -> Result<ValueId> {
    let border = [kernel / 2; 2];
    let x = g.scoped(name, |g| g.pad(x, &[[0; 2], border, border, [0; 2]], PadMode::Reflect))?;
    w.conv(g, &format!("{name}.conv2d"), x, c_out, kernel, Conv2dOptions::default().stride(stride))
}

fn norm(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let c = g.shape(x).last();
    let weight = w.get(g, &format!("{name}.weight"), &[c])?;
    let bias = w.get(g, &format!("{name}.bias"), &[c])?;
    g.scoped(name, |g| g.instance_norm(x, Some(weight), Some(bias), 1e-5))
}

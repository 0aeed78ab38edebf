//! ConvNeXt (Liu et al. 2022) in torchvision's naming and in timm's.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{Source, mean_of_pixels};
use crate::ops::expr::Unary;

/// Of the layer norms; the widest, which only timm has, was trained with another.
fn eps(stem_width: usize) -> f32 {
    if stem_width == 384 { 1e-5 } else { 1e-6 }
}

/// Where a library keeps the parts of the network.
struct Names {
    /// Convolution and norm of the stem.
    stem: [&'static str; 2],
    stage: fn(usize) -> String,
    /// Norm and convolution before a stage.
    downsample: fn(usize) -> [String; 2],
    /// Depthwise convolution, norm, the two linear layers and the scale of a block.
    block: [&'static str; 5],
    /// Norm and linear layer.
    head: [&'static str; 2],
}

const TORCHVISION: Names = Names {
    stem: ["features.0.0", "features.0.1"],
    stage: |s| format!("features.{}", 2 * s + 1),
    downsample: |s| ["0", "1"].map(|part| format!("features.{}.{part}", 2 * s)),
    block: ["block.0", "block.2", "block.3", "block.5", "layer_scale"],
    head: ["classifier.0", "classifier.2"],
};

const TIMM: Names = Names {
    stem: ["stem.0", "stem.1"],
    stage: |s| format!("stages.{s}.blocks"),
    downsample: |s| ["0", "1"].map(|part| format!("stages.{s}.downsample.{part}")),
    block: ["conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"],
    head: ["head.norm", "head.fc"],
};

/// Scores `[n, classes]` for `x` `[n, h, w, 3]`.
pub fn convnext(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let names = if w.has("stem.0.weight") { TIMM } else { TORCHVISION };
    let [width, _, patch, _] = w.stored(names.stem[0])?;
    let eps = eps(width);
    let x = w.stored_conv_padded(g, names.stem[0], x, patch, [0; 4])?;
    let mut x = w.layer_norm(g, names.stem[1], x, eps)?;
    for s in 0..4 {
        let [norm, conv] = (names.downsample)(s);
        if s > 0 && w.has(&format!("{conv}.weight")) {
            x = w.layer_norm(g, &norm, x, eps)?;
            x = w.stored_conv_padded(g, &conv, x, 2, [0; 4])?;
        }
        let stage = (names.stage)(s);
        let mut i = 0;
        while w.has(&format!("{stage}.{i}.{}.weight", names.block[0])) {
            x = block(g, w, &names, &format!("{stage}.{i}"), x, eps)?;
            i += 1;
        }
    }
    let x = g.scoped("avgpool", |g| mean_of_pixels(g, x))?;
    let x = w.layer_norm(g, names.head[0], x, eps)?;
    w.stored_linear(g, names.head[1], x)
}

/// `x + scale · linear(gelu(linear(norm(depthwise(x)))))`
fn block(g: &mut Graph, w: Source, names: &Names, name: &str, x: ValueId, eps: f32) -> Result<ValueId> {
    let at = |i: usize| format!("{name}.{}", names.block[i]);
    let h = w.stored_conv(g, &at(0), x, 1)?;
    let h = w.layer_norm(g, &at(1), h, eps)?;
    let h = dense(g, w, &at(2), h)?;
    let h = g.scoped(&at(2), |g| g.unary(Unary::Gelu, h))?;
    let h = dense(g, w, &at(3), h)?;
    let c = g.shape(x).last();
    let scale = match w.weights.shape(&at(4)).map(|s| s.to_vec()) {
        Some(shape) => {
            let scale = w.get(g, &at(4), &shape)?;
            Some(g.reshape(scale, [c])?)
        }
        None => None,
    };
    g.scoped(name, |g| {
        let h = match scale {
            Some(scale) => g.mul(h, scale)?,
            None => h,
        };
        g.add(h, x)
    })
}

/// A linear layer of all pixels, which timm's small variants keep as a 1×1 convolution.
fn dense(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    match w.weights.shape(&format!("{name}.weight")).map(|s| s.len()) {
        Some(4) => w.stored_conv(g, name, x, 1),
        _ => w.stored_linear(g, name, x),
    }
}

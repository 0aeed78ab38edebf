//! MobileNetV2 (Sandler et al. 2018) and MobileNetV3 (Howard et al. 2019) in torchvision's naming.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{Source, mean_of_pixels};
use crate::ops::expr::Unary;

const RELU6: Unary = Unary::Clamp(0.0, 6.0);

/// Strides of MobileNetV2's blocks.
const V2_STRIDES: [usize; 17] = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1];

/// Scores `[n, classes]` for `x` `[n, h, w, 3]`.
pub fn mobilenet_v2(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    const EPS: f32 = 1e-5;
    let mut x = w.conv_norm(g, ["features.0.0", "features.0.1"], x, 2, EPS, Some(RELU6))?;
    for (i, &stride) in V2_STRIDES.iter().enumerate() {
        let at = |part: &str| format!("features.{}.conv.{part}", i + 1);
        // The first block has nothing to expand.
        let expands = w.has(&at("1.0.weight"));
        let mut h = x;
        if expands {
            h = w.conv_norm(g, [&at("0.0"), &at("0.1")], h, 1, EPS, Some(RELU6))?;
        }
        let (depthwise, project) =
            if expands { ("1", [at("2"), at("3")]) } else { ("0", [at("1"), at("2")]) };
        let [conv, norm] = ["0", "1"].map(|part| at(&format!("{depthwise}.{part}")));
        h = w.conv_norm(g, [&conv, &norm], h, stride, EPS, Some(RELU6))?;
        h = w.conv_norm(g, [&project[0], &project[1]], h, 1, EPS, None)?;
        x = residual(g, &format!("features.{}", i + 1), h, x)?;
    }
    let x = w.conv_norm(g, ["features.18.0", "features.18.1"], x, 1, EPS, Some(RELU6))?;
    let x = g.scoped("avgpool", |g| mean_of_pixels(g, x))?;
    w.stored_linear(g, "classifier.1", x)
}

/// Of MobileNetV3's blocks: stride, and whether the activation is hard swish instead of ReLU.
const LARGE: [(usize, bool); 15] = [
    (1, false),
    (2, false),
    (1, false),
    (2, false),
    (1, false),
    (1, false),
    (2, true),
    (1, true),
    (1, true),
    (1, true),
    (1, true),
    (1, true),
    (2, true),
    (1, true),
    (1, true),
];
const SMALL: [(usize, bool); 11] = [
    (2, false),
    (2, false),
    (1, false),
    (2, true),
    (1, true),
    (1, true),
    (1, true),
    (1, true),
    (2, true),
    (1, true),
    (1, true),
];

/// Scores `[n, classes]` for `x` `[n, h, w, 3]`; large or small, as the file is.
pub fn mobilenet_v3(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    const EPS: f32 = 1e-3;
    let hard_swish = Some(Unary::HardSwish);
    let mut x = w.conv_norm(g, ["features.0.0", "features.0.1"], x, 2, EPS, hard_swish)?;
    let blocks: &[(usize, bool)] = if w.has("features.16.0.weight") { &LARGE } else { &SMALL };
    for (i, &(stride, swish)) in blocks.iter().enumerate() {
        let activation = if swish { Unary::HardSwish } else { Unary::Relu };
        x = inverted_residual(
            g,
            w,
            &format!("features.{}", i + 1),
            x,
            &Inverted { stride, activation, gate: [Unary::Relu, Unary::HardSigmoid], eps: EPS },
        )?;
    }
    let last = format!("features.{}", blocks.len() + 1);
    let x = w.conv_norm(g, [&format!("{last}.0"), &format!("{last}.1")], x, 1, EPS, hard_swish)?;
    let x = g.scoped("avgpool", |g| mean_of_pixels(g, x))?;
    let h = w.stored_linear(g, "classifier.0", x)?;
    let h = g.scoped("classifier.0", |g| g.unary(Unary::HardSwish, h))?;
    w.stored_linear(g, "classifier.3", h)
}

/// What differs between inverted residuals.
pub(super) struct Inverted {
    pub stride: usize,
    pub activation: Unary,
    /// Of the squeeze and excitation: after the reduction, and of the scales.
    pub gate: [Unary; 2],
    pub eps: f32,
}

/// `NAME.block.0`, `.1` …: expansion, depthwise convolution, squeeze and excitation, projection,
/// those that the file has; and `x` itself added where the shape allows.
pub(super) fn inverted_residual(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    o: &Inverted,
) -> Result<ValueId> {
    let at = |j: usize, part: &str| format!("{name}.block.{j}.{part}");
    let count = (0..).take_while(|&j| w.has(&at(j, "0.weight")) || w.has(&at(j, "fc1.weight"))).count();
    // The stride is the widest kernel's; the last convolution has no activation.
    let kernel = |j: usize| w.weights.shape(&at(j, "0.weight")).map_or(0, |s| s.last());
    let widest = (0..count).map(kernel).max().unwrap_or(1);
    let strided = (0..count).find(|&j| kernel(j) == widest);
    let mut h = x;
    for j in 0..count {
        h = match w.has(&at(j, "fc1.weight")) {
            true => w.squeeze_excitation(g, [&at(j, "fc1"), &at(j, "fc2")], h, o.gate[0], o.gate[1])?,
            false => {
                let stride = if strided == Some(j) { o.stride } else { 1 };
                let activation = (j + 1 < count || count == 1).then_some(o.activation);
                w.conv_norm(g, [&at(j, "0"), &at(j, "1")], h, stride, o.eps, activation)?
            }
        };
    }
    residual(g, name, h, x)
}

/// `h + x` where both have one shape, else `h`.
pub(super) fn residual(g: &mut Graph, name: &str, h: ValueId, x: ValueId) -> Result<ValueId> {
    match g.shape(h) == g.shape(x) {
        true => g.scoped(name, |g| g.add(h, x)),
        false => Ok(h),
    }
}

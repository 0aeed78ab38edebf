//! EfficientNet B0–B7 (Tan and Le 2019) and V2 (2021) in torchvision's naming.

use super::mobilenet::{Inverted, inverted_residual};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{Source, mean_of_pixels};
use crate::ops::expr::Unary;

/// Strides of the stages' first blocks; V2's smaller variants have one stage less.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];

/// Scores `[n, classes]` for `x` `[n, h, w, 3]`. `eps` of the batch norms is not in the file:
/// 1e-5 for B0 to B4, 1e-3 for the others (see [`eps`]).
pub fn efficientnet(g: &mut Graph, w: Source, x: ValueId, eps: f32) -> Result<ValueId> {
    let silu = Some(Unary::Silu);
    let mut x = w.conv_norm(g, ["features.0.0", "features.0.1"], x, 2, eps, silu)?;
    let stages = (1..).take_while(|s| w.has(&format!("features.{s}.0.block.0.0.weight"))).count();
    for (s, &first) in STRIDES.iter().enumerate().take(stages) {
        let mut i = 0;
        while w.has(&format!("features.{}.{i}.block.0.0.weight", s + 1)) {
            let stride = if i == 0 { first } else { 1 };
            let o = Inverted { stride, activation: Unary::Silu, gate: [Unary::Silu, Unary::Sigmoid], eps };
            x = inverted_residual(g, w, &format!("features.{}.{i}", s + 1), x, &o)?;
            i += 1;
        }
    }
    let last = format!("features.{}", stages + 1);
    let x = w.conv_norm(g, [&format!("{last}.0"), &format!("{last}.1")], x, 1, eps, silu)?;
    let x = g.scoped("avgpool", |g| mean_of_pixels(g, x))?;
    w.stored_linear(g, "classifier.1", x)
}

/// The eps of torchvision's batch norms: by the width of the last stage, and for V2, whose first
/// stage is of dense convolutions instead of depthwise ones.
pub fn eps(w: Source) -> f32 {
    let head = w.weights.shape("classifier.1.weight").map_or(0, |s| s.last());
    let fused = w.weights.shape("features.1.0.block.0.0.weight").is_some_and(|s| s.len() == 4 && s[1] > 1);
    if head > 1792 || fused { 1e-3 } else { 1e-5 }
}

//! DenseNet (Huang et al. 2017) in torchvision's and timm's naming.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{Source, mean_of_pixels};
use crate::ops::expr::Unary;
use crate::ops::pool::PoolOptions;

const EPS: f32 = 1e-5;

/// Scores `[n, classes]` for `x` `[n, h, w, 3]`.
pub fn densenet(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let x = w.conv_norm(g, ["features.conv0", "features.norm0"], x, 2, EPS, Some(Unary::Relu))?;
    let pool = PoolOptions { stride: [2; 2], padding: [1; 4], ..PoolOptions::square(3) };
    let mut x = g.scoped("features.pool0", |g| g.max_pool(x, pool))?;
    let mut block = 1;
    while w.has(&format!("features.denseblock{block}.denselayer1.conv1.weight")) {
        let mut layer = 1;
        loop {
            let name = format!("features.denseblock{block}.denselayer{layer}");
            if !w.has(&format!("{name}.conv1.weight")) {
                break;
            }
            // Each layer reads what all before it made.
            let h = norm_relu_conv(g, w, [&format!("{name}.norm1"), &format!("{name}.conv1")], x)?;
            let h = norm_relu_conv(g, w, [&format!("{name}.norm2"), &format!("{name}.conv2")], h)?;
            x = g.scoped(&name, |g| g.concat(&[x, h], 3))?;
            layer += 1;
        }
        let name = format!("features.transition{block}");
        if w.has(&format!("{name}.conv.weight")) {
            let h = norm_relu_conv(g, w, [&format!("{name}.norm"), &format!("{name}.conv")], x)?;
            x = g.scoped(&format!("{name}.pool"), |g| g.average_pool(h, PoolOptions::square(2), false))?;
        }
        block += 1;
    }
    let x = norm_relu(g, w, "features.norm5", x)?;
    let x = g.scoped("avgpool", |g| mean_of_pixels(g, x))?;
    w.stored_linear(g, "classifier", x)
}

fn norm_relu(g: &mut Graph, w: Source, norm: &str, x: ValueId) -> Result<ValueId> {
    let h = w.batch_norm(g, norm, x, EPS)?;
    g.scoped(norm, |g| g.relu(h))
}

fn norm_relu_conv(g: &mut Graph, w: Source, [norm, conv]: [&str; 2], x: ValueId) -> Result<ValueId> {
    let h = norm_relu(g, w, norm, x)?;
    w.stored_conv(g, conv, h, 1)
}

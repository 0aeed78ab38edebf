//! VGG (Simonyan and Zisserman 2015) in torchvision's naming, with or without batch norm.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::Unary;
use crate::ops::pool::{PoolKind, PoolOptions};

/// Scores `[n, classes]` for `x` `[n, h, w, 3]`.
pub fn vgg(g: &mut Graph, w: Source, mut x: ValueId) -> Result<ValueId> {
    let is_conv = |i: usize| w.weights.shape(&format!("features.{i}.weight")).is_some_and(|s| s.len() == 4);
    let convs: Vec<usize> = (0..64).filter(|&i| is_conv(i)).collect();
    for (k, &i) in convs.iter().enumerate() {
        let (conv, norm) = (format!("features.{i}"), format!("features.{}", i + 1));
        let normed = w.has(&format!("{norm}.running_mean"));
        x = match normed {
            true => w.conv_norm(g, [&conv, &norm], x, 1, 1e-5, Some(Unary::Relu))?,
            false => {
                let h = w.stored_conv(g, &conv, x, 1)?;
                g.scoped(&conv, |g| g.relu(h))?
            }
        };
        // A number left out between a block's last activation and the next convolution is a pool's.
        let after_relu = i + if normed { 3 } else { 2 };
        if convs.get(k + 1).is_none_or(|&next| next > after_relu) {
            x = g.scoped(&format!("features.{after_relu}"), |g| g.max_pool(x, PoolOptions::square(2)))?;
        }
    }
    let [n, _, _, c] = g.shape(x)[..] else { unreachable!("pools keep feature maps") };
    let x = g.scoped("avgpool", |g| g.adaptive_pool(x, [7, 7], PoolKind::Mean { include_pad: false }))?;

    // The first fully connected layer reads channel by channel: a convolution with one window.
    let [width, _] = w.stored("classifier.0")?;
    let weight = w.get(g, "classifier.0.weight", &[width, c * 49])?;
    let bias = w.get(g, "classifier.0.bias", &[width])?;
    let h = g.scoped("classifier.0", |g| {
        let weight = g.reshape(weight, [width, c, 7, 7])?;
        let h = g.conv2d(x, weight, Some(bias), Conv2dOptions::default())?;
        let h = g.relu(h)?;
        g.reshape(h, [n, width])
    })?;
    let h = w.stored_linear(g, "classifier.3", h)?;
    let h = g.scoped("classifier.3", |g| g.relu(h))?;
    w.stored_linear(g, "classifier.6", h)
}

//! VGG (Simonyan and Zisserman 2015) in torchvision's and timm's naming, with or without batch norm.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{Source, mean_of_pixels};
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::Unary;
use crate::ops::pool::{PoolKind, PoolOptions};

/// Where a library keeps the fully connected layers.
struct Names {
    layers: [&'static str; 3],
    /// Whether the first two are convolutions, of every window of a larger map.
    windows: bool,
}

const TORCHVISION: Names = Names { layers: ["classifier.0", "classifier.3", "classifier.6"], windows: false };
const TIMM: Names = Names { layers: ["pre_logits.fc1", "pre_logits.fc2", "head.fc"], windows: true };

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
    let names = if w.has("pre_logits.fc1.weight") { TIMM } else { TORCHVISION };
    let [n, height, width, c] = g.shape(x)[..] else { unreachable!("pools keep feature maps") };
    // timm keeps maps of more than 7×7, and takes the mean of what is read of each window.
    let size = if names.windows { [height.max(7), width.max(7)] } else { [7, 7] };
    let x = match size == [height, width] {
        true => x,
        false => g.scoped("avgpool", |g| g.adaptive_pool(x, size, PoolKind::Mean { include_pad: false }))?,
    };
    // The first fully connected layer reads channel by channel: a convolution with one window.
    let [first, second, last] = names.layers;
    let name = format!("{first}.weight");
    let shape = if names.windows { w.stored::<4>(first)?.to_vec() } else { w.stored::<2>(first)?.to_vec() };
    let width = shape[0];
    let expected = if names.windows { vec![width, c, 7, 7] } else { vec![width, c * 49] };
    let weight = w.get(g, &name, &expected)?;
    let bias = w.get(g, &format!("{first}.bias"), &[width])?;
    let h = g.scoped(first, |g| {
        let weight = g.reshape(weight, [width, c, 7, 7])?;
        let h = g.conv2d(x, weight, Some(bias), Conv2dOptions::default())?;
        g.relu(h)
    })?;
    let h = match names.windows {
        true => {
            let h = w.stored_conv(g, second, h, 1)?;
            let h = g.scoped(second, |g| g.relu(h))?;
            g.scoped("head.global_pool", |g| mean_of_pixels(g, h))?
        }
        false => {
            let h = g.scoped(first, |g| g.reshape(h, [n, width]))?;
            let h = w.stored_linear(g, second, h)?;
            g.scoped(second, |g| g.relu(h))?
        }
    };
    w.stored_linear(g, last, h)
}

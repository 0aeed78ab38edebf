//! ResNet (He et al. 2016) in torchvision's and timm's naming: any depth of basic or bottleneck
//! blocks, wide variants, ResNeXt (Xie et al. 2017), deep stems and averaging shortcuts ("C" and
//! "D", He et al. 2019), squeeze and excitation (Hu et al. 2018), and ResNet-RS (Bello et al. 2021).
//! Strides are on the 3×3 convolution, as in both libraries ("v1.5").

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{Source, mean_of_pixels};
use crate::ops::expr::Unary;
use crate::ops::pool::PoolOptions;

const EPS: f32 = 1e-5;

/// Scores `[n, classes]` for `x` `[n, h, w, 3]`.
pub fn resnet(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let relu = Some(Unary::Relu);
    let x = match w.has("conv1.0.weight") {
        // Three 3×3 convolutions for one 7×7.
        true => {
            let x = w.conv_norm(g, ["conv1.0", "conv1.1"], x, 2, EPS, relu)?;
            let x = w.conv_norm(g, ["conv1.3", "conv1.4"], x, 1, EPS, relu)?;
            w.conv_norm(g, ["conv1.6", "bn1"], x, 1, EPS, relu)?
        }
        false => w.conv_norm(g, ["conv1", "bn1"], x, 2, EPS, relu)?,
    };
    let mut x = match w.has("maxpool.0.weight") {
        true => w.conv_norm(g, ["maxpool.0", "maxpool.1"], x, 2, EPS, relu)?,
        false => {
            let pool = PoolOptions { stride: [2; 2], padding: [1; 4], ..PoolOptions::square(3) };
            g.scoped("maxpool", |g| g.max_pool(x, pool))?
        }
    };
    for stage in 1..=4 {
        let mut i = 0;
        while w.has(&format!("layer{stage}.{i}.conv1.weight")) {
            let stride = if stage > 1 && i == 0 { 2 } else { 1 };
            x = block(g, w, &format!("layer{stage}.{i}"), x, stride)?;
            i += 1;
        }
    }
    let x = g.scoped("avgpool", |g| mean_of_pixels(g, x))?;
    w.stored_linear(g, "fc", x)
}

/// `relu(f(x) + shortcut(x))`, `f` being two 3×3 convolutions or 1×1, 3×3, 1×1.
fn block(g: &mut Graph, w: Source, name: &str, x: ValueId, stride: usize) -> Result<ValueId> {
    let at = |part: &str| format!("{name}.{part}");
    let relu = Some(Unary::Relu);
    let layer = |g: &mut Graph, i: usize, x, stride, activation| {
        w.conv_norm(g, [&at(&format!("conv{i}")), &at(&format!("bn{i}"))], x, stride, EPS, activation)
    };
    let shortcut = if w.has(&at("downsample.0.weight")) {
        w.conv_norm(g, [&at("downsample.0"), &at("downsample.1")], x, stride, EPS, None)?
    } else if w.has(&at("downsample.1.weight")) {
        let x = match stride {
            1 => x,
            _ => {
                let pool = PoolOptions { ceil: true, ..PoolOptions::square(stride) };
                g.scoped(&at("downsample.0"), |g| g.average_pool(x, pool, false))?
            }
        };
        w.conv_norm(g, [&at("downsample.1"), &at("downsample.2")], x, 1, EPS, None)?
    } else {
        x
    };
    let h = match w.has(&at("conv3.weight")) {
        true => {
            let h = layer(g, 1, x, 1, relu)?;
            let h = layer(g, 2, h, stride, relu)?;
            layer(g, 3, h, 1, None)?
        }
        false => {
            let h = layer(g, 1, x, stride, relu)?;
            layer(g, 2, h, 1, None)?
        }
    };
    let h = match w.has(&at("se.fc1.weight")) {
        true => {
            let gate = Unary::Sigmoid;
            w.squeeze_excitation(g, [&at("se.fc1"), &at("se.fc2")], h, Unary::Relu, gate)?
        }
        false => h,
    };
    g.scoped(name, |g| {
        let sum = g.add(h, shortcut)?;
        g.relu(sum)
    })
}

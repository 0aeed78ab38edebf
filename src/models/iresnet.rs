//! IResNet, the network of ArcFace's face embeddings (Deng et al. 2019), in insightface's naming; any depth.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::{Binary, Expr};

const EPS: f32 = 1e-5;

/// The embedding `[n, features]` of faces `x` `[n, 112, 112, 3]`, not normalised.
pub fn iresnet(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let x = w.conv_norm(g, ["conv1", "bn1"], x, 1, EPS, None)?;
    let mut x = prelu(g, w, "prelu", x)?;
    for stage in 1..=4 {
        let mut i = 0;
        while w.has(&format!("layer{stage}.{i}.conv1.weight")) {
            x = block(g, w, &format!("layer{stage}.{i}"), x, if i == 0 { 2 } else { 1 })?;
            i += 1;
        }
    }
    let x = w.batch_norm(g, "bn2", x, EPS)?;

    // The layer reads channel by channel: a convolution with one window.
    let [n, h, width, c] = g.shape(x)[..] else { unreachable!("blocks keep feature maps") };
    let [features, _] = w.stored("fc")?;
    let weight = w.get(g, "fc.weight", &[features, c * h * width])?;
    let bias = w.stored_vector(g, "fc.bias", features)?;
    let y = g.scoped("fc", |g| {
        let weight = g.reshape(weight, [features, c, h, width])?;
        let y = g.conv2d(x, weight, bias, Conv2dOptions::default())?;
        g.reshape(y, [n, features])
    })?;
    w.batch_norm(g, "features", y, EPS)
}

/// `norm(conv(prelu(norm(conv(norm(x)))))) + shortcut(x)`
fn block(g: &mut Graph, w: Source, name: &str, x: ValueId, stride: usize) -> Result<ValueId> {
    let at = |part: &str| format!("{name}.{part}");
    let h = w.batch_norm(g, &at("bn1"), x, EPS)?;
    let h = w.conv_norm(g, [&at("conv1"), &at("bn2")], h, 1, EPS, None)?;
    let h = prelu(g, w, &at("prelu"), h)?;
    let h = w.conv_norm(g, [&at("conv2"), &at("bn3")], h, stride, EPS, None)?;
    let shortcut = match w.has(&at("downsample.0.weight")) {
        true => w.conv_norm(g, [&at("downsample.0"), &at("downsample.1")], x, stride, EPS, None)?,
        false => x,
    };
    g.scoped(name, |g| g.add(h, shortcut))
}

/// `max(x, 0) + slope · min(x, 0)`, a slope for each channel.
fn prelu(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let c = g.shape(x).last();
    let slope = w.get(g, &format!("{name}.weight"), &[c])?;
    let part = |f| Expr::binary(f, Expr::input(0), Expr::Const(0.0));
    let negative = Expr::binary(Binary::Mul, part(Binary::Min), Expr::input(1));
    g.scoped(name, |g| g.elementwise(Expr::binary(Binary::Add, part(Binary::Max), negative), &[x, slope]))
}

//! EfficientNet (Tan and Le 2019, 2021), MobileNetV2 (Sandler et al. 2018) and MobileNetV3 (Howard et al.
//! 2019) in timm's naming: one builder, `conv_stem`, `blocks.STAGE.BLOCK`, `conv_head`, `classifier`.
//!
//! The tensors of `efficientnet_b0` and `tf_efficientnet_b0`, or of `mobilenetv2_100` and
//! `efficientnet_lite0` scaled alike, have the same names and shapes: padding, eps and activations
//! are told by the architecture's name alone.

use super::mobilenet::residual;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::{Source, mean_of_pixels};
use crate::ops::expr::Unary;

/// What the names of tensors do not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant {
    /// Of the batch norms.
    eps: f32,
    /// As TensorFlow pads: so that the size is halved, rounded up, with the odd line below and to the right.
    same: bool,
    activation: Unary,
    /// Stages from the first whose blocks have ReLU instead.
    relu_stages: usize,
    /// Of the squeeze and excitation: after the reduction, and of the scales.
    gate: [Unary; 2],
    /// Of the first block of each stage.
    strides: &'static [usize],
}

/// The variant of this name, with or without a tag of its training after a dot; `None` for those that are not known.
pub fn variant(architecture: &str) -> Option<Variant> {
    let name = architecture.split('.').next().unwrap_or_default();
    let (name, same) = name.strip_prefix("tf_").map_or((name, false), |name| (name, true));
    let (family, size) = name.split_once('_')?;
    let number = |s: &str| s.len() == 3 && s.bytes().all(|b| b.is_ascii_digit());
    let plain = Variant {
        eps: if same { 1e-3 } else { 1e-5 },
        same,
        activation: Unary::Silu,
        relu_stages: 0,
        gate: [Unary::Silu, Unary::Sigmoid],
        strides: &[1, 2, 2, 2, 1, 2, 1],
    };
    let relu6 = Variant { activation: Unary::Clamp(0.0, 6.0), ..plain };
    match family {
        "efficientnet" => match size {
            "b0" | "b1" | "b2" | "b3" | "b4" | "b5" | "b6" | "b7" | "b8" | "l2" => Some(plain),
            "lite0" | "lite1" | "lite2" | "lite3" | "lite4" => Some(relu6),
            _ => None,
        },
        "efficientnetv2" => {
            let known = ["s", "m", "l", "xl", "b0", "b1", "b2", "b3", "rw_t", "rw_s", "rw_m"];
            known.contains(&size).then_some(plain)
        }
        "mobilenetv2" => (!same && number(size.trim_end_matches('d'))).then_some(relu6),
        "mobilenetv3" => {
            let (kind, width) = size.split_once('_')?;
            let (minimal, width) = width.strip_prefix("minimal_").map_or((false, width), |w| (true, w));
            let swish = if minimal { Unary::Relu } else { Unary::HardSwish };
            let v3 = Variant {
                activation: swish,
                gate: [Unary::Relu, Unary::HardSigmoid],
                relu_stages: 3,
                ..plain
            };
            let known = number(width.trim_end_matches('d'));
            match kind {
                "large" if known => Some(v3),
                "small" if known => Some(Variant { relu_stages: 2, strides: &[2, 2, 2, 1, 2, 1], ..v3 }),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Scores `[n, classes]` for `x` `[n, h, w, 3]`.
pub fn timm_mobile(g: &mut Graph, w: Source, x: ValueId, v: &Variant) -> Result<ValueId> {
    let activation = Some(v.activation);
    let mut x = v.conv_norm(g, w, ["conv_stem", "bn1"], x, 2, activation)?;
    for (stage, &stride) in v.strides.iter().enumerate() {
        let activation = if stage < v.relu_stages { Unary::Relu } else { v.activation };
        let v = Variant { activation, ..*v };
        for i in 0.. {
            let name = format!("blocks.{stage}.{i}");
            if !w.has(&format!("{name}.bn1.weight")) {
                break;
            }
            x = block(g, w, &name, x, if i == 0 { stride } else { 1 }, &v)?;
        }
    }
    // MobileNetV3 widens what is left of the map after the mean, and has no norm there.
    let x = match w.has("bn2.weight") {
        true => {
            let x = v.conv_norm(g, w, ["conv_head", "bn2"], x, 1, activation)?;
            g.scoped("global_pool", |g| mean_of_pixels(g, x))?
        }
        false => {
            let [n, _, _, c] = g.shape(x)[..] else { unreachable!("convolutions keep feature maps") };
            let mean = g.scoped("global_pool", |g| {
                let mean = mean_of_pixels(g, x)?;
                g.reshape(mean, [n, 1, 1, c])
            })?;
            let h = w.stored_conv(g, "conv_head", mean, 1)?;
            g.scoped("act2", |g| {
                let h = g.unary(v.activation, h)?;
                g.reshape(h, [n, g.shape(h).last()])
            })?
        }
    };
    w.stored_linear(g, "classifier", x)
}

/// A block of whatever kind, told by its convolutions: depthwise and pointwise (`conv_dw`, `conv_pw`),
/// inverted residual (`conv_pw`, `conv_dw`, `conv_pwl`), the same with one dense convolution for the
/// first two (`conv_exp`, `conv_pwl`), or a convolution alone (`conv`); the last of several is linear.
fn block(g: &mut Graph, w: Source, name: &str, x: ValueId, stride: usize, v: &Variant) -> Result<ValueId> {
    let at = |part: &str| format!("{name}.{part}");
    let has = |part: &str| w.has(&at(&format!("{part}.weight")));
    let layer = |g: &mut Graph, conv: &str, norm: &str, h, stride, activation| {
        v.conv_norm(g, w, [&at(conv), &at(norm)], h, stride, activation)
    };
    let squeeze = |g: &mut Graph, h| match has("se.conv_reduce") {
        true => {
            let names = [at("se.conv_reduce"), at("se.conv_expand")];
            w.squeeze_excitation(g, [&names[0], &names[1]], h, v.gate[0], v.gate[1])
        }
        false => Ok(h),
    };
    let activation = Some(v.activation);
    let h = if has("conv") {
        layer(g, "conv", "bn1", x, stride, activation)?
    } else if has("conv_exp") {
        let h = layer(g, "conv_exp", "bn1", x, stride, activation)?;
        let h = squeeze(g, h)?;
        layer(g, "conv_pwl", "bn2", h, 1, None)?
    } else if has("conv_pwl") {
        let h = layer(g, "conv_pw", "bn1", x, 1, activation)?;
        let h = layer(g, "conv_dw", "bn2", h, stride, activation)?;
        let h = squeeze(g, h)?;
        layer(g, "conv_pwl", "bn3", h, 1, None)?
    } else {
        let h = layer(g, "conv_dw", "bn1", x, stride, activation)?;
        let h = squeeze(g, h)?;
        layer(g, "conv_pw", "bn2", h, 1, None)?
    };
    residual(g, name, h, x)
}

impl Variant {
    fn conv_norm(
        &self,
        g: &mut Graph,
        w: Source,
        [conv, norm]: [&str; 2],
        x: ValueId,
        stride: usize,
        activation: Option<Unary>,
    ) -> Result<ValueId> {
        let h = match (self.same, &g.shape(x)[..]) {
            (true, &[_, height, width, _]) => {
                let [_, _, kh, kw] = w.stored(conv)?;
                let lack = |length: usize, kernel: usize| {
                    ((length.div_ceil(stride) - 1) * stride + kernel).saturating_sub(length)
                };
                let [y, x_pad] = [lack(height, kh), lack(width, kw)];
                w.stored_conv_padded(g, conv, x, stride, [y / 2, x_pad / 2, y - y / 2, x_pad - x_pad / 2])?
            }
            _ => w.stored_conv(g, conv, x, stride)?,
        };
        let h = w.batch_norm(g, norm, h, self.eps)?;
        match activation {
            Some(f) => g.scoped(norm, |g| g.unary(f, h)),
            None => Ok(h),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_tensors_do_not() {
        let known = |name| variant(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((known("efficientnet_b0").eps, known("efficientnet_b0").same), (1e-5, false));
        assert_eq!((known("tf_efficientnet_b7").eps, known("tf_efficientnet_b7").same), (1e-3, true));
        assert_eq!(known("efficientnet_b3.ra2_in1k"), known("efficientnet_b3"));
        assert_eq!(known("mobilenetv2_110d").activation, Unary::Clamp(0.0, 6.0));
        assert_eq!(known("mobilenetv3_small_050").strides[0], 2);
        assert_eq!(known("tf_mobilenetv3_large_minimal_100").activation, Unary::Relu);
        // Mixed kernels, group norms, space to depth, other tables of skips and activations.
        for name in [
            "efficientnet_b0_gn",
            "efficientnet_es",
            "mobilenetv3_rw",
            "mixnet_s",
            "efficientnet_x_b3",
            "efficientnet_blur_b0",
            "mobilenetv4_conv_small",
            "tf_mobilenetv2_100",
            "lcnet_100",
            "",
        ] {
            assert_eq!(variant(name), None, "{name}");
        }
    }
}

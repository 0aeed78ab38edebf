//! SSDLite on MobileNetV3-Large (Liu et al. 2016, Sandler et al. 2018, Howard et al. 2019) in torchvision's naming.

use super::boxes::numbers;
use super::mobilenet::{Inverted, inverted_residual};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::tensor::{DType, Tensor};

const EPS: f32 = 1e-3;
const RELU6: Option<Unary> = Some(Unary::Clamp(0.0, 6.0));
/// Side of the pictures that it was made for.
pub const SIDE: usize = 320;
/// Candidates of a class that torchvision looks at.
pub const OF_A_CLASS: usize = 300;
/// Default boxes of a pixel: two squares, and both orientations of two ratios.
const DEFAULT_BOXES: usize = 6;
const RATIOS: [f64; 2] = [2.0, 3.0];
/// Sides of the smallest and largest default boxes, as shares of the picture's.
const SCALES: [f64; 2] = [0.2, 0.95];
/// An extent is at most so many times that of its default box: 1000/16, after torchvision.
const LARGEST: f32 = 62.5;

/// Of the blocks until the first map that is read: stride, and whether the activation is hard swish instead of ReLU.
const BLOCKS: [(usize, bool); 12] = [
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
];

/// What the heads say of the default boxes, map by map, from the finest.
pub struct Heads {
    /// Places and extents in terms of the default boxes, `[n, boxes, 4]`.
    pub regression: ValueId,
    /// Scores before the softmax, `[n, boxes, classes]`; the first class is the background.
    pub logits: ValueId,
    /// Height and width of each map.
    pub maps: Vec<[usize; 2]>,
}

/// Candidates `[n, boxes, 4 + classes]` for `x` `[n, h, w, 3]`: left, top, right, bottom in pixels, and probabilities.
pub fn ssdlite(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let size = [g.shape(x)[1], g.shape(x)[2]];
    let heads = heads(g, w, x)?;
    g.scoped("decode", |g| {
        let boxes = decode(g, &heads, size)?;
        let logits = g.cast(heads.logits, DType::F32)?;
        let scores = g.softmax(logits, 2)?;
        g.concat(&[boxes, scores], 2)
    })
}

/// How many classes the file has, the background one of them.
///
/// # Errors
/// [`crate::Error::MissingTensor`] and [`crate::Error::WrongTensor`].
pub fn classes(w: Source) -> Result<usize> {
    let [numbers, ..] = w.stored::<4>("head.classification_head.module_list.0.1")?;
    Ok(numbers / DEFAULT_BOXES)
}

/// Backbone and heads.
pub fn heads(g: &mut Graph, w: Source, x: ValueId) -> Result<Heads> {
    let maps = maps(g, w, x)?;
    let mut read = |head: &str, numbers: Option<usize>| -> Result<ValueId> {
        let mut levels = Vec::new();
        for (i, &x) in maps.iter().enumerate() {
            let at = |part: &str| format!("head.{head}.module_list.{i}.{part}");
            let h = w.conv_norm(g, [&at("0.0"), &at("0.1")], x, 1, EPS, RELU6)?;
            let h = w.stored_conv(g, &at("1"), h, 1)?;
            let (n, pixels, c) = (g.shape(h)[0], g.shape(h)[1] * g.shape(h)[2], g.shape(h).last());
            // A head of another width fails to be reshaped or joined.
            let numbers = numbers.unwrap_or((c / DEFAULT_BOXES).max(1));
            levels.push(g.reshape(h, [n, pixels * DEFAULT_BOXES, numbers])?);
        }
        g.scoped(&format!("head.{head}"), |g| g.concat(&levels, 1))
    };
    let logits = read("classification_head", None)?;
    let regression = read("regression_head", Some(4))?;
    let maps = maps.iter().map(|&x| [g.shape(x)[1], g.shape(x)[2]]).collect();
    Ok(Heads { regression, logits, maps })
}

/// The six feature maps, of strides 16 to 320.
fn maps(g: &mut Graph, w: Source, x: ValueId) -> Result<Vec<ValueId>> {
    let swish = Some(Unary::HardSwish);
    let gate = [Unary::Relu, Unary::HardSigmoid];
    let at = |part: &str| format!("backbone.features.{part}");
    let mut x = w.conv_norm(g, [&at("0.0.0"), &at("0.0.1")], x, 2, EPS, swish)?;
    for (i, &(stride, swish)) in BLOCKS.iter().enumerate() {
        let activation = if swish { Unary::HardSwish } else { Unary::Relu };
        let block = Inverted { stride, activation, gate, eps: EPS };
        x = inverted_residual(g, w, &at(&format!("0.{}", i + 1)), x, &block)?;
    }
    // The 13th block is cut in two: its expansion is the first map.
    x = w.conv_norm(g, [&at("0.13.0"), &at("0.13.1")], x, 1, EPS, swish)?;
    let mut maps = vec![x];
    x = w.conv_norm(g, [&at("1.0.1.0"), &at("1.0.1.1")], x, 2, EPS, swish)?;
    x = w.squeeze_excitation(g, [&at("1.0.2.fc1"), &at("1.0.2.fc2")], x, gate[0], gate[1])?;
    x = w.conv_norm(g, [&at("1.0.3.0"), &at("1.0.3.1")], x, 1, EPS, None)?;
    for i in 1..=2 {
        let block = Inverted { stride: 1, activation: Unary::HardSwish, gate, eps: EPS };
        x = inverted_residual(g, w, &at(&format!("1.{i}")), x, &block)?;
    }
    x = w.conv_norm(g, [&at("1.3.0"), &at("1.3.1")], x, 1, EPS, swish)?;
    maps.push(x);
    for i in 0..4 {
        for (j, stride) in [1, 2, 1].into_iter().enumerate() {
            let at = |part: usize| format!("backbone.extra.{i}.{j}.{part}");
            x = w.conv_norm(g, [&at(0), &at(1)], x, stride, EPS, RELU6)?;
        }
        maps.push(x);
    }
    Ok(maps)
}

/// Boxes `[n, boxes, 4]` in pixels of a picture of `[height, width]`, cut at its border.
fn decode(g: &mut Graph, heads: &Heads, size: [usize; 2]) -> Result<ValueId> {
    let (centres, extents) = default_boxes(&heads.maps, size);
    let [centres, extents] =
        [("default.centre", centres), ("default.extent", extents)].map(|(name, t)| g.weight(name, t));
    let border = Tensor::from_f32([1, 1, 2], &[size[1] as f32, size[0] as f32]);
    let border = g.weight("border", border);
    let t = g.cast(heads.regression, DType::F32)?;
    let [place, extent] = [numbers(g, t, 0, 2)?, numbers(g, t, 2, 4)?];
    let [x0, x1, x2] = [0, 1, 2].map(Expr::input);
    // Trained on ten times the place and five times the logarithm of the extent.
    let moved =
        Expr::binary(Binary::Mul, Expr::binary(Binary::Mul, x0.clone(), Expr::Const(0.1)), x2.clone());
    let middle = g.elementwise(Expr::binary(Binary::Add, moved, x1.clone()), &[place, centres, extents])?;
    let growth = Expr::binary(Binary::Mul, x0.clone(), Expr::Const(0.2));
    let growth = Expr::unary(Unary::Exp, Expr::binary(Binary::Min, growth, Expr::Const(LARGEST.ln())));
    let half = Expr::binary(Binary::Mul, Expr::binary(Binary::Mul, growth, x1.clone()), Expr::Const(0.5));
    let half = g.elementwise(half, &[extent, extents])?;
    let mut edge = |side| {
        let edge = Expr::binary(Binary::Max, Expr::binary(side, x0.clone(), x1.clone()), Expr::Const(0.0));
        g.elementwise(Expr::binary(Binary::Min, edge, x2.clone()), &[middle, half, border])
    };
    let edges = [edge(Binary::Sub)?, edge(Binary::Add)?];
    g.concat(&edges, 2)
}

/// Centres and extents (x, y) of the default boxes in pixels, each `[1, boxes, 2]`.
fn default_boxes(maps: &[[usize; 2]], [height, width]: [usize; 2]) -> (Tensor, Tensor) {
    let [least, most] = SCALES;
    let scale = |k: usize| match k < maps.len() {
        true => least + (most - least) * k as f64 / (maps.len() - 1) as f64,
        false => 1.0,
    };
    let (mut centres, mut extents) = (Vec::new(), Vec::new());
    for (k, &[rows, columns]) in maps.iter().enumerate() {
        let between = (scale(k) * scale(k + 1)).sqrt();
        let mut shapes = vec![[scale(k); 2], [between; 2]];
        for ratio in RATIOS.map(f64::sqrt) {
            shapes.extend([[scale(k) * ratio, scale(k) / ratio], [scale(k) / ratio, scale(k) * ratio]]);
        }
        for row in 0..rows {
            for column in 0..columns {
                let (x, y) = ((column as f64 + 0.5) / columns as f64, (row as f64 + 0.5) / rows as f64);
                for [w, h] in &shapes {
                    centres.extend([(x * width as f64) as f32, (y * height as f64) as f32]);
                    extents.extend([(w.min(1.0) * width as f64) as f32, (h.min(1.0) * height as f64) as f32]);
                }
            }
        }
    }
    let n = centres.len() / 2;
    (Tensor::from_f32([1, n, 2], &centres), Tensor::from_f32([1, n, 2], &extents))
}

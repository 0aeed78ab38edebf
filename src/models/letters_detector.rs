//! The bundled detector of capital letters and digits, 217 thousand parameters. How it was trained is in `training/`.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::models::boxes::{cells, numbers};
use crate::models::vision::{Outputs, VisionModel};
use crate::models::{bundled, letters};
use crate::nn::Source;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::tensor::DType;
use crate::weights::Weights;

const WEIGHTS: &[u8] = include_bytes!("../../models/letters-detector/model.safetensors");
const WIDTHS: [usize; 4] = [16, 32, 40, 56];
/// Channels that boxes and scores are read from.
const HIDDEN: usize = 56;
/// Pixels from one candidate to the next, at each level of the pyramid.
const STRIDES: [usize; 3] = [4, 8, 16];

/// Capitals and digits of 12 to 96 pixels in pictures of any size.
///
/// # Errors
/// [`crate::Error::Format`] if the bundled file is not what it should be.
pub fn letters_detector() -> Result<VisionModel> {
    let weights = Weights::from_static("letters-detector", WEIGHTS)?;
    let preprocess = bundled::as_they_come(16);
    Ok(VisionModel::new("letters-detector", preprocess, letters::labels(), move |g, x| {
        network(g, Source { weights: &weights, dtype: g.desc(x).dtype }, x)
    }))
}

/// Three levels down, a feature pyramid back up (Lin et al. 2017), and one convolution at each stride: `x`
/// `[n, h, w, 3]`, sides multiples of 16 → `boxes` `[n, candidates, 4]` and `scores` `[n, candidates, classes]`.
pub fn network(g: &mut Graph, w: Source, x: ValueId) -> Result<Outputs> {
    let [a, b, c, d] = WIDTHS;
    let (n, height, width) = (g.shape(x)[0], g.shape(x)[1], g.shape(x)[2]);
    let classes = letters::labels().len();

    let h = conv(g, w, "stem", x, a, 3, 2)?;
    let h = conv(g, w, "down1", h, b, 3, 2)?;
    let x1 = residual(g, w, "block1", h)?;
    let h = conv(g, w, "down2", x1, c, 3, 2)?;
    let x2 = residual(g, w, "block2", h)?;
    let h = conv(g, w, "down3", x2, d, 3, 2)?;
    let x3 = residual(g, w, "block3", h)?;
    let h = conv(g, w, "up3", x3, c, 1, 1)?;
    let h = g.upsample_nearest(h, 2)?;
    let x2 = g.add(x2, h)?;
    let h = conv(g, w, "up2", x2, b, 1, 1)?;
    let h = g.upsample_nearest(h, 2)?;
    let x1 = g.add(x1, h)?;

    let mut levels = vec![];
    for (i, x) in [(1, x1), (2, x2), (3, x3)] {
        let h = conv(g, w, &format!("out{i}"), x, HIDDEN, 3, 1)?;
        let h = w.conv(g, &format!("head{i}"), h, 4 + classes, 1, Conv2dOptions::default())?;
        let cells = g.shape(h)[1] * g.shape(h)[2];
        levels.push(g.reshape(h, [n, cells, 4 + classes])?);
    }
    let t = g.concat(&levels, 1)?;
    // Places of large pictures have more digits than f16.
    let t = g.cast(t, DType::F32)?;
    let [place, extent] = [numbers(g, t, 0, 2)?, numbers(g, t, 2, 4)?];
    let scores = numbers(g, t, 4, 4 + classes)?;

    let (centres, strides) = cells(height, width, &STRIDES);
    let [centres, strides] =
        [("cells.centre", centres), ("cells.stride", strides)].map(|(name, t)| g.weight(name, t));
    // centre + t · stride, and half of exp(t) · stride to each side.
    let [x0, x1, x2] = [0, 1, 2].map(Expr::input);
    let moved = Expr::binary(Binary::Mul, x0.clone(), x2.clone());
    let middle = g.elementwise(Expr::binary(Binary::Add, moved, x1.clone()), &[place, centres, strides])?;
    let size = Expr::unary(Unary::Exp, Expr::binary(Binary::Min, x0.clone(), Expr::Const(5.0)));
    let half = Expr::binary(Binary::Mul, Expr::binary(Binary::Mul, size, x1), Expr::Const(0.5));
    let half = g.elementwise(half, &[extent, strides])?;
    let low = g.binary(Binary::Sub, middle, half)?;
    let high = g.add(middle, half)?;
    let boxes = g.concat(&[low, high], 2)?;
    let scores = g.unary(Unary::Sigmoid, scores)?;
    Ok(vec![("boxes".into(), boxes), ("scores".into(), scores)])
}

/// Convolution and ReLU; a batch norm was there while training.
fn conv(
    g: &mut Graph,
    w: Source,
    name: &str,
    x: ValueId,
    c_out: usize,
    kernel: usize,
    stride: usize,
) -> Result<ValueId> {
    let h = w.conv(g, name, x, c_out, kernel, Conv2dOptions::padded(kernel / 2).stride(stride))?;
    g.relu(h)
}

/// `x + relu(b(relu(a(x))))`
fn residual(g: &mut Graph, w: Source, name: &str, x: ValueId) -> Result<ValueId> {
    let width = g.shape(x).last();
    let h = conv(g, w, &format!("{name}.a"), x, width, 3, 1)?;
    let h = conv(g, w, &format!("{name}.b"), h, width, 3, 1)?;
    g.add(h, x)
}

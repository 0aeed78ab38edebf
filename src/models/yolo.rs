//! YOLOv8's detector, from nano to extra large: a backbone of cross-stage partial blocks (Wang et al. 2020), a path
//! aggregation neck (Liu et al. 2018) and heads without anchors, whose boxes are distributions over distances (Li et al.
//! 2020). Names as in its checkpoints, with or without `model.` in front, batch norms kept or folded.

use super::boxes::{cells, numbers};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::expr::{Binary, Unary};
use crate::ops::pool::PoolOptions;
use crate::ops::reduce::Reduction;
use crate::ops::strided::Range;
use crate::tensor::{DType, Tensor};

const EPS: f32 = 1e-3;
/// Side of the pictures that it is made for; any multiple of the largest stride will do.
pub const SIDE: usize = 640;
/// Grey around pictures of other proportions.
pub const GREY: f32 = 114.0 / 255.0;
/// Pixels from one cell to the next, at each level.
const STRIDES: [usize; 3] = [8, 16, 32];
/// Index of the heads in the list of layers.
const HEADS: usize = 22;

/// The file's names.
#[derive(Clone, Copy)]
struct Names<'a> {
    w: Source<'a>,
    prefix: &'static str,
}

impl<'a> Names<'a> {
    fn of(w: Source<'a>) -> Self {
        let has = |prefix: &&str| w.has(&format!("{prefix}0.conv.weight"));
        let prefix = ["model.", "", "model.model."].into_iter().find(has).unwrap_or("model.");
        Names { w, prefix }
    }

    fn layer(&self, layer: usize) -> String {
        format!("{}{layer}", self.prefix)
    }

    fn at(&self, layer: usize, part: &str) -> String {
        format!("{}.{part}", self.layer(layer))
    }

    /// Convolution, batch norm unless it is folded, SiLU.
    fn conv(&self, g: &mut Graph, name: &str, x: ValueId, stride: usize) -> Result<ValueId> {
        let [conv, norm] = ["conv", "bn"].map(|part| format!("{name}.{part}"));
        let mut h = self.w.stored_conv(g, &conv, x, stride)?;
        if self.w.has(&format!("{norm}.weight")) || !self.w.has(&format!("{conv}.bias")) {
            h = self.w.batch_norm(g, &norm, h, EPS)?;
        }
        g.scoped(name, |g| g.silu(h))
    }

    fn down(&self, g: &mut Graph, layer: usize, x: ValueId) -> Result<ValueId> {
        self.conv(g, &self.layer(layer), x, 2)
    }

    /// A cross-stage partial block: half of the channels goes through a row of bottlenecks, all stages are joined.
    fn block(&self, g: &mut Graph, layer: usize, x: ValueId, shortcut: bool) -> Result<ValueId> {
        let h = self.conv(g, &self.at(layer, "cv1"), x, 1)?;
        let width = g.shape(h).last();
        let half = Range { start: width / 2, stop: Some(width), step: 1 };
        let name = self.at(layer, "m");
        let mut last = g.scoped(&name, |g| g.slice(h, &[Range::all(), Range::all(), Range::all(), half]))?;
        let mut stages = vec![h];
        for j in (0..).take_while(|j| self.w.has(&format!("{name}.{j}.cv1.conv.weight"))) {
            let inner = self.conv(g, &format!("{name}.{j}.cv1"), last, 1)?;
            let inner = self.conv(g, &format!("{name}.{j}.cv2"), inner, 1)?;
            last = match shortcut {
                true => g.scoped(&format!("{name}.{j}"), |g| g.add(inner, last))?,
                false => inner,
            };
            stages.push(last);
        }
        let h = g.scoped(&name, |g| g.concat(&stages, 3))?;
        self.conv(g, &self.at(layer, "cv2"), h, 1)
    }

    /// Spatial pyramid pooling: maxima of 5, 9 and 13 pixels around, by three pools in a row.
    fn pyramid(&self, g: &mut Graph, layer: usize, x: ValueId) -> Result<ValueId> {
        let mut stages = vec![self.conv(g, &self.at(layer, "cv1"), x, 1)?];
        let pool = PoolOptions { stride: [1; 2], padding: [2; 4], ..PoolOptions::square(5) };
        let h = g.scoped(&self.at(layer, "m"), |g| {
            for i in 0..3 {
                stages.push(g.max_pool(stages[i], pool)?);
            }
            g.concat(&stages, 3)
        })?;
        self.conv(g, &self.at(layer, "cv2"), h, 1)
    }

    /// `x` at twice its size beside `skip`.
    fn up(&self, g: &mut Graph, layer: usize, x: ValueId, skip: ValueId) -> Result<ValueId> {
        g.scoped(&self.layer(layer), |g| {
            let x = g.upsample_nearest(x, 2)?;
            g.concat(&[x, skip], 3)
        })
    }
}

/// How many classes the file has.
///
/// # Errors
/// [`crate::Error::MissingTensor`] and [`crate::Error::WrongTensor`].
pub fn classes(w: Source) -> Result<usize> {
    let [classes, ..] = w.stored::<4>(&Names::of(w).at(HEADS, "cv3.0.2"))?;
    Ok(classes)
}

/// Cells of a picture of `[height, width]`, each a candidate.
pub fn candidates([height, width]: [usize; 2]) -> usize {
    STRIDES.iter().map(|s| (height / s) * (width / s)).sum()
}

/// Candidates `[n, cells, 4 + classes]` for `x` `[n, h, w, 3]`, sides multiples of 32: left, top, right, bottom in
/// pixels, and probabilities.
pub fn yolo(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let n = Names::of(w);
    let size = [g.shape(x)[1], g.shape(x)[2]];
    let x = n.down(g, 0, x)?;
    let x = n.down(g, 1, x)?;
    let x = n.block(g, 2, x, true)?;
    let x = n.down(g, 3, x)?;
    let third = n.block(g, 4, x, true)?;
    let x = n.down(g, 5, third)?;
    let fourth = n.block(g, 6, x, true)?;
    let x = n.down(g, 7, fourth)?;
    let x = n.block(g, 8, x, true)?;
    let fifth = n.pyramid(g, 9, x)?;
    // Down the pyramid and up again.
    let x = n.up(g, 11, fifth, fourth)?;
    let fourth = n.block(g, 12, x, false)?;
    let x = n.up(g, 14, fourth, third)?;
    let third = n.block(g, 15, x, false)?;
    let x = n.down(g, 16, third)?;
    let x = g.concat(&[x, fourth], 3)?;
    let fourth = n.block(g, 18, x, false)?;
    let x = n.down(g, 19, fourth)?;
    let x = g.concat(&[x, fifth], 3)?;
    let fifth = n.block(g, 21, x, false)?;
    let [distances, logits] = heads(g, n, [third, fourth, fifth])?;
    g.scoped("decode", |g| {
        let boxes = decode(g, n, distances, size)?;
        let logits = g.cast(logits, DType::F32)?;
        let scores = g.unary(Unary::Sigmoid, logits)?;
        g.concat(&[boxes, scores], 2)
    })
}

/// Of all cells the distributions of distances `[n, cells, 4 · bins]` and scores before the sigmoid `[n, cells, classes]`.
fn heads(g: &mut Graph, n: Names, maps: [ValueId; 3]) -> Result<[ValueId; 2]> {
    let mut head = |branch: &str| {
        let mut levels = Vec::new();
        for (i, &x) in maps.iter().enumerate() {
            let at = |j: usize| n.at(HEADS, &format!("{branch}.{i}.{j}"));
            let h = n.conv(g, &at(0), x, 1)?;
            let h = n.conv(g, &at(1), h, 1)?;
            let h = n.w.stored_conv(g, &at(2), h, 1)?;
            let (pictures, cells) = (g.shape(h)[0], g.shape(h)[1] * g.shape(h)[2]);
            let width = g.shape(h).last();
            levels.push(g.reshape(h, [pictures, cells, width])?);
        }
        g.scoped(&n.at(HEADS, branch), |g| g.concat(&levels, 1))
    };
    Ok([head("cv2")?, head("cv3")?])
}

/// Boxes `[n, cells, 4]` in pixels: the expected distances from the middle of a cell to the left, top, right, bottom.
fn decode(g: &mut Graph, n: Names, distances: ValueId, [height, width]: [usize; 2]) -> Result<ValueId> {
    let (pictures, count, bins) =
        (g.shape(distances)[0], g.shape(distances)[1], g.shape(distances).last() / 4);
    let name = n.at(HEADS, "dfl.conv.weight");
    // What the bins stand for: 0, 1, 2 … strides.
    let ramp = match n.w.has(&name) {
        true => n.w.get(g, &name, &[1, bins, 1, 1])?,
        false => {
            let ramp: Vec<f32> = (0..bins).map(|i| i as f32).collect();
            g.weight(&name, Tensor::from_f32([1, bins, 1, 1], &ramp))
        }
    };
    let ramp = g.reshape(ramp, [1, 1, bins])?;
    let distances = g.cast(distances, DType::F32)?;
    let distances = g.reshape(distances, [pictures, 4 * count, bins])?;
    let shares = g.softmax(distances, 2)?;
    let weighted = g.mul(shares, ramp)?;
    let distances = g.reduce(weighted, Reduction::Sum, &[2], false)?;
    let distances = g.reshape(distances, [pictures, count, 4])?;

    let (centres, strides) = cells(height, width, &STRIDES);
    let [centres, strides] =
        [("cells.centre", centres), ("cells.stride", strides)].map(|(name, t)| g.weight(name, t));
    let distances = g.mul(distances, strides)?;
    let [before, after] = [numbers(g, distances, 0, 2)?, numbers(g, distances, 2, 4)?];
    let low = g.binary(Binary::Sub, centres, before)?;
    let high = g.add(centres, after)?;
    g.concat(&[low, high], 2)
}

//! Best boxes: what a detector found, out of its candidates.

use super::picture_to_tensor::Axis;
use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Numbers of a box: left, top, right, bottom, score, class.
pub const BOX: usize = 6;

/// Greedy non-maximum suppression in each class. Inputs, f32: boxes `[n, candidates, 4]`, left, top, right, bottom; scores
/// `[n, candidates, classes]`, of which each candidate has its highest. Result: `[n, keep, 6]`, best first.
#[derive(Clone, Debug)]
pub struct BestBoxes {
    /// Candidates with a lower score are dropped; at least 0.
    pub least: f32,
    /// A box is dropped whose intersection with a better one is more than this share of their union.
    pub overlap: f32,
    /// So many are kept; rows after the last are zero.
    pub keep: usize,
    /// Height and width of the picture, at whose border boxes are cut.
    pub size: [usize; 2],
    /// For rows and columns `[a, b]`: place `p` of a box is `a · p + b` in the picture.
    pub place: [[f32; 2]; 2],
}

impl Operator for BestBoxes {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=2)?;
        let [boxes, scores] = [inputs[0], inputs[1]];
        if boxes.dtype != DType::F32 || scores.dtype != DType::F32 {
            return Err(format!("boxes and scores must be f32, found {boxes} and {scores}"));
        }
        let (&[n, candidates, 4], &[m, others, _]) = (&boxes.shape[..], &scores.shape[..]) else {
            return Err(format!("wants boxes [n, candidates, 4] and scores [n, candidates, classes], found {boxes} and {scores}"));
        };
        if (n, candidates) != (m, others) {
            return Err(format!("boxes are {}, scores {}", boxes.shape, scores.shape));
        }
        if !(self.least >= 0.0 && self.overlap >= 0.0) || self.keep == 0 {
            return Err(format!("threshold and overlap must be at least 0, and one box kept, found {self:?}"));
        }
        Ok(TensorDesc::new([n, self.keep, BOX], DType::F32))
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        inputs[1].shape.elements() as u64 + 12 * (self.keep * inputs[0].shape[0] * inputs[0].shape[1]) as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let [n, candidates, classes] = [0, 1, 2].map(|d| cx.desc(1).shape[d]);
        let count = n * candidates;
        let (best, kind) = (cx.scratch(4 * count), cx.scratch(4 * count));
        cx.dispatch(
            Kernel::new("best_class"),
            &[("src", cx.input(1)), ("best", best), ("kind", kind)],
            &[("count", count.into()), ("classes", classes.into()), ("least", self.least.into())],
            Grid::Threads(count),
        );
        cx.dispatch(
            Kernel::new("best_boxes"),
            &[("boxes", cx.input(0)), ("kind", kind), ("best", best), ("dst", cx.output())],
            &[
                ("pictures", n.into()),
                ("count", candidates.into()),
                ("keep", self.keep.into()),
                ("overlap", self.overlap.into()),
                ("scale_y", self.place[0][0].into()),
                ("shift_y", self.place[0][1].into()),
                ("scale_x", self.place[1][0].into()),
                ("shift_x", self.place[1][1].into()),
                ("height", (self.size[0] as f32).into()),
                ("width", (self.size[1] as f32).into()),
            ],
            Grid::Groups(n),
        );
    }
}

impl Graph {
    /// The `keep` best boxes of each picture, `[n, keep, 6]`: left, top, right, bottom in pixels of the picture that the
    /// network read as `rows` and `columns`, score, class; zeros after the last. `boxes` `[n, candidates, 4]` are in pixels of
    /// the network's input, `scores` `[n, candidates, classes]` at least 0. Candidates below `least` are dropped, and those
    /// that overlap a better one of their class by more than `overlap` (intersection over union).
    pub fn best_boxes(
        &mut self,
        boxes: ValueId,
        scores: ValueId,
        [rows, columns]: [&Axis; 2],
        [least, overlap]: [f32; 2],
        keep: usize,
    ) -> Result<ValueId> {
        let place = [rows, columns].map(|axis| [axis.ratio() as f32, axis.to_picture(0.0) as f32]);
        let size = [rows.source, columns.source];
        self.push(BestBoxes { least, overlap, keep, size, place }, &[boxes, scores])
    }
}

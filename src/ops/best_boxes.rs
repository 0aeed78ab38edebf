//! Best boxes: what a detector found, out of its candidates.

use super::picture_to_tensor::Axis;
use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, TensorDesc};

/// Numbers of a box: left, top, right, bottom, score, class.
pub const BOX: usize = 6;

/// Most candidates of a class that can be looked at where each class has its own: they are sorted in a workgroup's memory.
pub const MOST_OF_A_CLASS: usize = 512;

/// Which classes a candidate stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classes {
    /// The one with its highest score.
    Best,
    /// Each, as if it were several candidates; of every class so many are looked at, those with the highest scores.
    Each(usize),
}

/// Which candidates are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selection {
    /// Candidates with a lower score are dropped; at least 0.
    pub least: f32,
    /// A box is dropped whose intersection with a better one is more than this share of their union.
    pub overlap: f32,
    /// Whether a better box of another class counts as well.
    pub across_classes: bool,
    /// So many are kept; rows after the last are zero.
    pub keep: usize,
    pub classes: Classes,
    /// Whether class 0 means that there is nothing.
    pub background: bool,
}

/// Greedy non-maximum suppression. Inputs, f32: boxes `[n, candidates, 4]`, left, top, right, bottom; scores
/// `[n, candidates, classes]`. Result: `[n, keep, 6]`, best first.
#[derive(Clone, Debug)]
pub struct BestBoxes {
    pub selection: Selection,
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
        let (&[n, candidates, 4], &[m, others, classes]) = (&boxes.shape[..], &scores.shape[..]) else {
            return Err(format!("wants boxes [n, candidates, 4] and scores [n, candidates, classes], found {boxes} and {scores}"));
        };
        if (n, candidates) != (m, others) {
            return Err(format!("boxes are {}, scores {}", boxes.shape, scores.shape));
        }
        let s = &self.selection;
        if !(s.least >= 0.0 && s.overlap >= 0.0) || s.keep == 0 {
            return Err(format!("threshold and overlap must be at least 0, and one box kept, found {s:?}"));
        }
        if s.background && classes < 2 {
            return Err("besides the background there must be a class".to_owned());
        }
        if let Classes::Each(most) = s.classes {
            if !(1..=MOST_OF_A_CLASS).contains(&most) {
                return Err(format!("candidates of a class must be 1 to {MOST_OF_A_CLASS}, found {most}"));
            }
            if s.across_classes {
                return Err("a candidate that stands for each class is dropped across classes".to_owned());
            }
        }
        Ok(TensorDesc::new([n, s.keep, BOX], DType::F32))
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        let candidates = inputs[0].shape[0] * inputs[0].shape[1];
        inputs[1].shape.elements() as u64 + 12 * (self.selection.keep * candidates) as u64
    }

    fn lower(&self, cx: &mut Lower) {
        match self.selection.classes {
            Classes::Best => self.lower_best(cx),
            Classes::Each(most) => self.lower_each(cx, most),
        }
    }
}

impl BestBoxes {
    /// One suppression over all candidates.
    fn lower_best(&self, cx: &mut Lower) {
        let s = &self.selection;
        let [n, candidates, classes] = [0, 1, 2].map(|d| cx.desc(1).shape[d]);
        let count = n * candidates;
        let (best, kind) = (cx.scratch(4 * count), cx.scratch(4 * count));
        cx.dispatch(
            Kernel::new("best_class"),
            &[("src", cx.input(1)), ("best", best), ("kind", kind)],
            &[
                ("count", count.into()),
                ("classes", classes.into()),
                ("first", usize::from(s.background).into()),
                ("least", s.least.into()),
            ],
            Grid::Threads(count),
        );
        let mut params = vec![
            ("pictures", n.into()),
            ("count", candidates.into()),
            ("keep", s.keep.into()),
            ("overlap", s.overlap.into()),
            ("across", usize::from(s.across_classes).into()),
        ];
        params.extend(self.to_picture());
        cx.dispatch(
            Kernel::new("best_boxes"),
            &[("boxes", cx.input(0)), ("kind", kind), ("best", best), ("dst", cx.output())],
            &params,
            Grid::Groups(n),
        );
    }

    /// A suppression for each class, then the best of all.
    fn lower_each(&self, cx: &mut Lower, most: usize) {
        let s = &self.selection;
        let [n, candidates, classes] = [0, 1, 2].map(|d| cx.desc(1).shape[d]);
        let first = usize::from(s.background);
        let lists = classes - first;
        let length = most.min(s.keep);
        let (best, place) = (cx.scratch(4 * n * lists * length), cx.scratch(4 * n * lists * length));
        let heads = cx.scratch(4 * n * lists);
        cx.dispatch(
            Kernel::new("class_boxes").constant("MOST", format!("{most}u")),
            &[("boxes", cx.input(0)), ("scores", cx.input(1)), ("best", best), ("place", place)],
            &[
                ("pictures", n.into()),
                ("count", candidates.into()),
                ("classes", classes.into()),
                ("first", first.into()),
                ("keep", length.into()),
                ("least", s.least.into()),
                ("overlap", s.overlap.into()),
            ],
            Grid::Groups(n * lists),
        );
        let mut params = vec![
            ("pictures", n.into()),
            ("count", candidates.into()),
            ("lists", lists.into()),
            ("length", length.into()),
            ("first", first.into()),
            ("keep", s.keep.into()),
        ];
        params.extend(self.to_picture());
        cx.dispatch(
            Kernel::new("merge_boxes"),
            &[
                ("boxes", cx.input(0)),
                ("best", best),
                ("place", place),
                ("heads", heads),
                ("dst", cx.output()),
            ],
            &params,
            Grid::Groups(n),
        );
    }

    fn to_picture(&self) -> [(&'static str, Param); 6] {
        [
            ("scale_y", self.place[0][0].into()),
            ("shift_y", self.place[0][1].into()),
            ("scale_x", self.place[1][0].into()),
            ("shift_x", self.place[1][1].into()),
            ("height", (self.size[0] as f32).into()),
            ("width", (self.size[1] as f32).into()),
        ]
    }
}

impl Graph {
    /// The best boxes of each picture, `[n, keep, 6]`: left, top, right, bottom in pixels of the picture that the
    /// network read as `rows` and `columns`, score, class; zeros after the last. `boxes` `[n, candidates, 4]` are in pixels of
    /// the network's input, `scores` `[n, candidates, classes]` at least 0.
    pub fn best_boxes(
        &mut self,
        boxes: ValueId,
        scores: ValueId,
        [rows, columns]: [&Axis; 2],
        selection: Selection,
    ) -> Result<ValueId> {
        let place = [rows, columns].map(|axis| [axis.ratio() as f32, axis.to_picture(0.0) as f32]);
        self.push(BestBoxes { selection, size: [rows.source, columns.source], place }, &[boxes, scores])
    }
}

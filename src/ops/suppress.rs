//! Suppress: which candidates of a detector are left when those that overlap a better one are taken away.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// Greedy non-maximum suppression within each class, with the indices of what is left; [`BestBoxes`](super::BestBoxes) gives
/// boxes in a picture. Inputs, f32: boxes `[n, candidates, 4]`, scores `[n, classes, candidates]`, and, one number each, the
/// overlap (intersection over union) above which a candidate goes, and the score above which it counts, without which all do. Result, i32:
/// `[1 + n · classes · most, 3]`, first `(count, 0, 0)`, then so many rows `(picture, class, candidate)`, by picture, class
/// and falling score; zeros after them.
#[derive(Clone, Debug)]
pub struct Suppress {
    /// So many are left of each class of a picture.
    pub most: usize,
    /// Boxes are centre and size instead of two corners.
    pub centre: bool,
}

impl Operator for Suppress {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 3..=4)?;
        if let Some(other) = inputs.iter().find(|d| d.dtype != DType::F32) {
            return Err(format!("inputs must be f32, found {other}"));
        }
        let [boxes, scores] = [inputs[0], inputs[1]];
        let (&[n, candidates, 4], &[m, classes, others]) = (&boxes.shape[..], &scores.shape[..]) else {
            return Err(format!("wants boxes [n, candidates, 4] and scores [n, classes, candidates], found {boxes} and {scores}"));
        };
        if (n, candidates) != (m, others) {
            return Err(format!("boxes are {}, scores {}", boxes.shape, scores.shape));
        }
        if let Some(other) = inputs[2..].iter().find(|d| d.shape.elements() != 1) {
            return Err(format!("limits must be one number, found {other}"));
        }
        if !(1..=candidates).contains(&self.most) {
            return Err(format!("of {candidates} candidates {} cannot be left", self.most));
        }
        Ok(TensorDesc::new([1 + n * classes * self.most, 3], DType::I32))
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        12 * inputs[1].shape.elements() as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let [n, classes, candidates] = [0, 1, 2].map(|d| cx.desc(1).shape[d]);
        let lists = n * classes;
        let (left, counts) = (cx.scratch(4 * lists * candidates), cx.scratch(4 * lists));
        let picked = cx.scratch(4 * lists * self.most);
        let mut kernel = Kernel::new("suppress").constant("CENTRE", self.centre);
        let mut buffers = vec![
            ("boxes", cx.input(0)),
            ("scores", cx.input(1)),
            ("overlap", cx.input(2)),
            ("left", left),
            ("picked", picked),
            ("counts", counts),
        ];
        match cx.inputs() {
            4 => buffers.push(("least", cx.input(3))),
            _ => {
                let all = "fn counts_at_all(score: f32) -> bool {\n    return true;\n}";
                kernel = kernel.function("counts_at_all", all);
            }
        }
        cx.dispatch(
            kernel,
            &buffers,
            &[
                ("lists", lists.into()),
                ("classes", classes.into()),
                ("candidates", candidates.into()),
                ("most", self.most.into()),
            ],
            Grid::Groups(lists),
        );
        let rows = lists * self.most + 1;
        cx.dispatch(
            Kernel::new("suppress_rows"),
            &[("picked", picked), ("counts", counts), ("dst", cx.output())],
            &[
                ("rows", rows.into()),
                ("lists", lists.into()),
                ("classes", classes.into()),
                ("most", self.most.into()),
            ],
            Grid::Threads(rows),
        );
    }
}

impl Graph {
    /// Which candidates are left of `boxes` `[n, candidates, 4]` with `scores` `[n, classes, candidates]` when those that overlap a better
    /// one of their class by more than `overlap` are taken away, and those whose score is not above `least`, if that is given: see
    /// [`Suppress`].
    pub fn suppress(
        &mut self,
        [boxes, scores]: [ValueId; 2],
        overlap: ValueId,
        least: Option<ValueId>,
        options: Suppress,
    ) -> Result<ValueId> {
        let inputs: Vec<ValueId> = [boxes, scores, overlap].into_iter().chain(least).collect();
        self.push(options, &inputs)
    }
}

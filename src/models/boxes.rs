//! What detectors have in common.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::models::vision::Outputs;
use crate::ops::expr::{Binary, Expr};
use crate::ops::strided::Range;
use crate::tensor::{DType, Tensor};

/// Candidates `[n, candidates, 4 + classes]` as what the task of detecting looks for.
pub(crate) fn outputs(g: &mut Graph, candidates: ValueId) -> Result<Outputs> {
    let width = g.shape(candidates).last();
    let boxes = numbers(g, candidates, 0, 4)?;
    let scores = numbers(g, candidates, 4, width)?;
    Ok(vec![("boxes".to_owned(), boxes), ("scores".to_owned(), scores)])
}

/// Candidates as outputs of YOLO in other formats have them, `[n, 4 + classes, candidates]` with middles and extents in
/// pixels, as `[n, candidates, 4 + classes]` with left, top, right, bottom.
pub(crate) fn from_centres(g: &mut Graph, y: ValueId) -> Result<ValueId> {
    let y = g.transpose(y, &[0, 2, 1])?;
    let y = g.cast(y, DType::F32)?;
    let width = g.shape(y).last();
    let [middle, extent] = [numbers(g, y, 0, 2)?, numbers(g, y, 2, 4)?];
    let scores = numbers(g, y, 4, width)?;
    let mut edge = |half: f32| {
        let half = Expr::binary(Binary::Mul, Expr::input(1), Expr::Const(half));
        g.elementwise(Expr::binary(Binary::Add, Expr::input(0), half), &[middle, extent])
    };
    let [low, high] = [edge(-0.5)?, edge(0.5)?];
    g.concat(&[low, high, scores], 2)
}

/// The numbers from `start` to `stop` of each candidate of `x` `[n, candidates, numbers]`.
pub(super) fn numbers(g: &mut Graph, x: ValueId, start: usize, stop: usize) -> Result<ValueId> {
    let part = Range { start, stop: Some(stop), step: 1 };
    g.slice(x, &[Range::all(), Range::all(), part])
}

/// Centres `[1, cells, 2]` (x, y) and strides `[1, cells, 1]` of the cells of a picture, in pixels, the finest first.
pub(super) fn cells(height: usize, width: usize, strides: &[usize]) -> (Tensor, Tensor) {
    let (mut centres, mut pitch) = (vec![], vec![]);
    for &s in strides {
        for y in 0..height / s {
            for x in 0..width / s {
                centres.extend([x, y].map(|i| (i as f32 + 0.5) * s as f32));
                pitch.push(s as f32);
            }
        }
    }
    let n = pitch.len();
    (Tensor::from_f32([1, n, 2], &centres), Tensor::from_f32([1, n, 1], &pitch))
}

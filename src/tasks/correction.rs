//! Steps of Langevin dynamics between those of a sampler: how long they are depends on the network's answer.

use super::sampling::number;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::reduce::Reduction;
use crate::ops::strided::Range;
use crate::tensor::DType;

/// Where a row says whether it corrects, see [`crate::diffusion::Row::to_f32`].
const CORRECT: usize = 18;

/// The prediction with guidance, of one with labels and then without, `[2 n, h, w, c]`.
pub(super) fn guided(g: &mut Graph, prediction: ValueId, guidance: ValueId) -> Result<ValueId> {
    let n = g.shape(prediction)[0] / 2;
    let mut half = |start: usize| {
        let pictures = Range { start, stop: Some(start + n), step: 1 };
        let half = g.slice(prediction, &[pictures, Range::all(), Range::all(), Range::all()])?;
        g.cast(half, DType::F32)
    };
    let (with, without) = (half(0)?, half(n)?);
    let input = Expr::input;
    let apart = Expr::binary(Binary::Sub, input(0), input(1));
    let step = Expr::binary(Binary::Mul, input(2), apart);
    g.elementwise(Expr::binary(Binary::Add, input(1), step), &[with, without, guidance])
}

/// What a picture's prediction m and noise z are multiplied by, `[n, 2]`: 2 q² and 2 q with q = r ‖z‖ / ‖m‖ in a row that
/// corrects by r (see [`crate::diffusion::Row`]), else 1. Norms of each picture, not their mean: it shall not depend on its neighbours.
pub(super) fn rates(g: &mut Graph, prediction: ValueId, noise: ValueId, row: ValueId) -> Result<ValueId> {
    /// Below all norms but that of zeros.
    const TINY: f32 = 1e-30;
    let [n, h, w, c] = g.shape(prediction)[..] else { unreachable!("predictions are pictures") };
    let mut norm = |x: ValueId| {
        let x = g.cast(x, DType::F32)?;
        // A line of the picture at a time, which many threads share.
        let x = g.reshape(x, [n, h, w * c])?;
        let lines = g.reduce(x, Reduction::L2, &[2], false)?;
        g.reduce(lines, Reduction::L2, &[1], true)
    };
    let (of_noise, of_prediction) = (norm(noise)?, norm(prediction)?);
    let by = g.slice(row, &[Range::all(), number(CORRECT)])?;
    let input = Expr::input;
    let length = Expr::binary(Binary::Max, input(1), Expr::Const(TINY));
    let q = Expr::binary(Binary::Mul, input(2), Expr::binary(Binary::Div, input(0), length));
    let q = g.elementwise(q, &[of_noise, of_prediction, by])?;
    let twice = |q: Expr| {
        let twice = Expr::binary(Binary::Mul, Expr::Const(2.0), q);
        let corrects = Expr::unary(Unary::Sign, input(1));
        Expr::binary(Binary::Add, twice, Expr::binary(Binary::Sub, Expr::Const(1.0), corrects))
    };
    let of_prediction = g.elementwise(twice(Expr::unary(Unary::Square, input(0))), &[q, by])?;
    let of_noise = g.elementwise(twice(input(0)), &[q, by])?;
    g.concat(&[of_prediction, of_noise], 1)
}

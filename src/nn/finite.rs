//! Whether a network's results are numbers.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::reduce::Reduction;
use crate::ops::typed::Function;
use crate::tensor::DType;

/// How many elements of `x` are NaN or infinite: `[1]`, f32, exact up to 2²⁴.
pub fn count_not_finite(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let x = g.cast(x, DType::F32)?;
    let nan = g.typed(Function::IsNan, &[x])?;
    let infinite = g.typed(Function::IsInfinite { positive: true, negative: true }, &[x])?;
    let either = g.typed(Function::Or, &[nan, infinite])?;
    let mut count = g.convert(either, DType::F32)?;
    // Line by line first, so that there is work for many threads.
    let rank = g.shape(count).len();
    let lines: Vec<usize> = (rank.min(2)..rank).collect();
    if !lines.is_empty() {
        count = g.reduce(count, Reduction::Sum, &lines, true)?;
    }
    let all: Vec<usize> = (0..rank.min(2)).collect();
    let count = g.reduce(count, Reduction::Sum, &all, true)?;
    g.reshape(count, [1])
}

//! Windows of feature maps: pools, and blocks that overlap.

use super::approx::{Approx, Sum, U};
use super::{Element, Task, map, unravel};
use crate::ops::fold_columns::FoldColumns;
use crate::ops::max_pool_places::MaxPoolPlaces;
use crate::ops::pool::{Pool, PoolKind, PoolOptions, Windows};

/// Places along an axis that a window covers, the padding's left out, and how many there are with the padding.
fn covered(o: &PoolOptions, axis: usize, at: usize, size: usize) -> (Vec<usize>, usize) {
    let taps = (0..o.kernel[axis]).map(|k| at * o.stride[axis] + k * o.dilation[axis]);
    // A window that reaches past the padding counts only what lies within it.
    let padded = taps.clone().filter(|&t| t < size + o.padding[axis] + o.padding[axis + 2]).count();
    let inside = taps.filter_map(|t| t.checked_sub(o.padding[axis])).filter(|&t| t < size);
    (inside.collect(), padded)
}

pub fn pool<'v>(op: &'v Pool, task: &Task<'_, 'v>) -> Element<'v> {
    let x = task.inputs[0];
    let ([_, h, w, c], shape) = (task.map(0), map(task.output));
    Box::new(move |i| {
        let [n, y, column, channel] = unravel(i, shape);
        let ([rows, columns], area) = match &op.windows {
            Windows::Sliding(o) => {
                let ((rows, tall), (columns, wide)) = (covered(o, 0, y, h), covered(o, 1, column, w));
                ([rows, columns], tall * wide)
            }
            Windows::Adaptive(_) => {
                let part = |at: usize, size: usize, out: usize| {
                    (at * size / out..((at + 1) * size).div_ceil(out)).collect()
                };
                ([part(y, h, shape[1]), part(column, w, shape[2])], 0)
            }
        };
        let adaptive = matches!(op.windows, Windows::Adaptive(_));
        let numbers =
            rows.iter().flat_map(|v| columns.iter().map(move |u| x.at(((n * h + v) * w + u) * c + channel)));
        match op.reduce {
            PoolKind::Max => Approx::exact(numbers.fold(f64::NEG_INFINITY, f64::max)),
            PoolKind::Mean { include_pad } => {
                let count = if include_pad && !adaptive { area } else { rows.len() * columns.len() };
                let mut sum = Sum::default();
                numbers.for_each(|x| sum.add(x));
                let sum = sum.finish_alike();
                let value = sum.value / count as f64;
                Approx { value, error: sum.error / count as f64 + 6.0 * U * value.abs() }
            }
        }
    })
}

pub fn max_places<'v>(op: &'v MaxPoolPlaces, task: &Task<'_, 'v>) -> Element<'v> {
    let x = task.inputs[0];
    let ([_, h, w, c], shape) = (task.map(0), map(task.output));
    Box::new(move |i| {
        let [n, y, column, channel] = unravel(i, shape);
        let (rows, columns) = (covered(&op.windows, 0, y, h).0, covered(&op.windows, 1, column, w).0);
        let mut best: Option<(f64, usize)> = None;
        for &v in &rows {
            for &u in &columns {
                let value = x.at(((n * h + v) * w + u) * c + channel);
                if best.is_none_or(|(b, _)| value > b) {
                    best = Some((value, if op.columns_first { u * h + v } else { v * w + u }));
                }
            }
        }
        Approx::exact(best.map_or(0, |(_, place)| place) as f64)
    })
}

pub fn fold_columns<'v>(op: &'v FoldColumns, task: &Task<'_, 'v>) -> Element<'v> {
    let x = task.inputs[0];
    let ([_, rows, columns, taps], shape) = (task.map(0), map(task.output));
    let each = op.kernel[0] * op.kernel[1];
    Box::new(move |i| {
        let [n, y, column, channel] = unravel(i, shape);
        // The block, if there is one, whose tap `k` lies here.
        let block = |at: usize, k: usize, d: usize, count: usize| {
            let place = (at + op.padding[d]).checked_sub(k * op.dilation[d])?;
            (place % op.stride[d] == 0).then_some(place / op.stride[d]).filter(|&b| b < count)
        };
        let mut sum = Sum::default();
        for j in 0..op.kernel[0] {
            for k in 0..op.kernel[1] {
                if let (Some(v), Some(u)) = (block(y, j, 0, rows), block(column, k, 1, columns)) {
                    let tap = channel * each + j * op.kernel[1] + k;
                    sum.add(x.at(((n * rows + v) * columns + u) * taps + tap));
                }
            }
        }
        sum.finish_alike()
    })
}

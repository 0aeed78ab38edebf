//! GatherNd: slices chosen by several indices at once.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, TensorDesc};

/// Slices of the first input; the last axis of the second, `i32` indices, says where each lies along the axes
/// that follow the `batch` first ones, which both have. Negative indices count from the end; what is still outside reads the
/// last slice of its axis.
#[derive(Clone, Debug)]
pub struct GatherNd {
    pub batch: usize,
}

/// How tuples of indices address a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuples {
    /// Tuples in all of the batch.
    pub count: usize,
    /// Indices in each.
    pub depth: usize,
    /// Elements of a slice.
    pub inner: usize,
}

/// Checks `indices` `[batch…, tuples…, depth]` into `src` `[batch…, depth axes, slice…]`.
pub(crate) fn tuples(src: &TensorDesc, indices: &TensorDesc, batch: usize) -> Result<Tuples, String> {
    if indices.dtype != DType::I32 {
        return Err(format!("indices must be i32, found {}", indices.dtype));
    }
    if src.dtype == DType::BF16 {
        return Err("bf16 must be unpacked first".to_owned());
    }
    let wrong = || format!("indices {} do not address {} with {batch} axes of batch", indices.shape, src.shape);
    let (&depth, front) = indices.shape.split_last().ok_or_else(wrong)?;
    let fits = batch <= front.len()
        && depth >= 1
        && batch.checked_add(depth).is_some_and(|used| used <= src.shape.len())
        && front[..batch] == src.shape[..batch];
    match fits {
        true => {
            let inner = src.shape[batch + depth..].iter().product();
            Ok(Tuples { count: front.iter().product(), depth, inner })
        }
        false => Err(wrong()),
    }
}

/// The kernels' name for `n` elements at a time, and that `n`: four where `inner` allows it.
pub(crate) fn unit(inner: usize, dtype: DType) -> (&'static str, usize) {
    match (inner.is_multiple_of(4), dtype) {
        (true, DType::F32) => ("vec4<f32>", 4),
        (true, DType::F16) => ("vec4<f16>", 4),
        (true, DType::I32) => ("vec4<i32>", 4),
        (true, _) => ("vec4<u32>", 4),
        (false, dtype) => (dtype.wgsl(), 1),
    }
}

/// Eight numbers as a kernel's vectors.
pub(crate) fn eight(list: impl Iterator<Item = usize>, rest: u32) -> Param {
    let mut words: Vec<u32> = list.map(|n| n as u32).collect();
    words.resize(8, rest);
    Param::Array(words)
}

impl Operator for GatherNd {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=2)?;
        let [src, indices] = [inputs[0], inputs[1]];
        let depth = tuples(src, indices, self.batch)?.depth;
        let front = &indices.shape[..indices.shape.len() - 1];
        Ok(TensorDesc::new([front, &src.shape[self.batch + depth..]].concat(), src.dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let src = cx.desc(0);
        let Tuples { count, depth, inner } =
            tuples(src, cx.desc(1), self.batch).expect("checked when the graph was built");
        let (elem, unit) = unit(inner, src.dtype);
        let (batches, used) = (src.shape[..self.batch].iter().product::<usize>(), self.batch + depth);
        let threads = count * inner / unit;
        cx.dispatch(
            Kernel::new("gather_nd").alias("Elem", elem).constant("DEPTH", format!("{depth}u")),
            &[("src", cx.input(0)), ("indices", cx.input(1)), ("dst", cx.output())],
            &[
                ("count", threads.into()),
                ("tuples", (count / batches).into()),
                ("batch", (src.shape.elements() / batches / unit).into()),
                ("inner", (inner / unit).into()),
                ("sizes", eight(src.shape[self.batch..used].iter().copied(), 1)),
                ("strides", eight(src.shape.strides()[self.batch..used].iter().map(|s| s / unit), 0)),
            ],
            Grid::Threads(threads),
        );
    }

    fn flops(&self, _: &[&TensorDesc], _: &TensorDesc) -> u64 {
        0
    }
}

impl Graph {
    /// `result[b…, t…, i…] = x[b…, indices[b…, t…, 0], indices[b…, t…, 1], …, i…]` with `batch` axes `b` and `indices` (i32)
    /// `[b…, t…, depth]`. Negative indices count from the end; what is still outside reads the last slice of its axis.
    pub fn gather_nd(&mut self, x: ValueId, indices: ValueId, batch: usize) -> Result<ValueId> {
        self.push(GatherNd { batch }, &[x, indices])
    }
}

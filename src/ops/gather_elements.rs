//! GatherElements: along one axis, elements chosen one by one.

use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, MAX_RANK, TensorDesc};

/// The first input's elements where the second, `i32` indices with as many axes and nowhere but along `axis` larger,
/// says how far along `axis` they lie. Negative indices count from the end; what is still outside reads the last element.
#[derive(Clone, Debug)]
pub struct GatherElements {
    pub axis: usize,
}

/// Checks indices that choose one by one along `axis` of `src`.
pub(crate) fn one_by_one(src: &TensorDesc, indices: &TensorDesc, axis: usize) -> Result<(), String> {
    if indices.dtype != DType::I32 {
        return Err(format!("indices must be i32, found {}", indices.dtype));
    }
    if src.dtype == DType::BF16 {
        return Err("bf16 must be unpacked first".to_owned());
    }
    let rank = src.shape.len();
    let fits = rank == indices.shape.len() && axis < rank;
    match fits && (0..rank).all(|d| d == axis || indices.shape[d] <= src.shape[d]) {
        true => Ok(()),
        false => Err(format!("indices {} do not choose along axis {axis} of {}", indices.shape, src.shape)),
    }
}

/// The last axis first, as the kernels' vectors of eight numbers have them.
pub(crate) fn reversed(list: impl DoubleEndedIterator<Item = usize>, rest: u32) -> Param {
    let mut words: Vec<u32> = list.rev().map(|n| n as u32).collect();
    words.resize(8, rest);
    Param::Array(words)
}

const _: () = assert!(MAX_RANK <= 8, "the kernels' vectors hold eight dimensions");

impl Operator for GatherElements {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=2)?;
        one_by_one(inputs[0], inputs[1], self.axis)?;
        Ok(TensorDesc::new(inputs[1].shape.clone(), inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let (src, shape) = (cx.desc(0), cx.output_desc().shape.clone());
        let strides = src.shape.strides();
        let other = strides.iter().enumerate().map(|(d, &s)| if d == self.axis { 0 } else { s });
        cx.dispatch(
            Kernel::new("gather_elements")
                .alias("Elem", elem(src))
                .constant("RANK", format!("{}u", shape.len())),
            &[("src", cx.input(0)), ("indices", cx.input(1)), ("dst", cx.output())],
            &[
                ("count", shape.elements().into()),
                ("size", src.shape[self.axis].into()),
                ("step", strides[self.axis].into()),
                ("shape", reversed(shape.iter().copied(), 1)),
                ("strides", reversed(other, 0)),
            ],
            Grid::Threads(shape.elements()),
        );
    }

    fn flops(&self, _: &[&TensorDesc], _: &TensorDesc) -> u64 {
        0
    }
}

impl Graph {
    /// `result[…, i, …] = x[…, indices[…, i, …], …]` along `axis`, in the shape of `indices` (i32). Negative indices count
    /// from the end; what is still outside reads the last element.
    pub fn gather_elements(&mut self, x: ValueId, indices: ValueId, axis: usize) -> Result<ValueId> {
        self.push(GatherElements { axis }, &[x, indices])
    }
}

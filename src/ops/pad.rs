//! Pad: more elements before and after, along any axes.

use super::{Operator, arity, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, TensorDesc};

/// What the new elements are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    Constant(f32),
    /// Mirrored at the edge elements, which are not repeated; less padding than the axis is long.
    Reflect,
    /// The edge element, repeated.
    Edge,
}

/// `padding[d]` elements before and after each axis `d`.
#[derive(Clone, Debug)]
pub struct Pad {
    pub padding: Vec<[usize; 2]>,
    pub mode: PadMode,
}

impl Operator for Pad {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        let shape = &inputs[0].shape;
        if self.padding.len() != shape.len() {
            return Err(format!("padding given for {} axes, input is {shape}", self.padding.len()));
        }
        let mut padded = Vec::new();
        for (&n, &[before, after]) in shape.iter().zip(&self.padding) {
            if self.mode == PadMode::Reflect && before.max(after) >= n {
                return Err(format!("reflection needs less padding than the axis of {n}, found {before} and {after}"));
            }
            let size = n.checked_add(before).and_then(|n| n.checked_add(after));
            match size.filter(|&size| size <= i32::MAX as usize) {
                Some(size) => padded.push(size),
                None => return Err(format!("padding {before} and {after} is too large")),
            }
        }
        Ok(TensorDesc::new(padded, inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let (from, to) = (&cx.desc(0).shape, cx.output_desc());
        let mut shape: Vec<u32> = to.shape.iter().map(|&n| n as u32).collect();
        let mut source: Vec<u32> = from.iter().map(|&n| n as u32).collect();
        let quads = from.last().is_multiple_of(4) && self.padding.last().is_some_and(|p| *p == [0, 0]);
        if quads && let (Some(a), Some(b)) = (shape.last_mut(), source.last_mut()) {
            (*a, *b) = (*a / 4, *b / 4);
        }
        let elem = match (quads, to.dtype) {
            (true, DType::F16) => "vec4<f16>",
            (true, _) => "vec4<f32>",
            (false, dtype) => dtype.wgsl(),
        };
        let (mode, value) = match self.mode {
            PadMode::Constant(value) => ("0u", value),
            PadMode::Reflect => ("1u", 0.0),
            PadMode::Edge => ("2u", 0.0),
        };
        let count = to.shape.elements() / if quads { 4 } else { 1 };
        cx.dispatch(
            Kernel::new("pad").constant("MODE", mode).alias("Elem", elem).alias("Number", to.dtype.wgsl()),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("rank", shape.len().into()),
                ("value", value.into()),
                ("shape", Param::Array(shape)),
                ("source", Param::Array(source)),
                ("before", Param::Array(self.padding.iter().map(|p| p[0] as u32).collect())),
            ],
            Grid::Threads(count),
        );
    }

    fn flops(&self, _: &[&TensorDesc], _: &TensorDesc) -> u64 {
        0
    }
}

impl Graph {
    /// `x` with `padding[d]` = `[before, after]` more elements along each axis `d`.
    pub fn pad(&mut self, x: ValueId, padding: &[[usize; 2]], mode: PadMode) -> Result<ValueId> {
        match padding.len() == self.shape(x).len() && padding.iter().all(|p| *p == [0, 0]) {
            true => Ok(x),
            false => self.push(Pad { padding: padding.to_vec(), mode }, &[x]),
        }
    }
}

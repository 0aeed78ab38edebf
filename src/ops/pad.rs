//! Pad: more elements before and after, along any axes.

use super::lines::run;
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

/// Axes as their size and padding; one without padding is joined with the axis before it where
/// that changes nothing: two of them always, any before it if the padding is a constant.
fn merged(shape: &[usize], padding: &[[usize; 2]], mode: PadMode) -> Vec<(usize, [usize; 2])> {
    let mut axes: Vec<(usize, [usize; 2])> = Vec::new();
    for (&n, &padding) in shape.iter().zip(padding) {
        match axes.last_mut() {
            Some((size, [before, after]))
                if padding == [0, 0]
                    && (matches!(mode, PadMode::Constant(_)) || (*before, *after) == (0, 0)) =>
            {
                (*size, *before, *after) = (*size * n, *before * n, *after * n);
            }
            _ => axes.push((n, padding)),
        }
    }
    axes
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
        let mut axes = merged(from, &self.padding, self.mode);
        let constant = matches!(self.mode, PadMode::Constant(_));
        let quads = axes.last().is_some_and(|&(size, [before, after])| {
            (constant || before + after == 0) && [size, before, after].iter().all(|n| n % 4 == 0)
        });
        if quads && let Some((size, [before, after])) = axes.last_mut() {
            (*size, *before, *after) = (*size / 4, *before / 4, *after / 4);
        }
        let padded = |&(size, [before, after]): &(usize, [usize; 2])| size + before + after;
        let run = axes.last().map_or(1, |last| run(cx.target(), padded(last), 8));
        let mut shape: Vec<u32> = axes.iter().rev().map(|axis| padded(axis) as u32).collect();
        if let Some(last) = shape.first_mut() {
            *last /= run as u32;
        }
        let of_axes = |f: fn(&(usize, [usize; 2])) -> usize| {
            Param::Array(axes.iter().rev().map(|a| f(a) as u32).collect())
        };
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
        let count = to.shape.elements() / if quads { 4 } else { 1 } / run;
        cx.dispatch(
            Kernel::new("pad")
                .constant("MODE", mode)
                .constant("OUTER", format!("{}u", axes.len() - 1))
                .constant("RUN", format!("{run}u"))
                .alias("Elem", elem)
                .alias("Number", to.dtype.wgsl()),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("value", value.into()),
                ("shape", Param::Array(shape)),
                ("source", of_axes(|a| a.0)),
                ("before", of_axes(|a| a.1[0])),
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

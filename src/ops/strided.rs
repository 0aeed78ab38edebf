//! Strided copies: slice, transpose, broadcast and the pixel shuffles, one kernel.

use super::lines::run;
use super::{Operator, arity};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::{Kernel, Param};
use crate::tensor::{DType, MAX_RANK, Shape, TensorDesc};

/// Which elements of the input, in which order.
#[derive(Clone, Debug)]
pub enum Strided {
    /// Of each axis the elements `start, start + step, …`, before `stop` (after it, for a negative step).
    Slice(Vec<Range>),
    /// Axis `d` of the result is axis `axes[d]` of the input.
    Transpose(Vec<usize>),
    /// Axes of size one, and missing leading ones, repeated to this shape.
    Broadcast(Shape),
}

/// Part of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: usize,
    /// First index that is left out. With a negative step `None` means down to index 0;
    /// with a positive one, to the end.
    pub stop: Option<usize>,
    pub step: isize,
}

impl Range {
    /// The whole axis.
    pub fn all() -> Self {
        Range { start: 0, stop: None, step: 1 }
    }

    fn len(&self, size: usize) -> Result<usize, String> {
        let step = self.step.unsigned_abs();
        let stop = self.stop.unwrap_or(size);
        let distance = match self.step {
            0 => return Err("a slice's step must not be 0".to_owned()),
            1.. => stop.checked_sub(self.start),
            _ => match self.stop {
                Some(stop) => self.start.checked_sub(stop),
                None => self.start.checked_add(1),
            },
        };
        match distance {
            Some(d) if d > 0 && self.start < size && stop <= size => Ok(d.div_ceil(step)),
            _ => Err(format!("slice {self:?} takes nothing from, or leaves, an axis of {size}")),
        }
    }
}

impl Strided {
    /// Shape of the result, first element and strides in the input.
    pub(crate) fn layout(&self, input: &Shape) -> Result<(Vec<usize>, usize, Vec<i64>), String> {
        let own: Vec<i64> = input.strides().into_iter().map(|s| s as i64).collect();
        match self {
            Strided::Slice(ranges) => {
                if ranges.len() != input.len() {
                    return Err(format!("{} ranges given for {input}", ranges.len()));
                }
                let shape = ranges.iter().zip(input.iter()).map(|(r, &n)| r.len(n)).collect::<Result<_, _>>()?;
                let base = ranges.iter().zip(&own).map(|(r, s)| r.start * *s as usize).sum();
                // An axis of which one element is taken may have any step.
                let step = |r: &Range, n: usize| r.step.clamp(-(n as isize), n as isize) as i64;
                let strides =
                    ranges.iter().zip(input.iter()).zip(&own).map(|((r, &n), s)| s * step(r, n)).collect();
                Ok((shape, base, strides))
            }
            Strided::Transpose(axes) => {
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                if !sorted.into_iter().eq(0..input.len()) {
                    return Err(format!("{axes:?} is not an order of the axes of {input}"));
                }
                Ok((axes.iter().map(|&a| input[a]).collect(), 0, axes.iter().map(|&a| own[a]).collect()))
            }
            Strided::Broadcast(shape) => {
                let fail = || format!("{input} does not broadcast to {shape}");
                let new = shape.len().checked_sub(input.len()).ok_or_else(fail)?;
                let mut strides = vec![0; new];
                for (d, &n) in input.iter().enumerate() {
                    match n {
                        1 => strides.push(0),
                        _ if n == shape[new + d] => strides.push(own[d]),
                        _ => return Err(fail()),
                    }
                }
                Ok((shape.to_vec(), 0, strides))
            }
        }
    }
}

/// Joins neighbouring axes that one stride walks through, and drops axes of size one.
fn merged(shape: &[usize], strides: &[i64]) -> Vec<(usize, i64)> {
    let mut axes: Vec<(usize, i64)> = Vec::new();
    for (&n, &stride) in shape.iter().zip(strides).filter(|(n, _)| **n != 1) {
        match axes.last_mut() {
            Some((size, outer)) if *outer == stride * n as i64 => (*size, *outer) = (*size * n, stride),
            _ => axes.push((n, stride)),
        }
    }
    axes
}

impl Operator for Strided {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        if inputs[0].dtype == DType::BF16 {
            return Err("bf16 must be unpacked first".to_owned());
        }
        let (shape, ..) = self.layout(&inputs[0].shape)?;
        Ok(TensorDesc::new(shape, inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let output = cx.output_desc();
        let (shape, base, strides) = self.layout(&cx.desc(0).shape).expect("checked by infer");
        let mut axes = merged(&shape, &strides);
        let quads = base.is_multiple_of(4)
            && axes.split_last().is_some_and(|((n, stride), rest)| {
                *stride == 1 && n.is_multiple_of(4) && rest.iter().all(|(_, s)| s % 4 == 0)
            });
        let unit = if quads { 4 } else { 1 };
        if quads && let Some((last, rest)) = axes.split_last_mut() {
            last.0 /= 4;
            rest.iter_mut().for_each(|(_, stride)| *stride /= 4);
        }
        let elem = match (quads, output.dtype) {
            (true, DType::F32) => "vec4<f32>",
            (true, DType::F16) => "vec4<f16>",
            (true, _) => "vec4<u32>",
            (false, dtype) => dtype.wgsl(),
        };
        let run = axes.last().map_or(1, |&(n, _)| run(cx.target(), n, 8));
        let step = axes.last().map_or(0, |&(_, stride)| stride);
        if let Some(last) = axes.last_mut() {
            *last = (last.0 / run, step * run as i64);
        }
        let count = output.shape.elements() / unit / run;
        cx.dispatch(
            Kernel::new("strided")
                .constant("RANK", format!("{}u", axes.len()))
                .constant("RUN", format!("{run}u"))
                .alias("Elem", elem),
            &[("src", cx.input(0)), ("dst", cx.output())],
            &[
                ("count", count.into()),
                ("base", (base / unit).into()),
                ("step", (step as u32).into()),
                ("shape", Param::Array(axes.iter().rev().map(|a| a.0 as u32).collect())),
                ("strides", Param::Array(axes.iter().rev().map(|a| a.1 as u32).collect())),
            ],
            Grid::Threads(count),
        );
    }

    fn flops(&self, _: &[&TensorDesc], _: &TensorDesc) -> u64 {
        0
    }
}

const _: () = assert!(MAX_RANK <= 8, "the kernel's parameters hold eight axes");

impl Graph {
    /// Part of `x`: a [`Range`] for each axis.
    pub fn slice(&mut self, x: ValueId, ranges: &[Range]) -> Result<ValueId> {
        self.push(Strided::Slice(ranges.to_vec()), &[x])
    }

    /// `x` with its axes in another order: axis `d` of the result is axis `axes[d]` of `x`.
    pub fn transpose(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        match axes.iter().copied().eq(0..self.shape(x).len()) {
            true => Ok(x),
            false => self.push(Strided::Transpose(axes.to_vec()), &[x]),
        }
    }

    /// `x` repeated along axes of size one, and along new leading ones, to `shape`.
    pub fn broadcast_to(&mut self, x: ValueId, shape: impl Into<Shape>) -> Result<ValueId> {
        let shape = shape.into();
        match *self.shape(x) == shape {
            true => Ok(x),
            false => self.push(Strided::Broadcast(shape), &[x]),
        }
    }

    /// `[n, h, w, c · r²]` → `[n, h · r, w · r, c]`: channel `(k · r + dy) · r + dx` becomes channel `k` of
    /// the pixel at offset `(dy, dx)`, as PyTorch's `PixelShuffle` (Shi et al. 2016).
    pub fn pixel_shuffle(&mut self, x: ValueId, r: usize) -> Result<ValueId> {
        let [n, h, w, c] = self.pixels("pixel_shuffle", x)?;
        let square = r.saturating_mul(r);
        if r == 0 || !c.is_multiple_of(square) {
            return Err(self.refuse("pixel_shuffle", x, format!("wants a multiple of {r}² channels, found {c}")));
        }
        let k = c / square;
        let x = self.reshape(x, [n, h, w, k, r, r])?;
        let x = self.transpose(x, &[0, 1, 4, 2, 5, 3])?;
        self.reshape(x, [n, h * r, w * r, k])
    }

    /// `[n, h, w, c]` → `[n, h / r, w / r, c · r²]`, the inverse of [`Graph::pixel_shuffle`].
    pub fn pixel_unshuffle(&mut self, x: ValueId, r: usize) -> Result<ValueId> {
        let [n, h, w, c] = self.pixels("pixel_unshuffle", x)?;
        if r == 0 || !h.is_multiple_of(r) || !w.is_multiple_of(r) {
            return Err(self.refuse("pixel_unshuffle", x, format!("wants a multiple of {r} pixels, found {h} by {w}")));
        }
        let x = self.reshape(x, [n, h / r, r, w / r, r, c])?;
        let x = self.transpose(x, &[0, 1, 3, 5, 2, 4])?;
        self.reshape(x, [n, h / r, w / r, c * r * r])
    }

    fn pixels(&self, op: &'static str, x: ValueId) -> Result<[usize; 4]> {
        super::nhwc("input", self.desc(x)).map_err(|message| self.refuse(op, x, message))
    }

    fn refuse(&self, op: &'static str, x: ValueId, message: String) -> Error {
        Error::Graph { op, node: self.value(x).name.clone(), message }
    }
}

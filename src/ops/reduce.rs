//! Reduce: sums, means, extremes, products and norms over dimensions.

use super::lines::{LOAD_TEXEL, Team, packed, split};
use super::{Operator, arity, float};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, Slot, elem};
use crate::shader::Kernel;
use crate::target::DeviceClass;
use crate::tensor::TensorDesc;

/// What is made of the numbers along a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Product,
    /// Square root of the sum of squares.
    L2,
}

/// Numbers in a line from which on several threads of a GPU do it.
const LONG: usize = 16;

/// Reduces the neighbouring dimensions `first..end` to size one.
#[derive(Clone, Debug)]
pub struct Reduce {
    pub reduction: Reduction,
    pub first: usize,
    pub end: usize,
}

impl Operator for Reduce {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=1)?;
        float("input", inputs[0])?;
        if self.first >= self.end || self.end > inputs[0].shape.len() {
            return Err(format!("no dimensions {}..{} in {}", self.first, self.end, inputs[0].shape));
        }
        let mut shape = inputs[0].shape.to_vec();
        shape[self.first..self.end].fill(1);
        Ok(TensorDesc::new(shape, inputs[0].dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let desc = cx.desc(0);
        let [outer, size, inner] = split(&desc.shape, self.first, self.end);
        if cx.target().class != DeviceClass::Cpu && size >= LONG {
            return self.lower_threads(outer, size, inner, cx);
        }
        let (v, elem, unit) = packed(inner, desc.dtype);
        let inner = inner / unit;
        // How parts of a line are joined is how numbers are, but for squares.
        let (start, fold, join, finish) = match self.reduction {
            Reduction::Sum => ("V(0.0)", "sum + x", "sum + x", "sum"),
            Reduction::Mean => ("V(0.0)", "sum + x", "sum + x", "sum / P.numbers"),
            Reduction::Max => ("load(first)", "max(sum, x)", "max(sum, x)", "sum"),
            Reduction::Min => ("load(first)", "min(sum, x)", "min(sum, x)", "sum"),
            Reduction::Product => ("V(1.0)", "sum * x", "sum * x", "sum"),
            Reduction::L2 => ("V(0.0)", "sum + x * x", "sum + x", "sqrt(sum)"),
        };
        let cpu = cx.target().class == DeviceClass::Cpu;
        let kernel = |from: &'static str, to: &'static str, fold: &str, finish: &str| {
            Kernel::new("reduce")
                .alias("V", v)
                .alias("Elem", from)
                .alias("Dst", to)
                .constant("WORKGROUP", if cpu { "8u" } else { "32u" })
                .function("start", format!("fn start(first: u32) -> V {{ return {start}; }}"))
                .function("fold", format!("fn fold(sum: V, x: V) -> V {{ return {fold}; }}"))
                .function("finish", format!("fn finish(sum: V) -> V {{ return {finish}; }}"))
        };
        let texels = unit == 4 && cx.finds_texels(0);
        if texels {
            cx.texels("src_texture", cx.input(0), desc);
        }
        let of_source = |kernel: Kernel| if texels { kernel.function("load", LOAD_TEXEL) } else { kernel };
        let parts = if cpu { parts(inner, size) } else { 1 };
        let (source, result) = (cx.input(0), cx.output());
        let between = if parts == 1 { source } else { cx.scratch(4 * outer * parts * inner * unit) };
        let mut launch = |kernel: Kernel, [src, dst]: [Slot; 2], outer: usize, length: usize| {
            let params = [
                ("lines", (outer * inner).into()),
                ("size", length.into()),
                ("inner", inner.into()),
                ("numbers", (size as f32).into()),
            ];
            cx.dispatch(kernel, &[("src", src), ("dst", dst)], &params, Grid::Threads(outer * inner));
        };
        if parts == 1 {
            return launch(of_source(kernel(elem, elem, fold, finish)), [source, result], outer, size);
        }
        launch(of_source(kernel(elem, v, fold, "sum")), [source, between], outer * parts, size / parts);
        launch(kernel(v, elem, join, finish), [between, result], outer, parts);
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        inputs[0].shape.elements() as u64
    }
}

/// In how many parts a line is done where `lines`, of one sample alone, are too few for a processor's cores, and long enough for
/// one more launch.
fn parts(lines: usize, size: usize) -> usize {
    const ENOUGH: usize = 16;
    const LONG: usize = 4096;
    if lines >= ENOUGH || size < LONG {
        return 1;
    }
    (ENOUGH.div_ceil(lines)..=64).find(|parts| size.is_multiple_of(*parts)).unwrap_or(1)
}

impl Reduce {
    /// With several threads a line.
    fn lower_threads(&self, outer: usize, size: usize, inner: usize, cx: &mut Lower) {
        let dtype = cx.desc(0).dtype;
        let along = inner == 1;
        let (v, source, unit) = packed(if along { size } else { inner }, dtype);
        let (units, lines, inner) = match along {
            true => (size / unit, outer, 1),
            false => (size, outer * inner / unit, inner / unit),
        };
        let team = if along { Team::along(units, 4) } else { Team::across(units, 8) };
        let (start, fold, join, finish) = match self.reduction {
            Reduction::Sum => ("V(0.0)", "so_far + x", "a + b", "all"),
            Reduction::Mean => ("V(0.0)", "so_far + x", "a + b", "all / P.size"),
            Reduction::Max => ("V(src[first])", "max(so_far, x)", "max(a, b)", "all"),
            Reduction::Min => ("V(src[first])", "min(so_far, x)", "min(a, b)", "all"),
            Reduction::Product => ("V(1.0)", "so_far * x", "a * b", "all"),
            Reduction::L2 => ("V(0.0)", "so_far + x * x", "a + b", "sqrt(all)"),
        };
        let mut kernel = team
            .kernel("reduce_threads")
            .alias("V", v)
            .alias("Elem", source)
            .alias("Part", if along { "f32" } else { v })
            .alias("Dst", if along { elem(cx.desc(0)) } else { source })
            .function("start", format!("fn start(first: u32) -> V {{ return {start}; }}"))
            .function("fold", format!("fn fold(so_far: V, x: V) -> V {{ return {fold}; }}"))
            .function("join", format!("fn join(a: Part, b: Part) -> Part {{ return {join}; }}"))
            .function("finish", format!("fn finish(all: Part) -> Part {{ return {finish}; }}"));
        if !along || unit == 1 {
            kernel = kernel.function("within", "fn within(v: V) -> Part { return v; }");
        }
        let mut params =
            vec![("lines", lines.into()), ("units", units.into()), ("inner", inner.into())];
        params.push(("size", (size as f32).into()));
        cx.dispatch(kernel, &[("src", cx.input(0)), ("dst", cx.output())], &params, team.grid(lines));
    }
}

impl Graph {
    /// `x` reduced over `axes`; these stay as dimensions of size one if `keep`, else they go.
    pub fn reduce(&mut self, x: ValueId, reduction: Reduction, axes: &[usize], keep: bool) -> Result<ValueId> {
        let shape = self.shape(x).clone();
        if let Some(axis) = axes.iter().find(|&&a| a >= shape.len()) {
            let message = format!("no axis {axis} in {shape}");
            return Err(Error::Graph { op: "Reduce", node: self.value(x).name.clone(), message });
        }
        // One reduction for each run of neighbouring axes: a mean of means of as many, a norm of norms.
        let mut y = x;
        let mut d = 0;
        while d < shape.len() {
            let end = d + (d..shape.len()).take_while(|a| axes.contains(a)).count();
            if end > d {
                y = self.push(Reduce { reduction, first: d, end }, &[y])?;
            }
            d = end + 1;
        }
        let kept = (0..shape.len()).filter(|d| !axes.contains(d)).map(|d| shape[d]).collect::<Vec<_>>();
        if keep { Ok(y) } else { self.reshape(y, kept) }
    }
}

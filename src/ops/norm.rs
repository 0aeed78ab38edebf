//! Norm: group, instance, layer and RMS normalisation, with an activation after it.

use super::expr::Unary;
use super::lines::{LOAD_TEXEL, Team, packed, quad};
use super::{Operator, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::{Kernel, Param};
use crate::target::DeviceClass;
use crate::tensor::TensorDesc;

/// What is averaged over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Of `[n, ..., c]`, each sample and group of `c / groups` channels (Wu and He, 2018).
    Groups(usize),
    /// Of `[..., c]`, each row of `c` (Ba et al., 2016).
    Row,
    /// As `Row`, but only scaled by the root mean square, the mean left (Zhang and Sennrich, 2019).
    RootMeanSquare,
}

/// `(x − mean) / √(variance + eps) · weight + bias`, then the activation.
/// Inputs: `x`, then weight and bias `[c]` as far as they are used.
#[derive(Clone, Debug)]
pub struct Norm {
    pub over: Over,
    pub eps: f32,
    pub weight: bool,
    pub bias: bool,
    pub activation: Option<Unary>,
}

impl Operator for Norm {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        super::arity(inputs, 1 + usize::from(self.weight) + usize::from(self.bias)..=3)?;
        float("input", inputs[0])?;
        let c = inputs[0].shape.last();
        if let Over::Groups(groups) = self.over
            && (groups == 0 || !c.is_multiple_of(groups) || inputs[0].shape.len() < 2)
        {
            return Err(format!("{groups} groups do not divide the channels of {}", inputs[0].shape));
        }
        for vector in &inputs[1..] {
            if vector.shape[..] != [c] || vector.dtype != inputs[0].dtype {
                return Err(format!("weight and bias must be {}[{c}], found {vector}", inputs[0].dtype));
            }
        }
        Ok(inputs[0].clone())
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        8 * output.shape.elements() as u64
    }

    fn lower(&self, cx: &mut Lower) {
        match self.over {
            Over::Groups(groups) => self.lower_groups(cx, groups),
            Over::Row | Over::RootMeanSquare => self.lower_rows(cx),
        }
    }
}

/// What is normalised together: of `[samples, pixels, groups, size]`, the pixels' numbers of a group.
struct Rows {
    samples: usize,
    pixels: usize,
    groups: usize,
    size: usize,
}

/// Units of a group that one workgroup of a GPU normalises in one launch: quads, or numbers where groups have no whole quads.
/// With more than those it would be alone for longer than three launches of many workgroups take.
const FEW_QUADS: usize = 8192;
const FEW_NUMBERS: usize = 2048;

impl Norm {
    /// Replaces what the kernel does for a weight or bias that is not there, and the activation.
    fn specialise(&self, kernel: Kernel, weights: bool, activation: bool) -> Kernel {
        let mut kernel = kernel;
        if weights && !self.weight {
            kernel = kernel.function("weight_of", "fn weight_of(channel: u32) -> f32 { return 1.0; }");
        }
        if weights && !self.bias {
            kernel = kernel.function("bias_of", "fn bias_of(channel: u32) -> f32 { return 0.0; }");
        }
        if let (true, Some(f)) = (activation, self.activation) {
            kernel = kernel.function("activation", format!("fn activation(x: V) -> V {{ return {}; }}", f.wgsl("x")));
        }
        kernel
    }

    /// Weight and bias by the names that the kernels give them.
    fn vectors(&self, cx: &Lower) -> Vec<(&'static str, crate::lower::Slot)> {
        let mut vectors = Vec::new();
        if self.weight {
            vectors.push(("weight", cx.input(1)));
        }
        if self.bias {
            vectors.push(("bias", cx.input(1 + usize::from(self.weight))));
        }
        vectors
    }

    fn lower_rows(&self, cx: &mut Lower) {
        let shape = &cx.output_desc().shape;
        let rows = shape.elements() / shape.last();
        if cx.target().class == DeviceClass::Cpu && shape.last().is_multiple_of(4) {
            return self.lower_quads(rows, shape.last() / 4, cx);
        }
        if cx.target().class != DeviceClass::Cpu {
            let shape = Rows { samples: rows, pixels: 1, groups: 1, size: shape.last() };
            return self.lower_threads(shape, cx);
        }
        let mut kernel = self.specialise(Kernel::new("row_norm").alias("Elem", elem(cx.output_desc())), true, true);
        if self.over == Over::RootMeanSquare {
            kernel = kernel.function("moments", ROOT_MEAN_SQUARE);
        }
        let mut buffers = vec![("src", cx.input(0)), ("dst", cx.output())];
        buffers.extend(self.vectors(cx));
        let params = [("rows", rows.into()), ("channels", shape.last().into()), ("eps", self.eps.into())];
        cx.dispatch(kernel, &buffers, &params, Grid::Threads(rows));
    }

    /// Rows, or groups of few numbers, with several threads each and in one launch.
    fn lower_threads(&self, shape: Rows, cx: &mut Lower) {
        let (v, elem, unit) = packed(shape.size, cx.output_desc().dtype);
        let units = shape.pixels * shape.size / unit;
        let team = Team::along(units, 4);
        let mut kernel = team
            .kernel("row_norm_threads")
            .constant("HELD", format!("{}u", team.held(units, 8)))
            .alias("V", v)
            .alias("Elem", elem);
        if unit == 1 {
            kernel = kernel.function("sum", "fn sum(v: V) -> f32 {\n    return v;\n}");
        }
        if self.over == Over::RootMeanSquare {
            kernel = kernel.constant("CENTRED", false);
        }
        if shape.pixels > 1 || shape.groups > 1 {
            kernel = kernel.function("place", PLACE_IN_GROUP).function("channel", CHANNEL_IN_GROUP);
        }
        if !self.weight {
            kernel = kernel.function("weight_of", "fn weight_of(unit: u32) -> V {\n    return V(1.0);\n}");
        }
        if !self.bias {
            kernel = kernel.function("bias_of", "fn bias_of(unit: u32) -> V {\n    return V(0.0);\n}");
        }
        let kernel = self.specialise(kernel, false, true);
        let mut buffers = vec![("src", cx.input(0)), ("dst", cx.output())];
        buffers.extend(self.vectors(cx));
        let rows = shape.samples * shape.groups;
        let params = [
            ("rows", rows.into()),
            ("units", units.into()),
            ("size", ((shape.pixels * shape.size) as f32).into()),
            ("eps", self.eps.into()),
            ("pixels", shape.pixels.into()),
            ("groups", shape.groups.into()),
            ("group_units", (shape.size / unit).into()),
        ];
        cx.dispatch(kernel, &buffers, &params, team.grid(rows));
    }

    /// Rows of whole quads.
    fn lower_quads(&self, rows: usize, quads: usize, cx: &mut Lower) {
        let mut kernel = Kernel::new("row_norm_quads").alias("Quad", quad(cx.output_desc().dtype));
        if !self.weight {
            kernel = kernel.function("weight_of", "fn weight_of(quad: u32) -> V { return V(1.0); }");
        }
        if !self.bias {
            kernel = kernel.function("bias_of", "fn bias_of(quad: u32) -> V { return V(0.0); }");
        }
        if self.over == Over::RootMeanSquare {
            kernel = kernel.function("moments", ROOT_MEAN_SQUARE_QUADS);
        }
        let kernel = self.specialise(kernel, false, true);
        let mut buffers = vec![("src", cx.input(0)), ("dst", cx.output())];
        buffers.extend(self.vectors(cx));
        let params = [("rows", rows.into()), ("quads", quads.into()), ("eps", self.eps.into())];
        cx.dispatch(kernel, &buffers, &params, Grid::Threads(rows));
    }

    fn lower_groups(&self, cx: &mut Lower, groups: usize) {
        let desc = cx.output_desc();
        let samples = desc.shape[0];
        let channels = desc.shape.last();
        let pixels = desc.shape.elements() / samples / channels;
        let quads = channels.div_ceil(4);
        let vector = channels.is_multiple_of(4);
        let gpu = cx.target().class != DeviceClass::Cpu;
        let size = channels / groups;
        let few = if size.is_multiple_of(4) { 4 * FEW_QUADS } else { FEW_NUMBERS };
        if gpu && pixels * size <= few {
            return self.lower_threads(Rows { samples, pixels, groups, size }, cx);
        }

        // Chunks give threads, as many as are to be had for a GPU. A CPU would have enough of some dozens, but reads short ones faster:
        // a thread's numbers lie a pixel apart.
        let (wanted, shortest) = match cx.target().class {
            DeviceClass::Cpu => (1024, 64),
            _ => (1 << 16, 16),
        };
        // For each sample alone: what a picture is does not depend on how many are computed with it.
        let threads = if vector { quads } else { channels };
        let chunks = usize::div_ceil(wanted, threads).clamp(1, pixels.div_ceil(shortest));
        let chunk = pixels.div_ceil(chunks);
        let chunks = pixels.div_ceil(chunk);
        let stats = cx.scratch(samples * chunks * quads * 32);
        let scales = cx.scratch(samples * quads * 48);

        let texels = vector && cx.finds_texels(0);
        if texels {
            cx.texels("src_texture", cx.input(0), desc);
        }
        let source = |kernel: Kernel| match texels {
            true => kernel.function("load", LOAD_TEXEL),
            false => kernel.alias("Quad", quad(desc.dtype)),
        };
        // A CPU's threads want small workgroups, a GPU's as many to start at once.
        let sized = |kernel: Kernel| if gpu { kernel.constant("WORKGROUP", "128u") } else { kernel };
        let buffers = [("src", cx.input(0)), ("stats", stats)];
        let mut params: Vec<(&'static str, Param)> = vec![
            ("samples", samples.into()),
            ("pixels", pixels.into()),
            ("chunks", chunks.into()),
            ("chunk", chunk.into()),
        ];
        let kernel = if vector {
            params.push(("quads", quads.into()));
            source(Kernel::new("channel_stats"))
        } else {
            params.push(("channels", channels.into()));
            Kernel::new("channel_stats_scalar").alias("Elem", elem(desc))
        };
        cx.dispatch(sized(kernel), &buffers, &params, Grid::Threads(samples * threads * chunks));

        let mut buffers = vec![("stats", stats), ("scales", scales)];
        buffers.extend(self.vectors(cx));
        let mut params: Vec<(&'static str, Param)> = vec![
            ("pixels", pixels.into()),
            ("channels", channels.into()),
            ("group_channels", size.into()),
            ("chunks", chunks.into()),
            ("chunk", chunk.into()),
            ("eps", self.eps.into()),
        ];
        let rows = samples * groups;
        let (kernel, grid) = if gpu {
            params.push(("rows", rows.into()));
            let team = Team::along(chunks * size, 4);
            (team.kernel("group_norm_scale_threads"), team.grid(rows))
        } else {
            params.push(("samples", samples.into()));
            (Kernel::new("group_norm_scale"), Grid::Threads(rows))
        };
        cx.dispatch(self.specialise(kernel.alias("Elem", elem(desc)), true, false), &buffers, &params, grid);

        let buffers = [("src", cx.input(0)), ("scales", scales), ("dst", cx.output())];
        if vector {
            let strip = pixels.clamp(1, if gpu { 4 } else { 64 });
            let strips = pixels.div_ceil(strip);
            // The storage type of the result stands even where the source is a texture.
            let kernel = sized(source(Kernel::new("group_norm_apply")));
            cx.dispatch(
                self.specialise(kernel, false, true),
                &buffers,
                &[
                    ("samples", samples.into()),
                    ("pixels", pixels.into()),
                    ("quads", quads.into()),
                    ("strips", strips.into()),
                    ("strip", strip.into()),
                ],
                Grid::Threads(samples * strips * quads),
            );
        } else {
            let kernel = Kernel::new("group_norm_apply_scalar").alias("Elem", elem(desc));
            let params = [("samples", samples.into()), ("pixels", pixels.into()), ("channels", channels.into())];
            let count = samples * pixels * channels;
            cx.dispatch(self.specialise(kernel, false, true), &buffers, &params, Grid::Threads(count));
        }
    }
}

const PLACE_IN_GROUP: &str = "fn place(row: u32, k: u32) -> u32 {
    let pixel = row / P.groups * P.pixels + k / P.group_units;
    return (pixel * P.groups + row % P.groups) * P.group_units + k % P.group_units;
}";

const CHANNEL_IN_GROUP: &str = "fn channel(row: u32, k: u32) -> u32 {
    return row % P.groups * P.group_units + k % P.group_units;
}";

const ROOT_MEAN_SQUARE: &str = "fn moments(first: u32) -> vec2<f32> {
    var squares = 0.0;
    for (var c = 0u; c < P.channels; c++) {
        let x = f32(src[first + c]);
        squares += x * x;
    }
    return vec2<f32>(0.0, squares / f32(P.channels));
}";

const ROOT_MEAN_SQUARE_QUADS: &str = "fn moments(first: u32) -> vec2<f32> {
    var squares = V(0.0);
    for (var k = 0u; k < P.quads; k++) {
        let x = V(src[first + k]);
        squares += x * x;
    }
    return vec2<f32>(0.0, 0.25 * sum(squares) / f32(P.quads));
}";

impl Graph {
    /// Group norm of `x` `[n, ..., c]`, with `weight` and `bias` `[c]`.
    pub fn group_norm(
        &mut self,
        x: ValueId,
        groups: usize,
        weight: Option<ValueId>,
        bias: Option<ValueId>,
        eps: f32,
    ) -> Result<ValueId> {
        self.norm(x, Over::Groups(groups), weight, bias, eps)
    }

    /// Instance norm of `x` `[n, ..., c]`: each channel of each sample (Ulyanov et al., 2016).
    pub fn instance_norm(
        &mut self,
        x: ValueId,
        weight: Option<ValueId>,
        bias: Option<ValueId>,
        eps: f32,
    ) -> Result<ValueId> {
        self.norm(x, Over::Groups(self.shape(x).last()), weight, bias, eps)
    }

    /// Layer norm over the last dimension of `x` `[..., c]`.
    pub fn layer_norm(
        &mut self,
        x: ValueId,
        weight: Option<ValueId>,
        bias: Option<ValueId>,
        eps: f32,
    ) -> Result<ValueId> {
        self.norm(x, Over::Row, weight, bias, eps)
    }

    /// RMS norm over the last dimension of `x` `[..., c]`.
    pub fn rms_norm(&mut self, x: ValueId, weight: Option<ValueId>, eps: f32) -> Result<ValueId> {
        self.norm(x, Over::RootMeanSquare, weight, None, eps)
    }

    fn norm(
        &mut self,
        x: ValueId,
        over: Over,
        weight: Option<ValueId>,
        bias: Option<ValueId>,
        eps: f32,
    ) -> Result<ValueId> {
        let mut inputs = vec![x];
        inputs.extend(weight);
        inputs.extend(bias);
        let norm = Norm { over, eps, weight: weight.is_some(), bias: bias.is_some(), activation: None };
        self.push(norm, &inputs)
    }
}

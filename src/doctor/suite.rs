//! Every kind of operation at a few sizes: what a device is examined with where no network is named.

use super::examine::{Examination, Options, examine};
use super::judge::random;
use crate::bench::record::OperationError;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::arg_reduce::ArgReduce;
use crate::ops::attention::AttentionOptions;
use crate::ops::best_boxes::{Classes, Selection};
use crate::ops::conv_transpose2d::ConvTranspose2dOptions;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::cumulate::{Cumulate, Running};
use crate::ops::deform_columns::DeformColumns;
use crate::ops::expr::Unary;
use crate::ops::fold_columns::FoldColumns;
use crate::ops::grid_sample::{GridSample, Outside};
use crate::ops::matmul::Matmul;
use crate::ops::pad::PadMode;
use crate::ops::picture_crops::PictureCrops;
use crate::ops::picture_to_tensor::Axis;
use crate::ops::pool::{PoolKind, PoolOptions};
use crate::ops::quantize::{Per, Quantize};
use crate::ops::quantized::BlockFormat;
use crate::ops::reduce::Reduction;
use crate::ops::resize::{Coordinates, Interpolation};
use crate::ops::roi_align::{RoiAlign, Samples};
use crate::ops::scatter::Combine;
use crate::ops::strided::Range;
use crate::ops::suppress::Suppress;
use crate::ops::typed::Function;
use crate::ops::{ConvTranspose2d, TimestepEmbedding};
use crate::tensor::{DType, Tensor};

/// A small network of one kind of operation.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub graph: Graph,
    /// Of all inputs of the graph.
    pub inputs: Vec<(String, Tensor)>,
}

/// Values for all inputs of a graph: numbers within ±1, words of pictures, small indices; the same for the same seed.
pub fn random_inputs(graph: &Graph, seed: u64) -> Vec<(String, Tensor)> {
    let mut state = seed;
    let inputs = graph.values().filter(|(_, v)| matches!(v.source, Source::Input));
    inputs
        .map(|(_, value)| {
            let (shape, count) = (value.desc.shape.clone(), value.desc.shape.elements());
            let tensor = match value.desc.dtype {
                // Pictures; else rows of a table.
                DType::U32 if shape.len() == 3 => Tensor::from_u32(
                    shape,
                    &(0..count).map(|_| random(&mut state) as u32).collect::<Vec<_>>(),
                ),
                DType::U32 => Tensor::from_u32(
                    shape,
                    &(0..count).map(|_| (random(&mut state) % 100) as u32).collect::<Vec<_>>(),
                ),
                DType::I32 => Tensor::from_i32(
                    shape,
                    &(0..count).map(|_| (random(&mut state) % 8) as i32).collect::<Vec<_>>(),
                ),
                dtype => numbers(&mut state, shape.to_vec(), dtype),
            };
            (value.name.clone(), tensor)
        })
        .collect()
}

fn numbers(state: &mut u64, shape: Vec<usize>, dtype: DType) -> Tensor {
    let count = shape.iter().product();
    let uniform = |state: &mut u64| (random(state) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let values: Vec<f32> = (0..count).map(|_| uniform(state)).collect();
    Tensor::from_f32(shape, &values).to_dtype(dtype)
}

/// A graph under construction whose inputs and weights are drawn by lot.
struct Draft {
    g: Graph,
    state: u64,
    dtype: DType,
}

impl Draft {
    fn input(&mut self, shape: &[usize]) -> ValueId {
        self.of(shape, self.dtype)
    }

    fn of(&mut self, shape: &[usize], dtype: DType) -> ValueId {
        let name = format!("input{}", self.g.values().count());
        self.g.input(&name, shape, dtype)
    }

    fn weight(&mut self, shape: &[usize]) -> ValueId {
        let dtype = self.dtype;
        self.stored(shape, dtype)
    }

    fn stored(&mut self, shape: &[usize], dtype: DType) -> ValueId {
        let tensor = numbers(&mut self.state, shape.to_vec(), dtype);
        self.g.weight("weight", tensor)
    }

    fn conv(&mut self, x: [usize; 4], w: [usize; 4], options: Conv2dOptions) -> Result<ValueId> {
        let (x, w, b) = (self.input(&x), self.weight(&w), self.weight(&[w[0]]));
        self.g.conv2d(x, w, Some(b), options)
    }
}

type Build = fn(&mut Draft) -> Result<ValueId>;

/// Name, whether there is an f16 form, and the graph.
#[rustfmt::skip]
const CASES: &[(&str, bool, Build)] = &[
    ("convolution 3×3 64→64 at 56×56", true, |d| d.conv([1, 56, 56, 64], [64, 64, 3, 3], Conv2dOptions::padded(1))),
    ("convolution 7×7 stride 2 3→64 at 64×64", true, |d| d.conv([1, 64, 64, 3], [64, 3, 7, 7], Conv2dOptions::padded(3).stride(2))),
    ("convolution 1×1 96→577 at 14×14", true, |d| d.conv([1, 14, 14, 96], [577, 96, 1, 1], Conv2dOptions::default())),
    ("convolution 3×3 20→17 at 13×19", true, |d| d.conv([3, 13, 19, 20], [17, 20, 3, 3], Conv2dOptions::padded(1))),
    ("depthwise convolution 5×5 of 96 at 28×28", true, |d| d.conv([1, 28, 28, 96], [96, 1, 5, 5], Conv2dOptions::padded(2).groups(96))),
    ("grouped convolution 3×3 of 12 by 3", true, |d| d.conv([2, 9, 9, 12], [6, 4, 3, 3], Conv2dOptions::padded(1).groups(3))),
    ("linear 64×768→768, gelu, residual", true, |d| {
        let (x, w, b) = (d.input(&[1, 64, 768]), d.weight(&[768, 768]), d.weight(&[768]));
        let r = d.input(&[1, 64, 768]);
        let y = d.g.linear(x, w, Some(b))?;
        let y = d.g.unary(Unary::Gelu, y)?;
        d.g.add(y, r)
    }),
    ("convolution with a weight in blocks q8_0", false, |d| {
        let (x, w) = (d.input(&[1, 16, 16, 64]), d.weight(&[64, 64, 3, 3]));
        let w = d.g.quantized(w, BlockFormat::Q8_0)?;
        d.g.conv2d(x, w, None, Conv2dOptions::padded(1))
    }),
    ("linear with a weight in blocks q4_0", false, |d| {
        let (x, w) = (d.input(&[32, 320]), d.weight(&[320, 320]));
        let w = d.g.quantized(w, BlockFormat::Q4_0)?;
        d.g.linear(x, w, None)
    }),
    ("transposed convolution 4×4 stride 2 32→16", true, |d| {
        let (x, w, b) = (d.input(&[1, 14, 14, 32]), d.weight(&[32, 4, 4, 16]), d.weight(&[16]));
        let options = ConvTranspose2dOptions { stride: [2, 2], padding: [1; 4], ..Default::default() };
        d.g.push(ConvTranspose2d { options }, &[x, w, b])
    }),
    ("deformable convolution's columns", true, |d| {
        let (x, offsets) = (d.input(&[1, 9, 9, 16]), d.input(&[1, 9, 9, 18]));
        d.g.deform_columns(x, offsets, None, DeformColumns { options: Conv2dOptions::padded(1), kernel: [3, 3], sets: 1 })
    }),
    ("blocks folded to a picture", true, |d| {
        let x = d.input(&[1, 7, 7, 36]);
        d.g.fold_columns(x, FoldColumns { size: [9, 9], kernel: [3, 3], stride: [1, 1], dilation: [1, 1], padding: [0; 4] })
    }),
    ("attention of 256 tokens, 8 heads of 40", true, |d| {
        let [q, k, v] = [(); 3].map(|()| d.input(&[1, 256, 320]));
        d.g.attention(q, k, v, 8, AttentionOptions::default())
    }),
    ("causal attention of 77 tokens, 3 heads of 21", true, |d| {
        let [q, k, v] = [(); 3].map(|()| d.input(&[2, 77, 63]));
        d.g.attention(q, k, v, 3, AttentionOptions { causal: true, ..Default::default() })
    }),
    ("matrix product 4×65×96×33", true, |d| {
        let (a, b) = (d.input(&[4, 65, 96]), d.input(&[4, 96, 33]));
        d.g.matmul(a, b, Matmul::default())
    }),
    ("group norm of 32 groups, silu", true, |d| {
        let (x, w, b) = (d.input(&[2, 32, 32, 128]), d.weight(&[128]), d.weight(&[128]));
        let y = d.g.group_norm(x, 32, Some(w), Some(b), 1e-5)?;
        d.g.silu(y)
    }),
    ("instance norm of 6 channels", true, |d| {
        let x = d.input(&[2, 17, 13, 6]);
        d.g.instance_norm(x, None, None, 1e-5)
    }),
    ("layer norm of 768", true, |d| {
        let (x, w, b) = (d.input(&[1, 77, 768]), d.weight(&[768]), d.weight(&[768]));
        d.g.layer_norm(x, Some(w), Some(b), 1e-5)
    }),
    ("softmax of 1000", true, |d| { let x = d.input(&[8, 1000]); d.g.softmax(x, 1) }),
    ("log-softmax along the middle", true, |d| { let x = d.input(&[3, 21, 5]); d.g.log_softmax(x, 1) }),
    ("mean over pixels", true, |d| { let x = d.input(&[2, 14, 14, 96]); d.g.reduce(x, Reduction::Mean, &[1, 2], true) }),
    ("running sum", true, |d| {
        let x = d.input(&[4, 77, 3]);
        d.g.push(Cumulate { running: Running::Sum, axis: 1, exclusive: false, reverse: false }, &[x])
    }),
    ("greatest of a line", true, |d| {
        let x = d.input(&[5, 300]);
        d.g.push(ArgReduce { axis: 1, smallest: false, last: false }, &[x])
    }),
    ("top 5 of 1000", true, |d| { let x = d.input(&[3, 1000]); d.g.top_k(x, 1, 5) }),
    ("max pool 3×3 stride 2", true, |d| {
        let x = d.input(&[1, 56, 56, 64]);
        d.g.max_pool(x, PoolOptions { stride: [2, 2], padding: [1; 4], ..PoolOptions::square(3) })
    }),
    ("global mean pool", true, |d| {
        let x = d.input(&[2, 7, 7, 130]);
        d.g.global_pool(x, PoolKind::Mean { include_pad: false })
    }),
    ("places of a pool's maxima", true, |d| { let x = d.input(&[1, 12, 12, 5]); d.g.max_pool_places(x, PoolOptions::square(2), false) }),
    ("sigmoid, product and sum, broadcast", true, |d| {
        let (x, y, z) = (d.input(&[2, 15, 15, 32]), d.input(&[2, 1, 1, 32]), d.input(&[32]));
        let y = d.g.unary(Unary::Sigmoid, y)?;
        let x = d.g.mul(x, y)?;
        d.g.add(x, z)
    }),
    ("exponential, logarithm and root", true, |d| {
        let x = d.input(&[4097]);
        let x = d.g.unary(Unary::Exp, x)?;
        let x = d.g.unary(Unary::Sqrt, x)?;
        d.g.unary(Unary::Log, x)
    }),
    ("hyperbolic tangent and softplus", true, |d| {
        let x = d.input(&[4097]);
        let x = d.g.unary(Unary::Softplus, x)?;
        d.g.unary(Unary::Tanh, x)
    }),
    ("integers: sum of products", false, |d| {
        let (a, b) = (d.of(&[9, 31], DType::I32), d.of(&[9, 31], DType::I32));
        d.g.typed(Function::Mul, &[a, b])
    }),
    ("quantised and back", false, |d| {
        let (x, scale) = (d.of(&[3, 33], DType::F32), d.g.weight("scale", Tensor::from_f32([1], &[0.031])));
        let options = Quantize { per: Per::Tensor, low: -128, high: 127, times: false, back: false };
        let q = d.g.quantize(x, scale, None, options)?;
        d.g.dequantize(q, scale, None, Per::Tensor)
    }),
    ("convolution of integers", false, |d| {
        let (x, w) = (d.of(&[1, 9, 9, 8], DType::I32), d.of(&[3, 3, 8, 12], DType::I32));
        d.g.conv2d_integer(x, w, Conv2dOptions::padded(1))
    }),
    ("matrix product of integers", false, |d| {
        let (a, b) = (d.of(&[2, 17, 40], DType::I32), d.of(&[2, 40, 9], DType::I32));
        d.g.matmul_integer(a, b)
    }),
    ("bytes as integers", false, |d| { let x = d.of(&[21], DType::U32); d.g.unpack_bytes(x, [83], true) }),
    ("bf16 weights unpacked", true, |d| {
        let (x, dtype) = (d.input(&[3, 40]), d.dtype);
        let w = d.stored(&[24, 40], DType::BF16);
        let w = d.g.unpacked(w, dtype)?;
        d.g.linear(x, w, None)
    }),
    ("concatenation of 3", true, |d| {
        let (a, b, c) = (d.input(&[1, 32, 32, 64]), d.input(&[1, 32, 32, 32]), d.input(&[1, 32, 32, 5]));
        d.g.concat(&[a, b, c], 3)
    }),
    ("transpose and slice", true, |d| {
        let x = d.input(&[2, 12, 10, 8]);
        let x = d.g.transpose(x, &[0, 3, 1, 2])?;
        let part = Range { start: 1, stop: Some(7), step: 2 };
        d.g.slice(x, &[Range::all(), part, Range::all(), Range { start: 9, stop: None, step: -1 }])
    }),
    ("padding by reflection", true, |d| { let x = d.input(&[1, 9, 9, 6]); d.g.pad(x, &[[0, 0], [2, 3], [4, 1], [0, 0]], PadMode::Reflect) }),
    ("rows of a table", true, |d| { let (t, i) = (d.weight(&[100, 64]), d.of(&[2, 77], DType::U32)); d.g.gather(t, i, 0) }),
    ("elements by index", true, |d| { let (x, i) = (d.input(&[9, 6]), d.of(&[5, 6], DType::I32)); d.g.gather_elements(x, i, 0) }),
    ("slices by tuples", true, |d| { let (x, i) = (d.input(&[8, 8, 5]), d.of(&[7, 2], DType::I32)); d.g.gather_nd(x, i, 0) }),
    ("sums scattered", true, |d| {
        let (x, i, u) = (d.input(&[8, 12]), d.of(&[20, 1], DType::I32), d.input(&[20, 12]));
        d.g.scatter_nd(x, i, u, Combine::Add)
    }),
    ("bilinear resize 28→61", true, |d| { let x = d.input(&[1, 28, 28, 24]); d.g.resize(x, [61, 61], Interpolation::Bilinear, Coordinates::HalfPixel) }),
    ("bicubic resize 15→9", true, |d| { let x = d.input(&[1, 15, 15, 3]); d.g.resize(x, [9, 9], Interpolation::Bicubic { a: -0.75 }, Coordinates::AlignCorners) }),
    ("grid sample", true, |d| {
        let (x, grid) = (d.input(&[1, 16, 16, 8]), d.of(&[1, 9, 9, 2], DType::F32));
        d.g.grid_sample(x, grid, GridSample { interpolation: Interpolation::Bilinear, outside: Outside::Border, align_corners: false })
    }),
    ("regions as bins", true, |d| {
        let x = d.input(&[1, 16, 16, 8]);
        let regions = d.g.weight("regions", Tensor::from_f32([2, 4], &[1.3, 2.1, 9.7, 12.2, 0.4, 3.3, 14.9, 8.8]));
        let pictures = d.g.weight("pictures", Tensor::from_i32([2], &[0, 0]));
        d.g.roi_align(x, regions, pictures, RoiAlign { size: [3, 3], samples: 2, scale: 1.0, half_pixel: true, reduce: Samples::Mean })
    }),
    ("normal noise", false, |d| { let s = d.of(&[2, 2], DType::U32); d.g.noise(s, [16, 16, 4], 3) }),
    ("timestep embedding of 320", false, |d| {
        let t = d.g.weight("timesteps", Tensor::from_f32([2, 1], &[961.0, 3.0]));
        let more = d.of(&[2, 1], DType::F32);
        let t = d.g.add(t, more)?;
        d.g.timestep_embedding(t, TimestepEmbedding::new(320, true, 0.0))
    }),
    ("diffusion input", false, |d| { let (s, row) = (d.of(&[3, 1, 8, 8, 4], DType::F32), d.of(&[1, 32], DType::F32)); d.g.diffusion_input(s, row, 2) }),
    ("diffusion step with guidance and noise", false, |d| {
        let (s, m) = (d.of(&[4, 1, 8, 8, 4], DType::F32), d.of(&[2, 8, 8, 4], DType::F32));
        let (row, guidance, seeds) = (d.of(&[1, 32], DType::F32), d.of(&[1], DType::F32), d.of(&[1, 2], DType::U32));
        d.g.diffusion_step(s, m, row, guidance, Some(seeds), None)
    }),
    ("pictures as feature maps", false, |d| { let x = d.of(&[1, 37, 53], DType::U32); d.g.picture_to_tensor(x, [16, 24], &[(2.0, -1.0); 3], DType::F32) }),
    ("feature maps as pictures", true, |d| { let x = d.input(&[1, 16, 16, 3]); d.g.picture_from_tensor(x, 0, 0.5, 0.5) }),
    ("mean of a picture's border", true, |d| { let x = d.input(&[2, 16, 9, 3]); d.g.border_mean(x) }),
    ("parts of pictures", false, |d| {
        let x = d.of(&[1, 40, 30], DType::U32);
        let boxes = d.g.weight("boxes", Tensor::from_f32([1, 2, 4], &[3.0, 4.0, 21.0, 33.0, 10.0, 0.0, 29.0, 12.0]));
        d.g.picture_crops(x, boxes, PictureCrops { size: [8, 8], margin: 0.1, square: true, normalise: vec![(1.0, 0.0); 3] })
    }),
    ("classes of pixels", false, |d| { let x = d.of(&[1, 8, 8, 5], DType::F32); d.g.class_map(x, [&Axis::resized(21, 8), &Axis::resized(17, 8)]) }),
    ("classes over a picture", false, |d| {
        let (x, c) = (d.of(&[1, 9, 9], DType::U32), d.of(&[1, 9, 9], DType::U32));
        let colours = d.g.weight("colours", Tensor::from_u32([3], &[0, 0x80_40_20_10, 0xff_00_80_ff]));
        d.g.overlay(x, c, colours)
    }),
    ("best boxes", false, |d| {
        let (boxes, scores) = boxes(d, false);
        let selection = Selection { least: 0.1, overlap: 0.4, across_classes: false, keep: 10, classes: Classes::Best, background: false };
        d.g.best_boxes(boxes, scores, [&Axis::whole(64), &Axis::whole(64)], selection)
    }),
    ("boxes that are left", false, |d| {
        let (boxes, scores) = boxes(d, true);
        let overlap = d.g.weight("overlap", Tensor::from_f32([1], &[0.4]));
        d.g.suppress([boxes, scores], overlap, None, Suppress { most: 9, centre: false })
    }),
];

/// Boxes of a picture of 64 × 64 and their scores of two classes.
fn boxes(d: &mut Draft, classes_first: bool) -> (ValueId, ValueId) {
    let count = 40;
    let mut edges = Vec::new();
    for _ in 0..count {
        let mut at = |n: u64| (random(&mut d.state) % n) as f32;
        let (x, y) = (at(40), at(40));
        edges.extend([x, y, x + 5.0 + at(20), y + 5.0 + at(20)]);
    }
    let boxes = d.g.weight("boxes", Tensor::from_f32([1, count, 4], &edges));
    let shape = if classes_first { [1, 2, count] } else { [1, count, 2] };
    (boxes, d.of(&shape, DType::F32))
}

/// All cases in f32 or f16; those that are no operation of floats only in f32.
///
/// # Errors
/// None that a caller could cause.
pub fn cases(dtype: DType) -> Result<Vec<Case>> {
    let fitting = CASES.iter().filter(|(_, half, _)| dtype == DType::F32 || *half);
    fitting
        .enumerate()
        .map(|(seed, (name, _, build))| {
            let mut draft = Draft { g: Graph::new(), state: seed as u64 + 1, dtype };
            let result = build(&mut draft)?;
            draft.g.output("result", result);
            let inputs = random_inputs(&draft.g, seed as u64 + 1000);
            Ok(Case { name: format!("{name}, {dtype}"), graph: draft.g, inputs })
        })
        .collect()
}

impl Case {
    /// Examines the case alone.
    ///
    /// # Errors
    /// As [`examine`].
    pub fn examine(&self, gpu: &Gpu, options: &Options) -> Result<Examination> {
        let inputs: Vec<(&str, &Tensor)> = self.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        examine(gpu, &self.name, &self.graph, &inputs, options, &mut |_, _| true)
    }
}

/// How exact each operation of the cases is on this device, by name. `precision` is that of storage.
///
/// # Errors
/// Those of the device.
pub fn errors(gpu: &Gpu, precision: DType) -> Result<Vec<OperationError>> {
    let options = Options { variants: false, most_findings: usize::MAX, ..Options::default() };
    let mut rows: Vec<OperationError> = Vec::new();
    for case in cases(precision)? {
        for found in case.examine(gpu, &options)?.operations {
            let j = found.judgement;
            let stored = found.output.dtype.to_string();
            let at = rows.iter().position(|r| r.operation == found.operation && r.precision == stored);
            let at = at.unwrap_or_else(|| {
                rows.push(OperationError {
                    operation: found.operation.to_owned(),
                    precision: stored,
                    elements: 0,
                    max_ulp: 0.0,
                    mean_ulp: 0.0,
                    max_rel: 0.0,
                });
                rows.len() - 1
            });
            let (row, decided) = (&mut rows[at], j.compared - j.undecided);
            let all = (row.elements + decided).max(1) as f64;
            row.mean_ulp = (row.mean_ulp * row.elements as f64 + j.mean_ulp * decided as f64) / all;
            row.elements += decided;
            row.max_ulp = row.max_ulp.max(j.max_ulp);
            row.max_rel = row.max_rel.max(j.max_rel);
        }
    }
    rows.sort_by(|a, b| a.operation.cmp(&b.operation));
    Ok(rows)
}

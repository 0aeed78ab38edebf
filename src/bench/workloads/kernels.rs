//! Every family of kernels at sizes from real networks.
//!
//! Inputs and weights lie on the device. Bytes are those of the tensors that a kernel reads or writes, each counted once,
//! so that bytes a second are a floor of the traffic. What they must give is computed in float64.

use crate::bench::case::{Case, Label};
use crate::bench::hashed;
use crate::bench::network::{Contents, Made, NetworkCase, Reference};
use crate::bench::record::Group;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::attention::AttentionOptions;
use crate::ops::conv_transpose2d::ConvTranspose2dOptions;
use crate::ops::conv2d::Conv2dOptions;
use crate::ops::deform_columns::DeformColumns;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::grid_sample::{GridSample, Outside};
use crate::ops::matmul::Matmul;
use crate::ops::pool::PoolOptions;
use crate::ops::quantize::{Per, Quantize};
use crate::ops::reduce::Reduction;
use crate::ops::resize::{Coordinates, Interpolation};
use crate::ops::roi_align::{RoiAlign, Samples};
use crate::tensor::{DType, Tensor};

/// All of them with numbers stored so.
pub fn kernels(dtype: DType) -> Vec<Box<dyn Case>> {
    let mut all = Kernels { dtype, cases: Vec::new() };
    convolutions(&mut all);
    linear_layers(&mut all);
    norms(&mut all);
    attention(&mut all);
    elementwise(&mut all);
    matrices(&mut all);
    lines(&mut all);
    sampling_of_pictures(&mut all);
    sampling_at_places(&mut all);
    integers(&mut all);
    movement(&mut all);
    diffusion(&mut all);
    all.cases
}

/// Those that tell what a large GPU can do, at sizes that fill one: of Stable Diffusion with guidance at 64 × 64, and of a
/// product and a sum that are far larger than caches.
pub fn large(dtype: DType) -> Vec<Box<dyn Case>> {
    let mut all = Kernels { dtype, cases: Vec::new() };
    let (n, side, channels, tokens) = (2, 64, 320, 4096);
    all.add("large/matmul 4096x4096x4096", move |case| {
        let (a, b) = (case.input([4096, 4096]), case.input([4096, 4096]));
        case.graph.matmul(a, b, Matmul::default())
    });
    all.add("large/conv2d 3x3 320->320 2x64x64", move |case| {
        let x = case.input([n, side, side, channels]);
        let weight = case.weight([channels, channels, 3, 3]);
        let bias = case.weight([channels]);
        case.graph.conv2d(x, weight, Some(bias), Conv2dOptions::padded(1))
    });
    all.add("large/linear 8192x320->2560", move |case| {
        let x = case.input([n * tokens, channels]);
        let weight = case.weight([8 * channels, channels]);
        let bias = case.weight([8 * channels]);
        case.graph.linear(x, weight, Some(bias))
    });
    all.add("large/attention 2x4096x4096, 8 heads of 40", move |case| {
        let [q, k, v] = [(); 3].map(|()| case.input([n, tokens, channels]));
        case.graph.attention(q, k, v, 8, AttentionOptions::default())
    });
    all.add("large/group_norm with silu, 32 groups, 2x64x64x320", move |case| {
        let x = case.input([n, side, side, channels]);
        let (weight, bias) = (case.weight([channels]), case.weight([channels]));
        let y = case.graph.group_norm(x, 32, Some(weight), Some(bias), 1e-5)?;
        case.graph.silu(y)
    });
    all.add("large/layer_norm 65536x1024", move |case| {
        let x = case.input([1 << 16, 1024]);
        let (weight, bias) = (case.weight([1024]), case.weight([1024]));
        case.graph.layer_norm(x, Some(weight), Some(bias), 1e-5)
    });
    all.add("large/softmax 65536x1024", move |case| {
        let x = case.input([1 << 16, 1024]);
        case.graph.softmax(x, 1)
    });
    all.add("large/add of 64 Mi numbers", move |case| {
        let (a, b) = (case.input([1 << 16, 1024]), case.input([1 << 16, 1024]));
        case.graph.add(a, b)
    });
    all.cases
}

/// The four 3×3 shapes are ResNet's and Stable Diffusion's, then a bottleneck,
/// MobileNet's depthwise, and the bundled UNet's three levels (batch 2 is guidance).
fn convolutions(all: &mut Kernels) {
    let shapes = [
        // batch, side, input channels, output channels, kernel, groups
        (1, 56, 64, 64, 3, 1),
        (1, 28, 128, 128, 3, 1),
        (1, 32, 320, 320, 3, 1),
        (1, 7, 512, 512, 3, 1),
        (1, 56, 256, 64, 1, 1),
        (1, 56, 144, 144, 3, 144),
        (2, 32, 16, 16, 3, 1),
        (2, 16, 48, 48, 3, 1),
        (2, 8, 96, 96, 3, 1),
    ];
    for (n, side, c_in, c_out, kernel, groups) in shapes {
        let kind = if groups > 1 { "depthwise " } else { "" };
        let name = format!("conv2d/{kind}{kernel}x{kernel} {c_in}->{c_out} {n}x{side}x{side}");
        all.add(&name, move |case| {
            let x = case.input([n, side, side, c_in]);
            let weight = case.weight([c_out, c_in / groups, kernel, kernel]);
            let bias = case.weight([c_out]);
            let options = Conv2dOptions::padded(kernel / 2).groups(groups);
            case.graph.conv2d(x, weight, Some(bias), options)
        });
    }
}

/// A transformer's projection, and the head of a ResNet-50.
fn linear_layers(all: &mut Kernels) {
    for (rows, k, m) in [(1024, 320, 320), (1, 2048, 1000)] {
        all.add(&format!("linear/{rows}x{k}->{m}"), move |case| {
            let x = case.input([rows, k]);
            let weight = case.weight([m, k]);
            let bias = case.weight([m]);
            case.graph.linear(x, weight, Some(bias))
        });
    }
}

fn elementwise(all: &mut Kernels) {
    let shape = [1, 32, 32, 320];
    all.add("elementwise/add 32x32x320", move |case| {
        let (a, b) = (case.input(shape), case.input(shape));
        case.graph.add(a, b)
    });
    all.add("elementwise/silu(x + bias) 32x32x320", move |case| {
        let (x, bias) = (case.input(shape), case.weight([320]));
        let sum = Expr::binary(Binary::Add, Expr::input(0), Expr::input(1));
        case.graph.elementwise(Expr::unary(Unary::Silu, sum), &[x, bias])
    });
}

/// Stable Diffusion's group norm and the bundled UNet's; a transformer's layer norm.
fn norms(all: &mut Kernels) {
    for (n, side, channels, groups) in [(1, 32, 320, 32), (2, 32, 16, 8), (2, 8, 96, 8)] {
        let name = format!("group_norm/with silu, {groups} groups, {n}x{side}x{side}x{channels}");
        all.add(&name, move |case| {
            let x = case.input([n, side, side, channels]);
            let (weight, bias) = (case.weight([channels]), case.weight([channels]));
            let y = case.graph.group_norm(x, groups, Some(weight), Some(bias), 1e-5)?;
            case.graph.silu(y)
        });
    }
    all.add("layer_norm/1024x320", move |case| {
        let x = case.input([1024, 320]);
        let (weight, bias) = (case.weight([320]), case.weight([320]));
        case.graph.layer_norm(x, Some(weight), Some(bias), 1e-5)
    });
}

/// Stable Diffusion's self- and cross-attention at 32 × 32, and the bundled UNet's.
fn attention(all: &mut Kernels) {
    for (n, queries, keys, heads, size) in [(1, 1024, 1024, 8, 40), (1, 1024, 77, 8, 40), (2, 64, 64, 3, 32)]
    {
        all.add(&format!("attention/{n}x{queries}x{keys}, {heads} heads of {size}"), move |case| {
            let q = case.input([n, queries, heads * size]);
            let (k, v) = (case.input([n, keys, heads * size]), case.input([n, keys, heads * size]));
            case.graph.attention(q, k, v, heads, AttentionOptions::default())
        });
    }
}

fn matrices(all: &mut Kernels) {
    for (batch, m, k, n) in [(1, 512, 512, 512), (8, 256, 40, 256)] {
        all.add(&format!("matmul/{batch}x{m}x{k}x{n}"), move |case| {
            let (a, b) = (case.input([batch, m, k]), case.input([batch, k, n]));
            case.graph.matmul(a, b, Matmul::default())
        });
    }
}

fn lines(all: &mut Kernels) {
    all.add("softmax/1024x1000", move |case| {
        let x = case.input([1024, 1000]);
        case.graph.softmax(x, 1)
    });
    all.add("reduce/mean of 56x56 pixels, 256 channels", move |case| {
        let x = case.input([1, 56, 56, 256]);
        case.graph.reduce(x, Reduction::Mean, &[1, 2], true)
    });
    all.add("arg_max/1024x1000", move |case| {
        let x = case.input([1024, 1000]);
        case.graph.arg_max(x, 1)
    });
}

/// ResNet's first pooling; a UNet's enlargement; an upscaler's base.
fn sampling_of_pictures(all: &mut Kernels) {
    all.add("pool/max 3x3 stride 2, 112x112x64", move |case| {
        let x = case.input([1, 112, 112, 64]);
        let options = PoolOptions { stride: [2, 2], padding: [1; 4], ..PoolOptions::square(3) };
        case.graph.max_pool(x, options)
    });
    all.add("resize/nearest 16x16x96 to 32x32", move |case| {
        let x = case.input([2, 16, 16, 96]);
        case.graph.upsample_nearest(x, 2)
    });
    all.add("resize/bicubic 64x64x3 to 256x256", move |case| {
        let x = case.input([1, 64, 64, 3]);
        case.graph.resize(x, [256, 256], Interpolation::Bicubic { a: -0.75 }, Coordinates::HalfPixel)
    });
    all.add("conv_transpose2d/4x4 stride 2, 32x32, 64->32", move |case| {
        let x = case.input([1, 32, 32, 64]);
        let weight = case.weight([64, 32, 4, 4]);
        let options = ConvTranspose2dOptions { stride: [2, 2], padding: [1; 4], ..Default::default() };
        case.graph.conv_transpose2d(x, weight, None, options)
    });
}

/// A detector's regions, a warped map, and what a deformable convolution reads.
fn sampling_at_places(all: &mut Kernels) {
    all.add("grid_sample/bilinear 64x64x64", move |case| {
        let (x, grid) = (case.input([1, 64, 64, 64]), case.places([1, 64, 64, 2]));
        let interpolation = Interpolation::Bilinear;
        let options = GridSample { interpolation, outside: Outside::Zeros, align_corners: false };
        case.graph.grid_sample(x, grid, options)
    });
    all.add("roi_align/7x7 of 100 regions, 56x56x256", move |case| {
        let (x, regions) = (case.input([1, 56, 56, 256]), case.places([100, 4]));
        let pictures = case.graph.weight("pictures", Tensor::from_i32([100], &[0; 100]));
        let reduce = Samples::Mean;
        let options = RoiAlign { size: [7, 7], samples: 2, scale: 20.0, half_pixel: true, reduce };
        case.graph.roi_align(x, regions, pictures, options)
    });
    all.add("deform_columns/3x3 28x28x128", move |case| {
        let (x, offsets) = (case.input([1, 28, 28, 128]), case.places([1, 28, 28, 18]));
        let options = DeformColumns { options: Conv2dOptions::padded(1), kernel: [3, 3], sets: 1 };
        case.graph.deform_columns(x, offsets, None, options)
    });
}

/// A quantised network's layer: numbers to the grid, exact sums, and back.
fn integers(all: &mut Kernels) {
    all.add("quantize/56x56x64", move |case| {
        let x = case.input([1, 56, 56, 64]);
        let scale = case.graph.weight("scale", Tensor::from_f32([1], &[0.02]));
        let options = Quantize { per: Per::Tensor, low: -128, high: 127, times: false, back: false };
        case.graph.quantize(x, scale, None, options)
    });
    all.add("conv2d_integer/3x3 64->64 56x56", move |case| {
        let (x, weight) = (case.integers([1, 56, 56, 64]), case.integers([3, 3, 64, 64]));
        case.graph.conv2d_integer(x, weight, Conv2dOptions::padded(1))
    });
    all.add("matmul_integer/256x768x768", move |case| {
        let (a, b) = (case.integers([256, 768]), case.integers([768, 768]));
        case.graph.matmul_integer(a, b)
    });
}

fn movement(all: &mut Kernels) {
    all.add("concat/32x32, 320+320 channels", move |case| {
        let (a, b) = (case.input([1, 32, 32, 320]), case.input([1, 32, 32, 320]));
        case.graph.concat(&[a, b], 3)
    });
    all.add("strided/32x32x320 to channels first", move |case| {
        let x = case.input([1, 32, 32, 320]);
        case.graph.transpose(x, &[0, 3, 1, 2])
    });
}

/// Noise and the update of a 64 × 64 × 4 latent, Stable Diffusion's.
fn diffusion(all: &mut Kernels) {
    all.add("noise/4x64x64x4", move |case| {
        let seeds = case.graph.input("seeds", [4, 2], DType::U32);
        case.inputs.push(("seeds".to_owned(), Tensor::from_u32([4, 2], &[1, 0, 2, 0, 3, 0, 4, 0])));
        case.graph.noise(seeds, [64, 64, 4], 0)
    });
    all.add("diffusion_step/4x64x64x4", move |case| {
        let sample = case.places([3, 4, 64, 64, 4]);
        let prediction = case.input([8, 64, 64, 4]);
        let (row, guidance) = (case.places([1, 32]), case.places([1]));
        let seeds = case.graph.input("seeds", [4, 2], DType::U32);
        case.inputs.push(("seeds".to_owned(), Tensor::from_u32([4, 2], &[1, 0, 2, 0, 3, 0, 4, 0])));
        case.graph.diffusion_step(sample, prediction, row, guidance, Some(seeds), None)
    });
}

/// The list as it grows.
struct Kernels {
    dtype: DType,
    cases: Vec<Box<dyn Case>>,
}

impl Kernels {
    /// `name` is family/shape.
    fn add(&mut self, name: &str, build: impl Fn(&mut Operands) -> Result<ValueId> + Send + Sync + 'static) {
        let dtype = self.dtype;
        let label = Label {
            group: Group::Kernel,
            name: slug(name),
            title: name.replacen('/', ", ", 1),
            dtype,
            batch: 1,
        };
        let make = move |_: Contents| {
            let mut case = Operands { graph: Graph::new(), inputs: Vec::new(), dtype };
            let result = build(&mut case)?;
            case.graph.output("result", result);
            let Operands { graph, inputs, .. } = case;
            Ok(Made { graph, inputs, ..Made::new(Reference::Computed) })
        };
        self.cases.push(Box::new(NetworkCase::new(label, make)));
    }
}

/// A name without blanks and signs.
fn slug(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || "/_".contains(c) { c } else { '-' };
    let text: String = name.chars().map(kept).collect();
    let parts: Vec<&str> = text.split('-').filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// A graph of one operation under construction, with random inputs.
struct Operands {
    graph: Graph,
    inputs: Vec<(String, Tensor)>,
    dtype: DType,
}

impl Operands {
    fn input<const N: usize>(&mut self, shape: [usize; N]) -> ValueId {
        self.given(shape, self.dtype)
    }

    /// Numbers that are f32 always: coordinates, latents.
    fn places<const N: usize>(&mut self, shape: [usize; N]) -> ValueId {
        self.given(shape, DType::F32)
    }

    /// Bytes, as i32.
    fn integers<const N: usize>(&mut self, shape: [usize; N]) -> ValueId {
        let name = format!("input {}", self.inputs.len());
        let values: Vec<i32> = hashed::numbers(&name, shape.iter().product())
            .iter()
            .map(|v| (v * 127.0).round() as i32)
            .collect();
        self.inputs.push((name.clone(), Tensor::from_i32(shape, &values)));
        self.graph.input(&name, shape, DType::I32)
    }

    fn given<const N: usize>(&mut self, shape: [usize; N], dtype: DType) -> ValueId {
        let name = format!("input {}", self.inputs.len());
        self.inputs.push((name.clone(), hashed::input(&name, shape).to_dtype(dtype)));
        self.graph.input(&name, shape, dtype)
    }

    fn weight<const N: usize>(&mut self, shape: [usize; N]) -> ValueId {
        let tensor = hashed::input(&format!("weight {N}"), shape).to_dtype(self.dtype);
        self.graph.weight("weight", tensor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::target::Target;

    #[test]
    fn every_kernel_has_a_plan_and_an_id_of_its_own() {
        let mut ids = HashSet::new();
        for dtype in [DType::F32, DType::F16] {
            for case in kernels(dtype).into_iter().chain(large(dtype)) {
                let id = case.label().id();
                case.estimate(&Target::typical()).unwrap_or_else(|error| panic!("{id}: {error}"));
                assert!(!id.contains(' ') && ids.insert(id.clone()), "{id}");
            }
        }
    }
}

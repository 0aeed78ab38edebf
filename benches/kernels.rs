//! Every family of kernels at sizes from real networks: time, GFLOP/s and GB/s.
//!
//! ```text
//! cargo bench --bench kernels                  all of them, about a second each
//! cargo bench --bench kernels -- conv2d        those whose name contains "conv2d"
//! ```
//!
//! Inputs and weights lie on the device; a measurement submits a batch of runs
//! and waits for the last. Bytes are those of the tensors that a kernel reads or
//! writes, each counted once, so GB/s is a floor of the traffic.

use std::time::{Duration, Instant};

use aquatint::ops::Matmul;
use aquatint::ops::attention::AttentionOptions;
use aquatint::ops::conv_transpose2d::ConvTranspose2dOptions;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::deform_columns::DeformColumns;
use aquatint::ops::expr::{Binary, Expr, Unary};
use aquatint::ops::grid_sample::{GridSample, Outside};
use aquatint::ops::pool::PoolOptions;
use aquatint::ops::quantize::{Per, Quantize};
use aquatint::ops::reduce::Reduction;
use aquatint::ops::resize::{Coordinates, Interpolation};
use aquatint::ops::roi_align::{RoiAlign, Samples};
use aquatint::{DType, Gpu, Graph, Network, Result, Tensor, ValueId};
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, Throughput};

fn main() {
    let gpu = Gpu::headless().unwrap_or_else(|error| panic!("{error}"));
    println!("device: {}", gpu.target().name);
    let mut criterion = Criterion::default()
        .with_measurement(DeviceTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700))
        .configure_from_args();
    convolutions(&mut criterion, &gpu);
    linear_layers(&mut criterion, &gpu);
    elementwise(&mut criterion, &gpu);
    norms(&mut criterion, &gpu);
    attention(&mut criterion, &gpu);
    matrices(&mut criterion, &gpu);
    lines(&mut criterion, &gpu);
    sampling_of_pictures(&mut criterion, &gpu);
    sampling_at_places(&mut criterion, &gpu);
    integers(&mut criterion, &gpu);
    movement(&mut criterion, &gpu);
    diffusion(&mut criterion, &gpu);
    criterion.final_summary();
}

/// The four 3×3 shapes are ResNet's and Stable Diffusion's, then a bottleneck,
/// MobileNet's depthwise, and the bundled UNet's three levels (batch 2 is guidance).
fn convolutions(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
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
        measure(criterion, gpu, &name, |case| {
            let x = case.input([n, side, side, c_in]);
            let weight = case.weight([c_out, c_in / groups, kernel, kernel]);
            let bias = case.weight([c_out]);
            let options = Conv2dOptions::padded(kernel / 2).groups(groups);
            case.graph.conv2d(x, weight, Some(bias), options)
        });
    }
}

/// A transformer's projection, and the head of a ResNet-50.
fn linear_layers(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    for (rows, k, m) in [(1024, 320, 320), (1, 2048, 1000)] {
        measure(criterion, gpu, &format!("linear/{rows}x{k}->{m}"), |case| {
            let x = case.input([rows, k]);
            let weight = case.weight([m, k]);
            let bias = case.weight([m]);
            case.graph.linear(x, weight, Some(bias))
        });
    }
}

fn elementwise(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    let shape = [1, 32, 32, 320];
    measure(criterion, gpu, "elementwise/add 32x32x320", |case| {
        let (a, b) = (case.input(shape), case.input(shape));
        case.graph.add(a, b)
    });
    measure(criterion, gpu, "elementwise/silu(x + bias) 32x32x320", |case| {
        let (x, bias) = (case.input(shape), case.weight([320]));
        let sum = Expr::binary(Binary::Add, Expr::input(0), Expr::input(1));
        case.graph.elementwise(Expr::unary(Unary::Silu, sum), &[x, bias])
    });
}

/// Stable Diffusion's group norm and the bundled UNet's; a transformer's layer norm.
fn norms(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    for (n, side, channels, groups) in [(1, 32, 320, 32), (2, 32, 16, 8), (2, 8, 96, 8)] {
        let name = format!("group_norm/with silu, {groups} groups, {n}x{side}x{side}x{channels}");
        measure(criterion, gpu, &name, |case| {
            let x = case.input([n, side, side, channels]);
            let (weight, bias) = (case.weight([channels]), case.weight([channels]));
            let y = case.graph.group_norm(x, groups, Some(weight), Some(bias), 1e-5)?;
            case.graph.silu(y)
        });
    }
    measure(criterion, gpu, "layer_norm/1024x320", |case| {
        let x = case.input([1024, 320]);
        let (weight, bias) = (case.weight([320]), case.weight([320]));
        case.graph.layer_norm(x, Some(weight), Some(bias), 1e-5)
    });
}

/// Stable Diffusion's self- and cross-attention at 32 × 32, and the bundled UNet's.
fn attention(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    for (n, queries, keys, heads, size) in [(1, 1024, 1024, 8, 40), (1, 1024, 77, 8, 40), (2, 64, 64, 3, 32)]
    {
        measure(
            criterion,
            gpu,
            &format!("attention/{n}x{queries}x{keys}, {heads} heads of {size}"),
            |case| {
                let q = case.input([n, queries, heads * size]);
                let (k, v) = (case.input([n, keys, heads * size]), case.input([n, keys, heads * size]));
                case.graph.attention(q, k, v, heads, AttentionOptions::default())
            },
        );
    }
}

fn matrices(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    for (batch, m, k, n) in [(1, 512, 512, 512), (8, 256, 40, 256)] {
        measure(criterion, gpu, &format!("matmul/{batch}x{m}x{k}x{n}"), |case| {
            let (a, b) = (case.input([batch, m, k]), case.input([batch, k, n]));
            case.graph.matmul(a, b, Matmul::default())
        });
    }
}

fn lines(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    measure(criterion, gpu, "softmax/1024x1000", |case| {
        let x = case.input([1024, 1000]);
        case.graph.softmax(x, 1)
    });
    measure(criterion, gpu, "reduce/mean of 56x56 pixels, 256 channels", |case| {
        let x = case.input([1, 56, 56, 256]);
        case.graph.reduce(x, Reduction::Mean, &[1, 2], true)
    });
    measure(criterion, gpu, "arg_max/1024x1000", |case| {
        let x = case.input([1024, 1000]);
        case.graph.arg_max(x, 1)
    });
}

/// ResNet's first pooling; a UNet's enlargement; an upscaler's base.
fn sampling_of_pictures(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    measure(criterion, gpu, "pool/max 3x3 stride 2, 112x112x64", |case| {
        let x = case.input([1, 112, 112, 64]);
        let options = PoolOptions { stride: [2, 2], padding: [1; 4], ..PoolOptions::square(3) };
        case.graph.max_pool(x, options)
    });
    measure(criterion, gpu, "resize/nearest 16x16x96 to 32x32", |case| {
        let x = case.input([2, 16, 16, 96]);
        case.graph.upsample_nearest(x, 2)
    });
    measure(criterion, gpu, "resize/bicubic 64x64x3 to 256x256", |case| {
        let x = case.input([1, 64, 64, 3]);
        case.graph.resize(x, [256, 256], Interpolation::Bicubic { a: -0.75 }, Coordinates::HalfPixel)
    });
    measure(criterion, gpu, "conv_transpose2d/4x4 stride 2, 32x32, 64->32", |case| {
        let x = case.input([1, 32, 32, 64]);
        let weight = case.weight([64, 32, 4, 4]);
        let options = ConvTranspose2dOptions { stride: [2, 2], padding: [1; 4], ..Default::default() };
        case.graph.conv_transpose2d(x, weight, None, options)
    });
}

/// A detector's regions, a warped map, and what a deformable convolution reads.
fn sampling_at_places(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    measure(criterion, gpu, "grid_sample/bilinear 64x64x64", |case| {
        let (x, grid) = (case.input([1, 64, 64, 64]), case.input([1, 64, 64, 2]));
        let interpolation = Interpolation::Bilinear;
        let options = GridSample { interpolation, outside: Outside::Zeros, align_corners: false };
        case.graph.grid_sample(x, grid, options)
    });
    measure(criterion, gpu, "roi_align/7x7 of 100 regions, 56x56x256", |case| {
        let (x, regions) = (case.input([1, 56, 56, 256]), case.input([100, 4]));
        let pictures = case.graph.weight("pictures", Tensor::from_i32([100], &[0; 100]));
        let reduce = Samples::Mean;
        let options = RoiAlign { size: [7, 7], samples: 2, scale: 20.0, half_pixel: true, reduce };
        case.graph.roi_align(x, regions, pictures, options)
    });
    measure(criterion, gpu, "deform_columns/3x3 28x28x128", |case| {
        let (x, offsets) = (case.input([1, 28, 28, 128]), case.input([1, 28, 28, 18]));
        let options = DeformColumns { options: Conv2dOptions::padded(1), kernel: [3, 3], sets: 1 };
        case.graph.deform_columns(x, offsets, None, options)
    });
}

/// A quantised network's layer: numbers to the grid, exact sums, and back.
fn integers(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    fn whole<const N: usize>(case: &mut Case, shape: [usize; N]) -> Result<ValueId> {
        let x = case.weight(shape);
        let steps = case.graph.affine(x, 127.0, 0.0)?;
        case.graph.convert(steps, DType::I32)
    }
    measure(criterion, gpu, "quantize/56x56x64", |case| {
        let x = case.input([1, 56, 56, 64]);
        let scale = case.graph.weight("scale", Tensor::from_f32([1], &[0.02]));
        let options = Quantize { per: Per::Tensor, low: -128, high: 127, times: false, back: false };
        case.graph.quantize(x, scale, None, options)
    });
    measure(criterion, gpu, "conv2d_integer/3x3 64->64 56x56", |case| {
        let (x, weight) = (whole(case, [1, 56, 56, 64])?, whole(case, [3, 3, 64, 64])?);
        case.graph.conv2d_integer(x, weight, Conv2dOptions::padded(1))
    });
    measure(criterion, gpu, "matmul_integer/256x768x768", |case| {
        let (a, b) = (whole(case, [256, 768])?, whole(case, [768, 768])?);
        case.graph.matmul_integer(a, b)
    });
}

fn movement(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    measure(criterion, gpu, "concat/32x32, 320+320 channels", |case| {
        let (a, b) = (case.input([1, 32, 32, 320]), case.input([1, 32, 32, 320]));
        case.graph.concat(&[a, b], 3)
    });
    measure(criterion, gpu, "strided/32x32x320 to channels first", |case| {
        let x = case.input([1, 32, 32, 320]);
        case.graph.transpose(x, &[0, 3, 1, 2])
    });
}

/// Noise and the update of a 64 × 64 × 4 latent, Stable Diffusion's.
fn diffusion(criterion: &mut Criterion<DeviceTime>, gpu: &Gpu) {
    measure(criterion, gpu, "noise/4x64x64x4", |case| {
        let seeds = case.graph.input("seeds", [4, 2], DType::U32);
        case.inputs.push(("seeds".to_owned(), Tensor::from_u32([4, 2], &[1, 0, 2, 0, 3, 0, 4, 0])));
        case.graph.noise(seeds, [64, 64, 4], 0)
    });
    measure(criterion, gpu, "diffusion_step/4x64x64x4", |case| {
        let sample = case.input([3, 4, 64, 64, 4]);
        let prediction = case.input([8, 64, 64, 4]);
        let (row, guidance) = (case.input([1, 32]), case.input([1]));
        let seeds = case.graph.input("seeds", [4, 2], DType::U32);
        case.inputs.push(("seeds".to_owned(), Tensor::from_u32([4, 2], &[1, 0, 2, 0, 3, 0, 4, 0])));
        case.graph.diffusion_step(sample, prediction, row, guidance, Some(seeds), None)
    });
}

/// A network of one operation under construction, with random inputs.
struct Case {
    graph: Graph,
    inputs: Vec<(String, Tensor)>,
    random: u64,
}

impl Case {
    fn input<const N: usize>(&mut self, shape: [usize; N]) -> ValueId {
        let name = format!("input {}", self.inputs.len());
        let tensor = self.tensor(shape);
        self.inputs.push((name.clone(), tensor));
        self.graph.input(&name, shape, DType::F32)
    }

    fn weight<const N: usize>(&mut self, shape: [usize; N]) -> ValueId {
        let tensor = self.tensor(shape);
        self.graph.weight("weight", tensor)
    }

    /// Uniform in [-1, 1): xorshift, good enough for timing.
    fn tensor<const N: usize>(&mut self, shape: [usize; N]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                (self.random >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        Tensor::from_f32(shape, &values)
    }
}

/// Most runs in one submission.
const BATCH: u64 = 64;

fn measure(
    criterion: &mut Criterion<DeviceTime>,
    gpu: &Gpu,
    name: &str,
    build: impl Fn(&mut Case) -> Result<ValueId>,
) {
    let load = || -> Result<Network> {
        let mut case = Case { graph: Graph::new(), inputs: Vec::new(), random: 0x9e37_79b9_7f4a_7c15 };
        let result = build(&mut case)?;
        case.graph.output("result", result);
        let network = Network::new(gpu, &case.graph)?;
        for (name, tensor) in &case.inputs {
            network.write(name, tensor)?;
        }
        Ok(network)
    };
    let time = |network: &Network, runs: u64| -> Result<Duration> {
        let start = Instant::now();
        let mut left = runs;
        while left > 0 {
            let batch = left.min(BATCH);
            gpu.wait(network.submit(batch as usize)?)?;
            left -= batch;
        }
        Ok(start.elapsed())
    };
    let (family, shape) = name.split_once('/').expect("names are family/shape");
    let mut group = criterion.benchmark_group(family);
    // Loaded by the first measurement only, so that what a filter leaves out costs nothing.
    let network = std::cell::OnceCell::new();
    let mut dry = Case { graph: Graph::new(), inputs: Vec::new(), random: 1 };
    let result = build(&mut dry).unwrap_or_else(|error| panic!("{name}: {error}"));
    dry.graph.output("result", result);
    let plan = aquatint::Plan::compile(&dry.graph, gpu.target()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let bytes = plan.run.iter().map(|dispatch| dispatch.bytes).sum();
    group.throughput(Throughput::ElementsAndBytes { elements: plan.flops(), bytes });
    group.bench_function(shape, |bencher| {
        let network = network.get_or_init(|| load().unwrap_or_else(|error| panic!("{name}: {error}")));
        bencher.iter_custom(|runs| time(network, runs).unwrap_or_else(|error| panic!("{name}: {error}")));
    });
    group.finish();
}

/// Wall-clock time, printed in the units of the field.
struct DeviceTime;

impl Measurement for DeviceTime {
    type Intermediate = Instant;
    type Value = Duration;

    fn start(&self) -> Instant {
        Instant::now()
    }
    fn end(&self, start: Instant) -> Duration {
        start.elapsed()
    }
    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    /// Seconds.
    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_secs_f64()
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for DeviceTime {
    fn scale_values(&self, _: f64, seconds: &mut [f64]) -> &'static str {
        seconds.iter_mut().for_each(|value| *value *= 1e3);
        "ms"
    }
    fn scale_throughputs(&self, _: f64, throughput: &Throughput, seconds: &mut [f64]) -> &'static str {
        let (amount, unit) = match *throughput {
            Throughput::Elements(flops) => (flops, "GFLOP/s"),
            Throughput::ElementsAndBytes { elements, .. } => (elements, "GFLOP/s"),
            Throughput::Bytes(bytes) | Throughput::BytesDecimal(bytes) => (bytes, "GB/s"),
            Throughput::Bits(bits) => (bits, "Gbit/s"),
        };
        seconds.iter_mut().for_each(|value| *value = amount as f64 * 1e-9 / *value);
        unit
    }
    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "s"
    }
}

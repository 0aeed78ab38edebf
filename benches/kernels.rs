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

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::expr::{Binary, Expr, Unary};
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
    build(&mut dry).unwrap_or_else(|error| panic!("{name}: {error}"));
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

//! Results out of nothing but a seed, with the noise that measured ones have: to test what is told of results, and to
//! count how often a verdict is right.

use super::random::Random;
use super::record::{
    Adapter, Canary, Check, Clock, ClockSource, FORMAT, Group, KernelTime, Limit, LimitKind, Machine, Memory,
    OperationError, PartTime, Program, Rates, Results, Roof, Row, Settings, Start, Status, Stopped, Summary,
    Times, Visit,
};
use super::statistics::Sorted;

/// How times scatter. All are parts of the true time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Deviation of the logarithm of what a row differs by from one process to the next, for no cause that shows.
    pub process: f64,
    /// Deviation of the logarithm of a sample.
    pub scatter: f64,
    /// How often a sample is an outlier, which takes up to twice the time.
    pub outliers: f64,
    /// How far a row moves while it is measured, up or down: a line and a wave.
    pub drift: f64,
    /// How often something slows a visit down, by up to four fifths.
    pub disturbed: f64,
}

impl Default for Noise {
    fn default() -> Self {
        Noise { process: 0.01, scatter: 0.02, outliers: 0.03, drift: 0.01, disturbed: 0.0 }
    }
}

/// A device that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// 20 TFLOP/s in f32, 448 GB/s.
    Discrete,
    /// Runs on the CPU.
    Software,
}

/// A run of a suite that does not exist either. What differs between two `seed`s is noise.
pub fn results(device: Device, seed: u64, noise: Noise) -> Results {
    let mut random = Random::new(seed);
    let roof = roof(device);
    let mut rows = Vec::new();
    let mut canary = Vec::new();
    let mut at = 20.0;
    for case in &CASES {
        for (precision, batch) in case.variants() {
            let row = case.row(device, &roof, precision, batch, noise, &mut random);
            at += row.times.as_ref().map_or(0.2, |t| t.wall_samples.iter().sum::<f64>()) + 1.0;
            let warm = 1.0 + 0.015 * (1.0 - (-at / 60.0_f64).exp());
            let seconds = 2.0e-3 * warm * (0.004 * random.normal()).exp();
            canary.push(Canary { at, seconds, after: Some(row.id.clone()), rounds: 0 });
            rows.push(row);
        }
    }
    Results {
        format: FORMAT,
        program: Program {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: Some("0123456789ab".to_owned()),
            profile: "release".to_owned(),
            wgpu: "30.0.1".to_owned(),
            rustc: "1.95.0".to_owned(),
            command: ["aquatint", "bench", "--json", "results.json"].map(str::to_owned).to_vec(),
        },
        started: "2026-01-31T12:00:00Z".to_owned(),
        seconds: at,
        cut_short: None,
        settings: Settings {
            suite: "standard".to_owned(),
            filter: None,
            model: None,
            precisions: vec!["f32".to_owned(), "f16".to_owned()],
            batches: vec![1, 8],
            time_limit: None,
            cooldown: 0.0,
            visits: 1,
            seed: 0,
            as_if: None,
            hash: "5c".repeat(32),
        },
        machine: machine(device),
        clock: clock(device),
        roof,
        rows,
        canary,
        passes: Vec::new(),
        errors: errors(),
    }
}

/// Makes a row take `factor` times as long.
pub fn slow_down(row: &mut Row, factor: f64) {
    let Some(times) = &mut row.times else { return };
    for samples in [&mut times.samples, &mut times.wall_samples] {
        samples.iter_mut().for_each(|s| *s *= factor);
    }
    for (summary, samples) in [(&mut times.main, &times.samples), (&mut times.wall, &times.wall_samples)] {
        *summary = Summary::of(samples).expect("times have samples");
    }
    for visit in &mut times.visits {
        visit.median *= factor;
        visit.fastest *= factor;
    }
}

/// A case of the suite: what it computes, in GFLOP and MB for a batch of one, and what share of the limits it reaches.
struct Case {
    id: &'static str,
    title: &'static str,
    group: Group,
    gflop: f64,
    megabytes: f64,
    launches: u32,
    share: f64,
    batches: &'static [u32],
    fate: Fate,
}

/// What becomes of a case whatever the noise.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Fine,
    /// Its f16 variant gives wrong answers.
    Wrong,
    /// The device lacks a feature.
    Unsupported,
    Unstable,
    Error,
    Skipped,
}

const fn case(
    id: &'static str,
    title: &'static str,
    work: (f64, f64, u32),
    share: f64,
    batches: &'static [u32],
    fate: Fate,
) -> Case {
    let group = match id.as_bytes()[0] {
        b'k' => Group::Kernel,
        b'n' => Group::Network,
        _ => Group::Diffusion,
    };
    Case { id, title, group, gflop: work.0, megabytes: work.1, launches: work.2, share, batches, fate }
}

const CASES: [Case; 24] = [
    case("kernel/matmul/1024", "Matrix product, 1024³", (2.15, 12.6, 1), 0.71, &[1], Fate::Fine),
    case("kernel/matmul/77x768", "Matrix product, 77×768×3072", (0.363, 12.1, 1), 0.38, &[1], Fate::Fine),
    case("kernel/conv2d/3x3x256", "Convolution 3×3, 56²×256", (3.7, 8.8, 3), 0.92, &[1], Fate::Fine),
    case("kernel/conv2d/1x1x512", "Convolution 1×1, 28²×512", (0.411, 4.2, 1), 0.55, &[1], Fate::Fine),
    case(
        "kernel/conv2d/depthwise",
        "Depthwise convolution 3×3, 112²×96",
        (0.0217, 9.6, 1),
        0.68,
        &[1],
        Fate::Fine,
    ),
    case("kernel/group_norm", "Group norm, 64²×320", (0.0092, 10.5, 2), 0.63, &[1], Fate::Fine),
    case("kernel/attention/4096", "Attention, 4096×40, 8 heads", (10.7, 21.0, 1), 0.44, &[1], Fate::Fine),
    case("kernel/softmax", "Softmax, 4096×4096", (0.0839, 134.2, 1), 0.81, &[1], Fate::Fine),
    case("kernel/resize", "Bilinear enlargement, 512² to 1024²", (0.0252, 15.7, 1), 0.74, &[1], Fate::Fine),
    case(
        "kernel/matmul/cooperative",
        "Matrix product on matrix cores",
        (2.15, 6.3, 1),
        0.5,
        &[1],
        Fate::Unsupported,
    ),
    case("network/mobilenet_v2", "MobileNet V2, 224²", (0.6, 42.0, 53), 0.24, &[1, 8], Fate::Fine),
    case("network/resnet18", "ResNet-18, 224²", (3.63, 61.0, 31), 0.58, &[1, 8], Fate::Fine),
    case("network/resnet50", "ResNet-50, 224²", (8.2, 178.0, 72), 0.47, &[1, 8], Fate::Fine),
    case("network/convnext_tiny", "ConvNeXt-T, 224²", (8.9, 190.0, 98), 0.36, &[1, 8], Fate::Fine),
    case(
        "network/efficientnet_b0",
        "EfficientNet-B0, 224²",
        (0.78, 66.0, 142),
        0.18,
        &[1, 8],
        Fate::Unstable,
    ),
    case("network/yolo11n", "YOLO11n, 640²", (6.5, 118.0, 121), 0.29, &[1], Fate::Wrong),
    case("network/real-esrgan", "Super-resolution ×4, 128²", (290.0, 980.0, 351), 0.66, &[1], Fate::Fine),
    case("diffusion/letters", "Letters, 40×20, 20 steps", (4.9, 96.0, 740), 0.12, &[1, 8], Fate::Fine),
    case("diffusion/ddpm-cifar", "DDPM, 32², 50 steps", (607.0, 4100.0, 9400), 0.41, &[1], Fate::Fine),
    case(
        "diffusion/sd15-unet",
        "Stable Diffusion 1.5, one step, 512²",
        (803.0, 3900.0, 686),
        0.62,
        &[1],
        Fate::Fine,
    ),
    case(
        "diffusion/sd15-vae",
        "Stable Diffusion 1.5, decoder, 512²",
        (2480.0, 9100.0, 118),
        0.69,
        &[1],
        Fate::Fine,
    ),
    case(
        "diffusion/sdxl-unet",
        "Stable Diffusion XL, one step, 1024²",
        (5980.0, 14_200.0, 1942),
        0.6,
        &[1],
        Fate::Fine,
    ),
    case(
        "diffusion/sd3-mmdit",
        "Stable Diffusion 3, one step, 1024²",
        (6210.0, 11_800.0, 1210),
        0.6,
        &[1],
        Fate::Error,
    ),
    case("diffusion/flux", "FLUX.1, one step, 1024²", (59_500.0, 48_000.0, 1400), 0.6, &[1], Fate::Skipped),
];

impl Case {
    fn variants(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let batches = self.batches;
        ["f32", "f16"]
            .into_iter()
            .flat_map(move |precision| batches.iter().map(move |&batch| (precision, batch)))
    }

    fn row(
        &self,
        device: Device,
        roof: &Roof,
        precision: &str,
        batch: u32,
        noise: Noise,
        random: &mut Random,
    ) -> Row {
        let half = precision == "f16";
        let status = match self.fate {
            _ if half && device == Device::Software => Status::Unsupported,
            Fate::Wrong if half => Status::Wrong,
            Fate::Fine | Fate::Wrong => Status::Ok,
            Fate::Unsupported => Status::Unsupported,
            Fate::Unstable if batch == 1 => Status::Unstable,
            Fate::Unstable => Status::Ok,
            Fate::Error => Status::Error,
            Fate::Skipped => Status::Skipped,
        };
        let reason = match status {
            Status::Ok => None,
            Status::Wrong => Some("largest difference 0.31 of the largest value, 0.01 allowed"),
            Status::Unsupported if half => Some("the device has no SHADER_F16"),
            Status::Unsupported => Some("the device has no EXPERIMENTAL_COOPERATIVE_MATRIX"),
            Status::Skipped => Some("needs 22.4 GiB of device memory, 11.1 GiB are free"),
            Status::Unstable => Some("the last third ran 8.3 % slower than the first"),
            Status::Error => {
                Some("out of GPU memory while making \"joint_blocks.23.attn\" (536870912 bytes)")
            }
        };
        let n = f64::from(batch);
        let flops = self.gflop * 1e9 * n;
        let bytes = self.megabytes * 1e6 * if half { 0.5 } else { 1.0 } * (0.4 + 0.6 * n);
        let arithmetic = if half { LimitKind::F16Arithmetic } else { LimitKind::F32Arithmetic };
        let limits = [(arithmetic, flops), (LimitKind::CopyBandwidth, bytes)];
        let bound = limits.map(|(kind, work)| (kind, roof.value(kind).map_or(0.0, |rate| work / rate)));
        let bound = if bound[0].1 >= bound[1].1 { bound[0] } else { bound[1] };
        let launch = roof.value(LimitKind::LaunchLatency).unwrap_or(0.0);
        let truth = bound.1 / self.share.min(0.97) + f64::from(self.launches) * launch;
        let timed = matches!(status, Status::Ok | Status::Unstable);
        let drifting = Noise { drift: 0.12, ..noise };
        let times = timed
            .then(|| times(device, truth, if status == Status::Unstable { drifting } else { noise }, random));
        let median = times.as_ref().map(|t| t.main.median);
        let rates = median.map(|median| Rates {
            flops: Some(flops / median),
            bytes: Some(bytes / median),
            bound: Some(bound.0),
            share: Some(bound.1 / median),
        });
        Row {
            id: format!("{}/{precision}/{batch}", self.id),
            group: self.group,
            title: self.title.to_owned(),
            precision: precision.to_owned(),
            batch,
            status,
            reason: reason.map(str::to_owned),
            check: (timed || status == Status::Wrong).then(|| self.check(half, status, random)),
            flops: Some(flops as u64),
            bytes: Some(bytes as u64),
            memory: timed.then_some(Memory {
                weights: (bytes * 0.35) as u64,
                activations: (bytes * 0.2) as u64,
                held: (bytes * 0.6) as u64,
                peak: (bytes * 0.8) as u64,
            }),
            start: timed.then(|| {
                let plan = 2e-4 * f64::from(self.launches);
                let compile = 3e-3 * f64::from(self.launches.min(60));
                Start { plan, compile, load: bytes / 4e9, first_run: 3.0 * truth }
            }),
            parts: self.parts(median),
            kernels: median.map(|median| self.kernels(median, flops, bytes, bound.0)).unwrap_or_default(),
            times,
            rates,
        }
    }

    fn check(&self, half: bool, status: Status, random: &mut Random) -> Check {
        let small = if half { 1.1e-3 } else { 2.4e-6 };
        let max_rel = if status == Status::Wrong { 0.31 } else { small * (0.5 * random.normal()).exp() };
        Check {
            against: "onnxruntime 1.23, f32 on the CPU".to_owned(),
            reference: Some("ab".repeat(32)),
            compared: 1000,
            elements: 1000,
            max_abs: 9.0 * max_rel,
            max_rel,
            rms: max_rel / 4.0,
            psnr: (self.group == Group::Diffusion).then_some(if half { 52.3 } else { 91.8 }),
            tolerance: if half { 1e-2 } else { 1e-4 },
            nans: 0,
            infinities: 0,
            replays: 5,
            distinct: 1,
        }
    }

    fn parts(&self, median: Option<f64>) -> Vec<PartTime> {
        let split = [("text encoder", 0.03, 1), ("network", 0.81, 20), ("decoder", 0.16, 1)];
        match median.filter(|_| self.group == Group::Diffusion && self.launches > 1000) {
            None => Vec::new(),
            Some(seconds) => split
                .iter()
                .map(|&(name, part, calls)| PartTime {
                    name: name.to_owned(),
                    seconds: part * seconds,
                    calls,
                })
                .collect(),
        }
    }

    fn kernels(&self, median: f64, flops: f64, bytes: f64, bound: LimitKind) -> Vec<KernelTime> {
        const KERNELS: [(&str, f64); 6] = [
            ("conv2d_winograd", 0.38),
            ("matmul_tiled", 0.24),
            ("attention", 0.16),
            ("group_norm", 0.11),
            ("elementwise", 0.08),
            ("resize", 0.03),
        ];
        let own = self.id.split('/').nth(1).unwrap_or_default();
        let one = [(own, 1.0)];
        let split = if self.group == Group::Kernel { &one[..] } else { &KERNELS[..] };
        // So that not all networks look alike.
        let weight = |i: usize| 0.3 + (self.id.len() * 7 + i * 5) as f64 % 11.0 / 5.0;
        let whole: f64 = split.iter().enumerate().map(|(i, (_, part))| part * weight(i)).sum();
        split
            .iter()
            .enumerate()
            .map(|(i, &(kernel, part))| (kernel, part * weight(i) / whole))
            .map(|(kernel, part)| KernelTime {
                kernel: kernel.to_owned(),
                launches: ((f64::from(self.launches) * part) as u32).max(1),
                seconds: 0.96 * part * median,
                flops: (flops * part) as u64,
                bytes: (bytes * part) as u64,
                bound: Some(bound),
                share: Some((self.share * (0.7 + part)).min(0.97)),
            })
            .collect()
    }
}

/// As often is a row sampled.
const VISITS: usize = 5;

fn visit(samples: &[f64]) -> Visit {
    let sorted = Sorted::new(samples).expect("there are samples");
    Visit {
        at: 0.0,
        samples: samples.len() as u32,
        median: sorted.median(),
        fastest: sorted.quantile(0.0),
        canary: None,
        counts: true,
        set_aside: Vec::new(),
    }
}

/// Samples round a true time.
fn times(device: Device, truth: f64, noise: Noise, random: &mut Random) -> Times {
    const SECONDS: f64 = 1.5;
    let n = ((SECONDS / truth) as usize).clamp(20, 120);
    let process = (noise.process * random.normal()).exp();
    let slope = noise.drift * (2.0 * random.uniform() - 1.0);
    let (phase, waves) = (random.uniform(), 1.0 + 2.0 * random.uniform());
    let mut samples = Vec::with_capacity(n);
    for i in 0..n {
        let way = i as f64 / n as f64;
        let wave = 0.25 * noise.drift * (std::f64::consts::TAU * (waves * way + phase)).sin();
        let outlier = if random.uniform() < noise.outliers { 1.0 + random.uniform() } else { 1.0 };
        let sample =
            truth * process * (1.0 + slope * (way - 0.5) + wave) * (noise.scatter * random.normal()).exp();
        samples.push(sample * outlier);
    }
    let each = n.div_ceil(VISITS);
    for visit in samples.chunks_mut(each) {
        let slower = if random.uniform() < noise.disturbed { 1.0 + 0.8 * random.uniform() } else { 1.0 };
        visit.iter_mut().for_each(|sample| *sample *= slower);
    }
    let wall_samples: Vec<f64> = samples.iter().map(|s| s + 6e-5 * (0.1 * random.normal()).exp()).collect();
    let encode_samples: Vec<f64> = samples.iter().map(|_| 4e-5 * (0.2 * random.normal()).exp()).collect();
    let summary = |samples: &[f64]| Summary::of(samples).expect("there are samples");
    let main = summary(&samples);
    let confident = main.precision() <= 0.01;
    Times {
        clock: if device == Device::Software { ClockSource::Wall } else { ClockSource::Timestamps },
        runs_per_sample: ((1e-3 / truth) as u32).max(1),
        main,
        wall: summary(&wall_samples),
        encode: summary(&encode_samples),
        stopped: if confident { Stopped::Confident } else { Stopped::TimeUp },
        drift: super::statistics::drift(&samples),
        visits: samples.chunks(each).map(visit).collect(),
        samples,
        wall_samples,
        encode_samples,
    }
}

fn roof(device: Device) -> Roof {
    use LimitKind::*;
    let (speed, values): (f64, bool) = match device {
        Device::Discrete => (1.0, true),
        Device::Software => (1.0 / 64.0, false),
    };
    let all = [
        (F32Arithmetic, Some(19.4e12 * speed)),
        (F16Arithmetic, values.then_some(37.8e12)),
        (IntegerArithmetic, Some(9.7e12 * speed)),
        (MatrixArithmetic, None),
        (CopyBandwidth, Some(402e9 * if values { 1.0 } else { 0.045 })),
        (ReadBandwidth, Some(431e9 * if values { 1.0 } else { 0.05 })),
        (CacheBandwidth, Some(1.3e12 * speed)),
        (SharedBandwidth, Some(7.1e12 * speed)),
        (LaunchLatency, Some(2.6e-6 / speed.sqrt())),
        (SubmitLatency, Some(61e-6)),
    ];
    let limit = |(kind, value): (LimitKind, Option<f64>)| {
        let feature = if kind == F16Arithmetic { "SHADER_F16" } else { "EXPERIMENTAL_COOPERATIVE_MATRIX" };
        let reason = value.is_none().then(|| format!("the device has no {feature}"));
        Limit { kind, value, reason, spread: value.map(|_| 0.01), form: None }
    };
    Roof { limits: all.into_iter().map(limit).collect() }
}

fn machine(device: Device) -> Machine {
    let software = device == Device::Software;
    let pick = |hardware: &str, on_cpu: &str| if software { on_cpu } else { hardware }.to_owned();
    let features: &[&str] =
        if software { &["TIMESTAMP_QUERY"] } else { &["SHADER_F16", "SUBGROUP", "TIMESTAMP_QUERY"] };
    let limits = [("max_buffer_size", 4_294_967_296), ("max_compute_invocations_per_workgroup", 1024)];
    Machine {
        adapter: Adapter {
            name: pick("Example GPU 20", "llvmpipe (LLVM 19.1.7, 256 bits)"),
            kind: pick("discrete", "software"),
            software,
            backend: "vulkan".to_owned(),
            driver: pick("example 1.2.3", "llvmpipe Mesa 25.0.7"),
            vendor: if software { 0x10005 } else { 0x1234 },
            device: 0,
            pci_bus: pick("0000:01:00.0", ""),
            features: features.iter().map(|&f| f.to_owned()).collect(),
            limits: limits.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        },
        cpu: "Example CPU, 8 cores".to_owned(),
        cores: 16,
        memory_bytes: 32 << 30,
        os: "Debian GNU/Linux 13".to_owned(),
        kernel: Some("6.12.0".to_owned()),
    }
}

fn clock(device: Device) -> Clock {
    match device {
        Device::Discrete => Clock {
            source: ClockSource::Timestamps,
            reason: None,
            period: Some(1.0),
            agreement: Some(0.994),
            overhead: Some(0.012),
        },
        Device::Software => Clock {
            source: ClockSource::Wall,
            reason: Some("timestamps of a software adapter are taken when commands are recorded".to_owned()),
            period: Some(1.0),
            agreement: Some(0.02),
            overhead: None,
        },
    }
}

fn errors() -> Vec<OperationError> {
    let all = [
        ("conv2d 3×3, 256 channels", "f32", 19.0, 1.7, 1.1e-6),
        ("conv2d 3×3, 256 channels", "f16", 1.0, 0.26, 4.9e-4),
        ("matmul, 1024", "f32", 34.0, 2.9, 2.0e-6),
        ("group norm", "f32", 4.0, 0.51, 2.4e-7),
        ("softmax", "f32", 3.0, 0.42, 1.8e-7),
        ("attention", "f32", 11.0, 1.2, 6.6e-7),
        ("gelu", "f32", 5.0, 0.39, 3.0e-7),
        ("gelu", "f16", 0.5, 0.25, 2.4e-4),
    ];
    let error =
        |&(operation, precision, max_ulp, mean_ulp, max_rel): &(&str, &str, f64, f64, f64)| OperationError {
            operation: operation.to_owned(),
            precision: precision.to_owned(),
            elements: 1 << 20,
            max_ulp,
            mean_ulp,
            max_rel,
        };
    all.iter().map(error).collect()
}

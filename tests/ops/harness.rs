//! Holds kernels to references in f64.
//!
//! `check` builds the operation as a network of its own, for f32 and, where the
//! device has it, f16 storage; fills what the kernels will write with NaNs; runs;
//! and compares every element. Inputs are drawn anew in each run; a failure
//! prints the seed, and `AQUATINT_TEST_SEED` sets it.

use std::sync::OnceLock;

use aquatint::gpu::AS_IF_VARIABLE;
use aquatint::{
    AdapterOptions, DType, DeviceClass, Error, Gpu, Graph, Matrices, Network, Plan, Result, Target, Tensor,
    ValueId, doctor, passes, reference,
};

/// Largest error in f32: rounding of sums of some thousand terms stays well below it.
pub const F32: f64 = 1e-5;
/// Largest error with f16 storage: the result alone is rounded to 4.9e-4.
pub const F16: f64 = 2e-3;

/// A tensor of the reference.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    pub fn zeros(shape: &[usize]) -> Self {
        Array { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }

    /// Computes every element from its index.
    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Self {
        let mut array = Array::zeros(shape);
        let mut index = vec![0; shape.len()];
        for i in 0..array.data.len() {
            let mut rest = i;
            for d in (0..shape.len()).rev() {
                index[d] = rest % shape[d];
                rest /= shape[d];
            }
            array.data[i] = f(&index);
        }
        array
    }

    pub fn at(&self, index: &[usize]) -> f64 {
        assert_eq!(index.len(), self.shape.len());
        let flat = index.iter().zip(&self.shape).fold(0, |flat, (i, n)| {
            assert!(i < n, "{index:?} in {:?}", self.shape);
            flat * n + i
        });
        self.data[flat]
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Array { shape: self.shape.clone(), data: self.data.iter().map(|&x| f(x)).collect() }
    }
}

/// SplitMix64, as good as any for test data.
pub struct Rng(u64);

impl Rng {
    /// A generator that differs in each run and for each name.
    pub fn new(name: &str) -> Self {
        let mut rng = Rng(seed());
        for byte in name.bytes() {
            rng.0 = rng.bits() ^ u64::from(byte);
        }
        rng
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in [-1, 1).
    pub fn array(&mut self, shape: &[usize]) -> Array {
        Array::from_fn(shape, |_| self.uniform(-1.0, 1.0))
    }

    /// Uniform in [low, high).
    pub fn array_in(&mut self, shape: &[usize], low: f64, high: f64) -> Array {
        Array::from_fn(shape, |_| self.uniform(low, high))
    }

    /// Whole numbers below `n`.
    pub fn indices(&mut self, shape: &[usize], n: usize) -> Array {
        Array::from_fn(shape, |_| self.below(n) as f64)
    }
}

/// What a test does to one case in so many, for which a variable of the environment has another number.
fn one_in(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |n| {
        let number = n.parse().ok().filter(|&n| n > 0);
        number.unwrap_or_else(|| panic!("{variable} is a number from 1"))
    })
}

/// Whether a case is one of those to which something more is done: which ones they are, differs from run to run.
fn chosen(name: &str, variable: &str, usual: usize) -> bool {
    Rng::new(&format!("{variable} {name}")).below(one_in(variable, usual)) == 0
}

/// One case in so many is run at all.
const SAMPLE: &str = "AQUATINT_TEST_SAMPLE";
/// One case in so many is run with bounds checks, too.
const CHECKED: &str = "AQUATINT_TEST_CHECKED";
/// One case in so many is run on a device that plays a weaker one, too.
const WEAK: &str = "AQUATINT_TEST_WEAK";

/// Devices that any device can play: what every browser gives, one without what is optional, and those that get other kernels.
const WEAKER: [&str; 5] = [
    "webgpu",
    "no-f16,no-subgroups,no-timestamps,shared=16KiB",
    "max-binding=128MiB,max-buffer=256MiB,storage-buffers=8,workgroups=1024",
    "class=discrete,no-subgroups",
    "class=integrated,shared=16KiB,invocations=256",
];

fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("AQUATINT_TEST_SEED").ok();
        let now = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
        given.map_or_else(now, |s| s.parse().expect("AQUATINT_TEST_SEED is a number"))
    })
}

/// The device of all tests, opened once. Without one the kernels are still
/// compiled to validated plans, and that is said; `REQUIRE_GPU=1` makes it a failure.
pub fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| match Gpu::headless() {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED on the device: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    })
    .as_ref()
}

/// The same device, with bounds checks in all kernels.
fn with_checks() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let gpu = Gpu::headless().unwrap();
        gpu.check_bounds();
        gpu
    })
}

/// The device as one of [`WEAKER`], opened once each; none where what all tests run on plays another already.
fn weaker(which: usize) -> Option<&'static Gpu> {
    static GPUS: [OnceLock<Gpu>; WEAKER.len()] = [const { OnceLock::new() }; WEAKER.len()];
    if std::env::var_os(AS_IF_VARIABLE).is_some() {
        return None;
    }
    let as_if = Some(WEAKER[which].to_owned());
    let options = AdapterOptions { as_if, ..AdapterOptions::from_env() };
    Some(GPUS[which].get_or_init(|| Gpu::with_options(&options).unwrap_or_else(|e| panic!("{e}"))))
}

/// How an input reaches the graph.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Activation,
    Weight,
    Indices,
}

/// One operation under test.
pub struct Case {
    name: String,
    inputs: Vec<(Kind, Array)>,
    f32_tolerance: f64,
    f16_tolerance: f64,
    f16: bool,
    played: bool,
}

impl Case {
    pub fn new(name: impl Into<String>) -> Self {
        Case {
            name: name.into(),
            inputs: Vec::new(),
            f32_tolerance: F32,
            f16_tolerance: F16,
            f16: true,
            played: false,
        }
    }

    /// An input written before the run.
    pub fn input(mut self, array: &Array) -> Self {
        self.inputs.push((Kind::Activation, array.clone()));
        self
    }

    /// A constant, repacked while loading.
    pub fn weight(mut self, array: &Array) -> Self {
        self.inputs.push((Kind::Weight, array.clone()));
        self
    }

    /// An input of `u32`.
    pub fn indices(mut self, array: &Array) -> Self {
        self.inputs.push((Kind::Indices, array.clone()));
        self
    }

    /// Another largest error; say why at the call.
    pub fn tolerance(mut self, f32: f64, f16: f64) -> Self {
        self.f32_tolerance = f32;
        self.f16_tolerance = f16;
        self
    }

    /// For operations that are not defined for f16.
    pub fn f32_only(mut self) -> Self {
        self.f16 = false;
        self
    }

    /// In f32 also as it is planned for devices with less, and for those of other classes; in f16 for the latter.
    pub fn played(mut self) -> Self {
        self.played = true;
        self
    }

    /// Runs the operation and compares. `build` gets the inputs in order;
    /// `reference` gets them rounded to the storage type.
    pub fn check(
        self,
        build: impl Fn(&mut Graph, &[ValueId]) -> Result<ValueId>,
        reference: impl Fn(&[Array]) -> Array,
    ) {
        if !chosen(&self.name, SAMPLE, 1) {
            return;
        }
        self.check_dtype(DType::F32, self.f32_tolerance, &build, &reference);
        if self.f16 {
            self.check_dtype(DType::F16, self.f16_tolerance, &build, &reference);
        }
    }

    fn check_dtype(
        &self,
        dtype: DType,
        tolerance: f64,
        build: &impl Fn(&mut Graph, &[ValueId]) -> Result<ValueId>,
        reference: &impl Fn(&[Array]) -> Array,
    ) {
        let name = format!("{} ({dtype}, seed {})", self.name, seed());
        // Between two numbers of f16 below 6.1e-5.
        let step = smallest_step(dtype);
        let tensors: Vec<Tensor> = self
            .inputs
            .iter()
            .map(|(kind, array)| match kind {
                Kind::Indices => tensor(array, DType::U32),
                _ => tensor(array, dtype),
            })
            .collect();
        let rounded: Vec<Array> = tensors
            .iter()
            .map(|t| Array {
                shape: t.desc.shape.to_vec(),
                data: t.to_f32().into_iter().map(f64::from).collect(),
            })
            .collect();

        let mut graph = Graph::new();
        let mut values = Vec::new();
        let mut written = Vec::new();
        for (i, ((kind, _), tensor)) in self.inputs.iter().zip(&tensors).enumerate() {
            let input = format!("input{i}");
            values.push(match kind {
                Kind::Weight => graph.weight(&input, tensor.clone()),
                _ => graph.input(&input, tensor.desc.shape.clone(), tensor.desc.dtype),
            });
            if *kind != Kind::Weight {
                written.push((input, tensor));
            }
        }
        let result = build(&mut graph, &values).unwrap_or_else(|e| panic!("{name}: {e}"));
        graph.output("result", result);
        let expected = reference(&rounded);
        assert_eq!(graph.shape(result)[..], expected.shape[..], "{name}: shape");

        let inputs: Vec<(&str, &Tensor)> = written.iter().map(|(n, t)| (n.as_str(), *t)).collect();
        // Every variant that any class of device would get, validated by naga.
        for class in [DeviceClass::Discrete, DeviceClass::Integrated, DeviceClass::Cpu] {
            let mappable = class == DeviceClass::Cpu;
            // Those with cooperative matrices use them in f16.
            let matrices = match class {
                DeviceClass::Discrete => Some(Matrices { sides: vec![16, 8], subgroup_size: 32 }),
                DeviceClass::Integrated => Some(Matrices { sides: vec![8], subgroup_size: 64 }),
                DeviceClass::Cpu => None,
            };
            let matrices = matrices.filter(|_| dtype == DType::F16);
            let target = Target { class, mappable, matrices, ..Target::typical() };
            Plan::compile(&graph, &target).unwrap_or_else(|e| panic!("{name}, {class:?}: {e}"));
            // What the passes make of the graph is to the library's reference what the graph is to this one.
            let rewritten = passes::optimise(&graph, &target).unwrap_or_else(|e| panic!("{name}: {e}"));
            let found = reference::run(&rewritten, &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
            compare(&format!("{name}, reference for {class:?}"), &found[0].to_vec(), &expected, 1e-6);
        }
        let Some(gpu) = gpu() else { return };
        if dtype == DType::F16 && !gpu.target().f16 {
            return;
        }
        let network = Network::new(gpu, &graph).unwrap_or_else(|e| panic!("{name}: {e}"));
        network.poison().unwrap();
        let found = network.run(&inputs).unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
        compare_in_steps(&name, &found.to_f32(), &expected, tolerance, step);
        let held =
            |name: &str, found: &Tensor| compare_in_steps(name, &found.to_f32(), &expected, tolerance, step);
        same_with_checks(&name, &graph, &inputs, &found, held);
        examined(gpu, &name, &graph, &inputs);
        if chosen(&name, WEAK, 8) {
            let which = Rng::new(&name).below(WEAKER.len());
            if let Some(gpu) = weaker(which).filter(|gpu| dtype == DType::F32 || gpu.target().f16) {
                let name = format!("{name}, {}", WEAKER[which]);
                let network = Network::new(gpu, &graph).unwrap_or_else(|e| panic!("{name}: {e}"));
                network.poison().unwrap();
                let found = network.run(&inputs).unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
                compare_in_steps(&name, &found.to_f32(), &expected, tolerance, step);
            }
        }
        let played = if dtype == DType::F32 { &PLAYED[..] } else { &PLAYED[PLAYED.len() - 1..] };
        for (weaker, play) in played.iter().filter(|_| self.played) {
            let name = format!("{name}, {weaker}");
            let plan = Plan::compile(&graph, &play(gpu.target())).unwrap_or_else(|e| panic!("{name}: {e}"));
            let network = Network::from_plan(gpu, plan).unwrap_or_else(|e| panic!("{name}: {e}"));
            network.poison().unwrap();
            let found = network.run(&inputs).unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
            compare_in_steps(&name, &found.to_f32(), &expected, tolerance, step);
        }
    }
}

/// Bounds checks find nothing to change in a kernel that keeps to its buffers. They take longer to compile, so that each run of the tests tries
/// a part of all cases. Software adapters give the same bits; compilers of GPUs make one multiply-add of other products once there are checks, and
/// what comes out is `held` to the reference.
fn same_with_checks(
    name: &str,
    graph: &Graph,
    inputs: &[(&str, &Tensor)],
    trusted: &Tensor,
    held: impl Fn(&str, &Tensor),
) {
    if !chosen(name, CHECKED, 4) {
        return;
    }
    let network = Network::new(with_checks(), graph).unwrap_or_else(|e| panic!("{name}, checked: {e}"));
    network.poison().unwrap();
    let checked = network.run(inputs).unwrap_or_else(|e| panic!("{name}, checked: {e}")).remove(0);
    assert_eq!(trusted.desc, checked.desc, "{name}");
    if with_checks().target().class != DeviceClass::Cpu {
        return held(&format!("{name}, checked"), &checked);
    }
    // A NaN is a NaN: its bits are the device's own affair.
    let same = trusted
        .to_f32()
        .iter()
        .zip(checked.to_f32())
        .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
    assert!(same, "{name}: with bounds checks something else comes out");
}

type Play = fn(&Target) -> Target;

/// Devices that any device can be planned for.
const PLAYED: [(&str, Play); 4] = [
    ("subgroups of four at least", |t| Target { subgroup_size: t.subgroup_size.min(4), ..t.clone() }),
    ("without subgroups", |t| Target { subgroups: false, subgroup_size: 1, ..t.clone() }),
    ("without textures", |t| Target { max_texture: 0, ..t.clone() }),
    ("as for a discrete GPU", |t| Target { class: DeviceClass::Discrete, ..t.clone() }),
];

/// The library's own examination, with its own reference and its own idea of what may be off, finds nothing wrong either.
pub fn examined(gpu: &Gpu, name: &str, graph: &Graph, given: &[(&str, &Tensor)]) {
    let options = doctor::Options { variants: false, ..doctor::Options::default() };
    let found = doctor::examine(gpu, name, graph, given, &options, &mut |_, _| true)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let wrong: Vec<_> = found.wrong().collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
}

/// Every element within `tolerance` of the reference, relative to its own size
/// plus the root mean square of all: an element that is small because large
/// terms cancel has their rounding error.
pub fn compare<T: Copy + Into<f64>>(name: &str, found: &[T], expected: &Array, tolerance: f64) {
    compare_in_steps(name, found, expected, tolerance, 0.0);
}

/// The least by which two numbers of a type differ, where that says more than their size does.
pub fn smallest_step(dtype: DType) -> f64 {
    if dtype == DType::F16 { 2f64.powi(-24) } else { 0.0 }
}

/// The same where results were rounded to multiples of `step` at least, as the smallest numbers of f16 are.
pub fn compare_in_steps<T: Copy + Into<f64>>(
    name: &str,
    found: &[T],
    expected: &Array,
    tolerance: f64,
    step: f64,
) {
    assert_eq!(found.len(), expected.data.len(), "{name}: number of elements");
    let finite: Vec<f64> = expected.data.iter().copied().filter(|x| x.is_finite()).collect();
    let rms = (finite.iter().map(|x| x * x).sum::<f64>() / finite.len().max(1) as f64).sqrt();
    let mut worst = (0.0, 0);
    for (i, (&f, &e)) in found.iter().zip(&expected.data).enumerate() {
        let f = f.into();
        let error = match f == e {
            true => 0.0,
            false if (f - e).abs() <= step / 2.0 => 0.0,
            false => (f - e).abs() / (e.abs() + rms),
        };
        if error.is_nan() || error > worst.0 {
            worst = (error, i);
            if error.is_nan() {
                break;
            }
        }
    }
    let (error, i) = worst;
    assert!(
        error <= tolerance,
        "{name}: element {i} of {:?} is {}, expected {}; error {error:.2e} > {tolerance:.0e}",
        expected.shape,
        found[i].into(),
        expected.data[i],
    );
}

pub fn tensor(array: &Array, dtype: DType) -> Tensor {
    let shape = array.shape.clone();
    match dtype {
        DType::U32 => Tensor::from_u32(shape, &array.data.iter().map(|&x| x as u32).collect::<Vec<_>>()),
        _ => {
            Tensor::from_f32(shape, &array.data.iter().map(|&x| x as f32).collect::<Vec<_>>()).to_dtype(dtype)
        }
    }
}

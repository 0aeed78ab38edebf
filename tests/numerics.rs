//! What operations make of numbers that are none: NaN and the infinities go in, and what comes out is held to the reference in
//! f64. docs/numerics.md has the tables, which are made here; `AQUATINT_UPDATE_DOCS=1` writes them anew.
//!
//! WGSL lets a driver assume that there are none, so on adapters other than Mesa's on the CPU differences are told and
//! are no failures.

use std::fmt::Write;
use std::process::Command;
use std::sync::OnceLock;

use aquatint::nn::count_not_finite;
use aquatint::ops::arg_reduce::ArgReduce;
use aquatint::ops::attention::AttentionOptions;
use aquatint::ops::conv_transpose2d::{ConvTranspose2d, ConvTranspose2dOptions};
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::expr::{Binary, Unary};
use aquatint::ops::grid_sample::{GridSample, Outside};
use aquatint::ops::matmul::Matmul;
use aquatint::ops::pad::PadMode;
use aquatint::ops::pool::{PoolKind, PoolOptions};
use aquatint::ops::quantize::{Per, Quantize};
use aquatint::ops::reduce::Reduction;
use aquatint::ops::resize::{Coordinates, Interpolation};
use aquatint::ops::typed::Function;
use aquatint::{DType, DeviceClass, Error, Gpu, Graph, Network, Plan, Result, Tensor, ValueId, reference};

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

/// The device, or `None` (said aloud) on a machine without one, unless `REQUIRE_GPU` is set.
fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| match Gpu::headless() {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    })
    .as_ref()
}

/// Whether this is the adapter whose answers are promised.
fn keeps_to_ieee(gpu: &Gpu) -> bool {
    gpu.info().device_type == aquatint::wgpu::DeviceType::Cpu && gpu.target().class == DeviceClass::Cpu
}

/// Numbers between 1/4 and 3/4 that look like chance.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| {
        let x = i.wrapping_add(seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        (x ^ (x >> 15)).wrapping_mul(0xc2b2_ae35)
    };
    (0..count as u32).map(|i| 0.25 + (hash(i) >> 8) as f32 / (1 << 25) as f32).collect()
}

/// What kind of number it is; of finite ones nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Finite,
    Nan,
    Up,
    Down,
}

fn class(x: f64) -> Class {
    match x {
        x if x.is_nan() => Class::Nan,
        f64::INFINITY => Class::Up,
        f64::NEG_INFINITY => Class::Down,
        _ => Class::Finite,
    }
}

/// The device's answer and the reference's to these numbers as the input `x`.
fn both(
    gpu: &Gpu,
    shape: &[usize],
    values: &[f32],
    build: &dyn Fn(&mut Graph, ValueId) -> Result<ValueId>,
) -> Result<[Vec<f64>; 2]> {
    let mut g = Graph::new();
    let x = g.input("x", shape, DType::F32);
    let y = build(&mut g, x)?;
    g.output("y", y);
    let input = Tensor::from_f32(shape, values);
    let network = Network::new(gpu, &g)?;
    network.poison()?;
    let found = network.run(&[("x", &input)])?.remove(0).to_f32().into_iter().map(f64::from).collect();
    let defined = reference::run(&g, &[("x", &input)])?.remove(0).to_vec();
    Ok([found, defined])
}

/// Whether a function of one number takes a NaN for a number on some drivers: WGSL's `min`, `max`, `clamp` and `sign` may.
fn is_free(f: Unary) -> bool {
    use Unary::*;
    matches!(
        f,
        Relu | Clamp(..)
            | HardSwish
            | HardSigmoid
            | Softplus
            | Elu(_)
            | Mish
            | Sign
            | Tanh
            | GeluTanh
            | Erf
            | Gelu
            | LeakyRelu(_)
            | Atan
            | Asin
            | Acos
            | Asinh
            | Round
    )
}

#[rustfmt::skip]
const UNARY: [(&str, Unary); 37] = [
    ("Neg", Unary::Neg), ("Abs", Unary::Abs), ("Sign", Unary::Sign), ("Floor", Unary::Floor), ("Ceil", Unary::Ceil),
    ("Round", Unary::Round), ("Sqrt", Unary::Sqrt), ("Rsqrt", Unary::Rsqrt), ("Square", Unary::Square),
    ("Reciprocal", Unary::Reciprocal), ("Exp", Unary::Exp), ("Log", Unary::Log), ("Sin", Unary::Sin),
    ("Cos", Unary::Cos), ("Tan", Unary::Tan), ("Asin", Unary::Asin), ("Acos", Unary::Acos), ("Atan", Unary::Atan),
    ("Sinh", Unary::Sinh), ("Cosh", Unary::Cosh), ("Asinh", Unary::Asinh), ("Acosh", Unary::Acosh),
    ("Atanh", Unary::Atanh), ("Tanh", Unary::Tanh), ("Erf", Unary::Erf), ("Sigmoid", Unary::Sigmoid),
    ("Softplus", Unary::Softplus), ("Relu", Unary::Relu), ("Silu", Unary::Silu), ("Gelu", Unary::Gelu),
    ("GeluTanh", Unary::GeluTanh), ("QuickGelu", Unary::QuickGelu), ("HardSwish", Unary::HardSwish),
    ("HardSigmoid", Unary::HardSigmoid), ("Mish", Unary::Mish), ("LeakyRelu(0.1)", Unary::LeakyRelu(0.1)),
    ("Elu(1)", Unary::Elu(1.0)),
];

fn show(x: f64) -> String {
    match class(x) {
        Class::Nan => "NaN".to_owned(),
        Class::Up => "∞".to_owned(),
        Class::Down => "−∞".to_owned(),
        Class::Finite => format!("{x:.4}").trim_end_matches('0').trim_end_matches('.').replace('-', "−"),
    }
}

/// Functions of one number at NaN, the infinities and the largest numbers: the device's value, and f64's where that is another.
fn functions(gpu: &Gpu, failures: &mut Vec<String>) -> Result<String> {
    let values = [NAN, INF, -INF, 3e38, -3e38, 0.0];
    let mut g = Graph::new();
    let x = g.input("x", [values.len()], DType::F32);
    for (name, f) in UNARY {
        let y = g.unary(f, x)?;
        g.output(name, y);
    }
    let input = Tensor::from_f32([values.len()], &values);
    let found = Network::new(gpu, &g)?.run(&[("x", &input)])?;
    let defined = reference::run(&g, &[("x", &input)])?;
    let mut table = "| | NaN | ∞ | −∞ | 3·10³⁸ | −3·10³⁸ | 0 |\n|---|---|---|---|---|---|---|\n".to_owned();
    for (((name, f), found), defined) in UNARY.iter().zip(&found).zip(&defined) {
        let cells =
            found.to_f32().into_iter().zip(defined.to_vec()).zip(values).map(|((found, defined), given)| {
                let found = f64::from(found);
                // As f32 stores it.
                let defined = f64::from(defined as f32);
                if class(found) == class(defined) {
                    return if given.abs() > 1.0 && class(found) == Class::Finite && found.abs() > 1e6 {
                        format!("{found:.0e}").replace('-', "−")
                    } else {
                        show(found)
                    };
                }
                // At zero and the largest numbers WGSL promises what IEEE does.
                if !(is_free(*f) && given.is_nan() || LOOSE.contains(&(*name, given.to_bits()))) {
                    failures.push(format!("{name}({given}) is {found}, and {defined} in f64"));
                }
                format!("{} (f64: {})", show(found), show(defined))
            });
        writeln!(table, "| `{name}` | {} |", cells.collect::<Vec<_>>().join(" | ")).unwrap();
    }
    Ok(table)
}

/// Where a kernel's formula has no value at an infinity or beyond its range, while the function has a limit.
const LOOSE: &[(&str, u32)] = &[];

/// An operation with one number among others that is none.
struct Row {
    name: &'static str,
    shape: &'static [usize],
    build: fn(&mut Graph, ValueId) -> Result<ValueId>,
    /// Why a driver, or the method, may make something else of it; nothing where it may not.
    free: &'static str,
}

const MIN_MAX: &str = "`min` and `max` of WGSL may give either where one is NaN";
const COMPARED: &str = "NaN is neither more nor less than another number: which place it takes is open";

fn weight(g: &mut Graph, shape: &[usize]) -> ValueId {
    let values = noise(shape.iter().product(), 5);
    g.weight("w", Tensor::from_f32(shape, &values))
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "convolution 3×3", shape: &[1, 9, 9, 3], build: |g, x| { let w = weight(g, &[2, 3, 3, 3]); g.conv2d(x, w, None, Conv2dOptions::padded(1)) }, free: "" },
    Row { name: "convolution 3×3, Winograd's way", shape: &[1, 24, 24, 32], build: |g, x| { let w = weight(g, &[32, 32, 3, 3]); g.conv2d(x, w, None, Conv2dOptions::padded(1)) }, free: "Winograd's sums go over squares of pixels: all results of a square are NaN" },
    Row { name: "depthwise convolution 3×3", shape: &[1, 9, 9, 4], build: |g, x| { let w = weight(g, &[4, 1, 3, 3]); g.conv2d(x, w, None, Conv2dOptions::padded(1).groups(4)) }, free: "" },
    Row { name: "transposed convolution", shape: &[1, 5, 5, 3], build: |g, x| { let w = weight(g, &[3, 4, 4, 2]); let b = g.weight("b", Tensor::from_f32([2], &[0.0; 2])); let options = ConvTranspose2dOptions { stride: [2, 2], padding: [1; 4], ..Default::default() }; g.push(ConvTranspose2d { options }, &[x, w, b]) }, free: "" },
    Row { name: "linear", shape: &[5, 12], build: |g, x| { let w = weight(g, &[7, 12]); g.linear(x, w, None) }, free: "" },
    Row { name: "matrix product", shape: &[2, 6, 9], build: |g, x| { let w = weight(g, &[2, 9, 5]); g.matmul(x, w, Matmul::default()) }, free: "" },
    Row { name: "attention, in a key", shape: &[1, 6, 8], build: |g, x| { let w = weight(g, &[1, 6, 8]); g.attention(w, x, w, 2, AttentionOptions::default()) }, free: "a score that is NaN or ∞ makes the head's whole line NaN" },
    Row { name: "attention, in a value", shape: &[1, 6, 8], build: |g, x| { let w = weight(g, &[1, 6, 8]); g.attention(w, w, x, 2, AttentionOptions::default()) }, free: "" },
    Row { name: "group norm", shape: &[1, 4, 4, 8], build: |g, x| g.group_norm(x, 2, None, None, 1e-5), free: "" },
    Row { name: "layer norm", shape: &[5, 8], build: |g, x| g.layer_norm(x, None, None, 1e-5), free: "" },
    Row { name: "softmax", shape: &[4, 9], build: |g, x| g.softmax(x, 1), free: "" },
    Row { name: "log-softmax", shape: &[4, 9], build: |g, x| g.log_softmax(x, 1), free: "" },
    Row { name: "sum", shape: &[4, 9], build: |g, x| g.reduce(x, Reduction::Sum, &[1], true), free: "" },
    Row { name: "mean", shape: &[4, 9], build: |g, x| g.reduce(x, Reduction::Mean, &[1], true), free: "" },
    Row { name: "product", shape: &[4, 9], build: |g, x| g.reduce(x, Reduction::Product, &[1], true), free: "" },
    Row { name: "L2 norm", shape: &[4, 9], build: |g, x| g.reduce(x, Reduction::L2, &[1], true), free: "" },
    Row { name: "maximum", shape: &[4, 9], build: |g, x| g.reduce(x, Reduction::Max, &[1], true), free: MIN_MAX },
    Row { name: "minimum", shape: &[4, 9], build: |g, x| g.reduce(x, Reduction::Min, &[1], true), free: MIN_MAX },
    Row { name: "running sum", shape: &[3, 9], build: |g, x| g.cumulative_sum(x, 1), free: "" },
    Row { name: "place of the maximum", shape: &[3, 9], build: |g, x| { let y = g.push(ArgReduce { axis: 1, smallest: false, last: false }, &[x])?; g.convert(y, DType::F32) }, free: COMPARED },
    Row { name: "top 3", shape: &[3, 9], build: |g, x| { let y = g.top_k(x, 1, 3)?; g.convert(y, DType::F32) }, free: COMPARED },
    Row { name: "max pool", shape: &[1, 6, 6, 4], build: |g, x| g.max_pool(x, PoolOptions::square(2)), free: MIN_MAX },
    Row { name: "average pool", shape: &[1, 6, 6, 4], build: |g, x| g.average_pool(x, PoolOptions::square(2), false), free: "" },
    Row { name: "global mean pool", shape: &[1, 6, 6, 4], build: |g, x| g.global_pool(x, PoolKind::Mean { include_pad: false }), free: "" },
    Row { name: "sum of two", shape: &[3, 7], build: |g, x| { let w = weight(g, &[3, 7]); g.add(x, w) }, free: "" },
    Row { name: "product with zero", shape: &[3, 7], build: |g, x| { let w = g.weight("w", Tensor::from_f32([3, 7], &[0.0; 21])); g.mul(x, w) }, free: "" },
    Row { name: "quotient", shape: &[3, 7], build: |g, x| { let w = weight(g, &[3, 7]); g.binary(Binary::Div, w, x) }, free: "" },
    Row { name: "greater of two", shape: &[3, 7], build: |g, x| { let w = weight(g, &[3, 7]); g.binary(Binary::Max, x, w) }, free: MIN_MAX },
    Row { name: "clamp to [0, 1]", shape: &[3, 7], build: |g, x| g.unary(Unary::Clamp(0.0, 1.0), x), free: MIN_MAX },
    Row { name: "power 1.5", shape: &[3, 7], build: |g, x| { let e = g.weight("e", Tensor::from_f32([1], &[1.5])); g.binary(Binary::Pow, x, e) }, free: "below zero only whole exponents have a value, and WGSL's `pow` says nothing of NaN" },
    Row { name: "less", shape: &[3, 7], build: |g, x| { let w = weight(g, &[3, 7]); let y = g.typed(Function::Less, &[x, w])?; g.convert(y, DType::F32) }, free: "" },
    Row { name: "equal to itself", shape: &[3, 7], build: |g, x| { let y = g.typed(Function::Equal, &[x, x])?; g.convert(y, DType::F32) }, free: "" },
    Row { name: "is NaN", shape: &[3, 7], build: |g, x| { let y = g.typed(Function::IsNan, &[x])?; g.convert(y, DType::F32) }, free: "" },
    Row { name: "chosen where another is true", shape: &[3, 7], build: |g, x| { let c = g.weight("c", Tensor::from_u32([3, 7], &[1; 21])); let w = weight(g, &[3, 7]); g.choose(c, x, w) }, free: "" },
    Row { name: "left out where another is true", shape: &[3, 7], build: |g, x| { let c = g.weight("c", Tensor::from_u32([3, 7], &[1; 21])); let w = weight(g, &[3, 7]); g.choose(c, w, x) }, free: "" },
    Row { name: "concatenation, transpose", shape: &[3, 7], build: |g, x| { let y = g.concat(&[x, x], 0)?; g.transpose(y, &[1, 0]) }, free: "" },
    Row { name: "padding by reflection", shape: &[1, 5, 5, 3], build: |g, x| g.pad(x, &[[0, 0], [2, 2], [2, 2], [0, 0]], PadMode::Reflect), free: "" },
    Row { name: "bilinear enlargement", shape: &[1, 5, 5, 3], build: |g, x| g.resize(x, [10, 10], Interpolation::Bilinear, Coordinates::HalfPixel), free: "a pixel of weight zero counts: 0 · ∞ is NaN" },
    Row { name: "nearest enlargement", shape: &[1, 5, 5, 3], build: |g, x| g.upsample_nearest(x, 2), free: "" },
    Row { name: "grid sample", shape: &[1, 5, 5, 3], build: |g, x| { let values: Vec<f32> = noise(18, 9).iter().map(|v| v - 0.5).collect(); let grid = g.weight("grid", Tensor::from_f32([1, 3, 3, 2], &values)); g.grid_sample(x, grid, GridSample { interpolation: Interpolation::Bilinear, outside: Outside::Border, align_corners: false }) }, free: "" },
    Row { name: "sum of squares of a row, scaled (RMS norm)", shape: &[3, 8], build: |g, x| g.rms_norm(x, None, 1e-5), free: "" },
];

/// How many of each kind there are beside the finite ones.
fn counted(values: &[f64]) -> String {
    let count = |kind| values.iter().filter(|&&x| class(x) == kind).count();
    let kinds = [("NaN", Class::Nan), ("∞", Class::Up), ("−∞", Class::Down)];
    let some: Vec<String> = kinds
        .iter()
        .filter(|(_, kind)| count(*kind) > 0)
        .map(|(name, kind)| format!("{name} {}", count(*kind)))
        .collect();
    if some.is_empty() { "finite".to_owned() } else { some.join(", ") }
}

fn operations(gpu: &Gpu, failures: &mut Vec<String>) -> Result<String> {
    let mut table =
        "| one number of the input is | NaN | ∞ | −∞ | of | |\n|---|---|---|---|---|---|\n".to_owned();
    for row in ROWS {
        let count: usize = row.shape.iter().product();
        let plain = noise(count, 3);
        let [calm, defined] = both(gpu, row.shape, &plain, &row.build)?;
        for (found, defined) in calm.iter().zip(&defined) {
            assert!(
                (found - defined).abs() <= 1e-4 * (1.0 + defined.abs()),
                "{}: {found}, {defined}",
                row.name
            );
        }
        let mut cells = Vec::new();
        for special in [NAN, INF, -INF] {
            let mut values = plain.clone();
            values[count / 2] = special;
            let [found, defined] = both(gpu, row.shape, &values, &row.build)?;
            let alike = found.iter().zip(&defined).all(|(f, d)| match (class(*f), class(*d)) {
                (Class::Finite, Class::Finite) => (f - d).abs() <= 1e-4 * (1.0 + d.abs()),
                (f, d) => f == d,
            });
            if !alike && row.free.is_empty() {
                let (found, defined) = (counted(&found), counted(&defined));
                failures.push(format!("{}, {special}: {found}, and {defined} in f64", row.name));
            }
            let (shown, in_f64) = (counted(&found), counted(&defined));
            cells.push(match (alike, shown == in_f64) {
                (true, _) => shown,
                (false, true) => format!("{shown}, others than in f64"),
                (false, false) => format!("{shown} (f64: {in_f64})"),
            });
        }
        writeln!(table, "| {} | {} | {} | {} |", row.name, cells.join(" | "), calm.len(), row.free).unwrap();
    }
    Ok(table)
}

/// What storage and conversions make of numbers that they have no room for.
fn conversions(gpu: &Gpu, failures: &mut Vec<String>) -> Result<String> {
    let values = [NAN, INF, -INF, 65519.0, 65520.0, 1e-8, 3e9, -3e9, -1.0];
    let shape = [values.len()];
    let mut table = "| | NaN | ∞ | −∞ | 65519 | 65520 | 10⁻⁸ | 3·10⁹ | −3·10⁹ | −1 |\n|---|---|---|---|---|---|---|---|---|---|\n".to_owned();
    let quantize = Quantize { per: Per::Tensor, low: -128, high: 127, times: false, back: false };
    type Convert<'a> =
        (&'a str, bool, fn(&mut Graph, ValueId, Quantize) -> Result<ValueId>, [Option<f64>; 9]);
    let (nan, inf) = (Some(f64::NAN), Some(f64::INFINITY));
    #[rustfmt::skip]
    let all: [Convert; 4] = [
        // To the nearest of f16, and beyond its range by half a unit to infinity, as IEEE 754 has it.
        ("stored as f16", true, |g, x, _| { let y = g.cast(x, DType::F16)?; g.cast(y, DType::F32) },
            [nan, inf, Some(f64::NEG_INFINITY), Some(65504.0), inf, Some(0.0), inf, Some(f64::NEG_INFINITY), Some(-1.0)]),
        // WGSL's conversion, to the nearest end of the range; of NaN it says nothing.
        ("converted to i32", false, |g, x, _| g.convert(x, DType::I32),
            [None, Some(2147483520.0), Some(-2147483648.0), Some(65519.0), Some(65520.0), Some(0.0), Some(2147483520.0), Some(-2147483648.0), Some(-1.0)]),
        ("as a boolean", false, |g, x, _| g.convert(x, DType::U32),
            [Some(1.0), Some(1.0), Some(1.0), Some(1.0), Some(1.0), Some(1.0), Some(1.0), Some(1.0), Some(1.0)]),
        ("quantised to −128 … 127, scale 1", false, |g, x, o| { let s = g.weight("s", Tensor::from_f32([1], &[1.0])); g.quantize(x, s, None, o) },
            [None, Some(127.0), Some(-128.0), Some(127.0), Some(127.0), Some(0.0), Some(127.0), Some(-128.0), Some(-1.0)]),
    ];
    for (name, half, build, promised) in all {
        if half && !gpu.target().f16 {
            continue;
        }
        let mut g = Graph::new();
        let x = g.input("x", shape, DType::F32);
        let y = build(&mut g, x, quantize.clone())?;
        g.output("y", y);
        let found = Network::new(gpu, &g)?.run(&[("x", &Tensor::from_f32(shape, &values))])?.remove(0);
        let numbers: Vec<f64> = match found.desc.dtype {
            DType::I32 => {
                bytemuck::pod_collect_to_vec::<u8, i32>(&found.bytes).into_iter().map(f64::from).collect()
            }
            DType::U32 => {
                bytemuck::pod_collect_to_vec::<u8, u32>(&found.bytes).into_iter().map(f64::from).collect()
            }
            _ => found.to_f32().into_iter().map(f64::from).collect(),
        };
        let mut cells = Vec::new();
        for ((found, promised), given) in numbers.iter().zip(promised).zip(values) {
            match promised {
                // Subnormal numbers may be zero.
                Some(p)
                    if class(p) != class(*found)
                        || class(p) == Class::Finite && (p - found).abs() > 1e-7 + p.abs() * 1e-6 =>
                {
                    failures.push(format!("{given} {name} is {found}, and not {p}"));
                }
                _ => {}
            }
            cells.push(match (promised, found.abs() > 1e6 && found.is_finite()) {
                (None, _) => format!("{}, open", show(*found)),
                (_, true) => format!("{found:.0}").replace('-', "−"),
                (_, false) => show(*found),
            });
        }
        writeln!(table, "| {name} | {} |", cells.join(" | ")).unwrap();
    }
    Ok(table)
}

#[test]
fn what_is_no_number_is_treated_as_the_tables_say() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut failures = Vec::new();
    let tables = [
        ("functions", functions(gpu, &mut failures)?),
        ("operations", operations(gpu, &mut failures)?),
        ("conversions", conversions(gpu, &mut failures)?),
    ];
    for (_, table) in &tables {
        table.lines().for_each(|line| println!("figure numerics: {line}"));
    }
    if !keeps_to_ieee(gpu) {
        failures.iter().for_each(|failure| println!("on {}: {failure}", gpu.info().name));
        return Ok(());
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/numerics.md");
    let old = std::fs::read_to_string(path).unwrap();
    let mut new = old.clone();
    for (name, table) in &tables {
        let [begin, end] = ["", "/"].map(|slash| format!("<!-- {slash}{name} -->\n"));
        let first =
            new.find(&begin).unwrap_or_else(|| panic!("docs/numerics.md has no {begin}")) + begin.len();
        let last = first + new[first..].find(&end).unwrap_or_else(|| panic!("docs/numerics.md has no {end}"));
        new.replace_range(first..last, table);
    }
    if std::env::var_os("AQUATINT_UPDATE_DOCS").is_some() {
        std::fs::write(path, &new).unwrap();
    } else {
        assert!(
            old == new,
            "docs/numerics.md is not what this device does; AQUATINT_UPDATE_DOCS=1 writes it anew"
        );
    }
    Ok(())
}

/// −∞ hides: a line of nothing but −∞ is no line of NaN where masks make such ones.
#[test]
fn masks_of_minus_infinity() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut values = noise(12, 1);
    values[..4].fill(-INF);
    values[5] = -INF;
    let [soft, _] = both(gpu, &[3, 4], &values, &|g, x| g.softmax(x, 1))?;
    assert!(soft[4..].iter().all(|p| p.is_finite()) && soft[5] == 0.0, "{soft:?}");
    println!("figure numerics: softmax of nothing but −∞ is {} in each place", show(soft[0]));
    // A query that sees no key gives zeros; hidden keys may hold what they will.
    let mut mask = vec![0.0; 3 * 5];
    mask[..5].fill(-INF);
    mask[7] = -INF;
    let mut keys = noise(5 * 4, 2);
    keys[8..12].fill(1e30);
    let [found, _] = both(gpu, &[1, 5, 4], &keys, &|g, k| {
        let q = g.weight("q", Tensor::from_f32([1, 3, 4], &noise(12, 4)));
        let v = g.weight("v", Tensor::from_f32([1, 5, 4], &noise(20, 6)));
        let mask = g.weight("mask", Tensor::from_f32([1, 1, 3, 5], &mask));
        g.attention(q, k, v, 1, AttentionOptions { mask: Some(mask), ..Default::default() })
    })?;
    assert!(found[..4].iter().all(|&x| x == 0.0) && found.iter().all(|x| x.is_finite()), "{found:?}");
    Ok(())
}

/// What pictures and faults are told by is told by bits, on every adapter.
#[test]
fn what_is_not_finite_is_counted() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut values = noise(5 * 77, 1);
    for (i, special) in
        [NAN, -NAN, INF, -INF, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)].iter().enumerate()
    {
        values[i * 61] = *special;
    }
    values[3] = f32::MAX;
    values[4] = 1e-45;
    let mut g = Graph::new();
    let x = g.input("x", [5, 77], DType::F32);
    let count = count_not_finite(&mut g, x)?;
    g.output("count", count);
    let found = Network::new(gpu, &g)?.run(&[("x", &Tensor::from_f32([5, 77], &values))])?.remove(0);
    assert_eq!(found.to_f32(), [6.0]);
    Ok(())
}

/// The first operation that makes one is named by the program too.
#[test]
fn the_program_names_the_first() {
    if gpu().is_none() {
        return;
    }
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_aquatint")).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code(), said)
    };
    let (code, said) = run(&["doctor", "--watch", "--model", "letters-classifier"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("finite"), "{said}");
    let (code, said) = run(&["doctor", "--watch", "--model", "letters-unet", "--scale", "1e38"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("gave") && said.contains("infinities"), "{said}");
}

/// A plan that nobody runs says nothing about numbers.
#[test]
fn every_table_has_its_operations() {
    // Each operation of floats that computes, and is not the same kernel under another name, has a row or is a function.
    let mut g = Graph::new();
    for row in ROWS {
        let x = g.input("x", row.shape.to_vec(), DType::F32);
        let y = (row.build)(&mut g, x).unwrap();
        g.output(row.name, y);
    }
    let plan = Plan::compile(&g, &aquatint::Target::typical()).unwrap();
    let kinds: std::collections::BTreeSet<&str> = plan.run.iter().map(|d| d.op).collect();
    for op in [
        "Conv2d",
        "ConvTranspose2d",
        "Matmul",
        "Attention",
        "Norm",
        "Softmax",
        "Reduce",
        "Cumulate",
        "ArgReduce",
        "TopK",
        "Pool",
        "Elementwise",
        "Typed",
        "Pad",
        "Resize",
        "GridSample",
    ] {
        assert!(kinds.contains(op), "{op} has no row: {kinds:?}");
    }
}

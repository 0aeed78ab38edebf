//! The device's limits, measured by kernels that do nothing else, and how near to them something comes.
//!
//! Each kernel's work grows until a submission takes 30 ms, and hardly any takes more than twice that: long enough
//! that submitting does not count, too short for any driver's watchdog. The fastest of some repetitions is kept, since a
//! limit is what cannot be passed.

use crate::bench::record::{Limit, LimitKind, Rates, Roof};
use crate::engine::lone::{self, Lone};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::matrices::types_of_halves;
use crate::shader::{Kernel, Param};
use crate::target::DeviceClass;
use crate::units;

/// Seconds that a submission has to take.
const ENOUGH: f64 = 0.03;
/// Repetitions in a row that bring nothing faster, after which the fastest is kept.
const PATIENCE: usize = 4;
/// All repetitions of one measurement, at most: where others use the device too, it is seldom at its best.
const MOST: usize = 16;
/// How much faster is faster.
const GAIN: f64 = 0.01;
/// Bytes of a vector of four f32.
const VECTOR: u64 = 16;

/// All limits, in the order in which they are measured.
pub const KINDS: [LimitKind; 10] = [
    LimitKind::SubmitLatency,
    LimitKind::LaunchLatency,
    LimitKind::F32Arithmetic,
    LimitKind::F16Arithmetic,
    LimitKind::IntegerArithmetic,
    LimitKind::MatrixArithmetic,
    LimitKind::ReadBandwidth,
    LimitKind::CopyBandwidth,
    LimitKind::CacheBandwidth,
    LimitKind::SharedBandwidth,
];

/// Measures all limits, a few seconds in all; `progress` is told of each before it is measured.
///
/// What the device cannot do, or has no memory for, is a limit without a value and with the reason.
///
/// # Errors
/// [`Error::DeviceLost`].
pub fn measure(gpu: &Gpu, progress: &mut dyn FnMut(LimitKind)) -> Result<Roof> {
    let mut limits: Vec<Limit> = Vec::new();
    for kind in KINDS {
        progress(kind);
        let latency = limits.iter().find(|l| l.kind == LimitKind::SubmitLatency).and_then(|l| l.value);
        let found = match kind {
            LimitKind::SubmitLatency => submit_latency(gpu),
            LimitKind::LaunchLatency => launch_latency(gpu),
            LimitKind::F32Arithmetic => arithmetic(gpu, "f32", latency),
            LimitKind::F16Arithmetic => arithmetic(gpu, "f16", latency),
            LimitKind::IntegerArithmetic => arithmetic(gpu, "i32", latency),
            LimitKind::MatrixArithmetic => matrix(gpu, latency),
            LimitKind::ReadBandwidth => read(gpu, large(gpu), latency),
            LimitKind::CopyBandwidth => copy(gpu, latency),
            LimitKind::CacheBandwidth => read(gpu, small(gpu), latency),
            LimitKind::SharedBandwidth => shared(gpu, latency),
        };
        limits.push(match found {
            Ok(found) => found.limit(kind),
            Err(error @ Error::DeviceLost { .. }) => return Err(error),
            Err(error) => {
                Limit { kind, value: None, reason: Some(error.to_string()), spread: None, form: None }
            }
        });
    }
    limits.sort_by_key(|limit| limit.kind);
    Ok(Roof { limits })
}

/// How near something comes to the limits: the work and the bytes of one run, storage of its tensors (`f32`, `f16`, or an
/// integer type for integer arithmetic), and the seconds that it took.
///
/// The limit that binds is the one that would take longest. Arithmetic is in f32 whatever is stored, so f32's limit
/// counts for f16 too, unless it was passed: then the work was done in f16 or by matrices. Likewise bytes
/// that came faster than memory gives them came from a cache.
pub fn rates(
    roof: &Roof,
    flops: impl Into<Option<u64>>,
    bytes: impl Into<Option<u64>>,
    precision: &str,
    seconds: f64,
) -> Rates {
    let rate = |amount: Option<u64>| amount.filter(|&n| n > 0 && seconds > 0.0).map(|n| n as f64 / seconds);
    let (flops, bytes) = (rate(flops.into()), rate(bytes.into()));
    let arithmetic: &[LimitKind] = match precision {
        "f16" | "bf16" => &[LimitKind::F32Arithmetic, LimitKind::F16Arithmetic, LimitKind::MatrixArithmetic],
        "i8" | "u8" | "int8" | "uint8" | "i32" | "u32" => &[LimitKind::IntegerArithmetic],
        _ => &[LimitKind::F32Arithmetic],
    };
    // A copy reads and writes at once; which of the two is faster depends on the device.
    let memory = match (roof.value(LimitKind::ReadBandwidth), roof.value(LimitKind::CopyBandwidth)) {
        (Some(read), Some(copy)) if copy > read => LimitKind::CopyBandwidth,
        (None, Some(_)) => LimitKind::CopyBandwidth,
        _ => LimitKind::ReadBandwidth,
    };
    let shares = [
        flops.and_then(|rate| share(roof, arithmetic, rate)),
        bytes.and_then(|rate| share(roof, &[memory, LimitKind::CacheBandwidth], rate)),
        // No run is less than one launch.
        roof.value(LimitKind::LaunchLatency)
            .filter(|_| seconds > 0.0 && (flops.is_some() || bytes.is_some()))
            .map(|latency| (LimitKind::LaunchLatency, latency / seconds)),
    ];
    let bound = shares.into_iter().flatten().max_by(|a, b| a.1.total_cmp(&b.1));
    Rates { flops, bytes, bound: bound.map(|b| b.0), share: bound.map(|b| b.1) }
}

/// The first of the limits that a rate does not pass, or else the highest, and its share.
fn share(roof: &Roof, kinds: &[LimitKind], rate: f64) -> Option<(LimitKind, f64)> {
    let known = kinds.iter().filter_map(|&kind| Some((kind, rate / roof.value(kind)?)));
    known.clone().find(|(_, share)| *share <= 1.0).or_else(|| known.min_by(|a, b| a.1.total_cmp(&b.1)))
}

/// A limit as it was found.
struct Found {
    value: f64,
    spread: f64,
    form: String,
}

impl Found {
    fn limit(self, kind: LimitKind) -> Limit {
        let Found { value, spread, form } = self;
        Limit { kind, value: Some(value), reason: None, spread: Some(spread), form: Some(form) }
    }
}

/// Units of work a second. `run` does so many units and says how long that took.
fn rate(form: String, latency: Option<f64>, mut run: impl FnMut(u32) -> Result<f64>) -> Result<Found> {
    run(1)?; // What is done once is done now.
    let mut units = 1u32;
    let mut seconds = run(units)?;
    while seconds < ENOUGH && units < 1 << 30 {
        // Up to eight times as much, but what is near enough gets no more than it needs.
        units = (f64::from(units) * (1.3 * ENOUGH / seconds.max(1e-6)).clamp(2.0, 8.0)) as u32;
        seconds = run(units)?;
        // A long time may be the fault of something else that ran.
        if seconds >= ENOUGH {
            seconds = seconds.min(run(units)?);
        }
    }
    let (best, spread) = repeat(seconds, || run(units))?;
    let own = best - latency.filter(|&l| l < best / 4.0).unwrap_or(0.0);
    Ok(Found { value: f64::from(units) / own, spread, form })
}

/// The fastest of the `first` and some repetitions, and the spread of all.
fn repeat(first: f64, mut run: impl FnMut() -> Result<f64>) -> Result<(f64, f64)> {
    let (mut best, mut worst, mut in_vain) = (first, first, 0);
    for _ in 1..MOST {
        let seconds = run()?;
        in_vain = if seconds < best * (1.0 - GAIN) { 0 } else { in_vain + 1 };
        (best, worst) = (best.min(seconds), worst.max(seconds));
        if in_vain == PATIENCE {
            break;
        }
    }
    Ok((best, worst / best - 1.0))
}

/// The fastest of several forms; one that the device does not take is left out if another is taken.
fn fastest(forms: impl Iterator<Item = Result<Found>>) -> Result<Found> {
    let mut best: Option<Found> = None;
    let mut failed = None;
    for found in forms {
        match found {
            Ok(found) if best.as_ref().is_none_or(|b| found.value > b.value) => best = Some(found),
            Ok(_) => {}
            Err(error @ Error::DeviceLost { .. }) => return Err(error),
            Err(error) => failed = Some(error),
        }
    }
    best.ok_or_else(|| failed.expect("there is a form of everything"))
}

/// Workgroups that keep a device of the class busy several times over.
fn many_groups(gpu: &Gpu) -> u64 {
    match gpu.target().class {
        DeviceClass::Discrete => 1 << 13,
        DeviceClass::Integrated => 1 << 11,
        DeviceClass::Cpu => 1 << 6,
    }
}

fn arithmetic(gpu: &Gpu, scalar: &'static str, latency: Option<f64>) -> Result<Found> {
    if scalar == "f16" && !gpu.target().f16 {
        return Err(lacks(gpu, "16-bit floats (SHADER_F16)"));
    }
    // Accumulators and steps of a round.
    let forms: &[(u32, u32)] = match gpu.target().class {
        // As many vectors as registers, and turns of the loop that are long.
        DeviceClass::Cpu => &[(2, 32), (3, 32)],
        _ => &[(8, 8), (16, 4)],
    };
    fastest(forms.iter().map(|&(accumulators, steps)| {
        let mut kernel = Kernel::new("roof_arithmetic")
            .constant("ACCUMULATORS", format!("{accumulators}u"))
            .constant("STEPS", format!("{steps}u"));
        kernel = match scalar {
            "f16" => kernel.alias("S", "f16").alias("V", "vec4<f16>"),
            "i32" => kernel.alias("S", "i32").alias("V", "vec4<i32>").function(
                "multiply_add",
                "fn multiply_add(x: V, factor: V, addend: V) -> V { return x * factor + addend; }",
            ),
            _ => kernel,
        };
        let groups = many_groups(gpu);
        let dst = lone::buffer(gpu, "roof", groups * 64 * 4)?;
        let params = |rounds: u32| {
            // x tends to addend / (1 - factor): neither too large nor too small a number, however long it goes on.
            let (factor, addend) = if scalar == "i32" { (3.0, 1.0) } else { (0.5, 0.75f32) };
            [("rounds", Param::U32(rounds)), ("factor", factor.into()), ("addend", addend.into())]
        };
        let lone = Lone::new(gpu, &kernel, &[("dst", &dst)], &params(1), groups)?;
        let form = format!("{accumulators} × vec4<{scalar}>, {groups} workgroups of 64");
        let mut found = rate(form, latency, |rounds| {
            lone.set(gpu, &params(rounds))?;
            lone.time(gpu, 1)
        })?;
        found.value *= f64::from(2 * 4 * accumulators * steps) * (64 * groups) as f64;
        Ok(found)
    }))
}

fn matrix(gpu: &Gpu, latency: Option<f64>) -> Result<Found> {
    if gpu.matrix_sides().is_empty() {
        return Err(lacks(gpu, "cooperative matrices of f16 (EXPERIMENTAL_COOPERATIVE_MATRIX)"));
    }
    if !gpu.target().f16 {
        return Err(lacks(gpu, "16-bit floats (SHADER_F16)"));
    }
    fastest(gpu.matrix_sides().iter().map(|&side| {
        const ACCUMULATORS: u64 = 4;
        let threads = gpu.info().subgroup_max_size.max(1);
        let kernel = matrix_kernel(side, threads);
        let groups = many_groups(gpu);
        let elements = u64::from(side * side);
        let factors = filled(gpu, "roof factors", (2 * elements * 2).next_multiple_of(VECTOR))?;
        let dst = lone::buffer(gpu, "roof sums", groups * elements * 4)?;
        let buffers = [("factors", &factors), ("dst", &dst)];
        let params = |rounds: u32| [("rounds", Param::U32(rounds))];
        let lone = Lone::new(gpu, &kernel, &buffers, &params(1), groups)?;
        let mut found =
            rate(format!("{side}×{side}, f16 to f32, {groups} subgroups of {threads}"), latency, |rounds| {
                lone.set(gpu, &params(rounds))?;
                lone.time(gpu, 1)
            })?;
        found.value *= (2 * elements * u64::from(side) * ACCUMULATORS * groups) as f64;
        Ok(found)
    }))
}

fn matrix_kernel(side: u32, threads: u32) -> Kernel {
    let [left, right, sum] = types_of_halves(side as usize);
    Kernel::new("roof_matrix")
        .constant("SIDE", format!("{side}u"))
        .constant("THREADS", format!("{threads}u"))
        .alias("Left", left)
        .alias("Right", right)
        .alias("Sum", sum)
}

/// Bytes that the last cache of a device of the class holds, and the caches of single cores do not.
fn small(gpu: &Gpu) -> u64 {
    match gpu.target().class {
        DeviceClass::Discrete => 1 << 20,
        _ => 256 << 10,
    }
}

/// Bytes that no cache of a device of the class holds, as far as a binding reaches; a power of two.
fn large(gpu: &Gpu) -> u64 {
    let wanted = match gpu.target().class {
        DeviceClass::Discrete => 512 << 20,
        DeviceClass::Integrated => 256 << 20,
        DeviceClass::Cpu => 128 << 20,
    };
    let allowed = gpu.target().max_binding.min(gpu.target().max_buffer).min(wanted);
    1 << allowed.max(VECTOR).ilog2()
}

/// A buffer full of random numbers.
fn filled(gpu: &Gpu, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
    let buffer = lone::buffer(gpu, label, bytes)?;
    let vectors = bytes / VECTOR;
    let params = [("count", Param::from(vectors as usize))];
    let fill = Lone::new(gpu, &Kernel::new("roof_fill"), &[("dst", &buffer)], &params, vectors.div_ceil(64))?;
    fill.time(gpu, 1)?;
    Ok(buffer)
}

/// A large buffer is read once by a launch, of which there are several; a small one many times by the one launch.
fn read(gpu: &Gpu, bytes: u64, latency: Option<f64>) -> Result<Found> {
    const LOADS: u64 = 8;
    // On a CPU the threads of a workgroup run one subgroup after the other, each through the whole stretch.
    let (threads, groups) = match gpu.target().class {
        DeviceClass::Cpu => (u64::from(gpu.target().subgroup_size.clamp(4, 64)), 8 * many_groups(gpu)),
        _ => (64, many_groups(gpu)),
    };
    let src = filled(gpu, "roof source", bytes)?;
    let vectors = bytes / VECTOR;
    let dst = lone::buffer(gpu, "roof", groups * threads * 4)?;
    let once = vectors / (threads * groups * LOADS);
    let params =
        |rounds: u64| [("rounds", Param::U32(rounds as u32)), ("mask", Param::from(vectors as usize - 1))];
    let kernel = Kernel::new("roof_read").constant("THREADS", format!("{threads}u"));
    let lone = Lone::new(gpu, &kernel, &[("src", &src), ("dst", &dst)], &params(once.max(1)), groups)?;
    let mut found = rate(format!("a buffer of {}", units::bytes(bytes)), latency, |times| {
        if once > 1 {
            return lone.time(gpu, times);
        }
        lone.set(gpu, &params(times.into()))?;
        lone.time(gpu, 1)
    })?;
    found.value *= (once.max(1) * LOADS * threads * groups * VECTOR) as f64;
    Ok(found)
}

fn copy(gpu: &Gpu, latency: Option<f64>) -> Result<Found> {
    const COPIES: u64 = 4;
    let bytes = large(gpu);
    let src = filled(gpu, "roof source", bytes)?;
    let dst = filled(gpu, "roof destination", bytes)?;
    let vectors = bytes / VECTOR;
    let size = units::bytes(bytes);
    let by_kernel = || {
        let params = [("count", Param::from(vectors as usize))];
        let buffers = [("src", &src), ("dst", &dst)];
        let groups = vectors.div_ceil(64 * COPIES);
        let lone = Lone::new(gpu, &Kernel::new("roof_copy"), &buffers, &params, groups)?;
        rate(format!("a kernel, buffers of {size}"), latency, |times| lone.time(gpu, times))
    };
    let by_command = || {
        let time = |times| lone::time_copy(gpu, &src, &dst, times);
        rate(format!("a copy command, buffers of {size}"), latency, time)
    };
    let mut found = fastest([by_kernel(), by_command()].into_iter())?;
    found.value *= 2.0 * bytes as f64;
    Ok(found)
}

fn shared(gpu: &Gpu, latency: Option<f64>) -> Result<Found> {
    const LOADS: u64 = 8;
    // Half of what there is, so that a workgroup is not alone on its core, but no more than 8 KiB.
    let length = (u64::from(gpu.target().shared_memory) / 2 / VECTOR).clamp(64, 512);
    let length = 1 << length.ilog2();
    let kernel = Kernel::new("roof_shared").constant("LENGTH", format!("{length}u"));
    let groups = many_groups(gpu);
    let dst = lone::buffer(gpu, "roof", groups * 64 * 4)?;
    let params = |rounds: u32| [("rounds", Param::U32(rounds)), ("stride", Param::U32(64))];
    let lone = Lone::new(gpu, &kernel, &[("dst", &dst)], &params(1), groups)?;
    let mut found =
        rate(format!("{} a workgroup of 64", units::bytes(length * VECTOR)), latency, |rounds| {
            lone.set(gpu, &params(rounds))?;
            lone.time(gpu, 1)
        })?;
    found.value *= (LOADS * VECTOR * 64 * groups) as f64;
    Ok(found)
}

fn nothing(gpu: &Gpu) -> Result<Lone> {
    let dst = lone::buffer(gpu, "roof", VECTOR)?;
    Lone::new(gpu, &Kernel::new("roof_launch"), &[("dst", &dst)], &[("write", Param::U32(0))], 1)
}

fn submit_latency(gpu: &Gpu) -> Result<Found> {
    let lone = nothing(gpu)?;
    let mut times = (0..32).map(|_| lone.time(gpu, 1)).collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    // The slowest ones say more about the rest of the system than about the device.
    let (best, median) = (times[0], times[times.len() / 2]);
    Ok(Found {
        value: best,
        spread: median / best - 1.0,
        form: "one launch; spread of the median of 32".to_owned(),
    })
}

fn launch_latency(gpu: &Gpu) -> Result<Found> {
    let lone = nothing(gpu)?;
    let base = (0..8).map(|_| lone.time(gpu, 1)).try_fold(f64::INFINITY, |low, t| Ok(low.min(t?)))?;
    let mut launches = 64;
    let mut seconds = lone.time(gpu, launches)?;
    // Recording them takes memory: some ten thousand are enough.
    while seconds < ENOUGH && launches < 1 << 14 {
        launches *= 2;
        seconds = lone.time(gpu, launches)?;
    }
    let (best, spread) = repeat(seconds, || lone.time(gpu, launches))?;
    let value = (best - base).max(0.0) / f64::from(launches - 1);
    Ok(Found { value, spread, form: format!("{launches} launches, each after the other") })
}

fn lacks(gpu: &Gpu, feature: &'static str) -> Error {
    let advice = "nothing is measured";
    Error::Feature { device: gpu.target().name.clone(), feature, advice }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shader::Shader;

    fn roof() -> Roof {
        let limit =
            |(kind, value)| Limit { kind, value: Some(value), reason: None, spread: None, form: None };
        let limits = [
            (LimitKind::F32Arithmetic, 1e12),
            (LimitKind::F16Arithmetic, 2e12),
            (LimitKind::ReadBandwidth, 1e11),
            (LimitKind::CopyBandwidth, 0.9e11),
            (LimitKind::CacheBandwidth, 1e12),
            (LimitKind::LaunchLatency, 1e-6),
        ];
        Roof { limits: limits.into_iter().map(limit).collect() }
    }

    #[test]
    fn the_slowest_limit_binds() {
        for (flops, bytes, precision, seconds, bound, share) in [
            // Half of the arithmetic, a tenth of the memory.
            (500_000_000, 10_000_000, "f32", 1e-3, LimitKind::F32Arithmetic, 0.5),
            // The other way round.
            (100_000_000, 80_000_000, "f32", 1e-3, LimitKind::ReadBandwidth, 0.8),
            // Faster than memory gives.
            (100_000_000, 500_000_000, "f32", 1e-3, LimitKind::CacheBandwidth, 0.5),
            // Faster than f32 can be.
            (1_500_000_000, 1_000_000, "f16", 1e-3, LimitKind::F16Arithmetic, 0.75),
            (500_000_000, 1_000_000, "f16", 1e-3, LimitKind::F32Arithmetic, 0.5),
            // Too little of anything.
            (1000, 1000, "f32", 2e-6, LimitKind::LaunchLatency, 0.5),
        ] {
            let found = rates(&roof(), flops, bytes, precision, seconds);
            assert_eq!(found.bound, Some(bound), "{flops} {bytes} {precision}");
            assert!((found.share.unwrap() - share).abs() < 1e-9, "{found:?}");
            assert_eq!(found.flops, Some(flops as f64 / seconds));
        }
    }

    #[test]
    fn repetitions_go_on_while_they_gain() {
        let mut times = [3.0, 2.0, 2.5, 1.0, 1.1, 1.2, 0.999, 1.3, 0.5].into_iter();
        let (best, spread) = repeat(4.0, || Ok(times.next().expect("enough"))).unwrap();
        assert_eq!((best, times.len()), (0.999, 1));
        assert!((spread - (4.0 / 0.999 - 1.0)).abs() < 1e-9);
        let mut count = 0;
        let forever = repeat(1e9, || {
            count += 1;
            Ok(1.0 / f64::from(count))
        });
        assert!(forever.is_ok() && count == MOST as u32 - 1, "{count}");
    }

    #[test]
    fn what_is_not_known_binds_nothing() {
        let none = Rates { flops: None, bytes: None, bound: None, share: None };
        assert_eq!(rates(&roof(), None, None, "f32", 1.0), none);
        let found = rates(&Roof::default(), 100, None, "f32", 1.0);
        assert_eq!(found, Rates { flops: Some(100.0), ..none });
        assert_eq!(rates(&roof(), 100, 100, "f32", 0.0), none);
    }

    #[test]
    fn every_matrix_kernel_is_valid() {
        for side in [8, 16] {
            Shader::new(&matrix_kernel(side, 32)).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

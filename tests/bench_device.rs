//! What a benchmark knows of the device: its limits, its clock, and how many answers one input has. Needs the feature `bench`.
#![cfg(feature = "bench")]

use std::sync::OnceLock;
use std::time::Instant;

use aquatint::bench::canary::{self, Bird};
use aquatint::bench::record::{Adapter, ClockSource, LimitKind, Machine};
use aquatint::bench::{clock, replays, roof};
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{DType, Error, Gpu, Graph, Network, Tensor};

/// The device, or `None` (said aloud) on a machine without one, unless `REQUIRE_GPU` is set.
fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    let open = || match Gpu::headless() {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    };
    GPU.get_or_init(open).as_ref()
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5).collect()
}

/// Convolutions that this crate runs fastest: many channels, a large map.
fn convolutions() -> Graph {
    let mut graph = Graph::new();
    let mut x = graph.input("x", [1, 56, 56, 64], DType::F32);
    for i in 0..4 {
        let weight = Tensor::from_f32([64, 64, 3, 3], &numbers(64 * 64 * 9)).to_dtype(DType::F32);
        let weight = graph.weight(&format!("weight{i}"), weight);
        x = graph.conv2d(x, weight, None, Conv2dOptions::padded(1)).unwrap();
    }
    graph.output("y", x);
    graph
}

#[test]
fn limits_are_measured_and_no_kernel_passes_them() {
    let Some(gpu) = gpu() else { return };
    let mut asked = Vec::new();
    let roof = roof::measure(gpu, &mut |kind| asked.push(kind)).unwrap();
    assert_eq!(asked, roof::KINDS);
    for limit in &roof.limits {
        match (limit.value, &limit.reason) {
            (Some(value), None) => {
                assert!(value > 0.0 && value.is_finite(), "{limit:?}");
                assert!(limit.spread.unwrap() >= 0.0 && limit.form.is_some(), "{limit:?}");
            }
            (None, Some(reason)) => assert!(!reason.is_empty()),
            _ => panic!("{limit:?}"),
        }
    }
    let value = |kind| roof.value(kind).unwrap_or_else(|| panic!("{kind:?} was not measured: {roof:?}"));
    assert!(value(LimitKind::F32Arithmetic) > 1e9 && value(LimitKind::CopyBandwidth) > 1e8, "{roof:?}");
    assert!(value(LimitKind::LaunchLatency) < 1e-2 && value(LimitKind::SubmitLatency) < 1.0, "{roof:?}");
    if !gpu.target().f16 {
        assert!(roof.value(LimitKind::F16Arithmetic).is_none());
    }

    let network = Network::new(gpu, &convolutions()).unwrap();
    let picture = Tensor::from_f32([1, 56, 56, 64], &numbers(56 * 56 * 64));
    network.run(&[("x", &picture)]).unwrap();
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            let submission = network.submit(1).unwrap();
            gpu.wait(submission).unwrap();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    let flops = network.plan().flops();
    let rates = roof::rates(&roof, flops, None, "f32", best);
    let share = flops as f64 / best / value(LimitKind::F32Arithmetic);
    assert!(
        rates.share.unwrap() <= 1.0 && (0.01..1.0).contains(&share),
        "{rates:?}, {share} of f32\n{roof:?}"
    );
}

#[test]
fn the_clock_says_what_it_is_and_why() {
    let Some(gpu) = gpu() else { return };
    let clock = clock::measure(gpu).unwrap();
    match clock.source {
        ClockSource::Timestamps => {
            assert!(gpu.has_timestamps() && clock.reason.is_none());
            assert!(clock.period.unwrap() > 0.0 && clock.overhead.unwrap() > -0.9, "{clock:?}");
            assert!((0.7..=1.03).contains(&clock.agreement.unwrap()), "{clock:?}");
        }
        ClockSource::Wall => assert!(clock.reason.is_some(), "{clock:?}"),
    }
}

#[test]
fn the_canary_sings_as_long_as_it_was_told() {
    let Some(gpu) = gpu() else { return };
    let bird = Bird::new(gpu).unwrap();
    let samples: Vec<_> = (0..5).map(|_| bird.sing(Some("row")).unwrap()).collect();
    assert!(samples.windows(2).all(|pair| pair[0].at < pair[1].at), "{samples:?}");
    let best = samples.iter().map(|s| s.seconds).fold(f64::INFINITY, f64::min);
    assert!((1e-3..0.1).contains(&best), "{samples:?}");
    // Whatever it says of this device, it says of one of these samples.
    assert!(canary::throttled(&samples).is_none_or(|t| t.first < samples.len()));
}

#[test]
fn a_network_gives_one_answer_and_its_nans_are_counted() {
    let Some(gpu) = gpu() else { return };
    let mut graph = Graph::new();
    let x = graph.input("x", [8], DType::F32);
    let count = graph.state("count", Tensor::from_f32([8], &[0.0; 8]));
    let next = graph.add(count, x).unwrap();
    graph.update(count, next).unwrap();
    graph.output("y", next);
    let network = Network::new(gpu, &graph).unwrap();
    let good = Tensor::from_f32([8], &numbers(8));
    let found = replays::count(&network, &[("x", &good)], 5).unwrap();
    // A state that was left as the run before had it would make five answers of it.
    assert_eq!((found.runs, found.distinct, found.nans, found.infinities), (5, 1, 0, 0));
    let bad = Tensor::from_f32([8], &[f32::NAN, f32::INFINITY, 0.0, f32::NAN, 1.0, 2.0, 3.0, 4.0]);
    let found = replays::count(&network, &[("x", &bad)], 2).unwrap();
    // In the output and in the new state.
    assert_eq!((found.distinct, found.nans, found.infinities), (1, 4, 2));
}

#[test]
fn the_machine_is_described_with_what_the_device_was_opened_with() {
    let Some(gpu) = gpu() else { return };
    let Machine { adapter, cpu, cores, memory_bytes, os, .. } = Machine::of(gpu);
    assert!(!cpu.is_empty() && !os.is_empty() && cores > 0 && memory_bytes > 1 << 20);
    let Adapter { name, kind, software, features, limits, .. } = adapter;
    assert_eq!((name.as_str(), software), (gpu.info().name.as_str(), kind == "software"));
    assert_eq!(features.iter().any(|f| f == "SHADER_F16"), gpu.target().f16, "{features:?}");
    assert_eq!(limits["max_storage_buffer_binding_size"], gpu.target().max_binding);
    assert_eq!(limits["max_texture_dimension_2d"], u64::from(gpu.target().max_texture));
}

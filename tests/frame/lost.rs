//! Devices that go away: before, while and after a frame is recorded, and while it is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aquatint::frame::{Background, Costs, ReadRing, Slices, Texels, TiledNetwork, TiledPlan};
use aquatint::wgpu::{self, TextureFormat::Rgba8Unorm};
use aquatint::{AdapterOptions, DType, Error, Gpu, Network, Plan, Result, Shares};

use crate::harness::*;

/// When the device goes away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    BeforeBinding,
    BeforeRecording,
    WhileRecording,
    AfterRecording,
    UnderWay,
    WhileReading,
}

const PHASES: [Phase; 6] = [
    Phase::BeforeBinding,
    Phase::BeforeRecording,
    Phase::WhileRecording,
    Phase::AfterRecording,
    Phase::UnderWay,
    Phase::WhileReading,
];

fn lost<T: std::fmt::Debug>(what: &str, phase: Phase, result: Result<T>) {
    match result {
        Err(Error::DeviceLost { reason }) => assert!(!reason.is_empty()),
        other => panic!("{what}, {phase:?}: expected a lost device, got {other:?}"),
    }
}

/// A frame on a device that goes away, with nothing but errors and without a hang.
fn frame(gpu: &Gpu, phase: Phase) -> Result<Network> {
    let network = Network::new(gpu, &filter([12, 10], 3, DType::F32))?;
    let source = texture(gpu, [10, 12], Rgba8Unorm, READ);
    let goal = texture(gpu, [10, 12], Rgba8Unorm, WRITTEN);
    let bind = || network.bind(&[("x", Texels::colour(&source).into()), ("y", Texels::colour(&goal).into())]);
    let go = |now: Phase| {
        if phase == now {
            gpu.device().destroy();
        }
    };
    go(Phase::BeforeBinding);
    let bound = bind();
    if phase == Phase::BeforeBinding {
        // What was made of a lost device is of no use; the first wait says so.
        if let Ok(bindings) = bound {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            let recorded = bindings.record(&mut encoder);
            lost(
                "record or wait",
                phase,
                recorded.and_then(|()| gpu.wait(gpu.queue().submit([encoder.finish()]))),
            );
        }
    } else {
        let bindings = bound?;
        let mut ring = ReadRing::new(gpu, 1, ReadRing::bytes_of(&goal))?;
        let mut slices = Slices::new(&bindings, &Costs::predicted(network.plan()), 2)?;
        go(Phase::BeforeRecording);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut recorded = slices.record(&mut encoder, Duration::ZERO).map(drop);
        go(Phase::WhileRecording);
        recorded = recorded.and(slices.record(&mut encoder, Duration::MAX).map(drop));
        recorded = recorded.and(ring.push_texture(&mut encoder, &goal, 1).map(drop));
        go(Phase::AfterRecording);
        let submission = gpu.queue().submit([encoder.finish()]);
        go(Phase::UnderWay);
        match phase {
            // What was submitted before may still come to its end.
            Phase::UnderWay => drop(gpu.wait(submission)),
            Phase::WhileReading => {
                gpu.wait(submission)?;
                gpu.device().destroy();
            }
            _ => lost("record or wait", phase, recorded.and_then(|()| gpu.wait(submission))),
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            match ring.poll() {
                // A copy that was done before may be read.
                Ok(Some(_)) => break,
                Ok(None) if ring.is_empty() => break,
                Ok(None) => {}
                Err(Error::DeviceLost { .. }) => break,
                Err(other) => panic!("{phase:?}: {other}"),
            }
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{phase:?}: nothing came of a copy");
    }
    lost("run", phase, network.submit(1).and_then(|submission| gpu.wait(submission)));
    lost("read", phase, network.read("y"));
    lost("load", phase, Network::new(gpu, &filter([4, 4], 3, DType::F32)));
    // Known by now, so nothing is recorded any more.
    assert!(gpu.is_lost());
    if let Ok(bindings) = bind() {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        lost("record", phase, bindings.record(&mut encoder));
    }
    Ok(network)
}

fn answer(network: &Network) -> Result<Vec<f32>> {
    let shape = network.desc("x")?.shape.clone();
    let input = aquatint::Tensor::from_f32(shape.clone(), &noise(shape.elements(), 3));
    Ok(network.run(&[("x", &input)])?.remove(0).to_f32())
}

#[test]
fn a_device_of_our_own_goes_away() -> Result<()> {
    let Some(reference) = gpu() else { return Ok(()) };
    let wanted = answer(&Network::new(reference, &filter([12, 10], 3, DType::F32))?)?;
    for phase in PHASES {
        let Some(gpu) = open() else { return Ok(()) };
        let network = frame(&gpu, phase)?;
        let Some(new) = open() else { return Ok(()) };
        let rebuilt = network.rebuild(&new)?;
        // In any order.
        drop(gpu);
        drop(network);
        assert_eq!(answer(&rebuilt)?, wanted, "{phase:?}");
    }
    Ok(())
}

/// Its callbacks are the caller's, who need not tell anybody.
#[test]
fn a_device_of_the_callers_goes_away() -> Result<()> {
    if gpu().is_none() {
        return Ok(());
    }
    let adapter = aquatint::gpu::choose_adapter(&AdapterOptions::from_env())?;
    for told in [false, true] {
        for phase in PHASES {
            let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
            // What the caller's own commands meet on a lost device.
            device.on_uncaptured_error(Arc::new(|_: wgpu::Error| {}));
            let calls = Arc::new(AtomicUsize::new(0));
            let gpu = Gpu::from_wgpu(&adapter, device.clone(), queue);
            let (counted, there) = (calls.clone(), gpu.clone());
            device.set_device_lost_callback(move |_, message| {
                counted.fetch_add(1, Ordering::SeqCst);
                if told {
                    there.set_lost(&format!("the caller was told: {message}"));
                }
            });
            let network = frame(&gpu, phase)?;
            assert_eq!(calls.load(Ordering::SeqCst), 1, "{phase:?}: the caller's callback is the caller's");
            drop((network, gpu));
        }
    }
    Ok(())
}

#[test]
fn nothing_waits_when_it_is_dropped() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let network = Network::new(&gpu, &filter([64, 64], 3, DType::F32))?;
    let bindings = network.bind(&[])?;
    let ring = ReadRing::new(&gpu, 2, 1024)?;
    for _ in 0..5 {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        bindings.record(&mut encoder)?;
        gpu.queue().submit([encoder.finish()]);
    }
    // With work under way, in an order that nobody would choose; half of it on a device that is gone.
    drop(gpu.clone());
    drop(network);
    gpu.device().destroy();
    drop(ring);
    drop(gpu);
    drop(bindings);
    Ok(())
}

#[test]
fn networks_that_share_are_rebuilt_together() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let first = Network::new(&gpu, &filter([12, 10], 3, DType::F32))?;
    let second =
        Network::with_weights_of(&first, Plan::compile(&filter([9, 7], 3, DType::F32), gpu.target())?)?;
    let wanted = [answer(&first)?, answer(&second)?];
    gpu.device().destroy();
    assert!(answer(&first).is_err());
    let Some(new) = open() else { return Ok(()) };
    let first = first.rebuild(&new)?;
    let shares = Shares { weights_of: Some(&first), scratch: None };
    let second = second.rebuild_sharing(&new, shares)?;
    assert_eq!([answer(&first)?, answer(&second)?], wanted);
    // Weights of another device are of no use.
    let Some(third) = open() else { return Ok(()) };
    assert!(matches!(second.rebuild_sharing(&third, shares), Err(Error::Invalid { .. })));
    Ok(())
}

/// A ring with several copies under way, some of which nobody waited for and one that was never submitted.
#[test]
fn a_ring_of_a_lost_device() -> Result<()> {
    if gpu().is_none() {
        return Ok(());
    }
    for waited in [0, 1, 3] {
        let Some(gpu) = open() else { return Ok(()) };
        let network = Network::new(&gpu, &filter([12, 10], 3, DType::F32))?;
        let bindings = network.bind(&[])?;
        let bytes = network.desc("y")?.bytes();
        let mut ring = ReadRing::new(&gpu, 4, bytes)?;
        for i in 0..3 {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            bindings.record(&mut encoder)?;
            assert!(ring.push_buffer(&mut encoder, network.buffer("y")?, 0, bytes, i)?);
            let submission = gpu.queue().submit([encoder.finish()]);
            if i < waited {
                gpu.wait(submission)?;
            }
        }
        let mut unsubmitted = gpu.device().create_command_encoder(&Default::default());
        assert!(ring.push_buffer(&mut unsubmitted, network.buffer("y")?, 0, bytes, 3)?);
        gpu.device().destroy();
        drop(unsubmitted);
        let start = Instant::now();
        let mut errors = 0;
        while errors < 2 && start.elapsed() < Duration::from_secs(20) {
            match ring.poll() {
                Ok(Some(read)) => assert!(read.tag < 3),
                Ok(None) if ring.is_empty() => break,
                Ok(None) => {}
                Err(Error::DeviceLost { .. }) => errors += 1,
                Err(other) => panic!("{waited}: {other}"),
            }
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{waited}: nothing came of the copies");
        // Whatever is pushed now is an error or comes to nothing, and never hangs.
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let recorded = bindings.record(&mut encoder);
        lost(
            "record or wait",
            Phase::WhileReading,
            recorded.and_then(|()| gpu.wait(gpu.queue().submit([encoder.finish()]))),
        );
        drop(ring);
    }
    Ok(())
}

/// Devices that go away before, while and after a network is made on another thread.
#[test]
fn networks_in_the_making() -> Result<()> {
    let Some(reference) = gpu() else { return Ok(()) };
    let wanted = answer(&Network::new(reference, &filter([12, 10], 3, DType::F32))?)?;
    let making = |gpu: &Gpu| {
        let there = gpu.clone();
        Background::start(move || Network::new(&there, &filter([12, 10], 3, DType::F32)))
    };
    for pause in [None, Some(0), Some(1), Some(4), Some(15), Some(60)] {
        let Some(gpu) = open() else { return Ok(()) };
        if pause.is_none() {
            gpu.device().destroy();
        }
        let coming = making(&gpu)?;
        if let Some(pause) = pause {
            std::thread::sleep(Duration::from_millis(pause));
            gpu.device().destroy();
        }
        // It comes to its end, with a network or without.
        match coming.wait().expect("it was not taken") {
            Ok(network) => {
                lost("run", Phase::UnderWay, network.submit(1).and_then(|submission| gpu.wait(submission)));
                let Some(new) = open() else { return Ok(()) };
                assert_eq!(answer(&network.rebuild(&new)?)?, wanted, "{pause:?}");
            }
            Err(Error::DeviceLost { reason }) => assert!(!reason.is_empty()),
            Err(other) => panic!("{pause:?}: {other}"),
        }
        let Some(new) = open() else { return Ok(()) };
        let network = making(&new)?.wait().expect("it was not taken")?;
        assert_eq!(answer(&network)?, wanted, "{pause:?}");
    }
    Ok(())
}

#[test]
fn tiles_of_a_lost_device() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let build = |w: usize, h: usize| Ok(filter([h, w], 4, DType::F32));
    let whole = Plan::compile(&build(64, 90)?, gpu.target())?;
    let plan = TiledPlan::new(gpu.target(), [64, 90], whole.peak_bytes() * 2 / 3, build)?;
    let network = TiledNetwork::new(&gpu, plan)?;
    assert!(network.tiles() > 1);
    let answer = |gpu: &Gpu, network: &TiledNetwork| -> Result<Vec<f32>> {
        let [source, goal] = [3, 4].map(|seed| storage(gpu, &noise(64 * 90 * 4, seed)));
        let bindings = network.bind(&[("x", (&source).into()), ("y", (&goal).into())])?;
        submit(gpu, |encoder| bindings.record(encoder).unwrap());
        Ok(numbers(gpu, &goal, 0, 64 * 90 * 4))
    };
    let wanted = answer(&gpu, &network)?;
    let source = storage(&gpu, &noise(64 * 90 * 4, 3));
    let bindings = network.bind(&[("x", (&source).into())])?;
    let mut slices = Slices::new(&bindings, &Costs::predicted(network.network().plan()), 1)?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    slices.record(&mut encoder, Duration::ZERO)?;
    gpu.device().destroy();
    let recorded = slices.record(&mut encoder, Duration::MAX).map(drop);
    lost(
        "record or wait",
        Phase::WhileRecording,
        recorded.and_then(|()| gpu.wait(gpu.queue().submit([encoder.finish()]))),
    );
    drop(slices);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    lost("record", Phase::BeforeRecording, bindings.record(&mut encoder));
    let Some(new) = open() else { return Ok(()) };
    assert_eq!(answer(&new, &network.rebuild(&new)?)?, wanted);
    Ok(())
}

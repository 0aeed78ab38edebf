//! Networks that share weights and the memory of intermediate results.

use std::time::Duration;

use aquatint::frame::{Costs, Slices};
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::wgpu::BufferUsages;
use aquatint::{
    DType, DeviceClass, Error, Gpu, Graph, Network, Plan, Result, Scratch, Shares, Target, Tensor,
};

use crate::harness::*;

/// Convolutions with 300 KB of weights; the last is another where `last` says so.
fn network(side: usize, last: u32) -> Graph {
    let mut g = Graph::new();
    let mut y = g.input("x", [1, side, side, 64], DType::F32);
    for seed in [1, 2, last] {
        let values: Vec<f32> = noise(64 * 64 * 9, seed).iter().map(|w| (w - 0.5) / 20.0).collect();
        let weight = Tensor::from_f32([64, 64, 3, 3], &values).to_dtype(DType::F16);
        let weight = g.weight(&format!("w{seed}"), weight);
        let weight = g.unpacked(weight, DType::F32).unwrap();
        y = g.conv2d(y, weight, None, Conv2dOptions::padded(1)).unwrap();
        y = g.group_norm(y, 8, None, None, 1e-5).unwrap();
        y = g.silu(y).unwrap();
    }
    g.output("y", y);
    g
}

fn input(side: usize) -> Tensor {
    Tensor::from_f32([1, side, side, 64], &noise(side * side * 64, 7))
}

fn run(network: &Network, side: usize) -> Result<Vec<f32>> {
    network.poison()?;
    Ok(network.run(&[("x", &input(side))])?.remove(0).to_f32())
}

fn memory(gpu: &Gpu) -> u64 {
    // Uploads are given back a submission later.
    for _ in 0..3 {
        gpu.wait(gpu.queue().submit([])).unwrap();
    }
    let hal = gpu.device().get_internal_counters().hal;
    (hal.buffer_memory.read() + hal.texture_memory.read()) as u64
}

const SLACK: u64 = 128 << 10;

#[test]
fn weights_are_there_once() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    // Of smaller pictures each size has tiles of its own on software adapters, and so orders of weights.
    for class in [gpu.target().class, DeviceClass::Integrated] {
        let target = Target { class, ..gpu.target().clone() };
        let plan = |side, last| Plan::compile(&network(side, last), &target);
        let alone = run(&Network::from_plan(&gpu, plan(48, 3)?)?, 48)?;
        let first = Network::from_plan(&gpu, plan(32, 3)?)?;
        let of_first = run(&first, 32)?;

        let before = memory(&gpu);
        let second = Network::with_weights_of(&first, plan(48, 3)?)?;
        let grown = memory(&gpu) - before;
        let held = second.held();
        assert_eq!(held.own + held.weights, second.plan().resident_bytes());
        assert!(held.weights > 0 && held.scratch == 0, "{held:?}");
        assert!(grown <= held.own + SLACK && grown + SLACK >= held.own, "{grown} bytes more, {held:?}");
        // Where sizes do not decide in which order kernels read weights, all of them are shared.
        if class == DeviceClass::Integrated {
            assert!(held.weights >= 3 * 64 * 64 * 9 * 4, "{held:?}");
        }
        assert_eq!(run(&second, 48)?, alone);
        assert_eq!(run(&first, 32)?, of_first);

        // Other weights are not taken for the same, and the rest still is.
        let other = Network::with_weights_of(&first, plan(48, 4)?)?;
        assert!(other.held().weights < held.weights, "{:?}", other.held());
        let wanted = run(&Network::from_plan(&gpu, plan(48, 4)?)?, 48)?;
        assert_eq!(run(&other, 48)?, wanted);
        assert_ne!(wanted, alone);

        // The first may go.
        drop(first);
        assert_eq!(run(&second, 48)?, alone);
    }
    Ok(())
}

/// Weights that one of them exchanges stay what they are in the other.
#[test]
fn a_reload_leaves_others_alone() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut first = Network::new(gpu, &network(32, 3))?;
    let second = Network::with_weights_of(&first, Plan::compile(&network(48, 3), gpu.target())?)?;
    assert!(second.held().weights > 0);
    let before = run(&second, 48)?;
    assert!(first.reload(&network(32, 5))?.whole, "shared weights are not written over");
    assert_eq!(run(&first, 32)?, run(&Network::new(gpu, &network(32, 5))?, 32)?);
    assert_eq!(run(&second, 48)?, before);
    drop(second);
    // Alone again, it changes what is another and no more.
    assert!(!first.reload(&network(32, 3))?.whole);
    Ok(())
}

#[test]
fn intermediate_results_take_turns() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let plans = [16, 24].map(|side| Plan::compile(&network(side, 3), gpu.target()).unwrap());
    let sides = [16, 24];
    let alone: Vec<Vec<f32>> = (0..2)
        .map(|i| run(&Network::from_plan(&gpu, plans[i].clone()).unwrap(), sides[i]).unwrap())
        .collect();
    let sizes = Scratch::sizes(&[&plans[0], &plans[1]]);
    let largest = plans.iter().map(Plan::scratch_bytes).max().unwrap();
    assert_eq!(sizes.iter().sum::<u64>(), largest, "the larger one's is enough for both");
    // The caller's own buffers, in any order.
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let scratch =
        Scratch::from_buffers(sizes.iter().rev().map(|&bytes| buffer(&gpu, bytes, usage)).collect())?;
    assert_eq!(scratch.bytes(), largest);

    let before = memory(&gpu);
    let small =
        Network::sharing(&gpu, plans[0].clone(), Shares { scratch: Some(&scratch), ..Shares::default() })?;
    let shares = Shares { scratch: Some(&scratch), weights_of: Some(&small) };
    let large = Network::sharing(&gpu, plans[1].clone(), shares)?;
    let grown = memory(&gpu) - before;
    let held = [small.held(), large.held()];
    assert_eq!(held.map(|held| held.scratch), [0, 1].map(|i| plans[i].scratch_bytes()));
    let own = held[0].own + held[1].own;
    assert!(grown <= own + SLACK && grown + SLACK >= own, "{grown} bytes more, {held:?}");
    for _ in 0..2 {
        assert_eq!(run(&small, 16)?, alone[0]);
        assert_eq!(run(&large, 24)?, alone[1]);
    }
    // In one submission, one after the other.
    small.write("x", &input(16))?;
    large.write("x", &input(24))?;
    let (a, b) = (small.bind(&[])?, large.bind(&[])?);
    submit(&gpu, |encoder| {
        for _ in 0..3 {
            a.record(encoder).unwrap();
            b.record(encoder).unwrap();
        }
    });
    assert_eq!((small.read("y")?.to_f32(), large.read("y")?.to_f32()), (alone[0].clone(), alone[1].clone()));

    // While one is under way in slices, the other would write over it.
    let mut slices = Slices::new(&a, &Costs::predicted(&plans[0]), 1)?;
    submit(&gpu, |encoder| {
        slices.record(encoder, Duration::ZERO).unwrap();
        assert!(matches!(b.record(encoder), Err(Error::Busy { .. })));
    });
    drop(slices);
    submit(&gpu, |encoder| b.record(encoder).unwrap());

    // Too little, or of no use.
    let little = Scratch::from_buffers(sizes.iter().map(|&bytes| buffer(&gpu, bytes / 2, usage)).collect())?;
    let shares = Shares { scratch: Some(&little), ..Shares::default() };
    let error = Network::sharing(&gpu, plans[1].clone(), shares).unwrap_err();
    assert!(
        matches!(error, Error::Invalid { .. }) && error.to_string().contains("scratch memory"),
        "{error}"
    );
    let one = buffer(&gpu, 1 << 20, usage);
    assert!(Scratch::from_buffers(vec![one.clone(), one]).is_err());
    assert!(Scratch::from_buffers(vec![buffer(&gpu, 1 << 20, BufferUsages::STORAGE)]).is_err());
    Ok(())
}

//! What a program does with a device, times what can befall one, at every place where it can: the error, the time, what is left
//! on the device, and the answer afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use aquatint::frame::{Costs, ReadRing, Slices};
use aquatint::gpu::Trouble;
use aquatint::{Error, Gpu, Network, Plan, Result};

use crate::harness::*;

/// Something that a program does.
struct Stage {
    name: &'static str,
    /// What is there before the trouble.
    prepare: fn(&Gpu) -> Result<Option<Network>>,
    /// What the trouble befalls; with an answer, if the stage has one.
    act: fn(&Gpu, &mut Option<Network>) -> Result<Vec<f32>>,
}

const STAGES: [Stage; 11] = [
    Stage { name: "loading", prepare: |_| Ok(None), act: load },
    Stage { name: "compiling", prepare: loaded, act: compile },
    Stage { name: "recording", prepare: loaded, act: record },
    Stage { name: "recording in slices", prepare: loaded, act: record_slices },
    Stage { name: "in flight", prepare: loaded, act: submit },
    Stage { name: "reading back", prepare: ran, act: |_, network| Ok(there(network).read("y")?.to_f32()) },
    Stage { name: "running", prepare: loaded, act: |_, network| answer(there(network)) },
    Stage { name: "reloading", prepare: loaded, act: reload },
    Stage { name: "timing", prepare: loaded, act: |_, network| there(network).time(2).map(|_| Vec::new()) },
    Stage { name: "profiling", prepare: loaded, act: profile },
    Stage {
        name: "watching",
        prepare: ran,
        act: |_, network| there(network).run_watched().map(|_| Vec::new()),
    },
];

fn there(network: &Option<Network>) -> &Network {
    network.as_ref().expect("it was prepared")
}

fn loaded(gpu: &Gpu) -> Result<Option<Network>> {
    Ok(Some(Network::new(gpu, &network(1))?))
}

fn ran(gpu: &Gpu) -> Result<Option<Network>> {
    let network = Network::new(gpu, &network(1))?;
    answer(&network)?;
    Ok(Some(network))
}

fn answer(network: &Network) -> Result<Vec<f32>> {
    Ok(network.run(&[("x", &input())])?.remove(0).to_f32())
}

fn load(gpu: &Gpu, slot: &mut Option<Network>) -> Result<Vec<f32>> {
    *slot = Some(Network::new(gpu, &network(1))?);
    Ok(Vec::new())
}

/// Kernels that are not there yet, beside a network that goes on.
fn compile(gpu: &Gpu, network: &mut Option<Network>) -> Result<Vec<f32>> {
    let mut g = aquatint::Graph::new();
    let x = g.input("x", [3, 37], aquatint::DType::F32);
    let y = g.softmax(x, 1)?;
    let y = g.layer_norm(y, None, None, 1e-5)?;
    g.output("y", y);
    let other = Network::with_weights_of(there(network), Plan::compile(&g, gpu.target())?)?;
    let x = aquatint::Tensor::from_f32([3, 37], &noise(111, 3));
    Ok(other.run(&[("x", &x)])?.remove(0).to_f32())
}

fn record(gpu: &Gpu, network: &mut Option<Network>) -> Result<Vec<f32>> {
    let network = there(network);
    network.write("x", &input())?;
    let bindings = network.bind(&[])?;
    let bytes = network.desc("y")?.bytes();
    let mut ring = ReadRing::new(gpu, 2, bytes)?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    bindings.record(&mut encoder)?;
    ring.push_buffer(&mut encoder, network.buffer("y")?, 0, bytes, 1)?;
    send(gpu, encoder)?;
    let read = ring.poll()?.ok_or_else(|| Error::DeviceLost { reason: "nothing came back".to_owned() })?;
    Ok(bytemuck::pod_collect_to_vec(&read.bytes))
}

fn record_slices(gpu: &Gpu, network: &mut Option<Network>) -> Result<Vec<f32>> {
    let network = there(network);
    network.write("x", &input())?;
    let bindings = network.bind(&[])?;
    let mut slices = Slices::new(&bindings, &Costs::predicted(network.plan()), 1)?;
    while !slices.is_done() {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        slices.record(&mut encoder, Duration::ZERO)?;
        send(gpu, encoder)?;
    }
    Ok(network.read("y")?.to_f32())
}

fn submit(gpu: &Gpu, network: &mut Option<Network>) -> Result<Vec<f32>> {
    let network = there(network);
    network.write("x", &input())?;
    let submission = network.submit(3)?;
    gpu.wait(submission)?;
    Ok(Vec::new())
}

fn reload(_: &Gpu, slot: &mut Option<Network>) -> Result<Vec<f32>> {
    let network = slot.as_mut().expect("it was prepared");
    network.reload(&crate::harness::network(2))?;
    network.submit(1)?;
    let other = answer(network)?;
    network.reload(&crate::harness::network(1))?;
    Ok(other)
}

fn profile(_: &Gpu, network: &mut Option<Network>) -> Result<Vec<f32>> {
    match there(network).profile(1) {
        Ok(_) | Err(Error::Feature { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What a stage found out about a trouble.
#[derive(Default)]
struct Cell {
    places: u64,
    tried: u64,
    /// Of those tried.
    errors: u64,
    slowest: Duration,
    failures: Vec<String>,
}

/// So many places of a stage are tried in a run, others each time; `AQUATINT_TEST_FAULTS=all` for all of them.
fn some_of(places: u64, most: u64) -> Vec<u64> {
    if places <= most || std::env::var("AQUATINT_TEST_FAULTS").is_ok_and(|v| v == "all") {
        return (0..places).collect();
    }
    let random = u64::from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos());
    (0..most).map(|i| (places * i + (random + i * 7919) % places) / most).collect()
}

/// How long anything may take that a device in trouble is asked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Acts with trouble at a place, and says what was wrong with what came of it; `None` as an answer for an error.
fn troubled(
    gpu: &Gpu,
    stage: &Stage,
    slot: &mut Option<Network>,
    (trouble, place): (Trouble, u64),
    cell: &mut Cell,
) -> (bool, Option<Vec<f32>>) {
    gpu.plant_trouble(trouble, place);
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (stage.act)(gpu, slot)));
    let came = gpu.spare_trouble().is_none();
    cell.slowest = cell.slowest.max(start.elapsed());
    cell.tried += u64::from(came);
    let mut fail = |what: String| cell.failures.push(format!("place {place}: {what}"));
    if start.elapsed() > PATIENCE {
        fail(format!("{:?} until it was over", start.elapsed()));
    }
    let expected = match trouble {
        Trouble::NoMemory => "OutOfMemory",
        Trouble::Loss | Trouble::Silence => "DeviceLost",
    };
    let found = match result {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map_or("without a text", String::as_str);
            fail(format!("a panic: {text}"));
            None
        }
        Ok(Ok(found)) => Some(found),
        Ok(Err(error)) => {
            let text = error.to_string();
            let found = kind::<()>(&Err(error));
            if found != expected || !came {
                fail(format!("{found} and not {expected}: {text}"));
            }
            None
        }
    };
    cell.errors += u64::from(found.is_none());
    (came, found)
}

/// What there is more of than before. wgpu keeps some command encoders for later.
fn grown(before: &[(&'static str, isize)], after: &[(&'static str, isize)]) -> Vec<(&'static str, isize)> {
    let spare = |what: &str| if what == "command encoders" { 8 } else { 0 };
    let both = before.iter().zip(after).filter(|(b, a)| a.1 > b.1 + spare(b.0));
    both.map(|(_, after)| *after).collect()
}

/// The stage's answer on a device that nothing befalls, with the number of places of a trouble.
fn untroubled(gpu: &Gpu, stage: &Stage, trouble: Trouble) -> (Vec<f32>, u64) {
    let mut slot = (stage.prepare)(gpu).unwrap();
    gpu.plant_trouble(trouble, u64::MAX);
    let wanted = (stage.act)(gpu, &mut slot).unwrap();
    (wanted, u64::MAX - gpu.spare_trouble().expect("it is far away"))
}

fn loss(open: fn() -> Gpu, stage: &Stage, second: &Gpu) -> Cell {
    let mut cell = Cell::default();
    let (wanted, places) = untroubled(&open(), stage, Trouble::Loss);
    let run = answer(&Network::new(second, &network(1)).unwrap()).unwrap();
    let bare = on_device(open().device());
    cell.places = places;
    for place in some_of(places, 4) {
        let gpu = open();
        let mut slot = (stage.prepare)(&gpu).unwrap();
        let (came, found) = troubled(&gpu, stage, &mut slot, (Trouble::Loss, place), &mut cell);
        let mut fail = |what: String| cell.failures.push(format!("place {place}: {what}"));
        if found.is_some_and(|found| found != wanted) {
            fail("another answer".to_owned());
        }
        if !came {
            continue;
        }
        // Whatever is asked for from now on.
        let after = match &slot {
            Some(network) => network.submit(1).and_then(|s| gpu.wait(s)),
            None => Network::new(&gpu, &network(1)).map(drop),
        };
        if kind(&after) != "DeviceLost" {
            fail(format!("{} afterwards", kind(&after)));
        }
        // With the old device still there, and on another one.
        let rebuilt = match &slot {
            Some(network) => network.rebuild(second),
            None => Network::new(second, &network(1)),
        };
        match rebuilt.and_then(|network| answer(&network)) {
            Ok(found) if found == run || stage.name == "reloading" => {}
            Ok(_) => fail("another answer after it was rebuilt".to_owned()),
            Err(error) => fail(format!("rebuilt: {error}")),
        }
        let device = gpu.device().clone();
        drop((slot, gpu));
        let _ = catch_unwind(AssertUnwindSafe(|| device.poll(aquatint::wgpu::PollType::Poll)));
        let left = grown(&bare, &on_device(&device));
        if !left.is_empty() {
            fail(format!("left on the device: {left:?}"));
        }
    }
    cell
}

/// Trouble that the device survives: it goes on, with nothing left over.
fn refusal(gpu: &Gpu, stage: &Stage, trouble: Trouble) -> Cell {
    let mut cell = Cell::default();
    let settle = || {
        for _ in 0..3 {
            gpu.wait(gpu.queue().submit([])).unwrap();
        }
    };
    let (wanted, places) = untroubled(gpu, stage, trouble);
    // Kernels stay, of which the first round made the last.
    let around = || {
        let mut slot = (stage.prepare)(gpu).unwrap();
        let found = (stage.act)(gpu, &mut slot);
        drop(slot);
        settle();
        found
    };
    let _ = around();
    let before = on_device(gpu.device());
    cell.places = places;
    for place in some_of(places, 6) {
        let mut slot = (stage.prepare)(gpu).unwrap();
        if matches!(stage.name, "loading" | "compiling") {
            // Kernels are compiled anew, with all places that this has.
            gpu.plant_fault("no kernel", "", "");
        }
        let (came, found) = troubled(gpu, stage, &mut slot, (trouble, place), &mut cell);
        let mut fail = |what: String| cell.failures.push(format!("place {place}: {what}"));
        if found.is_some_and(|found| found != wanted) {
            fail("another answer".to_owned());
        }
        if !came {
            continue;
        }
        // The same again, now that there is memory or an answer.
        match (stage.act)(gpu, &mut slot) {
            Ok(found) if found == wanted => {}
            Ok(_) => fail("another answer afterwards".to_owned()),
            Err(error) => fail(format!("afterwards: {error}")),
        }
        drop(slot);
        settle();
        let grown = grown(&before, &on_device(gpu.device()));
        if !grown.is_empty() {
            fail(format!("more on the device than before: {grown:?}"));
        }
    }
    cell
}

#[test]
fn whatever_befalls_a_device_is_an_error() {
    let Some(second) = open() else { return };
    let own = || open().expect("there was one before");
    let mut failures = Vec::new();
    println!("figure faults: | what | device lost | caller's device lost | out of memory | no answer |");
    println!("figure faults: |---|---|---|---|---|");
    for stage in &STAGES {
        let cells = [
            ("device lost", loss(own, stage, &second)),
            ("caller's device lost", loss(callers, stage, &second)),
            ("out of memory", refusal(&own(), stage, Trouble::NoMemory)),
            ("no answer", refusal(&own(), stage, Trouble::Silence)),
        ];
        let shown: Vec<String> = cells
            .iter()
            .map(|(_, c)| {
                format!(
                    "{} of {} places, {} errors, {:.1} s",
                    c.tried,
                    c.places,
                    c.errors,
                    c.slowest.as_secs_f64()
                )
            })
            .collect();
        println!("figure faults: | {} | {} |", stage.name, shown.join(" | "));
        for (trouble, cell) in cells {
            failures.extend(cell.failures.into_iter().map(|f| format!("{}, {trouble}, {f}", stage.name)));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

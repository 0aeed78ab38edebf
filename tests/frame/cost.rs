//! What recording costs the CPU, beside the least that wgpu takes for as many launches.

use std::time::Instant;

use aquatint::wgpu;
use aquatint::{DType, Graph, Network, Result};

use crate::bare::Bare;
use crate::harness::*;

#[test]
fn recording_costs_what_wgpu_costs() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    // A chain that no pass can fuse: tensors of other sizes in turn.
    let mut g = Graph::new();
    let mut x = g.input("x", [1, 8, 8, 4], DType::F32);
    for i in 0..100 {
        x = convolved(&mut g, x, [4, 4], i);
    }
    g.output("y", x);
    let network = Network::new(gpu, &g)?;
    let bindings = network.bind(&[])?;
    let launches = bindings.launches();
    assert!(launches >= 100);
    let bare = Bare::new(gpu, launches);
    // Microseconds of recording and closing an encoder, per hundred launches.
    let time = |record: &dyn Fn(&mut wgpu::CommandEncoder)| {
        let start = Instant::now();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        record(&mut encoder);
        let commands = encoder.finish();
        let taken = start.elapsed().as_secs_f64();
        gpu.wait(gpu.queue().submit([commands])).unwrap();
        taken * 1e6 * 100.0 / launches as f64
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        ours.push(time(&|encoder| bindings.record(encoder).unwrap()));
        theirs.push(time(&|encoder| bare.record(encoder)));
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "{launches} launches: {ours:.1} µs per 100, a bare loop of wgpu's {theirs:.1} µs, ratio {:.2}",
        ours / theirs
    );
    // Loose: tests run beside one another. Twice as much would be a mistake of ours.
    assert!(ours <= 2.0 * theirs + 50.0, "{ours} µs per 100 launches, a bare loop takes {theirs}");
    Ok(())
}

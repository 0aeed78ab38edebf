//! One step of the bundled diffusion model: its time, where the time goes, and
//! the same step in another engine, in turns in one run.
//!
//! ```text
//! cargo bench --bench unet_step                            ours alone
//! cargo bench --bench unet_step -- --batch 36              36 pictures at once (8 if not given)
//! cargo bench --bench unet_step -- --peer python peer.py   beside a program that answers on its standard output
//! ```
//!
//! A step is the UNet with and without the label, guidance and the sampler's update.
//! The peer is started with the number of pictures.

mod peer;

use std::time::Instant;

use aquatint::tasks::DiffusionModel;
use aquatint::{Gpu, Network};
use peer::{Peer, median, print_kernels};

const ROUNDS: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).map(|i| i + 1);
    let batch: usize = value("--batch").map_or(8, |i| arguments[i].parse().expect("--batch takes a number"));
    let mut peer = value("--peer")
        .map(|i| Peer::start(&arguments[i..], &batch.to_string()).expect("the peer says its name"));

    let gpu = Gpu::headless().unwrap_or_else(|error| panic!("{error}"));
    let network = load(&gpu, batch).unwrap_or_else(|error| panic!("{error}"));
    let flops = network.plan().flops() as f64;
    println!("device   {} ({})", gpu.info().name, gpu.info().driver_info);
    println!("step     {batch} pictures with guidance, {:.3} GFLOP", flops * 1e-9);

    let step = || {
        let start = Instant::now();
        let submission = network.submit(1).unwrap_or_else(|error| panic!("{error}"));
        gpu.wait(submission).unwrap_or_else(|error| panic!("{error}"));
        start.elapsed().as_secs_f64()
    };
    step();
    if let Some(peer) = &mut peer {
        peer.step();
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(step());
        theirs.extend(peer.as_mut().map(Peer::step));
    }
    let ours = median(&mut ours);
    println!("ours     {:.1} ms a step, {:.1} GFLOP/s", ours * 1e3, flops / ours * 1e-9);
    if let Some(peer) = &peer {
        let theirs = median(&mut theirs);
        println!("{}   {:.1} ms a step, {:.1} GFLOP/s", peer.name, theirs * 1e3, flops / theirs * 1e-9);
        println!("ratio    {:.2} of the peer's speed", theirs / ours);
    }

    if let Some(kernels) = print_kernels(&gpu, &network) {
        println!("copies and gaps between them: {:.1} ms a step", (ours - kernels).max(0.0) * 1e3);
    }
}

fn load(gpu: &Gpu, batch: usize) -> aquatint::Result<Network> {
    let model = DiffusionModel::letters()?;
    Network::new(gpu, &model.step_graph(batch, &model.options())?)
}

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
//! The peer is started with the number of pictures, prints its name, and then answers
//! each line that holds a number of steps with the seconds that these took.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use aquatint::tasks::DiffusionModel;
use aquatint::{Gpu, Network};

const ROUNDS: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).map(|i| i + 1);
    let batch: usize = value("--batch").map_or(8, |i| arguments[i].parse().expect("--batch takes a number"));
    let mut peer = value("--peer").map(|i| Peer::start(&arguments[i..], batch));

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

    if !gpu.has_timestamps() {
        println!("this device has no timestamps: no table of kernels");
        return;
    }
    let profile = network.profile(5).unwrap_or_else(|error| panic!("{error}"));
    let total = profile.seconds();
    println!(
        "\n{:<22} {:>8} {:>9} {:>7} {:>9} {:>8}",
        "kernel", "launches", "ms", "share", "GFLOP/s", "GB/s"
    );
    for (kernel, launches, seconds, flops, bytes) in profile.by_kernel() {
        let (rate, bandwidth) = (flops as f64 / seconds * 1e-9, bytes as f64 / seconds * 1e-9);
        let (ms, share) = (seconds * 1e3, 100.0 * seconds / total);
        println!("{kernel:<22} {launches:>8} {ms:>9.3} {share:>6.1}% {rate:>9.1} {bandwidth:>8.1}");
    }
    println!(
        "all kernels            {:>8} {:>9.3}          {:>9.1}",
        profile.rows.len(),
        total * 1e3,
        flops / total * 1e-9
    );
    println!("copies and gaps between them: {:.1} ms a step", (ours - total).max(0.0) * 1e3);
}

fn load(gpu: &Gpu, batch: usize) -> aquatint::Result<Network> {
    let model = DiffusionModel::letters()?;
    Network::new(gpu, &model.step_graph(batch, &model.options())?)
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Another engine, in a process of its own.
struct Peer {
    name: String,
    input: std::process::ChildStdin,
    output: BufReader<std::process::ChildStdout>,
    child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It waits for a line that never comes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    fn start(command: &[String], batch: usize) -> Peer {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .arg(batch.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut peer = Peer { name: String::new(), input, output, child };
        peer.name = peer.line();
        peer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the peer answers");
        line.trim().to_owned()
    }

    /// Seconds of one step.
    fn step(&mut self) -> f64 {
        writeln!(self.input, "1").expect("the peer listens");
        self.line().parse().expect("the peer answers with seconds")
    }
}

//! What the benchmarks of whole networks share: peers, medians and the table of kernels.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use aquatint::{Gpu, Network};

pub fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Another engine, in a process of its own. It is started with what to run, prints its name, and
/// then answers each line that holds a number of runs with the seconds that these took.
pub struct Peer {
    pub name: String,
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
    /// Starts `command` with one more argument, which says what to run.
    /// Nothing when it ends before it has said its name.
    #[allow(dead_code, reason = "not every benchmark has a peer")]
    pub fn start(command: &[String], what: &str) -> Option<Peer> {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .arg(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut peer = Peer { name: String::new(), input, output, child };
        peer.name = peer.line();
        (!peer.name.is_empty()).then_some(peer)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the peer answers");
        line.trim().to_owned()
    }

    /// Seconds of one step or run.
    pub fn step(&mut self) -> f64 {
        writeln!(self.input, "1").expect("the peer listens");
        self.line().parse().expect("the peer answers with seconds")
    }
}

/// Runs of a network that is ready and of a peer, in turns: prints the medians, their ratio, and where our time goes.
#[allow(dead_code, reason = "not every benchmark races")]
pub fn race(gpu: &Gpu, network: &Network, mut peer: Option<Peer>, rounds: usize) -> aquatint::Result<()> {
    let run = || -> aquatint::Result<f64> {
        let start = std::time::Instant::now();
        gpu.wait(network.submit(1)?)?;
        Ok(start.elapsed().as_secs_f64())
    };
    run()?;
    if let Some(peer) = &mut peer {
        peer.step();
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(run()?);
        theirs.extend(peer.as_mut().map(Peer::step));
    }
    let (flops, ours) = (network.plan().flops() as f64, median(&mut ours));
    println!("ours     {:.1} ms, {:.1} GFLOP/s", ours * 1e3, flops / ours * 1e-9);
    if let Some(peer) = &peer {
        let theirs = median(&mut theirs);
        println!("{}   {:.1} ms", peer.name, theirs * 1e3);
        println!("ratio    {:.2} times the peer's speed", theirs / ours);
    }
    print_kernels(gpu, network);
    Ok(())
}

/// Where the time of a run goes, by kernel; nothing where the device has no timestamps. Seconds of all kernels.
pub fn print_kernels(gpu: &Gpu, network: &Network) -> Option<f64> {
    if !gpu.has_timestamps() {
        println!("this device has no timestamps: no table of kernels");
        return None;
    }
    let profile = network.profile(5).unwrap_or_else(|error| panic!("{error}"));
    let total = profile.seconds();
    println!(
        "\n{:<24} {:>8} {:>9} {:>7} {:>9} {:>8}",
        "kernel", "launches", "ms", "share", "GFLOP/s", "GB/s"
    );
    for (kernel, launches, seconds, flops, bytes) in profile.by_kernel() {
        let (rate, bandwidth) = (flops as f64 / seconds * 1e-9, bytes as f64 / seconds * 1e-9);
        let (ms, share) = (seconds * 1e3, 100.0 * seconds / total);
        println!("{kernel:<24} {launches:>8} {ms:>9.3} {share:>6.1}% {rate:>9.1} {bandwidth:>8.1}");
    }
    let rate = network.plan().flops() as f64 / total * 1e-9;
    println!("{:<24} {:>8} {:>9.3}          {rate:>9.1}", "all kernels", profile.rows.len(), total * 1e3);
    Some(total)
}

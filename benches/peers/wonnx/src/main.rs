//! A network in wonnx, as a peer of `cargo bench --bench networks`.
//!
//! ```text
//! wonnx_network FOLDER NAME     FOLDER/NAME.onnx, made by benches/peers/network_onnx.py
//! ```
//!
//! wonnx takes its input from the host and gives its output to the host in each run.

use std::collections::HashMap;
use std::io::BufRead;
use std::time::Instant;

fn main() {
    let [folder, name] = std::env::args().skip(1).collect::<Vec<_>>().try_into().expect("FOLDER NAME");
    let path = format!("{folder}/{name}.onnx");
    let session =
        pollster::block_on(wonnx::Session::from_path(&path)).unwrap_or_else(|e| panic!("{path}: {e:?}"));
    let picture: Vec<f32> = (0..3 * 224 * 224u32)
        .map(|i| (i.wrapping_mul(2654435761) >> 8) as f32 * 2f32.powi(-23) - 1.0)
        .collect();
    let run = || {
        let inputs = HashMap::from([("x".to_owned(), picture.as_slice().into())]);
        pollster::block_on(session.run(&inputs)).unwrap_or_else(|e| panic!("{path}: {e:?}"));
    };
    run();
    println!("wonnx 0.5.1");
    for line in std::io::stdin().lock().lines() {
        let runs: usize = line.expect("a line").trim().parse().expect("a number of runs");
        let start = Instant::now();
        (0..runs).for_each(|_| run());
        println!("{}", start.elapsed().as_secs_f64());
    }
}

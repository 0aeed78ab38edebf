//! No memory left, in earnest: on an adapter that computes in the host's memory, this process starts itself with little address
//! space and takes nearly all of it before something large is asked of the device. Nothing is written to most of it.

use std::process::Command;

use aquatint::{DType, Gpu, Graph, Network, Result, Tensor, wgpu};

use crate::harness::*;

const STAGE: &str = "AQUATINT_TEST_WITHOUT_MEMORY";
const STAGES: [&str; 3] = ["loading", "in flight", "reading back"];

/// Address space of the process that has no memory left, kilobytes.
const SPACE: u64 = 6 << 20;

/// 96 MB in and out.
fn large() -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", [24 << 20], DType::F32);
    let y = g.affine(x, 2.0, 1.0).unwrap();
    g.output("y", y);
    g
}

/// Takes all address space but so many megabytes.
fn take_but(megabytes: usize) -> Vec<Vec<u8>> {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for size in [256 << 20, 32 << 20, 8 << 20] {
        loop {
            let mut piece = Vec::new();
            if piece.try_reserve_exact(size).is_err() {
                break;
            }
            taken.push(piece);
        }
    }
    let mut free = 0;
    while free < megabytes << 20 {
        free += taken.pop().expect("there was some").capacity();
    }
    taken
}

fn answer(gpu: &Gpu) -> Vec<f32> {
    Network::new(gpu, &network(1)).unwrap().run(&[("x", &input())]).unwrap().remove(0).to_f32()
}

/// Not a test: what [`no_memory_is_an_error`] starts.
#[test]
fn without_memory() {
    let Ok(stage) = std::env::var(STAGE) else { return };
    let gpu = open().expect("its parent has one");
    let wanted = answer(&gpu);
    let large_input = Tensor::from_f32([24 << 20], &vec![0.5; 24 << 20]);
    let prepared = (stage != "loading").then(|| Network::new(&gpu, &large()).unwrap());
    if stage == "reading back" {
        let network = prepared.as_ref().unwrap();
        network.write("x", &large_input).unwrap();
        gpu.wait(network.submit(1).unwrap()).unwrap();
    }
    let taken = take_but(48);
    let result: Result<()> = match stage.as_str() {
        "loading" => Network::new(&gpu, &large()).map(drop),
        "in flight" => prepared.as_ref().unwrap().run(&[("x", &large_input)]).map(drop),
        _ => prepared.as_ref().unwrap().read("y").map(drop),
    };
    drop(taken);
    println!("error {}", kind(&result));
    drop(prepared);
    // On the same device if it is still there, else on another.
    let lost = gpu.is_lost() || kind(&result) == "DeviceLost";
    let gpu = if lost { open().unwrap() } else { gpu };
    assert_eq!(answer(&gpu), wanted);
    println!("afterwards the same, {}", if lost { "on another device" } else { "on the same device" });
}

#[test]
#[cfg(target_os = "linux")]
fn no_memory_is_an_error() {
    let Some(gpu) = open() else { return };
    if gpu.info().device_type != wgpu::DeviceType::Cpu {
        eprintln!("SKIPPED: the adapter has a memory of its own");
        return;
    }
    for stage in STAGES {
        let script = format!("ulimit -v {SPACE}; exec \"$0\" --exact memory::without_memory --nocapture");
        let output = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env(STAGE, stage)
            .output()
            .unwrap();
        let [said, complained] =
            [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        let line = |start: &str| said.lines().find_map(|l| l.strip_prefix(start).map(str::to_owned));
        let (error, after) = (line("error "), line("afterwards "));
        println!("figure faults memory: {stage}: {error:?}, afterwards {after:?}");
        assert!(output.status.success(), "{stage}: {}\n{said}\n{complained}", output.status);
        // wgpu gives a device up where it has no memory for its own sake, as for a copy on the way.
        assert!(
            matches!(error.as_deref(), Some("OutOfMemory" | "DeviceLost")),
            "{stage}: {error:?}\n{complained}"
        );
        assert!(after.is_some_and(|a| a.starts_with("the same")), "{stage}\n{complained}");
    }
}

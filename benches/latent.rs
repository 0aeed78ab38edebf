//! The parts of latent diffusion: load, time of a run, where it goes, and another engine beside it.
//!
//! ```text
//! cargo bench --bench latent -- FOLDER                         unet at 32×32 and 64×64 latents, decoder at 32×32, text encoder
//! cargo bench --bench latent -- FOLDER unet:32 vae:32          these parts, sides in latent pixels
//! cargo bench --bench latent -- FOLDER unet:32 --peer PROGRAM ARG…   beside a program that answers on its standard output
//! cargo bench --bench latent -- FOLDER unet:32=FILE            with inputs of a file, and how far its output is from ours
//! ```
//!
//! FOLDER is a Stable Diffusion 1, 2 or XL of diffusers; `benches/peers/latent_model.py` and `latent_model_xl.py` make them
//! with random weights, the latter also files of inputs and outputs. One picture, f32. A run of the UNet is one call,
//! without guidance. The peer is started with the folder and `unet:32` or the like.

mod peer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use aquatint::formats::diffusers::Folder;
use aquatint::models::autoencoder::decode;
use aquatint::models::clip_text::{ClipTextOptions, clip_text_graph};
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::models::unet2d_condition::{Conditions, unet2d_condition};
use aquatint::nn::Source;
use aquatint::text::TextEncoders;
use aquatint::{DType, Gpu, Graph, Network, Result, Tensor, Weights};
use peak_alloc::PeakAlloc;
use peer::{Peer, race};

const ROUNDS: usize = 5;
const PARTS: [&str; 4] = ["unet:32", "unet:64", "vae:32", "text:77"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let own = arguments.iter().take_while(|a| *a != "--peer").count();
    let (own, peer) = arguments.split_at(own);
    let Some((folder, parts)) = own.split_first() else {
        // As every benchmark is run by `cargo bench`, and this one wants a model.
        println!("latent: skipped, as no folder of a model is given");
        return;
    };
    let gpu = Gpu::headless().unwrap_or_else(|error| panic!("{error}"));
    println!("device   {} ({})", gpu.info().name, gpu.info().driver_info);
    let all = PARTS.map(str::to_owned);
    for part in if parts.is_empty() { &all } else { parts } {
        measure(&gpu, folder, part, peer.get(1..).unwrap_or(&[]))
            .unwrap_or_else(|error| panic!("{part}: {error}"));
    }
}

fn measure(gpu: &Gpu, folder: &str, part: &str, peer: &[String]) -> Result<()> {
    let (part, reference) = part.split_once('=').map_or((part, None), |(part, file)| (part, Some(file)));
    let start = Instant::now();
    let (most, host, network) = held(gpu, || load(gpu, folder, part));
    let network = network?;
    let loaded = start.elapsed().as_secs_f64();
    let plan = network.plan();
    let flops = plan.flops() as f64;
    println!("\npart     {part}, {:.1} GFLOP, {} parameters", flops * 1e-9, plan.parameters);
    println!("load     {loaded:.2} s, folder to first run");
    let [most, predicted] = [most, plan.peak_bytes()].map(|bytes| bytes as f64 * 1e-6);
    println!("memory   {most:.1} MB at most on the device, {predicted:.1} MB predicted");
    println!("host     {:.1} MB at most, beside mapped files and the driver", host as f64 * 1e-6);
    if let Some(file) = reference {
        return compare(&network, file);
    }

    let peer = match peer {
        [] => None,
        command => {
            let command = [command, &[folder.to_owned()]].concat();
            Peer::start(&command, part).or_else(|| {
                println!("the peer does not run it");
                None
            })
        }
    };
    race(gpu, &network, peer, ROUNDS)
}

/// A part with noise for its inputs.
fn load(gpu: &Gpu, folder: &str, part: &str) -> Result<Network> {
    let (name, side) = part.split_once(':').expect("a part is as unet:32");
    let side: usize = side.parse().expect("the side is a number");
    let folder = Folder::open(folder)?;
    let mut g = Graph::new();
    let mut inputs = Vec::new();
    let mut input = |g: &mut Graph, name: &str, shape: &[usize]| {
        inputs.push((name.to_owned(), shape.to_vec()));
        g.input(name, shape, DType::F32)
    };
    if name == "text" {
        let encoder = TextEncoders::open(&folder)?.encoders.remove(0);
        let source = Source { weights: &encoder.weights, dtype: DType::F32 };
        let options = ClipTextOptions { skip: 0, normalise: true, pooled: false };
        inputs.push(("embeddings".to_owned(), vec![1, side, encoder.config.hidden_size]));
        g = clip_text_graph(&encoder.config, source, [1, side], options)?;
    } else {
        let model = LatentDiffusion::open(&folder)?;
        let c = model.vae.config.latent_channels();
        let x = input(&mut g, "x", &[1, side, side, c]);
        let y = match name {
            "unet" => {
                let config = &model.denoiser.config;
                let unet = config.unet().expect("Stable Diffusion 1, 2 or XL");
                let text = input(&mut g, "text", &[1, 77, unet.cross_attention_dim]);
                let timesteps = input(&mut g, "timesteps", &[1, 1]);
                let sizes = model.micro.count();
                let width = config.pooled_width(sizes).filter(|_| config.is_told_sizes());
                let pooled = width
                    .map(|width| [input(&mut g, "pooled", &[1, width]), input(&mut g, "sizes", &[1, sizes])]);
                let conditions = Conditions {
                    timesteps,
                    text,
                    pooled,
                    guidance: None,
                    class: None,
                    residuals: &[],
                    perturbed: None,
                };
                let source = Source { weights: &model.denoiser.weights, dtype: DType::F32 };
                unet2d_condition(&mut g, unet, source, x, &conditions)?
            }
            _ => {
                let source = Source { weights: &model.vae.weights, dtype: DType::F32 };
                decode(&mut g, &model.vae.config, source, x)?
            }
        };
        g.output("y", y);
    }
    let network = Network::new(gpu, &g)?;
    for (seed, (name, shape)) in inputs.iter().enumerate() {
        network.write(name, &Tensor::from_f32(shape.clone(), &noise(seed as u32, shape.iter().product())))?;
    }
    Ok(network)
}

/// What the program holds on the host, but for mapped files and what the driver takes.
#[global_allocator]
static HOST: PeakAlloc = PeakAlloc;

/// The most that the device held while this was done, beyond what it held before, and what the program held on the host.
fn held<T>(gpu: &Gpu, work: impl FnOnce() -> T) -> (u64, usize, T) {
    let now = || {
        let hal = gpu.device().get_internal_counters().hal;
        (hal.buffer_memory.read() + hal.texture_memory.read()) as u64
    };
    let before = now();
    let most = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    HOST.reset_peak_usage();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(now(), Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    });
    (most.into_inner().saturating_sub(before), HOST.peak_usage(), result)
}

/// Runs once with a file's inputs and says how far the output is from the file's.
fn compare(network: &Network, file: &str) -> Result<()> {
    let file = Weights::open(file)?;
    for port in &network.plan().inputs {
        network.write(&port.name, &file.tensor(&port.name, &port.desc.shape)?)?;
    }
    let start = Instant::now();
    network.submit(1)?;
    let found = network.read("y")?;
    println!("ours     {:.1} ms, the first run", start.elapsed().as_secs_f64() * 1e3);
    let wanted = file.tensor("y", &found.desc.shape)?.to_f32();
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = square(&mut found.to_f32().iter().zip(&wanted).map(|(a, b)| f64::from(a - b)));
    let relative = (error / square(&mut wanted.iter().map(|&v| f64::from(v)))).sqrt();
    println!("error    {relative:.2e} of the reference's root mean square");
    Ok(())
}

/// Uniform in [-1, 1).
fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let next = |_| {
        state = state.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        (state >> 8) as f32 * 2f32.powi(-23) - 1.0
    };
    (0..count).map(next).collect()
}

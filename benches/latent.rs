//! The parts of latent diffusion: load, time of a run, where it goes, and another engine beside it.
//!
//! ```text
//! cargo bench --bench latent -- FOLDER                         unet at 32×32 and 64×64 latents, decoder at 32×32, text encoder
//! cargo bench --bench latent -- FOLDER unet:32 vae:32          these parts, sides in latent pixels
//! cargo bench --bench latent -- FOLDER unet:32 --peer PROGRAM ARG…   beside a program that answers on its standard output
//! ```
//!
//! FOLDER is a Stable Diffusion 1 or 2 of diffusers; `benches/peers/latent_model.py` makes one with random weights. One
//! picture, f32. A run of the UNet is one call, without guidance. The peer is started with the folder and `unet:32` or the like.

mod peer;

use std::time::Instant;

use aquatint::formats::diffusers::Folder;
use aquatint::models::autoencoder::decode;
use aquatint::models::clip_text::{ClipTextOptions, clip_text_graph};
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::models::unet2d_condition::{Conditions, unet2d_condition};
use aquatint::nn::Source;
use aquatint::text::TextEncoders;
use aquatint::{DType, Gpu, Graph, Network, Result, Tensor};
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
    let start = Instant::now();
    let network = load(gpu, folder, part)?;
    let loaded = start.elapsed().as_secs_f64();
    let plan = network.plan();
    let flops = plan.flops() as f64;
    println!("\npart     {part}, {:.1} GFLOP, {} parameters", flops * 1e-9, plan.parameters);
    println!("load     {loaded:.2} s, folder to first run");

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
                let unet = model.denoiser.config.unet().expect("Stable Diffusion 1 or 2");
                let text = input(&mut g, "text", &[1, 77, unet.cross_attention_dim]);
                let timesteps = input(&mut g, "timesteps", &[1, 1]);
                let conditions = Conditions {
                    timesteps,
                    text,
                    pooled: None,
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

/// Uniform in [-1, 1).
fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let next = |_| {
        state = state.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        (state >> 8) as f32 * 2f32.powi(-23) - 1.0
    };
    (0..count).map(next).collect()
}

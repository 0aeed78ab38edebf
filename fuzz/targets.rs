//! What is done with bytes of strangers, one function a kind of file. The fuzzer calls them, and `tests/corpus.rs`
//! replays through them what it found. They must return: no panic, no endless loop, no more memory than [`LIMIT`].
#![allow(dead_code, reason = "each fuzz target is one of them")]

#[path = "targets/adapters.rs"]
mod adapters;
#[path = "targets/answers.rs"]
mod answers;
#[path = "targets/build.rs"]
mod build;
#[path = "targets/draw.rs"]
mod draw;
#[path = "targets/files.rs"]
mod files;
#[path = "targets/graph.rs"]
mod graph;
#[path = "targets/linker.rs"]
mod linker;
#[path = "targets/memory.rs"]
mod memory;
#[path = "targets/models.rs"]
mod models_of_files;
#[path = "targets/operations.rs"]
mod operations;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aquatint::cache;
use aquatint::diffusion::{NoiseSchedule, Sampler, ScheduleConfig, SigmaSchedule, Table};
use aquatint::formats::ldm::Checkpoint;
use aquatint::formats::onnx::{Dim, OnnxModel};
use aquatint::formats::picture;
use aquatint::models::autoencoder_kl::{self, AutoencoderKlConfig};
use aquatint::models::clip_text::{ClipTextConfig, ClipTextOptions, clip_text_graph};
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::models::unet2d::{UNet2dConfig, unet2d};
use aquatint::models::unet2d_condition::{Conditions, UNet2dConditionConfig, unet2d_condition};
use aquatint::nn::Source;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::text::{T5Tokenizer, Tokenizer};
use aquatint::{
    DType, DeviceClass, Error, Graph, Plan, Result, Target, Tensor, Tuning, Weights, models, passes,
};

pub use adapters::lora;
pub use graph::graph;
pub use linker::linker;
pub use models_of_files::{checkpoint, external, folder};

use files::zeros;

/// What a target does with bytes.
pub type Body = fn(&[u8]);

/// By the names of their folders in `tests/corpus`.
pub const TARGETS: [(&str, Body); 13] = [
    ("checkpoint", checkpoint),
    ("external", external),
    ("folder", folder),
    ("graph", graph),
    ("kept", kept),
    ("linker", linker),
    ("lora", lora),
    ("network", network),
    ("onnx", onnx),
    ("picture", picture),
    ("safetensors", safetensors),
    ("schedule", schedule),
    ("tokenizer", tokenizer),
];

/// Most memory, bytes.
pub const LIMIT: usize = 2 << 30;

/// The system's allocator, which ends the program where more than [`LIMIT`] would be in use: asked for is enough,
/// as memory that is never touched costs nothing here and everything elsewhere.
struct Limited;

static USED: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Limited = Limited;

fn more(bytes: usize) -> bool {
    let fits = USED.fetch_add(bytes, Ordering::Relaxed) + bytes <= LIMIT;
    if !fits {
        USED.fetch_sub(bytes, Ordering::Relaxed);
    }
    fits
}

// SAFETY: all is the system allocator's, but for null, which says that there is no memory.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if more(layout.size()) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if more(layout.size()) { unsafe { System.alloc_zeroed(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !more(size) {
            return std::ptr::null_mut();
        }
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }
}

/// A safetensors file: every tensor is looked at.
pub fn safetensors(bytes: &[u8]) {
    let Ok(weights) = Weights::from_bytes("model.safetensors", bytes.to_vec()) else { return };
    for name in weights.names() {
        let shape = weights.shape(name).expect("it is there").clone();
        if let Ok(tensor) = weights.tensor(name, &shape) {
            assert_eq!(tensor.to_f32().len(), shape.elements(), "{name}");
        }
    }
}

/// An ONNX file: imported, rewritten and planned.
pub fn onnx(bytes: &[u8]) {
    // There is no such folder, so that no file is read that lies about here.
    let Ok(model) = OnnxModel::from_bytes("/nowhere/model.onnx", bytes.to_vec()) else { return };
    let open = |dim: &Dim| match dim {
        Dim::Fixed(n) => *n,
        Dim::Open(_) => 5,
    };
    let shapes: Vec<(&str, Vec<usize>)> = model
        .inputs()
        .iter()
        .map(|port| match &port.shape {
            Some(dims) => (port.name.as_str(), dims.iter().map(open).collect()),
            None => (port.name.as_str(), vec![1, 3, 8, 8]),
        })
        .collect();
    if let Ok((graph, _)) = model.graph_and_outputs(&shapes) {
        plan(&graph);
    }
}

/// For a GPU and, where textures are read in place of buffers, for the CPU.
fn plan(graph: &Graph) {
    let gpu = Target::typical();
    let cpu = Target { class: DeviceClass::Cpu, ..gpu.clone() };
    for target in [gpu, cpu] {
        let made = passes::optimise(graph, &target).and_then(|graph| Plan::new(&graph, &target));
        // A device may be too small for what a file asks for; a kernel that is not sound is our mistake.
        if let Err(error @ Error::Shader { .. }) = made {
            panic!("{error}");
        }
    }
}

/// The configuration of a network in a line of JSON, which may be empty, and its weights: a line each with a name and
/// dimensions; all are zero.
pub fn network(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (config, tensors) = text.split_once('\n').unwrap_or((text, ""));
    let Some(weights) = zeros(tensors) else { return };
    let w = Source { weights: &weights, dtype: DType::F32 };
    let class: serde_json::Value = serde_json::from_str(config).unwrap_or_default();
    let mut g = Graph::new();
    let built: Result<()> = (|| {
        let output = match class["_class_name"].as_str() {
            Some("UNet2DModel") => {
                let config = UNet2dConfig::from_json(config)?;
                let [h, wide] = config.size()?;
                let x = g.input("x", [1, h, wide, config.in_channels], DType::F32);
                let timesteps = g.input("timesteps", [1, 1], DType::F32);
                let labels = g.input("labels", [1], DType::U32);
                unet2d(&mut g, &config, w, x, timesteps, config.num_class_embeds.map(|_| labels))?
            }
            Some("UNet2DConditionModel") => {
                let config = UNet2dConditionConfig::from_json(config)?;
                let x = g.input("x", [1, 10, 13, config.in_channels], DType::F32);
                let pooled = [g.input("pooled", [1, 16], DType::F32), g.input("sizes", [1, 6], DType::F32)];
                let guidance = g.input("guidance", [1, 10], DType::F32);
                let class = g.input("class", [1], DType::U32);
                let conditions = Conditions {
                    timesteps: g.input("timesteps", [1, 1], DType::F32),
                    text: g.input("text", [1, 7, config.cross_attention_dim], DType::F32),
                    pooled: config.addition_embed_type.is_some().then_some(pooled),
                    guidance: config.time_cond_proj_dim.map(|_| guidance),
                    class: config.num_class_embeds.map(|_| class),
                    residuals: &[],
                    perturbed: None,
                };
                unet2d_condition(&mut g, &config, w, x, &conditions)?
            }
            Some("AutoencoderKL") => {
                let config = AutoencoderKlConfig::from_json(config)?;
                let _ = config.factor();
                let x = g.input("picture", [1, 40, 24, 3], DType::F32);
                let moments = autoencoder_kl::encode(&mut g, &config, w, x)?;
                g.output("moments", moments);
                let z = g.input("latent", [1, 5, 3, config.latent_channels], DType::F32);
                autoencoder_kl::decode(&mut g, &config, w, z)?
            }
            Some("CLIPTextModel") => {
                let config = ClipTextConfig::from_json(config)?;
                let _ = config.embed(&weights, &[1, 0]);
                let options = ClipTextOptions { skip: 0, normalise: true, pooled: true };
                g = clip_text_graph(&config, w, [1, 2], options)?;
                return Ok(());
            }
            _ if Checkpoint::is_one(&weights) => {
                let checkpoint = Checkpoint::new(weights.clone())?;
                for (_, weights) in checkpoint.text_encoders() {
                    let _ = ClipTextConfig::of_weights(&weights, true);
                }
                let _ = LatentDiffusion::from_checkpoint("model", &checkpoint, None);
                return Ok(());
            }
            _ => {
                let config = Some(config).filter(|c| !c.is_empty());
                let model = models::from_weights(weights.clone(), config)?;
                let [h, wide] = model.preprocess.size.unwrap_or([64, 64]);
                let x = g.input("x", [1, h, wide, 3], DType::F32);
                for (name, output) in model.build(&mut g, x)? {
                    g.output(&name, output);
                }
                return Ok(());
            }
        };
        g.output("y", output);
        Ok(())
    })();
    // Kernels of large networks take long to plan and are those of small ones.
    match (built, g.values().count()) {
        (Ok(()), ..100) => plan(&g),
        (Ok(()), _) => drop(passes::optimise(&g, &Target::typical())),
        (Err(_), _) => {}
    }
}

/// A `scheduler_config.json`, and the tables of all samplers.
pub fn schedule(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = ScheduleConfig::from_json(text) else { return };
    let sigmas = config.sigma_schedule().unwrap_or(SigmaSchedule::Model);
    let own = Sampler::of_config(&config);
    let Ok(schedule) = NoiseSchedule::new(&config) else { return };
    let names =
        ["ddpm", "ddim", "euler", "euler-a", "heun", "dpm++2m", "dpm++3m-sde", "dpm++2s-a", "dpm++sde"];
    let more = ["dpm2", "dpm2-a", "lms", "plms", "unipc", "deis", "lcm", "tcd"];
    let named = names.into_iter().chain(more).filter_map(|name| name.parse().ok());
    for sampler in own.ok().flatten().into_iter().chain(named) {
        for steps in [1, 2, 7] {
            if let Ok(table) = Table::new(&schedule, sampler, sigmas.clone(), steps) {
                let _ = table.start(0.5);
            }
        }
    }
}

/// A `tokenizer.json`; or, with zero bytes between them, `vocab.json`, `merges.txt` and `special_tokens_map.json`.
pub fn tokenizer(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let parts: Vec<&[u8]> = bytes.splitn(3, |b| *b == 0).collect();
    let names: &[&str] = match parts.len() {
        1 => &["tokenizer.json"],
        _ => &["vocab.json", "merges.txt", "special_tokens_map.json"],
    };
    for (name, part) in names.iter().zip(parts) {
        std::fs::write(folder.path().join(name), part).expect("a temporary file");
    }
    let texts = ["", "A photo of an astronaut, très joli: 2024!", "\u{0}\u{1F600}<|endoftext|>\n"];
    if let Ok(tokenizer) = T5Tokenizer::open(folder.path()) {
        for text in texts {
            let _ = tokenizer.tokens(text);
        }
    }
    let Ok(tokenizer) = Tokenizer::open(folder.path()) else { return };
    for text in texts {
        if let Ok(tokens) = tokenizer.tokens(text) {
            assert_eq!(tokenizer.chunk(&tokens).len(), tokenizer.length);
        }
    }
}

/// A file of the cache for the device `device`: pipelines, or measurements, with which a network is planned.
pub fn kept(bytes: &[u8]) {
    if let Some(data) = cache::open(bytes, b"pipe", "device") {
        assert!(data.len() < bytes.len());
    }
    let Some(tuning) = Tuning::from_bytes(bytes, "device") else { return };
    let mut g = Graph::new();
    let x = g.input("x", [1, 9, 8, 8], DType::F32);
    let weight = g.weight("weight", Tensor::from_f32([8, 8, 3, 3], &[0.5; 576]));
    let y = g.conv2d(x, weight, None, Conv2dOptions::padded(1)).expect("a convolution");
    g.output("y", y);
    let target = Target { tuning: Some(Arc::new(tuning)), ..Target::typical() };
    Plan::compile(&g, &target).expect("whatever is kept, a plan can be made");
}

/// A picture, and the text in it.
pub fn picture(bytes: &[u8]) {
    let _ = picture::from_bytes("picture", bytes);
    let _ = picture::text_from_bytes("picture.png", bytes, "aquatint");
}

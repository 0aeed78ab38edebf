//! Adapters of networks that are loaded: put on, changed and taken off in place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aquatint::formats::diffusers::Folder;
use aquatint::formats::lora::Lora;
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::ops::quantized::BlockFormat;
use aquatint::tasks::{NoiseSource, PaintOptions, Painter, Sampling, StartFrom, Turns, Wish};
use aquatint::text::TextEmbedding;
use aquatint::{DType, Error, Gpu, Graph, Network, Plan, Reloaded, Tensor};

use super::{Unet, adapter, encoders, gpu, numbers, save, write};

/// A network's inputs and the graph for adapters at their strengths.
struct Loaded<'a> {
    unet: Unet,
    loras: BTreeMap<&'a str, Lora>,
    dtype: DType,
    blocks: Option<BlockFormat>,
}

/// None, some, others of the same layers, the same with other strengths, and of some layers alone.
const STATES: [&[(&str, f32)]; 7] = [
    &[],
    &[("kohya", 0.7)],
    &[("kohya", -0.3)],
    &[("peft", 0.7), ("kohya", -0.4)],
    &[("lycoris", 1.0)],
    &[("old", 1.0)],
    &[("kohya", 0.7), ("lycoris", 0.2)],
];

impl<'a> Loaded<'a> {
    fn open(folder: &Path, name: &str, files: &[&'a str], dtype: DType, blocks: Option<BlockFormat>) -> Self {
        let loras = files.iter().map(|file| (*file, adapter(folder, file))).collect();
        Loaded { unet: Unet::open(name), loras, dtype, blocks }
    }

    fn graph(&self, state: &[(&str, f32)]) -> (Graph, Vec<(&'static str, Tensor)>) {
        let mut unet = Unet { config: self.unet.config.clone(), weights: self.unet.weights.clone() };
        for (file, strength) in state {
            let mut texts = encoders(false);
            self.loras[file].apply(&mut unet.weights, &mut texts.weights_mut(), *strength).unwrap();
        }
        unet.graph_in(self.dtype, self.blocks)
    }

    fn fresh(&self, gpu: &Gpu, state: &[(&str, f32)]) -> Network {
        Network::new(gpu, &self.graph(state).0).unwrap()
    }

    fn bits(&self, network: &Network) -> Vec<u32> {
        let given = self.graph(&[]).1;
        let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
        network.poison().unwrap();
        network.run(&given).unwrap()[0].to_f32().iter().map(|v| v.to_bits()).collect()
    }
}

/// From each first state along the others, whatever there was before.
fn in_place(dtype: DType, blocks: Option<BlockFormat>, walks: &[(usize, &[usize])]) {
    let Some(gpu) = gpu().filter(|gpu| dtype != DType::F16 || gpu.target().f16) else { return };
    let folder = tempfile::tempdir().unwrap();
    let loaded = Loaded::open(folder.path(), "sd1", &["kohya", "peft", "lycoris", "old"], dtype, blocks);
    let mut wanted: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for &(first, to) in walks {
        let mut network = loaded.fresh(gpu, STATES[first]);
        for &to in to {
            if !wanted.contains_key(&to) {
                let bits = loaded.bits(&loaded.fresh(gpu, STATES[to]));
                assert!(wanted.values().all(|other| *other != bits), "{:?} change nothing", STATES[to]);
                wanted.insert(to, bits);
            }
            let Reloaded { uploaded, whole, .. } = network.reload(&loaded.graph(STATES[to]).0).unwrap();
            println!("{:?}: {uploaded} bytes", STATES[to]);
            assert!(!whole && uploaded > 0, "{:?}", STATES[to]);
            assert!(loaded.bits(&network) == wanted[&to], "{first}, {:?}: other bits", STATES[to]);
            let nothing = network.reload(&loaded.graph(STATES[to]).0).unwrap();
            assert!(nothing.uploaded == 0 && !nothing.whole, "{nothing:?}");
            assert!(loaded.bits(&network) == wanted[&to]);
        }
    }
}

#[test]
fn adapters_change_in_place() {
    in_place(DType::F32, None, &[(0, &[1, 2, 0, 4, 6, 5, 3, 1, 0, 2]), (3, &[0, 6, 1])]);
}

#[test]
fn adapters_change_in_place_in_half_precision() {
    in_place(DType::F16, None, &[(1, &[2, 0, 1])]);
}

#[test]
fn adapters_change_in_place_in_blocks() {
    in_place(DType::F32, Some(BlockFormat::Q8_0), &[(0, &[1, 0]), (4, &[2, 0])]);
}

/// No pipeline is made where kernels are known; nothing is left behind; only the layers of the adapter are read, their
/// own numbers and what is added.
#[test]
fn only_what_changes_is_made_again() {
    let Some(_) = gpu() else { return };
    let gpu = Gpu::headless().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let loaded = Loaded::open(folder.path(), "sd1", &["old", "kohya"], DType::F32, None);
    // A network without adapters has kernels that one with them has not: those that the host's packing stands for.
    let [plain, adapted, other] = [STATES[0], &[("old", 1.0)], &[("old", 0.25)]];
    let wanted = [plain, adapted, other].map(|state| loaded.bits(&loaded.fresh(&gpu, state)));
    let mut network = loaded.fresh(&gpu, adapted);
    assert!(loaded.bits(&network) == wanted[1]);
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let on_device = || {
        let hal = gpu.device().get_internal_counters().hal;
        let counters = [&hal.buffers, &hal.textures, &hal.texture_views, &hal.bind_groups];
        let pipelines = [&hal.compute_pipelines, &hal.shader_modules, &hal.bind_group_layouts];
        let memory = [&hal.buffer_memory, &hal.texture_memory];
        counters.iter().chain(&pipelines).chain(&memory).map(|c| c.read()).collect::<Vec<_>>()
    };
    let (pipelines, before) = (gpu.counts().pipelines, on_device());
    for (to, state) in [(2, other), (0, plain), (1, adapted), (0, plain), (2, other), (1, adapted)] {
        let Reloaded { uploaded, whole, .. } = network.reload(&loaded.graph(state).0).unwrap();
        assert!(!whole);
        assert!(loaded.bits(&network) == wanted[to], "{state:?}");
        assert_eq!(gpu.counts().pipelines, pipelines, "{state:?}");
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        assert_eq!(on_device(), before, "{state:?}");
        // Eight layers of 8 to 16 channels, of a network of 800 KB.
        let layers = loaded.unet.weights.names().len();
        assert!(uploaded < 60_000, "{uploaded} bytes for {state:?} of a network of {layers} tensors");
    }
}

/// Runs `work` and gives the most that the device held meanwhile.
fn most_held<T>(gpu: &Gpu, work: impl FnOnce() -> T) -> (u64, T) {
    let now = || {
        let hal = gpu.device().get_internal_counters().hal;
        (hal.buffer_memory.read() + hal.texture_memory.read()) as u64
    };
    let (most, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(now(), Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    });
    (most.into_inner(), result)
}

/// Matrices of 4 MB, of which adapters change one or all.
#[test]
fn memory_of_a_reload_is_as_predicted() {
    let Some(_) = gpu() else { return };
    let gpu = Gpu::headless().unwrap();
    let weight = |name: &str, shape: [usize; 2]| Tensor::from_f32(shape, &numbers(name, shape[0] * shape[1]));
    let graph = |adapted: usize, scale: f32| {
        let mut g = Graph::new();
        let mut x = g.input("x", [1, 1024], DType::F32);
        for layer in 0..6 {
            let name = format!("layer.{layer}");
            let mut w = g.weight(&name, weight(&name, [1024, 1024]).to_dtype(DType::F16));
            w = g.unpacked(w, DType::F32).unwrap();
            if layer < adapted {
                let [up, down] = [("up", [1024, 4]), ("down", [4, 1024])]
                    .map(|(part, shape)| g.weight(part, weight(&format!("{name}.{part}"), shape)));
                let change = g.matmul(up, down, Default::default()).unwrap();
                let scale = g.weight("scale", Tensor::from_f32([1], &[scale]));
                let change = g.mul(change, scale).unwrap();
                w = g.add(w, change).unwrap();
            }
            x = g.linear(x, w, None).unwrap();
        }
        g.output("y", x);
        g
    };
    for chunk in [32 << 20, 3 << 20] {
        let plan = |adapted, scale| {
            let mut plan = Plan::compile(&graph(adapted, scale), gpu.target()).unwrap();
            plan.load_chunk = chunk;
            plan
        };
        let mut network = Network::from_plan(&gpu, plan(0, 0.0)).unwrap();
        let x = Tensor::from_f32([1, 1024], &vec![0.5; 1024]);
        let run = |network: &Network| network.run(&[("x", &x)]).unwrap()[0].to_f32();
        let bare = run(&network);
        let rest = {
            gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
            let hal = gpu.device().get_internal_counters().hal;
            (hal.buffer_memory.read() + hal.texture_memory.read()) as u64 - network.plan().memory().held
        };
        for (adapted, scale) in [(1, 1.0), (6, 1.0), (6, -0.5), (0, 0.0), (2, 0.5)] {
            let (most, done) = most_held(&gpu, || network.reload(&graph(adapted, scale)).unwrap());
            gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
            let slack = (256 << 10) + rest;
            // Where a matrix takes more than a part, one that is read for the last time may be gone before the next is made, or not.
            let early = if chunk < 4 << 20 { 4 << 20 } else { 0 };
            println!("{adapted} layers, parts of {chunk}: {done:?}, found {most} beside {rest}");
            assert!(
                !done.whole && most <= done.peak + slack && done.peak <= most + slack + early,
                "{done:?}: {most}"
            );
            let found = run(&network);
            assert_eq!(found, run(&Network::from_plan(&gpu, plan(adapted, scale)).unwrap()));
            assert_eq!(found == bare, adapted == 0);
        }
    }
}

/// Another network in the place of one: all of it is loaded. One with other inputs is refused.
#[test]
fn other_runs_are_loaded_anew() {
    let Some(gpu) = gpu() else { return };
    let graph = |input: &str, factor: f32, squared: bool| {
        let mut g = Graph::new();
        let x = g.input(input, [2, 8], DType::F32);
        let sum = g.state("sum", Tensor::from_f32([2, 8], &[0.0; 16]));
        let w = g.weight("w", Tensor::from_f32([8, 8], &numbers("w", 64)));
        let w = g.affine(w, factor, 0.0).unwrap();
        let mut y = g.linear(x, w, None).unwrap();
        if squared {
            y = g.mul(y, y).unwrap();
        }
        let next = g.add(sum, y).unwrap();
        g.update(sum, next).unwrap();
        g.output("y", y);
        g
    };
    let x = Tensor::from_f32([2, 8], &numbers("x", 16));
    let run = |network: &Network| network.run(&[("x", &x)]).unwrap().remove(0).to_f32();
    let mut network = Network::new(gpu, &graph("x", 1.0, false)).unwrap();
    let first = run(&network);
    assert!(!network.reload(&graph("x", 2.0, false)).unwrap().whole);
    assert_eq!(run(&network), first.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
    assert!(network.reload(&graph("x", 1.0, true)).unwrap().whole);
    assert_eq!(run(&network), first.iter().map(|v| v * v).collect::<Vec<_>>());
    let sum: Vec<f32> = first.iter().map(|v| v + 2.0 * v + v * v).collect();
    let found = network.read("sum").unwrap().to_f32();
    assert!(found.iter().zip(&sum).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1.0)), "states stay");
    let error = network.reload(&graph("z", 1.0, false)).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("z f32"), "{error}");
    assert_eq!(run(&network), first.iter().map(|v| v * v).collect::<Vec<_>>());
}

const TOKENS: usize = 5;

/// The small model of `tests/pipelines.rs`.
fn model(folder: &Path) -> LatentDiffusion {
    let fixture = super::json("pipelines.json");
    let case = &fixture["cases"]["text.ddim"];
    let index = serde_json::json!({
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", case["scheduler_class"]],
    });
    std::fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
    for (name, part) in [("unet", "sd"), ("vae", "vae")] {
        let part: super::Part = serde_json::from_value(fixture["parts"][part].clone()).unwrap();
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), part.config.to_string()).unwrap();
        let file = save(&folder, &part.tensors, &BTreeMap::new(), &[]);
        std::fs::rename(file, folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    }
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    let scheduler = case["scheduler"].as_str().unwrap();
    std::fs::write(folder.join("scheduler/scheduler_config.json"), scheduler).unwrap();
    LatentDiffusion::open(&Folder::open(folder).unwrap()).unwrap()
}

/// A painter with other adapters paints as one that was made with them, whichever of its networks stay on the device.
#[test]
fn painters_change_their_adapters() {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let weights = &model.denoiser.weights;
    let tensors: Vec<(String, Vec<usize>)> = (weights.names().into_iter())
        .filter(|name| name.contains("attn") && name.ends_with("weight"))
        .flat_map(|name| {
            let (path, shape) = (name.strip_suffix(".weight").unwrap(), weights.shape(name).unwrap());
            let name = |part: &str| format!("unet.{path}.lora_{part}.weight");
            [(name("A"), vec![2, shape[1]]), (name("B"), vec![shape[0], 2])]
        })
        .collect();
    let tensors: Vec<(&str, &[usize], Vec<f32>)> = (tensors.iter())
        .map(|(name, shape)| (name.as_str(), &shape[..], numbers(name, shape.iter().product())))
        .collect();
    write(&folder.path().join("lora.safetensors"), &tensors, None);
    let lora = Lora::open(folder.path().join("lora.safetensors")).unwrap();
    let with = |strength: f32| {
        let mut adapted = model.clone();
        lora.apply(&mut adapted.denoiser.weights, &mut [], strength).unwrap();
        adapted
    };
    let text = |name: &str| TextEmbedding {
        states: Tensor::from_f32([TOKENS, 12], &numbers(name, TOKENS * 12)),
        pooled: None,
    };
    let wish = Wish { text: text("text"), negative: Some(text("negative")) };
    let options =
        PaintOptions { height: 64, width: 32, steps: 2, noise: NoiseSource::Cpu, ..PaintOptions::of(&model) };
    let new = |model: &LatentDiffusion, options: &PaintOptions| {
        Painter::new(gpu, model, 1, TOKENS, StartFrom::Noise, options).unwrap()
    };
    let paint = |painter: &mut Painter| {
        let mut run: Sampling = painter.start(std::slice::from_ref(&wish), &[7], None).unwrap();
        let picture = run.pictures().unwrap().remove(0);
        (run.latents().unwrap().to_f32(), picture)
    };
    let wanted_with =
        |options: &PaintOptions| [0.0, 0.8, 0.3].map(|strength| paint(&mut new(&with(strength), options)));
    let wanted = wanted_with(&options);
    assert!(wanted[0].0 != wanted[1].0 && wanted[1].0 != wanted[2].0);
    let all = new(&model, &options).memory().peak;
    let mut turns = Vec::new();
    for budget in [None, Some(all * 31 / 32)] {
        let options = PaintOptions { memory_budget: budget, ..options.clone() };
        let Ok(mut painter) = Painter::new(gpu, &with(0.8), 1, TOKENS, StartFrom::Noise, &options) else {
            continue;
        };
        turns.push(painter.memory().turns);
        // Where memory is short, convolutions are computed in other ways.
        let wanted = wanted_with(&options);
        assert!(paint(&mut painter) == wanted[1]);
        for to in [2, 0] {
            let weights = with([0.0, 0.8, 0.3][to]).denoiser.weights;
            let reloaded = painter.set_adapters(&weights).unwrap();
            // A network that is not there when pictures were shown is loaded when it is needed.
            assert_eq!(reloaded.whole, painter.memory().turns == Turns::OneAtATime);
            assert!(paint(&mut painter) == wanted[to], "{:?}, {to}", painter.memory().turns);
        }
        assert_eq!(painter.memory(), new(&model, &options).memory());
    }
    assert!(turns.contains(&Turns::Together) && turns.contains(&Turns::OneAtATime), "{turns:?}");

    let mut painter = new(&model, &options);
    let error = painter.set_adapters(&model.vae.weights).unwrap_err();
    assert!(error.to_string().contains("unet"), "{error}");
    assert!(paint(&mut painter) == wanted[0]);
}

//! Whole models: single-file checkpoints, folders of diffusers, ONNX files with values in files of their own.

use std::path::Path;

use aquatint::formats::diffusers::{self, Folder};
use aquatint::formats::ldm::{self, Blocks, Checkpoint};
use aquatint::formats::mmdit::Sd3Checkpoint;
use aquatint::formats::onnx::{Dim, OnnxModel};
use aquatint::models::autoencoder_tiny::AutoencoderTinyConfig;
use aquatint::models::clip_text::{ClipTextConfig, ClipTextOptions, clip_text_graph};
use aquatint::models::controlnet::ControlNetConfig;
use aquatint::models::latent_diffusion::{LatentDiffusion, Part};
use aquatint::models::super_resolution::SuperResolution;
use aquatint::models::{self};
use aquatint::nn::Source;
use aquatint::text::{TextEncoders, Tokenizer};
use aquatint::{DType, Result, Source as Origin, Target, Weights, passes};

use super::files::{self, SMALL};

/// A name and dimensions in a line for each tensor of a checkpoint; a first line `prediction` and a word says what it
/// predicts.
pub fn checkpoint(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (prediction, lines) = match text.strip_prefix("prediction ").and_then(|rest| rest.split_once('\n')) {
        Some((word, lines)) => (Some(word), lines),
        None => (None, text),
    };
    let Some(weights) = files::zeros(lines) else { return };
    let _ = latent_diffusion(&weights, prediction);
    let _ = stable_diffusion_3(&weights);
    if let Some(control) = ldm::controlnet(&weights) {
        named(&control);
    }
    named(&weights);
    // Those that come as a file by themselves.
    let Some(file) = files::safetensors(lines, None, SMALL) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, file).expect("a temporary file");
    if let Ok(control) = Part::<ControlNetConfig>::open(&path) {
        let _ = control.config.factor();
    }
    let _ = Part::<AutoencoderTinyConfig>::open(&path);
}

fn latent_diffusion(weights: &Weights, prediction: Option<&str>) -> Result<()> {
    let checkpoint = Checkpoint::new(weights.clone())?;
    named(&checkpoint.unet());
    for (_, weights) in checkpoint.text_encoders() {
        for open_clip in [false, true] {
            let _ =
                ClipTextConfig::of_weights(&weights, open_clip).and_then(|config| encoder(&config, &weights));
        }
    }
    told(&LatentDiffusion::from_checkpoint("model", &checkpoint, prediction)?)?;
    let encoders = TextEncoders::from_checkpoint(&checkpoint)?;
    let _ = encoders.predict(&Target::typical(), 1, encoders.tokens(), DType::F32);
    Ok(())
}

fn stable_diffusion_3(weights: &Weights) -> Result<()> {
    let checkpoint = Sd3Checkpoint::new(weights.clone())?;
    let _ = LatentDiffusion::from_sd3_checkpoint("model", &checkpoint).and_then(|model| told(&model));
    let encoders = TextEncoders::from_sd3_checkpoint(&checkpoint, None)?;
    let _ = encoders.tokens();
    Ok(())
}

fn encoder(config: &ClipTextConfig, weights: &Weights) -> Result<()> {
    let w = Source { weights, dtype: DType::F32 };
    let _ = config.embed(weights, &[1, 0]);
    let options = ClipTextOptions { skip: 1, normalise: false, pooled: true };
    passes::optimise(&clip_text_graph(config, w, [1, 2], options)?, &Target::typical()).map(drop)
}

/// What a model says of itself.
fn told(model: &LatentDiffusion) -> Result<()> {
    model.given()?;
    let [height, width] = model.size();
    assert!(model.multiple() > 0 && model.habits().0 > 0, "{height} by {width}");
    assert!(!model.embeds_guidance() || model.habits().0 == 4 || model.low_resolution.is_some());
    Ok(())
}

/// The way back to the names of a checkpoint.
fn named(weights: &Weights) {
    let blocks = Blocks::of_unet(weights);
    for name in weights.names() {
        let _ = blocks.checkpoint_name(name, weights);
    }
}

/// A shape that no file in the folder has.
const SECRET: [usize; 2] = [31337, 1];

/// Files with zero bytes between them, each a line with its name and its text, as a folder of diffusers; beside it lie files
/// that nothing in it may lead to.
pub fn folder(bytes: &[u8]) {
    let around = tempfile::tempdir().expect("a temporary folder");
    let path = around.path().join("model");
    std::fs::create_dir(&path).expect("a temporary folder");
    let names = ["conv_in.weight", "decoder.conv_in.weight", "weight", "a"];
    let lines = names.map(|name| format!("{name} {} {}", SECRET[0], SECRET[1])).join("\n");
    let secret = files::safetensors(&lines, None, SMALL).expect("sound lines");
    std::fs::write(around.path().join("secret.safetensors"), secret).expect("a temporary file");
    files::folder(&path, bytes);
    let _ = pipeline(&path);
    for part in ["unet", "vae", "transformer", "text_encoder", ""] {
        if let Ok(weights) = diffusers::weights(&path.join(part)) {
            inside(&weights);
        }
    }
    let _ = Part::<ControlNetConfig>::open(&path);
    let _ = Part::<AutoencoderTinyConfig>::open(&path);
    let _ = Tokenizer::open(path.join("tokenizer"));
    if let Some(name) = path.to_str() {
        let _ = models::open(name);
    }
}

fn pipeline(path: &Path) -> Result<()> {
    let folder = Folder::open(path)?;
    let _ = folder.parts().count();
    if SuperResolution::is_in(&folder) {
        let _ = SuperResolution::open(&folder);
    }
    if let Ok(model) = LatentDiffusion::open(&folder) {
        inside(&model.denoiser.weights);
        inside(&model.vae.weights);
        let _ = told(&model);
    }
    let encoders = TextEncoders::open(&folder)?;
    encoders.encoders.iter().for_each(|encoder| inside(&encoder.weights));
    let _ = encoders.predict(&Target::typical(), 1, encoders.tokens(), DType::F32);
    Ok(())
}

fn inside(weights: &Weights) {
    for name in weights.names() {
        let shape = weights.shape(name).expect("it is there");
        assert_ne!(shape[..], SECRET, "{name} is of a file that the folder does not have");
    }
}

/// What lies outside of the model's folder.
const OUTSIDE: [u8; 8] = [0xa5, 0x5a, 0xc3, 0x3c, 0xa5, 0x5a, 0xc3, 0x3c];

/// An ONNX file in a folder with `values.bin`, `sub/values.bin` and a link `link.bin` that leads out of it.
pub fn external(bytes: &[u8]) {
    thread_local! {
        static AROUND: tempfile::TempDir = around();
    }
    let path = AROUND.with(|around| around.path().join("model/model.onnx"));
    std::fs::write(&path, bytes).expect("a temporary file");
    let Ok(model) = OnnxModel::open(&path) else { return };
    let shapes: Vec<(&str, Vec<usize>)> = model
        .inputs()
        .iter()
        .filter_map(|port| {
            let size = |dim: &Dim| if let Dim::Fixed(n) = dim { *n } else { 3 };
            Some((port.name.as_str(), port.shape.as_ref()?.iter().map(size).collect()))
        })
        .collect();
    let Ok((graph, _)) = model.graph_and_outputs(&shapes) else { return };
    for (_, value) in graph.values() {
        if let Origin::Weight(tensor) = &value.source {
            assert!(
                !tensor.bytes.windows(8).any(|part| part == OUTSIDE),
                "{} is of a file outside",
                value.name
            );
        }
    }
}

fn around() -> tempfile::TempDir {
    let around = tempfile::tempdir().expect("a temporary folder");
    let values: Vec<u8> = (0..4096u32).flat_map(|i| (i as f32 / 4096.0).to_le_bytes()).collect();
    let at = |name: &str| around.path().join(name);
    std::fs::create_dir_all(at("model/sub")).expect("a temporary folder");
    std::fs::write(at("outside.bin"), OUTSIDE.repeat(512)).expect("a temporary file");
    std::fs::write(at("model/values.bin"), &values).expect("a temporary file");
    std::fs::write(at("model/sub/values.bin"), &values).expect("a temporary file");
    #[cfg(unix)]
    std::os::unix::fs::symlink(at("outside.bin"), at("model/link.bin")).expect("a link");
    around
}

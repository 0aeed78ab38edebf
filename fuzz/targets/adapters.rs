//! Files that are put on a model: adapters, and learnt words.

use std::sync::OnceLock;

use aquatint::formats::lora::{Lora, Strength};
use aquatint::formats::textual_inversion::TextualInversion;
use aquatint::models::clip_text::{ClipTextConfig, ClipTextOptions, clip_text_graph};
use aquatint::nn::Source;
use aquatint::text::{TextEncoder, TextEncoders, Tokenizer};
use aquatint::{DType, Graph, Target, Weights, passes};

use super::files::{SMALL, safetensors, zeros};
use super::plan;

/// Layers of each kind that a UNet has.
const UNET: &str = "\
conv_in.weight 8 4 3 3
conv_in.bias 8
time_embedding.linear_1.weight 16 8
time_embedding.linear_1.bias 16
down_blocks.0.resnets.0.conv1.weight 8 8 3 3
down_blocks.0.resnets.0.norm1.weight 8
down_blocks.0.resnets.0.time_emb_proj.weight 8 16
down_blocks.0.attentions.0.proj_in.weight 8 8 1 1
down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight 8 8
down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight 8 8
down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.bias 8
down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight 8 12
down_blocks.0.downsamplers.0.conv.weight 8 8 3 3
down_blocks.1.resnets.0.conv1.weight 16 8 3 3
mid_block.resnets.1.conv1.weight 16 16 3 3
mid_block.attentions.0.proj_in.weight 16 16
up_blocks.0.resnets.0.conv1.weight 16 32 3 3
up_blocks.0.upsamplers.0.conv.weight 16 16 3 3
up_blocks.1.resnets.1.conv_shortcut.weight 8 16 1 1
conv_out.weight 4 8 3 3
gain.weight";

const TEXT: &str = "\
text_model.embeddings.token_embedding.weight 24 8
text_model.embeddings.position_embedding.weight 7 8
text_model.encoder.layers.0.layer_norm1.weight 8
text_model.encoder.layers.0.layer_norm1.bias 8
text_model.encoder.layers.0.self_attn.q_proj.weight 8 8
text_model.encoder.layers.0.self_attn.q_proj.bias 8
text_model.encoder.layers.0.self_attn.k_proj.weight 8 8
text_model.encoder.layers.0.self_attn.k_proj.bias 8
text_model.encoder.layers.0.self_attn.v_proj.weight 8 8
text_model.encoder.layers.0.self_attn.v_proj.bias 8
text_model.encoder.layers.0.self_attn.out_proj.weight 8 8
text_model.encoder.layers.0.self_attn.out_proj.bias 8
text_model.encoder.layers.0.layer_norm2.weight 8
text_model.encoder.layers.0.layer_norm2.bias 8
text_model.encoder.layers.0.mlp.fc1.weight 16 8
text_model.encoder.layers.0.mlp.fc1.bias 16
text_model.encoder.layers.0.mlp.fc2.weight 8 16
text_model.encoder.layers.0.mlp.fc2.bias 8
text_model.final_layer_norm.weight 8
text_model.final_layer_norm.bias 8
text_projection.weight 8 8";

const T5: &str = "\
shared.weight 24 8
encoder.block.0.layer.0.SelfAttention.q.weight 8 8
encoder.block.0.layer.1.DenseReluDense.wi_0.weight 16 8
encoder.final_layer_norm.weight 8";

/// What a file is put on.
struct Model {
    unet: Weights,
    encoders: Vec<Weights>,
}

/// Parts with lines `---` between them: the tensors of a file, `adapter_config.json`, the file's metadata of PEFT, the
/// strengths for UNet and text with the number of encoders, more tensors of the UNet.
pub fn lora(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.split("---\n");
    let [tensors, config, metadata, strengths, more] = [0; 5].map(|_| parts.next().unwrap_or(""));
    let metadata = Some(("lora_adapter_metadata", metadata)).filter(|(_, text)| !text.trim().is_empty());
    let Some(file) = safetensors(tensors, metadata, SMALL) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("adapter.safetensors");
    std::fs::write(&path, file).expect("a temporary file");
    if !config.trim().is_empty() {
        std::fs::write(folder.path().join("adapter_config.json"), config).expect("a temporary file");
    }
    if let Ok(inversion) = TextualInversion::open(&path) {
        learn(&inversion);
    }
    let Ok(lora) = Lora::open(&path) else { return };
    let mut numbers = strengths.split_whitespace();
    let mut strength = || numbers.next().and_then(|word| word.parse().ok()).unwrap_or(1.0f32);
    let strength = Strength { unet: strength(), text: strength() };
    let count = numbers.next().and_then(|word| word.parse().ok()).unwrap_or(1usize).min(3);
    let Some(unet) = zeros(&format!("{UNET}\n{more}")) else { return };
    let encoder = |text| zeros(text).expect("sound lines");
    let mut model =
        Model { unet, encoders: [TEXT, TEXT, T5][..count].iter().map(|text| encoder(text)).collect() };
    let mut encoders: Vec<&mut Weights> = model.encoders.iter_mut().collect();
    let applied = lora.apply(&mut model.unet, &mut encoders, strength);
    let networks = || std::iter::once(&model.unet).chain(&model.encoders);
    let deltas =
        |weights: &Weights| -> usize { weights.names().iter().map(|name| weights.deltas(name).len()).sum() };
    match applied {
        Err(_) => assert_eq!(networks().map(deltas).sum::<usize>(), 0, "what is refused changes nothing"),
        Ok(applied) => {
            assert!(applied.layers > 0);
            let _ = applied.to_string();
            networks().for_each(built);
            if let (true, Some(text)) = (count == 1, model.encoders.first()) {
                encoder_of(text);
            }
        }
    }
}

/// All weights that have adapters, as layers read them.
fn built(weights: &Weights) {
    let mut g = Graph::new();
    let w = Source { weights, dtype: DType::F32 };
    let mut changed = 0;
    for name in weights.names() {
        let shape = weights.shape(name).expect("it is there").clone();
        for delta in weights.deltas(name) {
            assert_eq!(delta.change.size().iter().product::<usize>(), shape.elements(), "{name}");
            assert!(delta.scale.is_finite(), "{name}: {}", delta.scale);
            changed += 1;
        }
        if !weights.deltas(name).is_empty() {
            let weight = w.get(&mut g, name, &shape).expect("what was accepted can be built");
            g.output(name, weight);
        }
    }
    // Kernels take long to make, and are those of few adapters.
    match changed {
        0 => {}
        1..3 => plan(&g),
        _ => drop(passes::optimise(&g, &Target::typical()).expect("what was accepted can be built")),
    }
}

fn config() -> ClipTextConfig {
    ClipTextConfig {
        vocab_size: 24,
        hidden_size: 8,
        intermediate_size: 16,
        projection_dim: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: 7,
        ..ClipTextConfig::default()
    }
}

fn encoder_of(weights: &Weights) {
    let w = Source { weights, dtype: DType::F32 };
    let options = ClipTextOptions { skip: 0, normalise: true, pooled: true };
    let graph = clip_text_graph(&config(), w, [1, 7], options).expect("adapters change no shape");
    drop(passes::optimise(&graph, &Target::typical()).expect("adapters change no shape"));
}

/// Words of letters, small and large, and what a text begins and ends with.
fn tokenizer() -> Tokenizer {
    static MADE: OnceLock<Tokenizer> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let words = ["a", "b", "c", "t", "o", "y", "-", "a</w>", "b</w>", "c</w>", "t</w>", "y</w>", "ca"];
        let special = ["<|startoftext|>", "<|endoftext|>"];
        let vocabulary: serde_json::Map<String, serde_json::Value> = words
            .iter()
            .chain(&special)
            .enumerate()
            .map(|(i, word)| ((*word).to_owned(), i.into()))
            .collect();
        let text = serde_json::Value::Object(vocabulary).to_string();
        std::fs::write(folder.path().join("vocab.json"), text).expect("a temporary file");
        std::fs::write(folder.path().join("merges.txt"), "#version: 0.2\nc a\n").expect("a temporary file");
        Tokenizer::open(folder.path()).expect("a sound tokenizer")
    });
    made.clone()
}

/// Teaches two encoders the words of a file, and reads them in a text.
fn learn(inversion: &TextualInversion) {
    let encoder = || TextEncoder {
        config: config(),
        weights: zeros(TEXT).expect("sound lines"),
        tokenizer: tokenizer(),
    };
    let mut encoders = TextEncoders {
        encoders: vec![encoder(), encoder()],
        xl: true,
        clip_skip: 0,
        zeros_for_none: true,
        t5: None,
    };
    let Ok(words) = encoders.learn(inversion) else { return };
    for encoder in &encoders.encoders {
        for word in words.iter().map(String::as_str).chain(["a cat"]) {
            let tokens = encoder.tokenizer.tokens(&format!("a {word} toy")).expect("letters and words");
            let chunk = encoder.tokenizer.chunk(&tokens);
            assert_eq!(chunk.len(), encoder.tokenizer.length);
            encoder.config.embed(&encoder.weights, &chunk).expect("all tokens have vectors");
        }
    }
}

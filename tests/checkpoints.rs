//! Single-file checkpoints against the same weights in diffusers' folders (`scripts/references/ldm.py`, which has the
//! names read by diffusers' own loader).

mod hashed;

use std::collections::BTreeMap;
use std::path::Path;

use aquatint::diffusion::{Prediction, ScheduleConfig};
use aquatint::formats::ldm::{Blocks, Checkpoint, TextEncoderNames};
use aquatint::formats::mmdit::Sd3Checkpoint;
use aquatint::models::autoencoder_kl::AutoencoderKlConfig;
use aquatint::models::latent_conditions::Micro;
use aquatint::models::latent_diffusion::{Given, LatentDiffusion, Part};
use aquatint::models::sd3_transformer::Sd3TransformerConfig;
use aquatint::models::unet2d_condition::{Levels, UNet2dConditionConfig};
use aquatint::tasks::{NoiseSource, PaintOptions, Painter, Pipeline, StartFrom, Unsaid, Wish};
use aquatint::text::{TextEmbedding, Tokenizer};
use aquatint::{DType, Error, Tensor, Weights};
use hashed::{gpu, numbers, save, weight};
use safetensors::tensor::{Dtype, TensorView};

#[derive(serde::Deserialize)]
struct Model {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
    /// The file's name of a tensor, and those that it holds, one after the other.
    names: BTreeMap<String, Vec<String>>,
    /// Those of the file whose halves change places.
    #[serde(default)]
    swapped: Vec<String>,
}

fn models() -> BTreeMap<String, Model> {
    let path = format!("{}/tests/fixtures/checkpoints.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The hashed weights of models under the names of a checkpoint: what the shapes of the file must be, too.
fn checkpoint(path: &Path, parts: &[(&str, &Model)]) {
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (prefix, model) in parts {
        for (old, new) in &model.names {
            let mut shape = model.tensors[&new[0]].clone();
            shape[0] *= new.len();
            let mut values: Vec<f32> =
                new.iter().flat_map(|name| weight(name, &model.tensors[name])).collect();
            if old == "text_projection" {
                let (rows, columns) = (shape[0], shape[1]);
                values = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
                shape.swap(0, 1);
            }
            if model.swapped.contains(old) {
                let half = values.len() / 2;
                values.rotate_left(half);
            }
            if old.contains(".mid.attn_1.") && shape.len() == 2 || old.starts_with("mid.attn") {
                shape.extend([1, 1]);
            }
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.insert(format!("{prefix}{old}"), (shape, bytes));
        }
    }
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Weights of a model as its library saves them.
fn saved(folder: &Path, model: &Model) -> Weights {
    Weights::open(save(folder, &model.tensors, &BTreeMap::new(), &[])).unwrap()
}

fn same(found: &Weights, wanted: &Weights, tensors: &BTreeMap<String, Vec<usize>>) {
    assert_eq!(found.names(), wanted.names());
    for (name, shape) in tensors {
        let [found, wanted] = [found, wanted].map(|w| w.tensor(name, shape).unwrap());
        assert!(*found.bytes == *wanted.bytes, "{name}");
    }
}

/// The same tensors, configurations that build the same network, and the same latents to the last bit.
fn check(family: &str) {
    let Some(gpu) = gpu() else { return };
    let models = models();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut parts = vec![("model.diffusion_model.", &models[family]), ("first_stage_model.", &models["vae"])];
    if family == "xl" {
        parts.push(("conditioner.embedders.1.model.", &models["text"]));
    }
    checkpoint(&path, &parts);
    let file = Checkpoint::open(&path).unwrap();
    let [unet, vae] = [family, "vae"].map(|name| saved(folder.path(), &models[name]));
    same(&file.unet(), &unet, &models[family].tensors);
    same(&file.vae(), &vae, &models["vae"].tensors);
    for (names, text) in file.text_encoders() {
        assert_eq!(names, TextEncoderNames::OpenClip);
        same(&text, &saved(folder.path(), &models["text"]), &models["text"].tensors);
    }

    let single = LatentDiffusion::from_checkpoint("single", &file, Some("epsilon")).unwrap();
    let schedule = aquatint::diffusion::ScheduleConfig {
        class_name: Some("EulerDiscreteScheduler".to_owned()),
        timestep_spacing: Some("leading".to_owned()),
        ..aquatint::diffusion::ScheduleConfig::stable_diffusion()
    };
    let scaling = if family == "xl" { 0.13025 } else { 0.18215 };
    let vae_config = AutoencoderKlConfig {
        scaling_factor: scaling,
        ..AutoencoderKlConfig::from_json(&models["vae"].config.to_string()).unwrap()
    };
    let unet_config = UNet2dConditionConfig::from_json(&models[family].config.to_string()).unwrap();
    let whole = LatentDiffusion::new(
        "folder",
        Part { config: unet_config, weights: unet },
        Part { config: vae_config, weights: vae },
        &schedule,
    )
    .unwrap();
    let draw = |model: &LatentDiffusion| {
        let options = PaintOptions {
            height: 64,
            width: 48,
            steps: 3,
            guidance: 1.0,
            noise: NoiseSource::Cpu,
            ..PaintOptions::of(model)
        };
        let mut painter = Painter::new(gpu, model, 1, 4, StartFrom::Noise, &options).unwrap();
        let text = TextEmbedding {
            states: Tensor::from_f32([4, 12], &numbers("text", 48)),
            pooled: (family == "xl").then(|| Tensor::from_f32([32], &numbers("pooled", 32))),
        };
        let mut run = painter.start(&[Wish { text, negative: None }], &[3], None).unwrap();
        let pictures = run.pictures().unwrap();
        (run.latents().unwrap().to_f32(), pictures)
    };
    let (one, other) = (draw(&single), draw(&whole));
    assert!(one.0.iter().all(|v| v.is_finite()));
    assert_eq!(one, other);
}

#[test]
fn stable_diffusion_1() {
    check("one");
}

#[test]
fn stable_diffusion_2() {
    check("two");
}

#[test]
fn stable_diffusion_xl() {
    check("xl");
}

/// The same of Stable Diffusion 3, as part of a file and with the transformer alone under names of its own.
fn check_sd3(family: &str) {
    let Some(gpu) = gpu() else { return };
    let models = models();
    let folder = tempfile::tempdir().unwrap();
    let [transformer, vae] = [family, "vae"].map(|name| &models[name]);
    let [wanted, wanted_vae] = [transformer, vae].map(|model| saved(folder.path(), model));
    let mut files = Vec::new();
    for (i, prefix) in ["", "model.diffusion_model."].into_iter().enumerate() {
        let path = folder.path().join(format!("{i}.safetensors"));
        checkpoint(&path, &[(prefix, transformer), ("first_stage_model.", vae)]);
        let weights = Weights::open(&path).unwrap();
        assert!(!Checkpoint::is_one(&weights));
        let file = Sd3Checkpoint::new(weights).unwrap();
        same(&file.transformer(), &wanted, &transformer.tensors);
        same(&file.vae(), &wanted_vae, &vae.tensors);
        files.push(file);
    }
    let single = LatentDiffusion::from_sd3_checkpoint("single", &files[0]).unwrap();
    let schedule = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#;
    let vae_config = AutoencoderKlConfig {
        scaling_factor: 1.5305,
        shift_factor: Some(0.0609),
        ..AutoencoderKlConfig::from_json(&vae.config.to_string()).unwrap()
    };
    let whole = LatentDiffusion::new(
        "folder",
        Part {
            config: Sd3TransformerConfig::from_json(&transformer.config.to_string()).unwrap(),
            weights: wanted,
        },
        Part { config: vae_config, weights: wanted_vae },
        &ScheduleConfig::from_json(schedule).unwrap(),
    )
    .unwrap();
    let draw = |model: &LatentDiffusion| {
        let options = PaintOptions {
            height: 64,
            width: 48,
            steps: 3,
            guidance: 1.0,
            noise: NoiseSource::Cpu,
            ..PaintOptions::of(model)
        };
        let mut painter = Painter::new(gpu, model, 1, 4, StartFrom::Noise, &options).unwrap();
        let text = TextEmbedding {
            states: Tensor::from_f32([4, 12], &numbers("text", 48)),
            pooled: Some(Tensor::from_f32([10], &numbers("pooled", 10))),
        };
        let mut run = painter.start(&[Wish { text, negative: None }], &[3], None).unwrap();
        let pictures = run.pictures().unwrap();
        (run.latents().unwrap().to_f32(), pictures)
    };
    let (one, other) = (draw(&single), draw(&whole));
    assert!(one.0.iter().all(|v| v.is_finite()));
    assert_eq!(one, other);
}

#[test]
fn stable_diffusion_3() {
    check_sd3("sd3");
}

/// With norms of queries and keys, and a second attention.
#[test]
fn stable_diffusion_3_5() {
    check_sd3("sd35");
}

/// The encoders of text that some files have beside the transformer, and what is said of a file that has none.
#[test]
fn the_text_of_stable_diffusion_3() {
    let models = models();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("single.safetensors");
    let clip = &models["text"];
    // These have transformers' names already.
    let plain = plain(clip.config.clone(), clip.tensors.clone());
    let parts = [("model.diffusion_model.", &models["sd3"]), ("first_stage_model.", &models["vae"])];
    let text = ["text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer."]
        .map(|prefix| (prefix, &plain));
    checkpoint(&path, &[&parts[..], &text].concat());
    let found = Pipeline::open(&path, None).unwrap();
    let wanted = saved(folder.path(), clip);
    let [first, second] = &found.text.encoders[..] else { panic!("two encoders") };
    same(&second.weights, &wanted, &clip.tensors);
    assert_eq!([&*first.config.hidden_act, &*second.config.hidden_act], ["quick_gelu", "gelu"]);
    let projection = first.weights.tensor("text_projection.weight", &[32, 32]).unwrap().to_f32();
    assert!(projection.iter().enumerate().all(|(i, &v)| v == if i % 33 == 0 { 1.0 } else { 0.0 }));
    let t5 = found.text.t5.as_ref().unwrap();
    assert!(t5.encoder.is_none() && t5.width == 12 && found.model.schedule.flow.is_some());

    let path = folder.path().join("without.safetensors");
    checkpoint(&path, &parts);
    let error = Pipeline::open(&path, None).unwrap_err().to_string();
    assert!(error.contains("text_encoders.clip_l"), "{error}");
}

/// Tensors that have the same names in a single file.
fn plain(config: serde_json::Value, tensors: BTreeMap<String, Vec<usize>>) -> Model {
    let names = tensors.keys().map(|name| (name.clone(), vec![name.clone()])).collect();
    Model { config, tensors, names, swapped: Vec::new() }
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A small Stable Diffusion 3 whose encoders of text fit each other, T5 among them: transformer, autoencoder, three encoders.
fn whole_sd3() -> [Model; 5] {
    let mut models = models();
    let text: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(fixture("sd3.json")).unwrap()).unwrap();
    let mut transformer = models.remove("sd3").unwrap();
    for (name, width) in
        [("context_embedder.weight", 20), ("time_text_embed.text_embedder.linear_1.weight", 14)]
    {
        transformer.tensors.get_mut(name).unwrap()[1] = width;
    }
    transformer.config["joint_attention_dim"] = 20.into();
    transformer.config["pooled_projection_dim"] = 14.into();
    let [clip_l, clip_g, t5] = ["clip_l", "clip_g", "t5"].map(|name| {
        let part = &text["parts"][name];
        let mut config = part["config"].clone();
        let mut tensors: BTreeMap<String, Vec<usize>> =
            serde_json::from_value(part["tensors"].clone()).unwrap();
        if name != "t5" {
            // What a file does not say: CLIP's own vocabulary, heads of 64, its activations, and no projection of the first.
            let table =
                tensors.iter_mut().find(|(name, _)| name.ends_with("token_embedding.weight")).unwrap();
            table.1[0] = 49408;
            config["vocab_size"] = 49408.into();
            config["num_attention_heads"] = 1.into();
            config["eos_token_id"] = 49407.into();
            config["hidden_act"] = if name == "clip_l" { "quick_gelu" } else { "gelu" }.into();
        }
        if name == "clip_l" {
            tensors.remove("text_projection.weight");
        }
        plain(config, tensors)
    });
    [transformer, models.remove("vae").unwrap(), clip_l, clip_g, t5]
}

/// Its folder, as `save_pretrained` writes it, but for the tokenizers of CLIP.
fn write_sd3(folder: &Path, [transformer, vae, clip_l, clip_g, t5]: &[Model; 5]) -> Pipeline {
    let clip = "CLIPTextModelWithProjection";
    let index = serde_json::json!({
        "_class_name": "StableDiffusion3Pipeline",
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", clip],
        "text_encoder_2": ["transformers", clip],
        "text_encoder_3": ["transformers", "T5EncoderModel"],
    });
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    file("model_index.json", &index.to_string());
    let scheduler = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#;
    file("scheduler/scheduler_config.json", scheduler);
    let mut vae_config = vae.config.clone();
    vae_config["scaling_factor"] = 1.5305.into();
    vae_config["shift_factor"] = 0.0609.into();
    for (name, config, model) in [
        ("transformer", &transformer.config, transformer),
        ("vae", &vae_config, vae),
        ("text_encoder", &clip_l.config, clip_l),
        ("text_encoder_2", &clip_g.config, clip_g),
        ("text_encoder_3", &t5.config, t5),
    ] {
        file(&format!("{name}/config.json"), &config.to_string());
        let saved = save(&folder.join(name), &model.tensors, &BTreeMap::new(), &[]);
        let library = if name.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
        let path = folder.join(name).join(format!("{library}.safetensors"));
        std::fs::rename(saved, &path).unwrap();
        if name == "text_encoder" {
            // The projection that changes nothing.
            let width = clip_l.config["hidden_size"].as_u64().unwrap() as usize;
            let one = (0..width * width).map(|i| if i % (width + 1) == 0 { 1f32 } else { 0.0 });
            let one: Vec<u8> = one.flat_map(f32::to_le_bytes).collect();
            let bytes = std::fs::read(&path).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut tensors = file.tensors();
            let one = TensorView::new(Dtype::F32, vec![width, width], &one).unwrap();
            tensors.push(("text_projection.weight".to_owned(), one));
            let bytes = safetensors::serialize(tensors, None).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
    }
    for (number, from) in [("", "tokenizer"), ("_2", "tokenizer"), ("_3", "t5_tokenizer")] {
        copy(Path::new(&fixture(from)), &folder.join(format!("tokenizer{number}")));
    }
    let mut pipeline = Pipeline::open(folder, None).unwrap();
    for (encoder, pad) in pipeline.text.encoders.iter_mut().zip([None, Some("!")]) {
        encoder.tokenizer = Tokenizer::clip(pad).unwrap();
    }
    pipeline
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// From words to latents as the folder, to the last bit, with the tokenizer of T5 given or beside the file; without it
/// T5 is left out, which is said.
#[test]
fn t5_in_a_file_of_stable_diffusion_3() {
    let Some(gpu) = gpu() else { return };
    let models = whole_sd3();
    let folder = tempfile::tempdir().unwrap();
    let whole = write_sd3(&folder.path().join("whole"), &models);
    let [transformer, vae, clip_l, clip_g, t5] = &models;
    let path = folder.path().join("single.safetensors");
    let few = [
        ("model.diffusion_model.", transformer),
        ("first_stage_model.", vae),
        ("text_encoders.clip_l.transformer.", clip_l),
        ("text_encoders.clip_g.transformer.", clip_g),
    ];
    checkpoint(&path, &[&few[..], &[("text_encoders.t5xxl.transformer.", t5)]].concat());
    let draw = |Pipeline { model, text }: &Pipeline| {
        let prompts = [("a photograph of a red cat", Some("blurry"))];
        let [wanted, unwanted] = text.encode(gpu, &prompts, DType::F32).unwrap().remove(0);
        let tokens = wanted.states.desc.shape[0];
        let options = PaintOptions {
            height: 64,
            width: 48,
            steps: 2,
            guidance: 3.0,
            noise: NoiseSource::Cpu,
            ..PaintOptions::of(model)
        };
        let mut painter = Painter::new(gpu, model, 1, tokens, StartFrom::Noise, &options).unwrap();
        let mut run = painter.start(&[Wish { text: wanted, negative: Some(unwanted) }], &[3], None).unwrap();
        run.run().unwrap();
        run.latents().unwrap().to_f32()
    };
    let wanted = draw(&whole);
    let tokenizer = fixture("t5_tokenizer");
    let given = Unsaid { t5_tokenizer: Some(Path::new(&tokenizer)), ..Unsaid::default() };
    let single = Pipeline::open_with(&path, &given).unwrap();
    assert_eq!(draw(&single), wanted);

    let without = Pipeline::open(&path, None).unwrap();
    let left_out = |pipeline: &Pipeline| pipeline.text.t5.as_ref().unwrap().left_out.clone();
    let why = left_out(&without).unwrap();
    assert!(why.contains("tokenizer_3"), "{why}");
    assert_ne!(draw(&without), wanted);

    copy(Path::new(&tokenizer), &folder.path().join("tokenizer_3"));
    let beside = Pipeline::open(&path, None).unwrap();
    assert!(left_out(&beside).is_none() && left_out(&single).is_none() && left_out(&whole).is_none());
    assert_eq!(draw(&beside), wanted);

    // Numbers of a type that cannot be read: an error where T5 is asked for, else it is left out.
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(bytes[8..header].to_vec()).unwrap();
    let mark = "\"text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight\":{\"dtype\":\"";
    let at = 8 + text.find(mark).unwrap() + mark.len();
    bytes[at..at + 3].copy_from_slice(b"I32");
    let odd = folder.path().join("odd.safetensors");
    std::fs::write(&odd, bytes).unwrap();
    let error = Pipeline::open_with(&odd, &given).unwrap_err().to_string();
    let why = left_out(&Pipeline::open(&odd, None).unwrap()).unwrap();
    assert!(error.contains("final_layer_norm") && why.contains("final_layer_norm"), "{error}, {why}");

    // A tokenizer for nothing.
    checkpoint(&path, &few);
    assert!(left_out(&Pipeline::open(&path, None).unwrap()).is_none());
    for path in [&path, &folder.path().join("whole")] {
        let error = Pipeline::open_with(path, &given).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("T5"), "{error}");
    }
}

/// Names of the UNet's tensors in checkpoints, from those that they have in folders.
#[test]
fn names_are_found_both_ways() {
    let models = models();
    let folder = tempfile::tempdir().unwrap();
    for family in ["one", "two", "xl"] {
        let unet = saved(folder.path(), &models[family]);
        let blocks = Blocks::of_unet(&unet);
        assert_eq!(blocks.layers.len(), 2);
        for (old, new) in &models[family].names {
            assert_eq!(blocks.checkpoint_name(&new[0], &unet).as_ref(), Some(old), "{family}");
        }
        assert_eq!(blocks.checkpoint_name("up_blocks.7.resnets.0.conv1.weight", &unet), None);
    }
}

/// SDXL's refiner by how much it is told beside the text, the ×4 upscaler by its classes.
#[test]
fn families_are_told_by_their_tensors() {
    let mut models = models();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");

    let refiner = models.get_mut("xl").unwrap();
    // Five numbers of eight waves each.
    refiner.tensors.get_mut("add_embedding.linear_1.weight").unwrap()[1] = 32 + 5 * 8;
    let parts = [("model.diffusion_model.", "xl"), ("first_stage_model.", "vae")];
    let text = ("conditioner.embedders.0.model.", "text");
    let write = |models: &BTreeMap<String, Model>, parts: &[(&str, &str)]| {
        let parts: Vec<_> = parts.iter().map(|(prefix, name)| (*prefix, &models[*name])).collect();
        checkpoint(&path, &parts);
        LatentDiffusion::from_checkpoint("single", &Checkpoint::open(&path).unwrap(), None)
    };
    let model = write(&models, &[&parts[..], &[text]].concat()).unwrap();
    assert_eq!(model.micro, Micro::Beauty);
    assert_eq!(model.denoiser.config.unet().unwrap().addition_time_embed_dim, Some(8));
    assert_eq!(model.denoiser.config.unet().unwrap().projection_class_embeddings_input_dim, Some(72));
    assert_eq!(model.vae.config.scaling()[0], 0.13025);
    assert_eq!(model.schedule.prediction, Prediction::Epsilon);
    // Without its encoder of text the numbers mean nothing.
    let error = write(&models, &parts).unwrap_err().to_string();
    assert!(error.contains("72 numbers") && error.contains("2560"), "{error}");

    let upscaler = models.get_mut("two").unwrap();
    upscaler.tensors.get_mut("conv_in.weight").unwrap()[1] = 7;
    upscaler.tensors.insert("class_embedding.weight".to_owned(), vec![1000, 256]);
    // Its transformers but the deepest look at the text alone.
    for (name, shape) in &mut upscaler.tensors {
        if !name.starts_with("mid_block") && (name.contains("attn1.to_k") || name.contains("attn1.to_v")) {
            shape[1] = 12;
        }
    }
    upscaler.names.insert("label_emb.weight".to_owned(), vec!["class_embedding.weight".to_owned()]);
    let model = write(&models, &[("model.diffusion_model.", "two"), parts[1]]).unwrap();
    assert_eq!(model.given().unwrap(), Given::Small);
    assert_eq!(model.low_resolution.as_ref().unwrap().max_noise_level, 350);
    assert_eq!(model.denoiser.config.unet().unwrap().num_class_embeds, Some(1000));
    assert_eq!(model.denoiser.config.unet().unwrap().attention_head_dim, Levels::Each(vec![8, 8]));
    assert_eq!(model.denoiser.config.unet().unwrap().only_cross_attention, Levels::Each(vec![true, false]));
    assert_eq!(model.vae.config.scaling()[0], 0.08333);
    assert_eq!(model.schedule.prediction, Prediction::V);
    assert!((model.schedule.alphas_cumprod[0] - (1.0 - 0.0001)).abs() < 1e-12);
}

#[test]
fn what_is_cut_is_said() {
    let models = models();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    checkpoint(&path, &[("first_stage_model.", &models["vae"])]);
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("input_blocks.0.0.weight"), "{error}");

    // One tensor is gone, another of another shape: both are named.
    let mut model = self::models().remove("one").unwrap();
    model.names.retain(|old, _| old != "out.0.bias");
    model.tensors.get_mut("conv_out.bias").unwrap()[0] += 1;
    let parts = [("model.diffusion_model.", &model), ("first_stage_model.", &models["vae"])];
    checkpoint(&path, &parts);
    let file = Checkpoint::open(&path).unwrap();
    let error = LatentDiffusion::from_checkpoint("cut", &file, None).unwrap_err();
    assert!(matches!(&error, Error::Tensors { wrong, .. } if wrong.len() == 2), "{error}");
    let message = error.to_string();
    assert!(message.contains("conv_norm_out.bias") && message.contains("conv_out.bias"), "{message}");

    // A distilled UNet: nothing in the middle.
    let mut model: Model = models.into_iter().find(|(name, _)| name == "one").unwrap().1;
    model.names.retain(|old, _| !old.starts_with("middle_block.1."));
    checkpoint(&path, &[("model.diffusion_model.", &model)]);
    let file = Checkpoint::open(&path).unwrap();
    let error = LatentDiffusion::from_checkpoint("cut", &file, None).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. } | Error::MissingTensor { .. }), "{error}");
}

//! What files may hold, and what is said of others.

use std::collections::BTreeMap;

use aquatint::models::autoencoder_tiny::AutoencoderTinyConfig;
use aquatint::models::controlnet::ControlNetConfig;
use aquatint::models::latent_diffusion::Part;
use aquatint::models::unet2d_condition::Levels;

use super::hashed::save;
use super::{control, fixture, path, tiny};

#[test]
fn what_is_not_supported_is_named() {
    for (text, named) in [
        (r#"{"act_fn": "mish"}"#, "act_fn of a ControlNetModel"),
        (r#"{"conditioning_channels": 6}"#, "conditioning_channels"),
        (r#"{"conditioning_embedding_out_channels": []}"#, "conditioning_embedding_out_channels"),
        (r#"{"controlnet_conditioning_channel_order": "gbr"}"#, "gbr"),
        (r#"{"class_embed_type": "timestep"}"#, "class_embed_type"),
        (r#"{"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}"#, "UNetMidBlock2DSimpleCrossAttn"),
        (r#"{"_class_name": "ControlNetUnionModel"}"#, "ControlNetUnionModel"),
    ] {
        let error = ControlNetConfig::from_json(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    for (text, named) in [
        (r#"{"act_fn": "gelu"}"#, "act_fn of an AutoencoderTiny"),
        (r#"{"upsample_fn": "bilinear"}"#, "upsample_fn"),
        (r#"{"upsampling_scaling_factor": 3}"#, "upsampling_scaling_factor"),
        (r#"{"num_decoder_blocks": [3, 3]}"#, "decoder_block_out_channels"),
        (r#"{"encoder_block_out_channels": [64, 64, 64, 32]}"#, "encoder_block_out_channels"),
        (r#"{"latent_magnitude": 0}"#, "latent_magnitude"),
        (r#"{"_class_name": "AutoencoderKL"}"#, "AutoencoderKL"),
    ] {
        let error = AutoencoderTinyConfig::from_json(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

/// Tensors and what they tell of the network are those of the folder; heads are those of the published models.
#[test]
fn a_single_file_with_a_control() {
    let described = &fixture().networks["sd1"];
    let wanted = control("sd1");
    let folder = tempfile::tempdir().unwrap();
    let diffusers = save(folder.path(), &described.tensors, &BTreeMap::new(), &[]);
    let bytes = std::fs::read(&diffusers).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let old = described.checkpoint.as_ref().unwrap();
    let checkpoint = |prefix: &str| {
        let views = described.tensors.keys().zip(old);
        let views = views.map(|(name, old)| (format!("{prefix}{old}"), all.tensor(name).unwrap()));
        let path = folder.path().join(format!("{prefix}checkpoint.safetensors"));
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        path
    };
    for path in [checkpoint("control_model."), checkpoint(""), diffusers.into()] {
        let found = Part::<ControlNetConfig>::open(path).unwrap();
        assert_eq!(found.weights.names(), wanted.weights.names());
        for (name, shape) in &described.tensors {
            let [found, wanted] = [&found, &wanted].map(|part| part.weights.tensor(name, shape).unwrap());
            assert!(*found.bytes == *wanted.bytes, "{name}");
        }
        let (found, wanted) = (found.config, &wanted.config);
        assert_eq!(found.conditioning_embedding_out_channels, wanted.conditioning_embedding_out_channels);
        let (found, wanted) = (found.unet, &wanted.unet);
        assert_eq!(found.block_out_channels, wanted.block_out_channels);
        assert_eq!(found.down_block_types, wanted.down_block_types);
        assert_eq!(found.cross_attention_dim, wanted.cross_attention_dim);
        assert_eq!(found.layers_per_block, Levels::Each(vec![2; 4]));
        assert_eq!(found.attention_head_dim, Levels::Each(vec![8; 4]));
        assert!(!found.use_linear_projection);
    }
    let error = Part::<ControlNetConfig>::open(path("upscale_x2.safetensors")).unwrap_err().to_string();
    assert!(error.contains("controlnet_cond_embedding.conv_in.weight"), "{error}");
}

/// The decoder alone, and both halves, under the names of TAESD's own code.
#[test]
fn a_file_of_taesd() {
    let described = &fixture().networks["tiny"];
    let wanted = tiny("tiny");
    let folder = tempfile::tempdir().unwrap();
    let old = |name: &str, decoder: &str, encoder: Option<&str>| -> Option<String> {
        let (half, rest) = name.split_once(".layers.")?;
        let (layer, rest) = rest.split_once('.')?;
        let layer: usize = layer.parse().unwrap();
        match half {
            "decoder" => Some(format!("{decoder}{}.{rest}", layer + 1)),
            _ => Some(format!("{}{layer}.{rest}", encoder?)),
        }
    };
    for (decoder, encoder) in
        [("", None), ("taesd_decoder.", Some("taesd_encoder.")), ("decoder.", Some("encoder."))]
    {
        let bytes = std::fs::read(save(folder.path(), &described.tensors, &BTreeMap::new(), &[])).unwrap();
        let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let renamed: Vec<_> =
            all.iter().filter_map(|(name, view)| Some((old(name, decoder, encoder)?, view))).collect();
        let file = folder.path().join("taesd_decoder.safetensors");
        std::fs::write(&file, safetensors::serialize(renamed, None).unwrap()).unwrap();
        let found = Part::<AutoencoderTinyConfig>::open(&file).unwrap();
        assert_eq!(found.config.latent_channels, 4);
        assert_eq!(found.config.out_channels, 3);
        assert_eq!(found.config.num_decoder_blocks, wanted.config.num_decoder_blocks);
        assert_eq!(found.config.num_encoder_blocks, wanted.config.num_encoder_blocks);
        assert_eq!(found.config.decoder_block_out_channels, wanted.config.decoder_block_out_channels);
        for (name, shape) in &described.tensors {
            if encoder.is_some() || name.starts_with("decoder") {
                let [found, wanted] = [&found, &wanted].map(|part| part.weights.tensor(name, shape).unwrap());
                assert!(*found.bytes == *wanted.bytes, "{name}");
            }
        }
    }

    let cut: BTreeMap<_, _> = described
        .tensors
        .iter()
        .filter(|(name, _)| name.starts_with("decoder.layers.0.") || name.starts_with("decoder.layers.2."))
        .map(|(name, shape)| (name.clone(), shape.clone()))
        .collect();
    for (tensors, says) in
        [(cut, "layer 4"), (BTreeMap::from([("0.weight".to_owned(), vec![4, 3, 3, 3])]), "decoder")]
    {
        let file = save(folder.path(), &tensors, &BTreeMap::new(), &[]);
        let error = Part::<AutoencoderTinyConfig>::open(&file).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

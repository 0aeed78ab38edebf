//! Files of adapters from strangers: what belongs to nothing is named, what does not fit is refused by name, and then
//! nothing is changed.

mod hashed;

use std::path::Path;

use aquatint::formats::lora::{Applied, Lora};
use aquatint::{Error, Weights};
use hashed::numbers;
use safetensors::tensor::{Dtype, TensorView};

type Tensors<'a> = &'a [(&'a str, &'a [usize])];

fn write(path: &Path, tensors: &[(&str, &[usize], Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(.., v)| v.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A network of two layers, named as those of a UNet.
fn two_layers(folder: &Path) -> Weights {
    let path = folder.join("two.safetensors");
    save(&path, &[("conv_in.weight", &[5, 3, 3, 2]), ("conv_in.bias", &[5]), ("a.b_c.weight", &[7, 5])]);
    Weights::open(path).unwrap()
}

fn save(path: &Path, tensors: Tensors) {
    let tensors: Vec<_> =
        tensors.iter().map(|&(name, shape)| (name, shape, numbers(name, shape.iter().product()))).collect();
    write(path, &tensors);
}

/// What becomes of a file of these tensors on the network of two layers.
fn applied(tensors: Tensors) -> Result<(Applied, Weights), Error> {
    let folder = tempfile::tempdir().unwrap();
    let mut weights = two_layers(folder.path());
    let path = folder.path().join("adapter.safetensors");
    save(&path, tensors);
    let names: Vec<String> = weights.names().into_iter().map(str::to_owned).collect();
    match Lora::open(&path)?.apply(&mut weights, &mut [], 1.0) {
        Ok(applied) => Ok((applied, weights)),
        Err(error) => {
            assert!(names.iter().all(|name| weights.deltas(name).is_empty()), "{error}");
            Err(error)
        }
    }
}

const DOWN: (&str, &[usize]) = ("unet.a.b_c.lora_A.weight", &[2, 5]);
const UP: (&str, &[usize]) = ("unet.a.b_c.lora_B.weight", &[7, 2]);

#[test]
fn what_belongs_to_nothing_is_named() {
    let (found, weights) = applied(&[
        DOWN,
        UP,
        ("unet.x.lora_A.weight", &[2, 5]),
        ("lora_te_a_b_c.lora_up.weight", &[7, 2]),
        ("unet.x.lora_B.bias", &[3]),
        ("note", &[1]),
    ])
    .unwrap();
    let unmatched = ["lora_te_a_b_c.lora_up.weight", "note", "unet.x.lora_A.weight", "unet.x.lora_B.bias"]
        .map(str::to_owned);
    assert_eq!(found, Applied { layers: 1, unmatched: unmatched.to_vec() });
    assert!(found.to_string().contains("1 layers changed; 4 tensors") && found.to_string().contains("note"));
    assert_eq!((weights.deltas("a.b_c.weight").len(), weights.deltas("conv_in.weight").len()), (1, 0));

    let error = applied(&[("unet.x.lora_A.weight", &[2, 5]), ("unet.x.lora_B.weight", &[7, 2])]).unwrap_err();
    assert!(matches!(error, Error::Format { .. }) && error.to_string().contains("unet.x.lora_A"), "{error}");
    let error = applied(&[("a.b_c.weight", &[7, 5])]).unwrap_err();
    assert!(matches!(error, Error::Format { .. }) && error.to_string().contains("no adapter"), "{error}");
    // A layer under both of its names counts once.
    let (found, weights) = applied(&[
        ("lora_unet_conv_in.diff", &[5, 3, 3, 2]),
        ("lora_unet_input_blocks_0_0.diff", &[5, 3, 3, 2]),
    ])
    .unwrap();
    assert_eq!(
        (found.layers, found.unmatched.as_slice()),
        (1, &["lora_unet_input_blocks_0_0.diff".to_owned()][..])
    );
    assert_eq!(weights.deltas("conv_in.weight").len(), 1);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let wrong = |tensors: Tensors, named: &str, expected: &str, found: &str| match applied(tensors) {
        Err(Error::WrongTensor { name, expected: e, found: f, .. }) => {
            assert_eq!((name.as_str(), e.as_str(), f.as_str()), (named, expected, found));
        }
        other => panic!("{named}: {other:?}"),
    };
    wrong(&[DOWN, (UP.0, &[8, 2])], UP.0, "shape [7, 2]", "shape [8, 2]");
    wrong(&[(DOWN.0, &[2, 6]), UP], DOWN.0, "shape [2, 5]", "shape [2, 6]");
    wrong(&[(DOWN.0, &[3, 5]), UP], DOWN.0, "shape [2, 5]", "shape [3, 5]");
    wrong(&[(DOWN.0, &[2, 5, 3, 3]), UP], DOWN.0, "shape [2, 5]", "shape [2, 5, 3, 3]");
    wrong(&[DOWN, (UP.0, &[7, 2, 3])], UP.0, "a matrix", "shape [7, 2, 3]");
    wrong(&[DOWN, (UP.0, &[])], UP.0, "shape [7, 1]", "shape []");
    let rank = "a rank of 1 or more, and no empty axis";
    wrong(&[(DOWN.0, &[0, 5]), (UP.0, &[7, 0])], DOWN.0, rank, "shape [0, 5]");
    wrong(&[DOWN, UP, ("unet.a.b_c.alpha", &[2])], "unet.a.b_c.alpha", "one number", "shape [2]");
    wrong(
        &[("unet.conv_in.diff", &[5, 3, 2, 3])],
        "unet.conv_in.diff",
        "shape [5, 3, 3, 2]",
        "shape [5, 3, 2, 3]",
    );
    let bias = "no such tensor, as the model has no a.b_c.bias";
    wrong(&[("unet.a.b_c.diff_b", &[7])], "unet.a.b_c.diff_b", bias, "shape [7]");
    let mid = "unet.conv_in.lora_mid.weight";
    let kernel: [(&str, &[usize]); 2] =
        [("unet.conv_in.lora_down.weight", &[4, 3, 1, 1]), ("unet.conv_in.lora_up.weight", &[5, 2, 1, 1])];
    wrong(&[kernel[0], kernel[1], (mid, &[2, 4, 2, 3])], mid, "shape [2, 4, 3, 2]", "shape [2, 4, 2, 3]");
    wrong(&[kernel[0], kernel[1], (mid, &[2, 3, 3, 2])], mid, "shape [2, 4, 3, 2]", "shape [2, 3, 3, 2]");
    let lokr: [(&str, &[usize]); 2] = [("unet.a.b_c.lokr_w1", &[7, 1]), ("unet.a.b_c.lokr_w2", &[1, 4])];
    wrong(&lokr, lokr[0].0, "[7, 5] of both factors together", "[7, 4]");
}

#[test]
fn halves_that_are_missing_are_named() {
    let missing = |tensors: Tensors, named: &str| match applied(tensors) {
        Err(Error::MissingTensor { name, .. }) => assert_eq!(name, named),
        other => panic!("{named}: {other:?}"),
    };
    missing(&[DOWN], UP.0);
    missing(&[UP], DOWN.0);
    missing(&[("lora_unet_a_b_c.lora_up.weight", &[7, 2])], "lora_unet_a_b_c.lora_down.weight");
    missing(&[("unet.a.b_c.lora.down.weight", &[2, 5])], "unet.a.b_c.lora.up.weight");
    missing(&[("unet.a.b_c.hada_w1_a", &[7, 2])], "unet.a.b_c.hada_w1_b");
    let hada: [(&str, &[usize]); 2] = [("unet.a.b_c.hada_w1_a", &[7, 2]), ("unet.a.b_c.hada_w1_b", &[2, 5])];
    missing(&hada, "a.b_c, hada_w2_a");
    missing(&[("unet.a.b_c.lokr_w1", &[7, 1])], "unet.a.b_c.lokr_w2");
    missing(&[("unet.a.b_c.alpha", &[])], "a.b_c, down");
}

#[test]
fn what_is_not_supported_is_refused() {
    let unsupported = |tensors: Tensors, says: &str| {
        let error = applied(tensors).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(says), "{error}");
    };
    unsupported(&[DOWN, UP, ("unet.a.b_c.dora_scale", &[1, 5])], "DoRA");
    unsupported(&[DOWN, UP, ("unet.a.b_c.lora_magnitude_vector", &[7])], "DoRA");
    unsupported(&[DOWN, UP, ("unet.a.b_c.lora_B.bias", &[7])], "unet.a.b_c.lora_B.bias");
    unsupported(&[DOWN, UP, ("lora_unet_conv_in.oft_blocks", &[7])], "oft_blocks");
    let error = applied(&[DOWN, UP, ("lora_unet_a_b_c.lora_up.weight", &[7, 2])]).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");

    // Numbers that are none, and alpha of another type.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.safetensors");
    let mut weights = two_layers(folder.path());
    for alpha in [f32::NAN, f32::INFINITY] {
        let values =
            |key: (&'static str, &'static [usize])| (key.0, key.1, numbers(key.0, key.1.iter().product()));
        write(&path, &[values(DOWN), values(UP), ("unet.a.b_c.alpha", &[], vec![alpha])]);
        let error = Lora::open(&path).unwrap().apply(&mut weights, &mut [], 1.0).unwrap_err();
        assert!(matches!(&error, Error::WrongTensor { name, .. } if name == "unet.a.b_c.alpha"), "{error}");
    }
    let views = [("unet.a.b_c.alpha", TensorView::new(Dtype::I64, vec![], &[0; 8]).unwrap())];
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    assert!(matches!(Lora::open(&path).unwrap_err(), Error::WrongTensor { .. }));
    save(&path, &[DOWN, UP]);
    let error = Lora::open(&path).unwrap().apply(&mut weights, &mut [], f32::NAN).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

/// Files of PEFT alone say neither which network they are for, nor, in themselves, alpha.
#[test]
fn settings_beside_files_of_peft() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter_model.safetensors");
    let mut weights = two_layers(folder.path());
    let tensors: [(&str, &[usize]); 2] = [
        ("base_model.model.a.b_c.lora_A.weight", &[4, 5]),
        ("base_model.model.a.b_c.lora_B.weight", &[7, 4]),
    ];
    save(&path, &tensors);
    let mut scale = |settings: Option<&str>| -> Result<f32, Error> {
        let beside = folder.path().join("adapter_config.json");
        match settings {
            Some(text) => std::fs::write(&beside, text).unwrap(),
            None => drop(std::fs::remove_file(&beside)),
        }
        weights = weights.without_adapters();
        Lora::open(&path)?.apply(&mut weights, &mut [], 1.0)?;
        Ok(weights.deltas("a.b_c.weight")[0].scale)
    };
    assert_eq!(scale(None).unwrap(), 1.0);
    assert_eq!(scale(Some(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8}"#)).unwrap(), 2.0);
    assert_eq!(scale(Some(r#"{"lora_alpha": 8, "use_rslora": true, "alpha_pattern": {}}"#)).unwrap(), 4.0);
    let error = scale(Some(r#"{"lora_alpha": 8, "use_dora": true}"#)).unwrap_err().to_string();
    assert!(error.contains("DoRA") && error.contains("adapter_config.json"), "{error}");
    assert!(matches!(scale(Some("{")).unwrap_err(), Error::Format { .. }));
}

//! An ONNX file as a network that reads pictures.

use std::path::Path;

use super::{Dim, OnnxModel};
use crate::error::{Error, Result};
use crate::models::vision::{Filter, Fit, Preprocess, VisionModel};

/// A network whose one input is a picture `[n, c, h, w]` with one or three channels. `size` is the
/// height and width where the file leaves them open; without it pictures are taken as they come.
///
/// An output of two dimensions is called `logits`; one of four `picture` if it has the input's
/// number of channels and else `map`; others keep their names. Files say nothing of how
/// pictures are prepared: what networks trained on ImageNet want is assumed where there are logits,
/// values from 0 to 1 elsewhere, and `preprocess` can be changed.
///
/// # Errors
/// Those of [`OnnxModel::open`] and [`OnnxModel::graph`], and [`Error::Invalid`] for inputs that are no picture.
pub fn vision_model(path: &Path, size: Option<[usize; 2]>) -> Result<VisionModel> {
    let model = OnnxModel::open(path)?;
    let found = |found: String| Error::Invalid {
        what: format!("input of {}", path.display()),
        expected: "one picture [n, c, h, w] with one or three channels".to_owned(),
        found,
    };
    let [port] = model.inputs() else {
        return Err(found(format!("{} inputs", model.inputs().len())));
    };
    let dims = match port.shape.as_deref() {
        Some([n, c @ Dim::Fixed(1 | 3), h, w]) => [n, c, h, w],
        shape => return Err(found(format!("{shape:?}"))),
    };
    let fixed = dims.map(|d| match d {
        Dim::Fixed(n) => Some(*n),
        Dim::Open(_) => None,
    });
    let [batch, channels, height, width] = fixed;
    let channels = channels.unwrap_or(3);
    let size = match (height, width) {
        (Some(h), Some(w)) => Some([h, w]),
        _ => size,
    };
    // Built once, so that what is not supported is said when the file is opened.
    let [h, w] = size.unwrap_or([64, 64]);
    let mut trial = crate::graph::Graph::new();
    let x = trial.input("x", [batch.unwrap_or(1), h, w, channels], crate::tensor::DType::F32);
    let classifies = model.build(&mut trial, x)?.iter().any(|(_, id)| trial.shape(*id).len() == 2);

    let of = |three: [f32; 3], one: f32| if channels == 3 { three.to_vec() } else { vec![one] };
    let (mean, std) = match classifies {
        true => (of([0.485, 0.456, 0.406], 0.5), of([0.229, 0.224, 0.225], 0.5)),
        false => (vec![0.0; channels], vec![1.0; channels]),
    };
    let preprocess = Preprocess {
        size,
        multiple: 1,
        fit: if classifies { Fit::Crop { portion: 0.875 } } else { Fit::Stretch },
        filter: Filter::Bilinear,
        mean,
        std,
        light_on_dark: false,
    };
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut vision = VisionModel::new(&name, preprocess, Vec::new(), move |g, x| {
        let mut outputs = model.build(g, x)?;
        for (name, id) in &mut outputs {
            let shape = g.shape(*id);
            let usual = match shape.len() {
                2 => "logits",
                4 if shape.last() == channels => "picture",
                4 => "map",
                _ => continue,
            };
            *name = usual.to_owned();
        }
        Ok(outputs)
    });
    vision.batch = batch;
    Ok(vision)
}

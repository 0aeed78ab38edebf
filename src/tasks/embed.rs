//! Pictures as vectors: what a layer of a network makes of them.

use image::RgbImage;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, Source, ValueId};
use crate::models::vision::VisionModel;
use crate::ops::Op;
use crate::ops::pool::PoolKind;
use crate::tasks::sized::{SizedNetworks, invalid};
use crate::tensor::DType;

/// Appends a network as far as a layer: from `pictures` `[n, h, w]` (u32, red in the lowest byte) to `[n, features]`.
/// `layer` names a value of the network's graph, of several of that name the last; without one it is the output
/// `embedding`, or what the last linear layer reads. A feature map is averaged over its pixels.
///
/// # Errors
/// Those of the network, [`Error::Unknown`] for a layer that is not there, and [`Error::Invalid`] for one that does not have
/// a row for each picture.
pub fn embed(g: &mut Graph, model: &VisionModel, pictures: ValueId, layer: Option<&str>) -> Result<ValueId> {
    let x = model.preprocess.append(g, pictures, DType::F32)?;
    embed_prepared(g, model, x, layer)
}

/// As [`embed`], from pictures that are prepared already: `[n, h, w, c]`.
///
/// # Errors
/// Those of [`embed`].
pub fn embed_prepared(
    g: &mut Graph,
    model: &VisionModel,
    x: ValueId,
    layer: Option<&str>,
) -> Result<ValueId> {
    let n = g.shape(x)[0];
    let first = g.values().count();
    let outputs = model.build(g, x)?;
    let computed = |g: &Graph| -> Vec<(ValueId, String)> {
        let constant = g.constants();
        let own = g
            .values()
            .skip(first)
            .filter(|(id, v)| matches!(v.source, Source::Op { .. }) && !constant[id.index()]);
        own.map(|(id, v)| (id, v.name.clone())).collect()
    };
    let value = match layer {
        Some(name) => {
            let output = outputs.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
            let named = computed(g);
            let value = named.iter().rev().find(|(_, n)| n == name).map(|(id, _)| *id);
            value.or(output).ok_or_else(|| {
                let mut names: Vec<&str> = named.iter().map(|(_, n)| n.as_str()).collect();
                names.dedup();
                Error::Unknown { what: "layer", found: name.to_owned(), expected: names.join(", ") }
            })?
        }
        None => match outputs.iter().find(|(n, _)| n == "embedding") {
            Some((_, value)) => *value,
            None => before_last_linear(g, first).unwrap_or(outputs.last().map_or(x, |(_, value)| *value)),
        },
    };
    let mut value = g.cast(value, DType::F32)?;
    if g.shape(value).len() == 4 {
        value = g.global_pool(value, PoolKind::Mean { include_pad: false })?;
    }
    let shape = g.shape(value).clone();
    if shape.first() != Some(&n) {
        let found = format!("{shape} of \"{}\"", layer.unwrap_or("the last layer"));
        return Err(invalid("layer", &format!("a row for each of {n} pictures"), found));
    }
    g.reshape(value, [n, shape.elements() / n])
}

/// What the last linear layer reads: a product with a weight, or a convolution of 1×1 over single pixels, which is the same.
fn before_last_linear(g: &Graph, first: usize) -> Option<ValueId> {
    let constant = g.constants();
    let linear = g.values().skip(first).filter_map(|(id, v)| match &v.source {
        Source::Op { op, inputs } if !constant[id.index()] => {
            let weighted = inputs.get(1).is_some_and(|weight| constant[weight.index()]);
            let linear = match op {
                Op::Matmul(_) => true,
                Op::Conv2d(conv) => conv.kernel == [1, 1] && g.shape(inputs[0])[1..3] == [1, 1],
                _ => false,
            };
            (weighted && linear).then_some(inputs[0])
        }
        _ => None,
    });
    let value = linear.last()?;
    // A reshape that only makes rows into pixels is looked through.
    match &g.value(value).source {
        Source::Op { op: Op::Reshape(_), inputs } if g.shape(inputs[0]).len() == 2 => Some(inputs[0]),
        _ => Some(value),
    }
}

/// A network that turns pictures into vectors, on a device.
#[derive(Debug)]
pub struct Embedder {
    model: VisionModel,
    layer: Option<String>,
    networks: SizedNetworks,
}

impl Embedder {
    /// At most `batch` pictures of one size are read at a time; `layer` as in [`embed`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a batch of zero.
    pub fn new(gpu: &Gpu, model: VisionModel, layer: Option<&str>, batch: usize) -> Result<Self> {
        let batch = model.batch.unwrap_or(batch);
        Ok(Embedder { model, layer: layer.map(str::to_owned), networks: SizedNetworks::new(gpu, batch)? })
    }

    pub fn model(&self) -> &VisionModel {
        &self.model
    }

    /// A vector for each picture.
    ///
    /// # Errors
    /// Those of [`embed`]; [`Error::Invalid`] for an empty picture, [`Error::Limit`] for one that the device cannot hold.
    pub fn embed(&mut self, pictures: &[RgbImage]) -> Result<Vec<Vec<f32>>> {
        let (model, layer) = (&self.model, self.layer.as_deref());
        let results = self.networks.run(pictures, &|n, [height, width]| {
            let mut g = Graph::new();
            let pictures = g.input("pictures", [n, height, width], DType::U32);
            let vectors = embed(&mut g, model, pictures, layer)?;
            g.output("vectors", vectors);
            Ok(g)
        })?;
        Ok(results.iter().map(|outputs| outputs[0].to_f32()).collect())
    }
}

/// Cosine of the angle between two vectors, −1 to 1; 0 if one is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths).clamp(-1.0, 1.0) } else { 0.0 }
}

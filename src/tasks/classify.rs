//! Names out of pictures.

use image::RgbImage;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::letters;
use crate::models::vision::VisionModel;
use crate::plan::Plan;
use crate::tasks::sized::{SizedNetworks, class_names, invalid, wanted};
use crate::tensor::DType;

/// A label and how sure the classifier is of it, 0 to 1.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Answer {
    pub label: String,
    pub probability: f32,
}

/// Appends a classifier to a graph: from `pictures` `[n, h, w]` (u32, red in the lowest byte) to the
/// probabilities of its classes, `[n, classes]`.
///
/// # Errors
/// Those of the network, and [`crate::Error::Invalid`] for one without `logits`.
pub fn classify(g: &mut Graph, model: &VisionModel, pictures: ValueId) -> Result<ValueId> {
    let x = model.preprocess.append(g, pictures, DType::F32)?;
    classify_prepared(g, model, x)
}

/// As [`classify`], from pictures that are prepared already: `[n, h, w, c]`.
///
/// # Errors
/// Those of [`classify`].
pub fn classify_prepared(g: &mut Graph, model: &VisionModel, x: ValueId) -> Result<ValueId> {
    let outputs = model.build(g, x)?;
    let logits = wanted(model, &outputs, "logits")?;
    if g.shape(logits).len() != 2 {
        return Err(invalid("logits", "[n, classes]", g.shape(logits).to_string()));
    }
    let logits = g.cast(logits, DType::F32)?;
    g.softmax(logits, 1)
}

/// The whole network for `n` pictures of `[height, width]`: input `pictures`, output `probabilities`.
///
/// # Errors
/// Those of [`classify`].
pub fn classifier_graph(model: &VisionModel, n: usize, [height, width]: [usize; 2]) -> Result<Graph> {
    let mut g = Graph::new();
    let pictures = g.input("pictures", [n, height, width], DType::U32);
    let probabilities = classify(&mut g, model, pictures)?;
    g.output("probabilities", probabilities);
    Ok(g)
}

/// A classifier on a device.
#[derive(Debug)]
pub struct Classifier {
    model: VisionModel,
    networks: SizedNetworks,
}

impl Classifier {
    /// At most `batch` pictures of one size are read at a time. Networks are made when their first picture comes.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for a batch of zero.
    pub fn new(gpu: &Gpu, model: VisionModel, batch: usize) -> Result<Self> {
        let batch = model.batch.unwrap_or(batch);
        Ok(Classifier { model, networks: SizedNetworks::new(gpu, batch)? })
    }

    /// The bundled reader of capital letters and digits.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn letters(gpu: &Gpu, batch: usize) -> Result<Self> {
        Self::new(gpu, letters::letters_classifier()?, batch)
    }

    pub fn model(&self) -> &VisionModel {
        &self.model
    }

    pub fn batch(&self) -> usize {
        self.networks.batch()
    }

    /// What a run for a full batch of pictures of a size does: FLOPs, parameters, memory.
    ///
    /// # Errors
    /// Those of [`crate::Network::new`].
    pub fn plan(&mut self, size: [usize; 2]) -> Result<&Plan> {
        let (model, batch) = (&self.model, self.networks.batch());
        let (_, network) = self.networks.network(size, batch, &|n, size| classifier_graph(model, n, size))?;
        Ok(network.plan())
    }

    /// For each picture all labels, the likeliest first.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for an empty picture or a list of labels that does not fit the network,
    /// [`crate::Error::Limit`] for a picture that the device cannot hold.
    pub fn classify(&mut self, pictures: &[RgbImage]) -> Result<Vec<Vec<Answer>>> {
        let model = &self.model;
        let results = self.networks.run(pictures, &|n, size| classifier_graph(model, n, size))?;
        results.iter().map(|outputs| answers(model, &outputs[0].to_f32())).collect()
    }
}

fn answers(model: &VisionModel, probabilities: &[f32]) -> Result<Vec<Answer>> {
    let labels = class_names(model, probabilities.len())?;
    let mut answers: Vec<Answer> = labels
        .into_iter()
        .zip(probabilities)
        .map(|(label, &probability)| Answer { label, probability })
        .collect();
    answers.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    Ok(answers)
}

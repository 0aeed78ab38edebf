//! Names out of pictures: the bundled reader of capital letters and digits.

use std::collections::HashMap;

use image::RgbImage;

use crate::engine::Network;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::letters::{self, ClassifierConfig};
use crate::nn::Source;
use crate::ops::expr::{Binary, Expr, Unary};
use crate::plan::Plan;
use crate::tensor::{Bytes, DType, Tensor, TensorDesc};
use crate::weights::Weights;

/// Networks are compiled for a size of picture; so many sizes are kept.
const SIZES: usize = 8;

/// Most pixels that are uploaded at a time.
const PIXELS: usize = 1 << 22;

/// A label and how sure the classifier is of it, 0 to 1.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Answer {
    pub label: String,
    pub probability: f32,
}

/// A trained classifier: network, weights, and what its answers are called.
#[derive(Clone, Debug)]
pub struct ClassifierModel {
    config: ClassifierConfig,
    weights: Weights,
}

impl ClassifierModel {
    /// The bundled reader of capital letters and digits.
    pub fn letters() -> Result<Self> {
        let (config, weights) = letters::classifier_files()?;
        Ok(ClassifierModel { config, weights })
    }

    pub fn name(&self) -> &str {
        self.weights.file()
    }

    /// What the model can answer.
    pub fn labels(&self) -> &[String] {
        &self.config.labels
    }

    /// Height and width of what the network itself reads.
    pub fn size(&self) -> [usize; 2] {
        self.config.image_size
    }

    /// The whole network for pictures `[n, h, w]` (u32, red in the lowest byte) as a graph:
    /// output `probabilities`, `[n, labels]`.
    pub fn graph(&self, n: usize, [height, width]: [usize; 2]) -> Result<Graph> {
        let mut g = Graph::new();
        let pictures = g.input("pictures", [n, height, width], DType::U32);
        let x = g.scoped("preprocess", |g| self.preprocess(g, pictures))?;
        let source = Source { weights: &self.weights, dtype: DType::F32 };
        let scores = letters::classifier(&mut g, &self.config, source, x)?;
        let probabilities = g.softmax(scores, 1)?;
        g.output("probabilities", probabilities);
        Ok(g)
    }

    /// To the size that the model reads, and light on dark whatever the picture is.
    fn preprocess(&self, g: &mut Graph, pictures: ValueId) -> Result<ValueId> {
        let normalise: Vec<(f32, f32)> =
            self.config.mean.iter().zip(&self.config.std).map(|(m, s)| (1.0 / s, -m / s)).collect();
        let x = g.picture_to_tensor(pictures, self.config.image_size, &normalise, DType::F32)?;
        let border = g.border_mean(x)?;
        // 1 on a dark border, −1 on a bright one.
        let bright = Expr::binary(Binary::Max, Expr::unary(Unary::Sign, Expr::input(1)), Expr::Const(0.0));
        let twice = Expr::binary(Binary::Mul, Expr::Const(2.0), bright);
        let sign = Expr::binary(Binary::Sub, Expr::Const(1.0), twice);
        g.elementwise(Expr::binary(Binary::Mul, Expr::input(0), sign), &[x, border])
    }
}

/// A classifier on a device.
#[derive(Debug)]
pub struct Classifier {
    gpu: Gpu,
    model: ClassifierModel,
    batch: usize,
    /// By height and width, with the time of the last use.
    networks: HashMap<[usize; 2], (u64, Network)>,
    clock: u64,
}

impl Classifier {
    /// The bundled model; `batch` pictures of one size are read at a time.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a batch of zero, and all of [`Network::new`].
    pub fn letters(gpu: &Gpu, batch: usize) -> Result<Self> {
        if batch == 0 {
            return Err(Error::Invalid {
                what: "batch".to_owned(),
                expected: "at least 1".to_owned(),
                found: "0".to_owned(),
            });
        }
        let model = ClassifierModel::letters()?;
        let size = model.size();
        let mut classifier =
            Classifier { gpu: gpu.clone(), model, batch, networks: HashMap::new(), clock: 0 };
        classifier.network(size)?;
        Ok(classifier)
    }

    pub fn model(&self) -> &ClassifierModel {
        &self.model
    }

    /// What the model can answer.
    pub fn labels(&self) -> &[String] {
        self.model.labels()
    }

    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Pictures of a size that are read at a time.
    fn batch_of(&self, [height, width]: [usize; 2]) -> usize {
        (PIXELS / (height * width).max(1)).clamp(1, self.batch)
    }

    fn network(&mut self, size: [usize; 2]) -> Result<&Network> {
        self.clock += 1;
        let clock = self.clock;
        if !self.networks.contains_key(&size) {
            if self.networks.len() >= SIZES
                && let Some(oldest) = self.networks.iter().min_by_key(|(_, (time, _))| *time).map(|(k, _)| *k)
            {
                self.networks.remove(&oldest);
            }
            let graph = self.model.graph(self.batch_of(size), size)?;
            self.networks.insert(size, (clock, Network::new(&self.gpu, &graph)?));
        }
        let (time, network) = self.networks.get_mut(&size).expect("there or just inserted");
        *time = clock;
        Ok(network)
    }

    /// What a run for pictures of the model's own size does: FLOPs, parameters, memory.
    pub fn plan(&mut self) -> Result<&Plan> {
        let size = self.model.size();
        Ok(self.network(size)?.plan())
    }

    /// For each picture all labels, the likeliest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty picture, [`Error::Limit`] for one that the device cannot hold.
    pub fn classify(&mut self, pictures: &[RgbImage]) -> Result<Vec<Vec<Answer>>> {
        // Pictures of one size go together, whatever lies between them.
        let mut by_size: Vec<([usize; 2], Vec<usize>)> = Vec::new();
        for (i, picture) in pictures.iter().enumerate() {
            let size = [picture.height() as usize, picture.width() as usize];
            if size.contains(&0) {
                return Err(Error::Invalid {
                    what: format!("picture {i}"),
                    expected: "at least one pixel".to_owned(),
                    found: format!("{} × {}", size[1], size[0]),
                });
            }
            match by_size.iter_mut().find(|(s, _)| *s == size) {
                Some((_, indices)) => indices.push(i),
                None => by_size.push((size, vec![i])),
            }
        }
        let mut answers = vec![Vec::new(); pictures.len()];
        for (size, indices) in by_size {
            let batch = self.batch_of(size);
            for chunk in indices.chunks(batch) {
                let tensor = words(chunk.iter().map(|&i| &pictures[i]), batch, size);
                let all = self.network(size)?.run(&[("pictures", &tensor)])?.remove(0).to_f32();
                for (&i, probabilities) in chunk.iter().zip(all.chunks_exact(self.labels().len())) {
                    answers[i] = self.answers(probabilities);
                }
            }
        }
        Ok(answers)
    }

    fn answers(&self, probabilities: &[f32]) -> Vec<Answer> {
        let mut answers: Vec<Answer> = self
            .labels()
            .iter()
            .zip(probabilities)
            .map(|(label, &probability)| Answer { label: label.clone(), probability })
            .collect();
        answers.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        answers
    }
}

/// Pictures as words, red in the lowest byte; black ones where the batch is not full.
fn words<'a>(pictures: impl Iterator<Item = &'a RgbImage>, n: usize, [h, w]: [usize; 2]) -> Tensor {
    let mut bytes = Vec::with_capacity(4 * n * h * w);
    for picture in pictures {
        bytes.extend(picture.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2], 255]));
    }
    bytes.resize(4 * n * h * w, 0);
    Tensor { desc: TensorDesc::new([n, h, w], DType::U32), bytes: Bytes::Owned(bytes.into()) }
}

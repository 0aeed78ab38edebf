//! What each pixel of a picture belongs to.

use image::{GrayImage, RgbImage};

use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::vision::VisionModel;
use crate::tasks::palette::colour;
use crate::tasks::sized::{Size, SizedNetworks, class_names, invalid, picture, wanted};
use crate::tensor::{DType, Tensor};

/// How much of a class's colour is seen in an overlay, of 255.
const OPACITY: u32 = 140;

/// Pixels of a class.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Area {
    pub label: String,
    pub pixels: u64,
    /// Of all pixels, 0 to 1.
    pub share: f64,
}

/// What became of a picture.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// The class of each pixel; those past 255 as 255.
    pub mask: GrayImage,
    /// The picture with each class but the first in its colour.
    pub overlay: RgbImage,
    /// Of every class, in the model's order.
    pub areas: Vec<Area>,
}

/// Appends a segmentation network to a graph: from `pictures` `[n, h, w]` (u32, red in the lowest byte) to the class of
/// each of their pixels, u32 `[n, h, w]`. With one class, 1 where it is.
///
/// # Errors
/// Those of the network, and [`crate::Error::Invalid`] for one without a `map`.
pub fn segment(g: &mut Graph, model: &VisionModel, pictures: ValueId) -> Result<ValueId> {
    Ok(segment_classes(g, model, pictures)?.0)
}

/// As [`segment`], with the number of classes.
fn segment_classes(g: &mut Graph, model: &VisionModel, pictures: ValueId) -> Result<(ValueId, usize)> {
    let [_, height, width] = g.shape(pictures)[..] else {
        return Err(invalid("pictures", "[n, h, w]", g.shape(pictures).to_string()));
    };
    let [rows, columns] = model.preprocess.axes([height, width])?;
    let x = model.preprocess.append(g, pictures, DType::F32)?;
    let outputs = model.build(g, x)?;
    let map = wanted(model, &outputs, "map")?;
    let map = g.cast(map, DType::F32)?;
    // A map of one class says where it is and where it is not.
    let classes = g.shape(map).last().max(2);
    Ok((g.class_map(map, [&rows, &columns])?, classes))
}

fn graph(model: &VisionModel, n: usize, [height, width]: Size) -> Result<Graph> {
    let mut g = Graph::new();
    let pictures = g.input("pictures", [n, height, width], DType::U32);
    let (mask, classes) = segment_classes(&mut g, model, pictures)?;
    let word =
        |class: usize| u32::from_le_bytes([colour(class).0[0], colour(class).0[1], colour(class).0[2], 0]);
    // The first class is what is left: background.
    let colours: Vec<u32> =
        (0..classes).map(|class| if class == 0 { 0 } else { word(class) | OPACITY << 24 }).collect();
    let colours = g.weight("colours", Tensor::from_u32([classes], &colours));
    let overlay = g.overlay(pictures, mask, colours)?;
    g.output("mask", mask);
    g.output("overlay", overlay);
    Ok(g)
}

/// A segmentation network on a device.
#[derive(Debug)]
pub struct Segmenter {
    model: VisionModel,
    networks: SizedNetworks,
}

impl Segmenter {
    /// At most `batch` pictures of one size are read at a time. Networks are made when their first picture comes.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for a batch of zero.
    pub fn new(gpu: &Gpu, model: VisionModel, batch: usize) -> Result<Self> {
        let batch = model.batch.unwrap_or(batch);
        Ok(Segmenter { model, networks: SizedNetworks::new(gpu, batch)? })
    }

    pub fn model(&self) -> &VisionModel {
        &self.model
    }

    /// # Errors
    /// [`crate::Error::Invalid`] for an empty picture or a list of labels that does not fit the network,
    /// [`crate::Error::Limit`] for a picture that the device cannot hold.
    pub fn segment(&mut self, pictures: &[RgbImage]) -> Result<Vec<Segmentation>> {
        let model = &self.model;
        let results = self.networks.run(pictures, &|n, size| graph(model, n, size))?;
        results
            .iter()
            .map(|outputs| {
                let classes =
                    outputs[0].bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
                let classes: Vec<u32> = classes.collect();
                let [h, w] = [outputs[0].desc.shape[1] as u32, outputs[0].desc.shape[2] as u32];
                let bytes = classes.iter().map(|&c| c.min(255) as u8).collect();
                Ok(Segmentation {
                    mask: GrayImage::from_raw(w, h, bytes).expect("as many bytes as pixels"),
                    overlay: picture(&outputs[1]),
                    areas: areas(model, &classes)?,
                })
            })
            .collect()
    }
}

fn areas(model: &VisionModel, classes: &[u32]) -> Result<Vec<Area>> {
    let most = classes.iter().max().map_or(0, |c| *c as usize);
    let labels = match model.labels.len() {
        // The only class of a network, and what is not of it.
        1 => vec!["background".to_owned(), model.labels[0].clone()],
        n if n > most => model.labels.clone(),
        _ => class_names(model, most + 1)?,
    };
    let mut pixels = vec![0u64; labels.len()];
    for &class in classes {
        pixels[class as usize] += 1;
    }
    let share = |n: u64| n as f64 / classes.len().max(1) as f64;
    Ok(labels.into_iter().zip(pixels).map(|(label, n)| Area { label, pixels: n, share: share(n) }).collect())
}

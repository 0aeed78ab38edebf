//! Things in pictures, with boxes round them.

use image::RgbImage;

use crate::error::Result;
use crate::formats::draw::{Canvas, text_height, text_width};
use crate::gpu::Gpu;
use crate::graph::{Graph, ValueId};
use crate::models::vision::VisionModel;
use crate::ops::best_boxes::{BOX, Classes, Selection};
use crate::tasks::palette::colour;
use crate::tasks::sized::{Size, SizedNetworks, class_names, invalid, wanted};
use crate::tensor::DType;

/// Which of a detector's candidates count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectOptions {
    /// Lowest score, 0 to 1.
    pub threshold: f32,
    /// A box is dropped that overlaps a better one of its class by more: intersection over union, 0 to 1.
    pub overlap: f32,
    /// Whether better boxes of other classes count as well: one thing, one box.
    pub across_classes: bool,
    /// Most boxes for a picture.
    pub most: usize,
}

impl Default for DetectOptions {
    fn default() -> Self {
        DetectOptions { threshold: 0.4, overlap: 0.5, across_classes: false, most: 100 }
    }
}

/// A thing that was found. Edges are in pixels of the picture.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Detection {
    pub label: String,
    pub score: f32,
    pub left: f32,
    pub top: f32,
    pub right: f32,
    pub bottom: f32,
    #[serde(skip)]
    pub class: usize,
}

/// Appends a detector to a graph: from `pictures` `[n, h, w]` (u32, red in the lowest byte) to boxes `[n, most, 6]`, best
/// first: left, top, right, bottom in pixels of the picture, score, class; zeros after the last.
///
/// # Errors
/// Those of the network, and [`crate::Error::Invalid`] for one without `boxes` and `scores`.
pub fn detect(
    g: &mut Graph,
    model: &VisionModel,
    pictures: ValueId,
    options: &DetectOptions,
) -> Result<ValueId> {
    let [_, height, width] = g.shape(pictures)[..] else {
        return Err(invalid("pictures", "[n, h, w]", g.shape(pictures).to_string()));
    };
    let [rows, columns] = model.preprocess.axes([height, width])?;
    let x = model.preprocess.append(g, pictures, DType::F32)?;
    let outputs = model.build(g, x)?;
    let boxes = wanted(model, &outputs, "boxes")?;
    let scores = wanted(model, &outputs, "scores")?;
    let [boxes, scores] = [g.cast(boxes, DType::F32)?, g.cast(scores, DType::F32)?];
    class_names(model, g.shape(scores).last())?;
    let selection = Selection {
        least: options.threshold,
        overlap: options.overlap,
        across_classes: options.across_classes,
        keep: options.most,
        // Across classes a candidate stands in its own way, but for its best.
        classes: if options.across_classes { Classes::Best } else { model.candidates.classes },
        background: model.candidates.background,
    };
    g.scoped("boxes", |g| g.best_boxes(boxes, scores, [&rows, &columns], selection))
}

fn graph(model: &VisionModel, options: &DetectOptions, n: usize, [height, width]: Size) -> Result<Graph> {
    let mut g = Graph::new();
    let pictures = g.input("pictures", [n, height, width], DType::U32);
    let boxes = detect(&mut g, model, pictures, options)?;
    g.output("boxes", boxes);
    Ok(g)
}

/// A detector on a device.
#[derive(Debug)]
pub struct Detector {
    model: VisionModel,
    options: DetectOptions,
    networks: SizedNetworks,
}

impl Detector {
    /// At most `batch` pictures of one size are read at a time. Networks are made when their first picture comes.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for a batch of zero, and thresholds that are no shares.
    pub fn new(gpu: &Gpu, model: VisionModel, options: DetectOptions, batch: usize) -> Result<Self> {
        for (what, value) in [("threshold", options.threshold), ("overlap", options.overlap)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(invalid(what, "0 to 1", value.to_string()));
            }
        }
        let batch = model.batch.unwrap_or(batch);
        Ok(Detector { model, options, networks: SizedNetworks::new(gpu, batch)? })
    }

    pub fn model(&self) -> &VisionModel {
        &self.model
    }

    /// For each picture what was found, the surest first.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for an empty picture, [`crate::Error::Limit`] for one that the device cannot hold.
    pub fn detect(&mut self, pictures: &[RgbImage]) -> Result<Vec<Vec<Detection>>> {
        let (model, options) = (&self.model, &self.options);
        let results = self.networks.run(pictures, &|n, size| graph(model, options, n, size))?;
        Ok(results.iter().map(|outputs| self.detections(&outputs[0].to_f32())).collect())
    }

    fn detections(&self, numbers: &[f32]) -> Vec<Detection> {
        let found = numbers.chunks_exact(BOX).take_while(|b| b[4] > 0.0);
        let labels = &self.model.labels;
        found
            .map(|b| {
                let class = b[5] as usize;
                let label = labels.get(class).cloned().unwrap_or_else(|| class.to_string());
                Detection { label, score: b[4], left: b[0], top: b[1], right: b[2], bottom: b[3], class }
            })
            .collect()
    }
}

/// The picture with a box and a label round each thing, in its class's colour.
pub fn draw_detections(picture: &RgbImage, detections: &[Detection]) -> RgbImage {
    let (width, height) = picture.dimensions();
    let scale = (width.min(height) / 400).clamp(1, 8);
    let line = 2 * scale;
    let mut canvas = Canvas(picture.clone());
    // The surest last, on top.
    for d in detections.iter().rev() {
        let at = |v: f32, size: u32| (v.max(0.0) as u32).min(size.saturating_sub(1));
        let (x0, x1) = (at(d.left, width), at(d.right.ceil(), width));
        let (y0, y1) = (at(d.top, height), at(d.bottom.ceil(), height));
        let (w, h) = (x1.saturating_sub(x0) + 1, y1.saturating_sub(y0) + 1);
        let paint = colour(d.class);
        canvas.rectangle(x0, y0, w, line.min(h), paint);
        canvas.rectangle(x0, y1.saturating_sub(line - 1).max(y0), w, line.min(h), paint);
        canvas.rectangle(x0, y0, line.min(w), h, paint);
        canvas.rectangle(x1.saturating_sub(line - 1).max(x0), y0, line.min(w), h, paint);
        let text = format!("{} {:.0}%", d.label, 100.0 * d.score);
        let (tw, th) = (text_width(&text, scale) + 2 * scale, text_height(scale) + scale);
        // Above the box if there is room, else inside.
        let ty = if y0 >= th { y0 - th } else { y0 };
        let tx = x0.min(width.saturating_sub(tw));
        canvas.rectangle(tx, ty, tw, th, paint);
        canvas.text(tx + scale, ty + scale, scale, image::Rgb([255; 3]), &text);
    }
    canvas.0
}

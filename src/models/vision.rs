//! A network that reads pictures, whatever it is and wherever it comes from: how to build its graph,
//! how pictures are prepared for it, and what its answers are called.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::graph::{Graph, ValueId};

/// How a picture is brought to the size that a network reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit {
    /// Each side by itself, whatever becomes of the proportions.
    Stretch,
    /// The shorter side to `size / portion`, then the middle is cut out; timm's `crop_pct` and
    /// torchvision's resize and centre crop.
    Crop { portion: f32 },
    /// The longer side to the size, the rest filled with the grey `fill` (0 to 1), picture in the middle; as YOLO does.
    Letterbox { fill: f32 },
}

pub use crate::ops::best_boxes::Classes;
pub use crate::ops::picture_to_tensor::Filter;

/// From pictures of 8-bit sRGB to the network's input.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Height and width that the network reads; `None` if it takes pictures as they come.
    pub size: Option<[usize; 2]>,
    /// Both sides of a picture that is taken as it comes must be a multiple of this; it is padded at the right and bottom.
    pub multiple: usize,
    pub fit: Fit,
    pub filter: Filter,
    /// Of each channel, red first, for values from 0 to 1: the input is `(x − mean) / std`.
    /// One of each for a network that reads grey (luma).
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    /// Inverted where the border is bright, for readers of light ink on dark.
    pub light_on_dark: bool,
}

/// Named results of a network, in its own order. What tasks look for:
///
/// | name | shape | meaning |
/// |---|---|---|
/// | `logits` | `[n, classes]` | scores before the softmax, of whole pictures |
/// | `map` | `[n, h, w, classes]` | scores before the softmax, of pixels; one class: before the sigmoid |
/// | `boxes` | `[n, candidates, 4]` | left, top, right, bottom in pixels of the network's input |
/// | `scores` | `[n, candidates, classes]` | probabilities of the boxes' classes |
/// | `picture` | `[n, h, w, 1 or 3]` | 0 to 1, red first |
/// | `embedding` | `[n, features]` | |
pub type Outputs = Vec<(String, ValueId)>;

/// What a detector's scores say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    pub classes: Classes,
    /// Whether class 0 means that there is nothing.
    pub background: bool,
}

impl Default for Candidates {
    /// Each candidate is what it has the highest score for, and there is no class for nothing.
    fn default() -> Self {
        Candidates { classes: Classes::Best, background: false }
    }
}

type Build = dyn Fn(&mut Graph, ValueId) -> Result<Outputs> + Send + Sync;

/// A network that reads pictures.
#[derive(Clone)]
pub struct VisionModel {
    /// Architecture or file, for people.
    pub name: String,
    pub preprocess: Preprocess,
    /// What the classes are called; empty if the file does not say.
    pub labels: Vec<String>,
    /// Pictures at a time, where the file fixes it.
    pub batch: Option<usize>,
    /// Of detectors.
    pub candidates: Candidates,
    build: Arc<Build>,
}

impl VisionModel {
    /// `build` adds the network to a graph: from a prepared `x` `[n, h, w, c]` to its [`Outputs`].
    pub fn new(
        name: &str,
        preprocess: Preprocess,
        labels: Vec<String>,
        build: impl Fn(&mut Graph, ValueId) -> Result<Outputs> + Send + Sync + 'static,
    ) -> Self {
        let candidates = Candidates::default();
        VisionModel {
            name: name.to_owned(),
            preprocess,
            labels,
            batch: None,
            candidates,
            build: Arc::new(build),
        }
    }

    /// Adds the network to a graph.
    ///
    /// # Errors
    /// Missing or misshapen weights, and inputs that do not fit.
    pub fn build(&self, g: &mut Graph, x: ValueId) -> Result<Outputs> {
        (self.build)(g, x)
    }
}

impl fmt::Debug for VisionModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VisionModel")
            .field("name", &self.name)
            .field("preprocess", &self.preprocess)
            .field("labels", &self.labels.len())
            .finish_non_exhaustive()
    }
}

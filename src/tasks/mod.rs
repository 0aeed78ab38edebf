//! What people ask for: picture in, answer out. Each task is a type on a device, and a function that appends it to
//! a graph, so that tasks follow one another without a way over the host.

mod classify;
pub mod compare;
mod correction;
mod detect;
mod embed;
mod generate;
mod paint;
mod palette;
mod reach;
mod redraw;
mod sampling;
mod sampling_state;
mod segment;
mod sized;
mod super_resolve;

pub use classify::{Answer, Classifier, classifier_graph, classify, classify_prepared};
pub use detect::{DetectOptions, Detection, Detector, detect, draw_detections};
pub use embed::{Embedder, cosine, embed, embed_prepared};
pub use generate::{DiffusionModel, GenerateOptions, Generator};
pub use paint::{
    Beside, Canvas, Control, Enlarge, Memory, Pag, PaintOptions, Painter, Pipeline, StartFrom, Turns, Unsaid,
    Variation, Wish,
};
pub use redraw::{Redrawer, redraw};
pub use sampling::{NoiseSource, Sampling};
pub use sampling_state::SamplingState;
pub use segment::{Area, Segmentation, Segmenter, segment};
pub use super_resolve::{SuperResolveOptions, SuperResolver};

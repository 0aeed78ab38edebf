//! The networks that ship with the library, by name.

use crate::error::Result;
use crate::models::vision::{Filter, Fit, Preprocess, VisionModel};
use crate::models::{denoise, letters_detector, letters_segmenter, style, upscale};

/// What makes a network that ships.
pub type Make = fn() -> Result<VisionModel>;

/// Name, what it is for, and how to make it.
pub const BUNDLED: [(&str, &str, Make); 5] = [
    ("upscale-x2", "pictures at twice their size", upscale::upscale_x2),
    ("denoise", "pictures with less noise", denoise::denoise),
    ("letters-detector", "boxes round capital letters and digits", letters_detector::letters_detector),
    ("letters-segmenter", "pixels of capital letters and digits", letters_segmenter::letters_segmenter),
    ("style-engraving", "photographs as engravings", style::style_engraving),
];

/// The bundled network of this name, if there is one.
pub fn bundled(name: &str) -> Option<Result<VisionModel>> {
    BUNDLED.iter().find(|(n, ..)| *n == name).map(|(.., make)| make())
}

/// Colours from 0 to 1, in pictures of any size; both sides a multiple of `multiple`.
pub(super) fn as_they_come(multiple: usize) -> Preprocess {
    Preprocess {
        size: None,
        multiple,
        fit: Fit::Stretch,
        filter: Filter::Bicubic,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
        light_on_dark: false,
    }
}

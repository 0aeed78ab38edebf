//! The bundled segmentation network, 128 thousand parameters: which pixels are of capital letters and digits. How it
//! was trained is in `training/`.

use crate::error::Result;
use crate::models::bundled;
use crate::models::unet::unet;
use crate::models::vision::VisionModel;
use crate::nn::Source;
use crate::weights::Weights;

const WEIGHTS: &[u8] = include_bytes!("../../models/letters-segmenter/model.safetensors");
const CLASSES: [&str; 2] = ["background", "character"];

/// Capitals and digits of 12 to 96 pixels in pictures of any size.
///
/// # Errors
/// [`crate::Error::Format`] if the bundled file is not what it should be.
pub fn letters_segmenter() -> Result<VisionModel> {
    let weights = Weights::from_static("letters-segmenter", WEIGHTS)?;
    let labels = CLASSES.map(String::from).to_vec();
    Ok(VisionModel::new("letters-segmenter", bundled::as_they_come(16), labels, move |g, x| {
        let w = Source { weights: &weights, dtype: g.desc(x).dtype };
        Ok(vec![("map".into(), unet(g, w, x)?)])
    }))
}

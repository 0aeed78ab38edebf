//! ControlNets and the pictures that they look at.

use anyhow::Result;
use aquatint::Error;
use aquatint::formats::picture;
use aquatint::models::controlnet::ControlNetConfig;
use aquatint::models::latent_diffusion::Part;
use aquatint::tasks::{Control, PaintOptions};
use image::RgbImage;
use image::imageops::{self, FilterType};

use crate::cli::painting::TextSettings;

/// The models, and for each a picture of the result's size.
pub fn open(settings: &TextSettings, options: &PaintOptions) -> Result<(Vec<Control>, Vec<RgbImage>)> {
    let TextSettings { control, control_picture, control_scale, .. } = settings;
    let (nets, pictures, scales) = (control.len(), control_picture.len(), control_scale.len());
    if pictures != nets || scales > nets {
        return Err(Error::Invalid {
            what: "--control-picture and --control-scale".to_owned(),
            expected: format!("a picture, and perhaps a scale, for each of {nets} --control"),
            found: format!("{pictures} and {scales}"),
        }
        .into());
    }
    let (width, height) = (options.width as u32, options.height as u32);
    let mut controls = Vec::new();
    let mut sized = Vec::new();
    for (i, (model, picture)) in control.iter().zip(control_picture).enumerate() {
        let model = Part::<ControlNetConfig>::open(model)?;
        let scale = control_scale.get(i).copied().unwrap_or(1.0);
        controls.push(Control { scale, guess: settings.guess, ..Control::of(model) });
        let picture = picture::open(picture)?;
        sized.push(match picture.dimensions() == (width, height) {
            true => picture,
            false => imageops::resize(&picture, width, height, FilterType::Lanczos3),
        });
    }
    Ok((controls, sized))
}

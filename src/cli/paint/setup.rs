//! What a painter of this call is made of, so that it can be made when its turn comes, and again.

use anyhow::Result;
use aquatint::models::autoencoder_tiny::AutoencoderTinyConfig;
use aquatint::models::latent_diffusion::{LatentDiffusion, Part};
use aquatint::tasks::{Beside, Control, Memory, PaintOptions, Painter, StartFrom, Wish};
use aquatint::{Gpu, Result as Checked};
use image::RgbImage;

pub struct Setup<'a> {
    pub gpu: &'a Gpu,
    pub model: &'a LatentDiffusion,
    pub batch: usize,
    pub wish: &'a Wish,
    pub kind: StartFrom,
    pub options: PaintOptions,
    pub controls: &'a [Control],
    /// What the controls look at.
    pub pictures: &'a [RgbImage],
    /// What shows previews.
    pub tiny: Option<&'a Part<AutoencoderTinyConfig>>,
}

impl Setup<'_> {
    pub fn painter(&self) -> Result<Painter> {
        let Setup { gpu, model, batch, kind, options, controls, .. } = self;
        let mut painter = Painter::controlled(gpu, model, *batch, self.tokens(), *kind, options, controls)?;
        self.furnish(&mut painter)?;
        Ok(painter)
    }

    fn tokens(&self) -> usize {
        self.wish.text.states.desc.shape[0]
    }

    /// What such a painter would take if there were no budget.
    pub fn memory(&self) -> Checked<Memory> {
        let Setup { gpu, model, batch, kind, options, controls, tiny, .. } = self;
        let options = PaintOptions { memory_budget: None, ..options.clone() };
        let beside = Beside { controls, preview: *tiny, ..Beside::default() };
        Painter::predict(gpu.target(), model, *batch, self.tokens(), *kind, &options, &beside)
    }

    /// Gives a painter what is not told to its constructor.
    pub fn furnish(&self, painter: &mut Painter) -> Checked<()> {
        painter.control(&self.pictures.iter().collect::<Vec<_>>())?;
        self.tiny.map_or(Ok(()), |tiny| painter.preview_with(tiny))
    }
}

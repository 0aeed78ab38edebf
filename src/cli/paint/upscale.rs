//! Pictures four times as large, by a model that enlarges them as a text says.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use aquatint::models::latent_diffusion::LatentDiffusion;
use aquatint::tasks::{PaintOptions, Painter, StartFrom, Wish};
use aquatint::{Error, Gpu, units};
use image::RgbImage;

use super::pieces::Piece;
use super::say;
use super::target::Target;
use crate::cli::painting::Painting;
use crate::cli::{interrupt, progress};

/// Sides of the result over those of the picture.
const FACTOR: usize = 4;

/// Sides of the tiles that large pictures are painted in.
const TILE: usize = 128;

pub fn run(
    gpu: &Gpu,
    model: &LatentDiffusion,
    wish: &Wish,
    (painting, pieces, target): (&Painting, &[Piece], &Target),
    picture: Option<&RgbImage>,
    options: &PaintOptions,
    out: &mut dyn Write,
) -> Result<()> {
    let Some(picture) = picture else {
        return Err(Error::Invalid {
            what: format!("picture for {}", model.name),
            expected: "--init with what to enlarge".to_owned(),
            found: "none".to_owned(),
        }
        .into());
    };
    let [width, height] = [picture.width(), picture.height()].map(|side| (side as usize).min(TILE));
    let options = PaintOptions { width: FACTOR * width, height: FACTOR * height, ..options.clone() };
    let tokens = wish.text.states.desc.shape[0];
    let mut painter = Painter::new(gpu, model, 1, tokens, StartFrom::Small, &options)?;
    let start = Instant::now();
    let count = pieces.len();
    let bar = progress::pictures(count as u64);
    for piece in pieces {
        if interrupt::asked() {
            bar.finish_and_clear();
            return Err(anyhow::Error::new(Error::Interrupted).context("stopped by the user"));
        }
        let large = painter.enlarge(wish, piece.seed, picture, width.min(height) / 8)?;
        let path = target.path(&piece.name);
        piece.painting(painting).save(&path, &large)?;
        bar.inc(1);
        writeln!(out, "{}", path.display())?;
    }
    bar.finish_and_clear();
    let noun = if count == 1 { "picture" } else { "pictures" };
    let time = units::seconds(start.elapsed().as_secs_f64());
    say(&format!("{count} {noun} in {time} on {}: {}", gpu.info().name, painting.caption()));
    Ok(())
}

//! `aquatint upscale`, `denoise` and `stylize`: pictures out of pictures.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use aquatint::tasks::Redrawer;
use aquatint::{AdapterOptions, Gpu};
use image::RgbImage;
use serde::Serialize;

use super::pictures::{Decoded, PictureArgs, Stages, Targets, conclude, decode_one, expand, lines};

#[derive(clap::Args)]
pub struct Redraw {
    #[command(flatten)]
    pictures: PictureArgs,
    /// A .png for one picture, or the folder that the pictures are written to [default: here]
    #[arg(long, short, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Side of the tiles that large pictures are cut into, pixels [default: what 256 MiB hold]
    #[arg(long, value_name = "PIXELS")]
    tile: Option<usize>,
}

#[derive(Serialize)]
struct Written {
    out: PathBuf,
    width: u32,
    height: u32,
}

/// `model` is the network unless another is asked for; `word` goes into the names of the results.
pub fn run(
    args: &Redraw,
    model: &str,
    word: &str,
    options: &AdapterOptions,
    out: &mut dyn Write,
) -> Result<()> {
    let entries = expand(&args.pictures.images);
    let model = args.pictures.open(model)?;
    let targets = Targets::new(args.out.as_deref(), &entries, word)?;
    let gpu = Gpu::with_options(options)?;
    let mut redrawer = Redrawer::new(&gpu, model)?;
    if let Some(side) = args.tile {
        redrawer.set_tile(side)?;
    }
    let finish = |file, _: Decoded, pictures: Vec<RgbImage>| {
        let mut written = Written { out: PathBuf::new(), width: 0, height: 0 };
        for picture in pictures {
            (written.width, written.height) = picture.dimensions();
            written.out = targets.save(file, "", picture)?;
        }
        Ok(written)
    };
    let rows = Stages {
        gpu: &gpu,
        batch: 1,
        whole: false,
        decode: &decode_one,
        compute: &mut |pictures| pictures.iter().map(|picture| redrawer.redraw(picture)).collect(),
        finish: &finish,
    }
    .run(&entries)?;
    conclude(&rows, args.pictures.json, out, |rows, out| {
        lines(rows, out, |w: &Written| format!("{}  {} × {}", w.out.display(), w.width, w.height))
    })
}

//! `aquatint segment`: which pixels belong to what.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use aquatint::tasks::{Area, Segmentation, Segmenter};
use aquatint::{AdapterOptions, Error, Gpu};
use serde::Serialize;

use super::pictures::{Decoded, PictureArgs, Stages, Targets, conclude, decode_one, expand, lines};

#[derive(clap::Args)]
pub struct Segment {
    #[command(flatten)]
    pictures: PictureArgs,
    /// A .png for one picture, or the folder that overlays and masks are written to [default: here]
    #[arg(long, short, value_name = "PATH")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Written {
    /// The picture with each class in its colour.
    overlay: PathBuf,
    /// A grey picture: the number of each pixel's class.
    mask: PathBuf,
    areas: Vec<Area>,
}

pub fn run(args: &Segment, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let entries = expand(&args.pictures.images);
    let model = args.pictures.open("letters-segmenter")?;
    let targets = Targets::new(args.out.as_deref(), &entries, "segmented")?;
    let gpu = Gpu::with_options(options)?;
    let batch = args.pictures.batch.into();
    let mut segmenter = Segmenter::new(&gpu, model, batch)?;
    let finish = |file, _: Decoded, mut results: Vec<Segmentation>| -> Result<Written, Error> {
        let result = results.swap_remove(0);
        let overlay = targets.save(file, "", result.overlay)?;
        let mask = targets.save(file, "-mask", result.mask)?;
        Ok(Written { overlay, mask, areas: result.areas })
    };
    let rows = Stages {
        gpu: &gpu,
        batch,
        whole: true,
        decode: &decode_one,
        compute: &mut |pictures| segmenter.segment(pictures),
        finish: &finish,
    }
    .run(&entries)?;
    conclude(&rows, args.pictures.json, out, |rows, out| {
        lines(rows, out, |w: &Written| {
            let mut areas: Vec<&Area> = w.areas.iter().filter(|a| a.pixels > 0).collect();
            areas.sort_by_key(|a| std::cmp::Reverse(a.pixels));
            let area = |a: &&Area| format!("{} {:.1} %", a.label, 100.0 * a.share);
            let areas: Vec<String> = areas.iter().take(5).map(area).collect();
            format!("{}  {}", w.overlay.display(), areas.join("   "))
        })
    })
}

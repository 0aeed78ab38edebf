//! `aquatint detect`: what is in pictures, and where.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use aquatint::tasks::{DetectOptions, Detection, Detector, draw_detections};
use aquatint::{AdapterOptions, Error, Gpu};
use serde::Serialize;

use super::pictures::{Decoded, PictureArgs, Stages, Targets, conclude, decode_one, expand, lines};

#[derive(clap::Args)]
pub struct Detect {
    #[command(flatten)]
    pictures: PictureArgs,
    /// A .png for one picture, or the folder that pictures with boxes are written to [default: here]
    #[arg(long, short, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Lowest score, 0 to 1
    #[arg(long, default_value_t = DetectOptions::default().threshold, value_name = "SCORE")]
    threshold: f32,
    /// Boxes of a class that overlap a better one by more are dropped: intersection over union, 0 to 1
    #[arg(long, default_value_t = DetectOptions::default().overlap, value_name = "SHARE")]
    overlap: f32,
    /// Drop a box that overlaps a better one of another class, too: one thing, one box
    #[arg(long)]
    nms_across_classes: bool,
    /// Most boxes for a picture
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    most: u16,
}

#[derive(Serialize)]
struct Written {
    /// The picture with the boxes.
    out: PathBuf,
    /// The surest first; edges in pixels.
    detections: Vec<Detection>,
}

pub fn run(args: &Detect, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let entries = expand(&args.pictures.images);
    let model = args.pictures.open("letters-detector")?;
    let targets = Targets::new(args.out.as_deref(), &entries, "detected")?;
    let gpu = Gpu::with_options(options)?;
    let batch = args.pictures.batch.into();
    let wanted = DetectOptions {
        threshold: args.threshold,
        overlap: args.overlap,
        across_classes: args.nms_across_classes,
        most: args.most.into(),
    };
    let mut detector = Detector::new(&gpu, model, wanted, batch)?;
    let finish = |file, decoded: Decoded, mut results: Vec<Vec<Detection>>| -> Result<Written, Error> {
        let detections = results.swap_remove(0);
        let out = targets.save(file, "", draw_detections(&decoded.pictures[0], &detections))?;
        Ok(Written { out, detections })
    };
    let rows = Stages {
        gpu: &gpu,
        batch,
        whole: true,
        decode: &decode_one,
        compute: &mut |pictures| detector.detect(pictures),
        finish: &finish,
    }
    .run(&entries)?;
    conclude(&rows, args.pictures.json, out, |rows, out| {
        lines(rows, out, |w: &Written| {
            let labels: Vec<String> =
                w.detections.iter().map(|d| format!("{} {:.0} %", d.label, 100.0 * d.score)).collect();
            format!("{}  {}", w.out.display(), labels.join("   "))
        })
    })
}
